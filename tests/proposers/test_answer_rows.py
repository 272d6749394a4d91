"""Rows of answers as proposals, without Spark: the forms of cells, votes, and what is counted."""

from __future__ import annotations

import json
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from catalog_enrichment.dictionary import Attribute, Dictionary
from catalog_enrichment.proposers.answer_rows import CURRENT, STALE, UNKNOWN, Cells, ReadAnswers, RowReader
from catalog_enrichment.records import Cardinality

COLOR = Attribute(
    name="color",
    cardinality=Cardinality.ONE,
    values=("Red", "Blue"),
    aliases={"de": {"rot": "Red"}, "es": {"rot": "Blue"}},
)
MATERIAL = Attribute(name="material", cardinality=Cardinality.MANY, values=("Wool", "Silk", "Cotton"))
WORDS = Dictionary({"color": COLOR, "material": MATERIAL})

COLUMNS = RowReader(cells={"material": Cells("value", "score", "evidence")})
TEXTS = RowReader(cells=COLUMNS.cells, is_text=True)
RAW = RowReader(
    cells={name: Cells(name, f"{name}_score", f"{name}_evidence") for name in ("color", "material")}, json="answer"
)

Row = dict[str, Any]


def read(reader: RowReader, *batches: Sequence[Row], stored: Sequence[str] = (CURRENT,)) -> list[Row]:
    """The rows of a task; a row is about p1 unless it says otherwise."""
    facts = {"product_id": "p1", "content_hash": "h1", "language": None, "outcome": CURRENT}
    given = [pa.RecordBatch.from_pylist([facts | row for row in batch]) for batch in batches]
    task = ReadAnswers(rows=reader, dictionary=WORDS, stored=frozenset(stored))
    return [row for batch in task(given) for row in batch.to_pylist()]


def answered(reader: RowReader, *rows: Row) -> dict[str, list[tuple[Any, ...]]]:
    """Attribute -> (value, score, evidence) of the candidates of the product."""
    return {
        row["attribute"]: [(found["value"], found["score"], found["evidence"]) for found in row["candidates"]]
        for row in read(reader, rows)
        if row["product_id"]
    }


def counted(rows: Sequence[Row], attribute: str | None) -> dict[str, int]:
    own = [row for row in rows if row["counted"] and row["attribute"] == attribute and row["value"] is None]
    return {row["counted"]: row["number"] for row in own if row["number"]}


def cell(value: Any, score: Any = 0.5, evidence: Any = None) -> Row:
    return {"value": value, "score": score, "evidence": evidence}


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (cell("wool"), [("Wool", 0.5, None)]),
        (cell(" Wool ", evidence="soft wool"), [("Wool", 0.5, "soft wool")]),
        (cell(["Wool", "Silk"], [0.25, 0.75]), [("Silk", 0.75, None), ("Wool", 0.25, None)]),
        (cell(["Wool", "Silk"], [0.25, 0.75], ["w", "s"]), [("Silk", 0.75, "s"), ("Wool", 0.25, "w")]),
        (cell(["Wool", "Silk"], [0.25, 0.75], "both"), [("Silk", 0.75, "both"), ("Wool", 0.25, "both")]),
        (cell({"value": "Wool", "score": 0.25}, 0.5), [("Wool", 0.25, None)]),
        (cell([{"value": "Wool", "score": 0.25, "evidence": "w"}], None, "e"), [("Wool", 0.25, "w")]),
        (cell('[{"value": "Wool", "score": 0.25}, {"value": "Silk"}]', [0.5, 0.125]), [("Wool", 0.25, None),
                                                                                      ("Silk", 0.125, None)]),
        (cell("Wool", Decimal("0.25")), [("Wool", 0.25, None)]),
        (cell("Wool", None), []),
        (cell("Wool", "0.5"), []),
        (cell(["Wool", "Silk"], 0.5), []),
        (cell(["Wool", "Silk"], [0.5]), []),
        (cell(None), []),
        (cell(""), []),
        (cell([]), []),
        (cell({"value": None, "score": 0.5}), []),
        (cell("mauve"), []),
    ],
)  # fmt: skip
def test_a_cell_its_score_and_its_evidence_are_an_answer(row: Row, expected: list[tuple[Any, ...]]) -> None:
    assert answered(COLUMNS, row) == {"material": expected}


@pytest.mark.parametrize(
    ("row", "name"),
    [
        (cell("Wool", None), "bad_score"),
        (cell("Wool", "high"), "bad_score"),
        (cell(["Wool"], [0.5, 0.5]), "bad_score"),
        (cell({"value": None, "score": 0.5}), "without_value"),
        (cell(None, None), "without_value"),
        (cell('[{"value": "Wo'), "unreadable"),
        (cell("{}"), "unreadable"),
        (cell("[NaN]"), "unreadable"),
        (cell(True), "unreadable"),
        (cell("mauve"), "unmapped"),
    ],
)
def test_what_is_no_proposal_is_counted(row: Row, name: str) -> None:
    for reader in (COLUMNS, TEXTS):
        assert counted(read(reader, [row]), "material") == {name: 1}


@pytest.mark.parametrize(
    ("score", "expected"),
    [("0.25", 0.25), (" .25 ", 0.25), ("2.5e-1", 0.25), ("[0.25]", 0.25), ('["0.25"]', 0.25),
     ("0,25", None), ("25%", None), ("nan", None), ("0x1", None), ("1_0", None), ("", None), ("1.5", None)],
)  # fmt: skip
def test_in_a_text_format_a_score_is_a_number_in_a_text(score: str, expected: float | None) -> None:
    found = [] if expected is None else [("Wool", expected, None)]
    assert answered(TEXTS, cell("Wool", score)) == {"material": found}
    assert counted(read(TEXTS, [cell("Wool", score)]), "material") == {
        "bad_score" if expected is None else "proposed": 1
    }


def test_rows_about_a_product_and_content_are_its_answers_also_across_batches() -> None:
    plain = RowReader(cells={"color": Cells("value")})
    batches = [
        [{"value": "Red"}, {"value": "Blue"}],
        [{"value": "red"}, {"value": '["R'}],
        [{"value": "Red", "product_id": "p2"}],
    ]
    found = [row for row in read(plain, *batches) if row["product_id"]]
    assert [(row["product_id"], row["candidates"][0]["score"]) for row in found] == [("p1", 0.5), ("p2", 1.0)]
    other = [[{"value": "Red"}, {"value": "Blue", "content_hash": "h2"}]]
    found = [row for row in read(plain, *other) if row["product_id"]]
    assert [(row["content_hash"], row["candidates"][0]["value"]) for row in found] == [("h1", "Red"), ("h2", "Blue")]
    assert [(row["content_hash"], row["attribute"]) for row in found] == [("h1", "color"), ("h2", "color")]


def test_of_two_scored_answers_the_higher_score_counts() -> None:
    scored = RowReader(cells={"color": Cells("value", "score")})
    assert answered(scored, cell("Red", 0.5), cell("Blue", 0.75)) == {"color": [("Blue", 0.75, None)]}


def test_an_alias_is_read_in_the_language_of_the_product() -> None:
    plain = RowReader(cells={"color": Cells("value")})
    assert answered(plain, {"value": "rot", "language": "de"}) == {"color": [("Red", 1.0, None)]}


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ('{"color": "Red"}', {"color": [("Red", 1.0, None)]}),
        ('```json\n{"color": "Red"}\n``` I hope that helps', {"color": [("Red", 1.0, None)]}),
        ('{"material": null}', {"material": []}),
        ('{"color": {"value": "Red", "score": 0.5, "evidence": "red shirt"}}', {"color": [("Red", 0.5, "red shirt")]}),
        ('{"color": "Red", "color_score": 0.5, "color_evidence": "red"}', {"color": [("Red", 0.5, "red")]}),
        ('{"color": "Red", "color_score": "0.5"}', {"color": []}),
        ('{"color": "mauve", "size": 3}', {"color": []}),
        ('{"material": ["Wool", "Silk"]}', {"material": [("Wool", 1.0, None), ("Silk", 1.0, None)]}),
        ('{"color": "Red", "material": ["Wo', {}),
        ("I cannot tell.", {}),
        (None, {}),
    ],
)  # fmt: skip
def test_a_raw_answer_has_a_key_per_attribute(answer: str | None, expected: dict[str, Any]) -> None:
    assert answered(RAW, {"answer": answer}) == expected


def test_a_raw_answer_that_is_a_struct_is_read() -> None:
    assert answered(RAW, {"answer": {"color": "Red"}}) == {"color": [("Red", 1.0, None)]}


def test_a_raw_answer_that_is_cut_off_is_counted_and_votes_against_the_others() -> None:
    rows = [{"answer": '{"color": "Red"}'}, {"answer": '{"color": "Re'}]
    assert answered(RAW, *rows) == {"color": [("Red", 0.5, None)]}
    found = read(RAW, rows)
    assert counted(found, "color") == {"proposed": 1, "unreadable": 1}
    assert counted(found, "material") == {"unreadable": 1}


def test_only_what_is_about_the_right_content_is_stored_and_all_rows_are_counted() -> None:
    plain = RowReader(cells={"color": Cells("value")})
    rows: list[Row] = [
        {"product_id": None, "outcome": "unreadable", "value": None},
        {"value": "Red", "outcome": CURRENT},
        {"value": "Blue", "outcome": STALE, "content_hash": "h2"},
        {"value": "Blue", "outcome": STALE, "content_hash": "h2"},
        *({"product_id": f"x{number}", "outcome": UNKNOWN, "value": "Red"} for number in range(7)),
        {"product_id": "x6", "outcome": UNKNOWN, "value": "Red", "content_hash": "h2"},
    ]
    found = read(plain, rows)
    assert [row["content_hash"] for row in found if row["candidates"] is not None] == ["h1"]
    numbers = {"unreadable": 1, CURRENT: 1, STALE: 2, UNKNOWN: 8, "products": 1, "unknown_products": 7}
    assert counted(found, None) == numbers
    assert counted(found, "color") == {"proposed": 1}
    examples = [row["value"] for row in found if row["counted"] == "unknown_products" and row["value"]]
    assert examples == [f"x{number}" for number in range(5)]
    both = read(plain, rows, stored=(CURRENT, STALE))
    assert [row["content_hash"] for row in both if row["candidates"] is not None] == ["h1", "h2"]
    assert counted(both, None) == numbers


def test_ten_thousand_unmapped_values_are_counted_one_by_one() -> None:
    plain = RowReader(cells={"color": Cells("value")})
    rows = [{"product_id": f"p{number:05}", "value": json.dumps([f"shade {number}"])} for number in range(10_500)]
    found = read(plain, rows)
    values = [row for row in found if row["counted"] == "unmapped" and row["value"] is not None]
    assert counted(found, "color") == {"unmapped": 10_500}
    assert len({row["value"] for row in values}) == len(values) == 10_000  # others are counted together
