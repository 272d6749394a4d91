from __future__ import annotations

import pytest

from catalog_enrichment.values.evidence import parts


@pytest.mark.parametrize(
    ("text", "evidence", "expected"),
    [
        ("Bed 160x200 cm, oak", "200 cm", ("Bed 160x", "200 cm", ", oak")),
        ("Bed 200  cm, 200 cm", "200 cm", ("Bed ", "200  cm", ", 200 cm")),
        ("a+b (c)", "b (c)", ("a+", "b (c)", "")),
        ("Bed", "200 cm", ("Bed", "", "")),
        ("Bed", "", ("Bed", "", "")),
        ("", "x", ("", "", "")),
    ],
)
def test_the_first_place_of_the_evidence(text: str, evidence: str, expected: tuple[str, str, str]) -> None:
    assert parts(text, evidence) == expected
