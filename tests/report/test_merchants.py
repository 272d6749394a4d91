"""Values that the dictionary lacks, as aliases to paste, and what each shop should correct."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from catalog_enrichment import dictionary
from catalog_enrichment.dictionary import Attribute, Dictionary
from catalog_enrichment.records import Cardinality, Reason
from catalog_enrichment.report import merchants
from catalog_enrichment.validation.by_shop import largest

from .report_samples import NASTY

COLOR = Attribute(
    name="color",
    cardinality=Cardinality.ONE,
    values=("Navy Blue", "Grey", "Red"),
    aliases={"en": {"charcoal": "Grey"}},
)
KNOWN = Dictionary({"color": COLOR})
GIVEN = [["navi blue", "en", 9], ["see picture", "", 7], ["Charcoals", "fr", 3], ["grey", "en", 2], ["?!", "en", 1]]


def test_the_nearest_canonical_value_is_a_guess_and_nothing_is_guessed_where_none_is_near() -> None:
    [found] = merchants.unmapped({"unmapped_value": {"color": GIVEN, "dropped": [["x", "en", 1]]}}, KNOWN)
    assert [(row["value"], row["products"], row["language"], row["guess"]) for row in found["values"]] == [
        ("navi blue", 9, "en", "Navy Blue"),
        ("see picture", 7, "en", None),
        ("Charcoals", 3, "fr", "Grey"),
        ("?!", 1, "en", None),
    ]


def test_the_snippet_is_what_the_dictionary_takes(tmp_path: Path) -> None:
    [found] = merchants.unmapped({"unmapped_value": {"color": GIVEN}}, KNOWN)
    pasted = json.loads(found["snippet"])
    content = {"name": "color", "cardinality": "one", "values": list(COLOR.values)} | pasted
    file = tmp_path / "attributes.json"
    file.write_text(json.dumps({"attributes": [content]}))
    spellings = dictionary.load(file)["color"].spellings()
    assert (spellings["navi blue"], spellings["charcoals"]) == ("Navy Blue", "Grey")
    assert "see picture" not in spellings


def test_without_a_guess_there_is_no_snippet_and_without_values_nothing() -> None:
    [found] = merchants.unmapped({"unmapped_value": {"color": [["wood", "en", 1]]}}, KNOWN)
    assert found["snippet"] == ""
    assert merchants.unmapped({"unmapped_value": {"color": [["grey", "en", 1]]}}, KNOWN) == []
    assert merchants.unmapped({}, KNOWN) == []


@pytest.mark.parametrize(
    ("value", "guess"), [("wood", None), ("wool", "Wool"), ("wools", "Wool"), ("", None), ("Wool!", "Wool")]
)
def test_near_is_near(value: str, guess: str | None) -> None:
    assert merchants.nearest(replace(COLOR, values=("Wool",), aliases={}), value) == guess


def test_of_very_many_spellings_nothing_is_guessed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merchants, "MOST_SPELLINGS", 3)
    assert merchants.nearest(COLOR, "navi blue") is None
    assert merchants.nearest(replace(COLOR, aliases={}), "navi blue") == "Navy Blue"


def shops(*problems: dict[str, dict[str, int]], limit: int = 100) -> dict[str, Any]:
    return merchants.shops(*({"shops": largest(one, limit=limit)} for one in problems))


def test_each_shop_is_told_its_most_frequent_problems_and_what_to_do() -> None:
    found = shops(
        {"corner": {"empty_title": 3, "unmapped_value.color": 5}, NASTY: {"empty_title": 1}},
        {"corner": {"no_image": 9, "disagrees_with_merchant.size": 1, "scoring_failed": 50, "below_threshold.size": 2}},
    )
    corner, other = found["rows"]
    assert (corner["shop"], other["shop"], found["others"], corner["more"]) == ("corner", NASTY, 0, 0)
    assert [(one["number"], one["what"]) for one in corner["problems"]] == [
        (9, "products without a picture"),
        (5, "values of color that the dictionary lacks"),
        (3, "rows without a title"),
        (2, "products whose title and picture do not show the size"),
        (1, "products whose size differs from what title and picture show"),
    ]
    assert corner["problems"][3]["to_do"] == "name the size in the title or description, or give it as a value"


def test_shops_and_problems_that_are_not_shown_are_summed() -> None:
    many = {f"s{n:03}": {"no_image": 100 - n} for n in range(20)}
    many["s000"] |= {f"unmapped_value.a{n}": 1 + n for n in range(6)}
    found = shops(many, limit=15)
    assert len(found["rows"]) == merchants.SHOWN_SHOPS
    assert [len(found["rows"][0]["problems"]), found["rows"][0]["more"]] == [5, 1 + 2]
    assert found["others"] == 20 - merchants.SHOWN_SHOPS
    assert found["other_problems"] == sum(100 - n for n in range(merchants.SHOWN_SHOPS, 20))


def test_there_is_nothing_to_tell_where_nothing_is_the_merchants_to_solve() -> None:
    assert shops({"a": {"scoring_failed": 4}}) == merchants.shops({}, {}) == {}


def test_every_quarantine_and_picture_reason_is_told_but_those_the_merchant_cannot_solve() -> None:
    rows = ["unparseable_row", "missing_id", "duplicate_id", "empty_title", "text_too_long"]
    pictures = [reason for reason in Reason if reason.name.startswith("IMAGE_") or reason is Reason.NO_IMAGE]
    for reason in [*rows, *pictures]:
        if reason != Reason.IMAGE_NOT_ALLOWED:  # for the catalog team
            assert shops({"s": {str(reason): 1}})["rows"][0]["problems"][0]["to_do"]
