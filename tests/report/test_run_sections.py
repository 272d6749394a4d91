"""Sections of a run's page: coverage, values that the dictionary lacks, what shops should correct, added up chunks."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from catalog_enrichment import dictionary, reasons
from catalog_enrichment.catalog.coverage_groups import Groups, to_rows
from catalog_enrichment.dictionary import Attribute, Dictionary
from catalog_enrichment.records import Cardinality
from catalog_enrichment.report import run_sections
from catalog_enrichment.report.run_page import RunReport, write_run_report
from catalog_enrichment.report.run_sections import backfill_row, chunk_rows, coverage_tables
from catalog_enrichment.validation.by_shop import largest

from ..open_words import OPEN_WORDS
from ..test_reasons import LINES, NOT_WRITTEN
from .report_samples import NOW, ParsedPage, certificate, run_row

# --- coverage ---------------------------------------------------------------------------------------------------------


def attributes(after: Groups, change: Groups) -> dict[str, Any]:
    return {"coverage": {"groups": to_rows(after)}, "coverage_change": to_rows(change)}


def of(name: str | None, applicable: int, covered: int, attribute: str = "color") -> Groups:
    return {("category", name, attribute, False): applicable, ("category", name, attribute, True): covered}


AFTER = of("Shoes", 100, 80) | of("Hats", 50, 10) | of("", 10, 9) | of("Toys", 40, 39) | of(None, 7, 7)
CHANGE = of("Shoes", 0, 20) | of("Toys", 20, 29) | of(None, 0, 1) | of("Gone", -4, -2)


def test_the_most_changed_come_first_then_the_weakest(monkeypatch: pytest.MonkeyPatch) -> None:
    assert coverage_tables(attributes(AFTER, CHANGE))[0]["rows"][-1]["name"] == "no category"
    assert coverage_tables({}) == []
    monkeypatch.setattr(run_sections, "SHOWN_GROUPS", 4)
    [table] = coverage_tables(attributes(AFTER, CHANGE))
    assert [(row["name"], row["products"], row["more"], row["before"], row["after"]) for row in table["rows"]] == [
        ("Toys", 40, 29, 10 / 20, 39 / 40),
        ("Shoes", 100, 20, 0.6, 0.8),
        ("Gone", 0, -2, 0.5, None),
        ("Hats", 50, 0, 0.2, 0.2),
    ]
    [rest] = table["rest"]
    assert (rest["name"], rest["products"], rest["more"]) == ("other categories", 17, 1)
    assert (rest["before"], rest["after"]) == (15 / 17, 16 / 17)


def test_the_bar_shows_what_was_there_and_what_was_gained() -> None:
    [table] = coverage_tables(attributes(of("up", 10, 5) | of("down", 10, 2), of("up", 0, 3) | of("down", 0, -4)))
    bars = {row["name"]: (row["start"], round(row["gain"], 6)) for row in table["rows"]}
    assert bars == {"up": (0.2, 0.3), "down": (0.2, 0.0)}


def test_attributes_are_rows_of_their_own() -> None:
    [table] = coverage_tables(attributes(of("Shoes", 9, 1) | of("Shoes", 3, 3, "size"), {}))
    assert [(row["name"], row["attribute"]) for row in table["rows"]] == [("Shoes", "color"), ("Shoes", "size")]


# --- what the dictionary lacks, and what shops should correct ---------------------------------------------------------

COLOR = Attribute(
    name="color", cardinality=Cardinality.ONE, values=("Navy Blue", "Grey", "Red"), aliases={"en": {"charcoal": "Grey"}}
)
KNOWN = Dictionary({"color": COLOR})
GIVEN = [["navi blue", "en", 9], ["see picture", "", 7], ["Charcoals", "fr", 3], ["grey", "en", 2], ["?!", "en", 1]]


def test_the_nearest_canonical_value_is_a_guess_and_nothing_is_guessed_where_none_is_near() -> None:
    [found] = run_sections.unmapped_values({"unmapped_value": {"color": GIVEN, "dropped": [["x", "en", 1]]}}, KNOWN)
    assert [(row["value"], row["products"], row["language"], row["guess"]) for row in found["values"]] == [
        ("navi blue", 9, "en", "Navy Blue"),
        ("see picture", 7, "en", None),
        ("Charcoals", 3, "fr", "Grey"),
        ("?!", 1, "en", None),
    ]


def test_what_is_no_number_says_why() -> None:
    given = {"width": [["12-15 cm", "en", 3], ["51 cm", "en", 2], ["900", "de", 1]], "brand": [["-", "", 4]]}
    found = run_sections.unmapped_values({"unmapped_value": given}, OPEN_WORDS)
    assert [(row["value"], row["guess"], row["why"]) for of in found for row in of["values"]] == [
        ("12-15 cm", None, "it has several numbers"),
        ("900", None, "the number is not in the plausible range"),
        ("-", None, "it says nothing"),
    ]
    assert [of["snippet"] for of in found] == ["", ""]


def test_the_snippet_is_what_the_dictionary_takes(tmp_path: Path) -> None:
    [found] = run_sections.unmapped_values({"unmapped_value": {"color": GIVEN}}, KNOWN)
    pasted = json.loads(found["snippet"])
    content = {"name": "color", "cardinality": "one", "values": list(COLOR.values)} | pasted
    file = tmp_path / "attributes.json"
    file.write_text(json.dumps({"attributes": [content]}))
    spellings = dictionary.load(file)["color"].spellings()
    assert (spellings["navi blue"], spellings["charcoals"]) == ("Navy Blue", "Grey")
    assert "see picture" not in spellings


def test_without_a_guess_there_is_no_snippet_and_without_values_nothing() -> None:
    [found] = run_sections.unmapped_values({"unmapped_value": {"color": [["wood", "en", 1]]}}, KNOWN)
    assert found["snippet"] == ""
    assert run_sections.unmapped_values({"unmapped_value": {"color": [["grey", "en", 1]]}}, KNOWN) == []
    assert run_sections.unmapped_values({}, KNOWN) == []


@pytest.mark.parametrize(
    ("value", "guess"), [("wood", None), ("wool", "Wool"), ("wools", "Wool"), ("", None), ("Wool!", "Wool")]
)
def test_near_is_near(value: str, guess: str | None) -> None:
    assert run_sections.nearest(replace(COLOR, values=("Wool",), aliases={}), value) == guess


def test_of_very_many_spellings_nothing_is_guessed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_sections, "MOST_SPELLINGS", 3)
    assert run_sections.nearest(COLOR, "navi blue") is None
    assert run_sections.nearest(replace(COLOR, aliases={}), "navi blue") == "Navy Blue"


# --- backfills --------------------------------------------------------------------------------------------------------


def chunk(number: int, more: int, **counts: int) -> dict[str, Any]:
    covered = 10 + sum((5, 3)[:number])
    decisions = {"color": {"merchant": 100 + number, "written": more, "values_written": more + 1, "suggested": 2,
                           "abstained": 1, "retracted": 0,
                           "reasons": {"abstain": {"below_threshold": {"none": number}}},
                           "coverage_before": (covered - more) / 100, "coverage_after": covered / 100}}  # fmt: skip
    if number == 2:
        decisions["size"] = {"written": 1, "coverage_before": None, "coverage_after": None}
    groups = {("shop", "s", "color", False): 100, ("shop", "s", "color", True): covered}
    attributes = {
        "decisions": decisions, "certificates": [certificate().to_dict()], "waiting": {"color": number},
        "coverage": {"groups": to_rows(groups)}, "coverage_change": to_rows({("shop", "s", "color", True): more}),
        "shops": largest({"s": {"no_image": number}}),
    }  # fmt: skip
    return run_row() | {
        "run_id": f"enrich-{number}", "parent_run_id": "backfill-1", "attributes": json.dumps(attributes),
        "counts": list({"products": 10, "predicted": 8, "skipped.unchanged": 2, **counts}.items()),
        "seconds": [("score", 2.5)], "finished_at": NOW + timedelta(minutes=number),
    }  # fmt: skip


REASONS = {"abstain": {"below_threshold": {"none": 3}}}
CHUNKS = [chunk(1, 5), chunk(2, 3, **{"predicted": 7, "quarantined.scoring_failed": 1})]
PARENT = run_row() | {"run_id": "backfill-1", "kind": "backfill", "attributes": None, "validation": None}


def test_the_chunks_are_added_up() -> None:
    row = backfill_row(PARENT, CHUNKS)
    assert row["counts"] == {"products": 20, "predicted": 15, "skipped.unchanged": 4, "quarantined.scoring_failed": 1}
    assert row["seconds"] == {"score": 5.0}
    attributes = json.loads(row["attributes"])
    assert attributes["decisions"] == {
        "color": {"written": 8, "values_written": 10, "reasons": REASONS, "suggested": 4, "abstained": 2,
                  "retracted": 0, "merchant": 102,
                  "coverage_before": 0.1, "coverage_after": 0.18},
        "size": {"written": 1, "values_written": 0, "reasons": {}, "suggested": 0, "abstained": 0,
                 "retracted": 0, "merchant": None,
                 "coverage_before": None, "coverage_after": None},
    }  # fmt: skip
    assert len(attributes["certificates"]) == 1
    assert attributes["waiting"] == {"color": 3}


def test_the_page_shows_the_sums_and_links_to_the_chunks_reports(tmp_path: Path) -> None:
    report = RunReport(run=backfill_row(PARENT, CHUNKS), chunks=chunk_rows(CHUNKS), undo="rollback_run backfill-1")
    page = ParsedPage(write_run_report(tmp_path / "backfill-1.html", report).read_text("utf-8"))
    text = page.text
    assert page.open == []
    assert page.links == ["enrich-1.html", "enrich-2.html"]
    assert "Backfill run" in text
    assert "20 products = 15 predicted + 4 skipped + 1 quarantined" in text
    assert "enrich-2 10 7 4 4 0 2.5" in text
    assert "s color 100 +8 10.0% 18.0%" in text
    assert "3 products have no usable picture. Nobody is asked for pictures" in text
    assert "do not add up" not in text


def test_a_backfill_without_chunks_has_a_page(tmp_path: Path) -> None:
    write_run_report(tmp_path / "b.html", RunReport(run=backfill_row(PARENT, [])))


def test_a_backfill_says_what_its_chunks_did_not_write_and_adds_up_coverage() -> None:
    other = {"drift": {"compared": 4, "pauses": []}, "paused": ["attribute size is off: not sold"]}
    more = {"unseen": {"color": {"category Toys/Puzzles": 34, "category Bags": 1}}}
    changes = [attributes({}, of("Shoes", 0, change) | of("Hats", 1, 0)) for change in (5, -5)]
    found = [NOT_WRITTEN | changes[0], other | changes[1], more]
    chunks = [{"attributes": json.dumps(content), "counts": {}, "seconds": {}} for content in found]
    summed = json.loads(backfill_row({"run_id": "b"}, chunks)["attributes"])
    assert [*reasons.drifted(summed), *reasons.not_covered(summed)] == [
        *LINES[:2],
        "not on: attribute size is off: not sold",
        "color is not certified for: category Bags (1 products), category Toys/Puzzles (1,234 products)",
        "material is not certified for: Finnish (3 products), category Hats (1 products)",
    ]
    assert summed["coverage_change"]["category"] == [["Hats", {"color": [2, 0]}]]
