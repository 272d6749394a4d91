"""What a run did not write, by name: the same words in its summary, on the terminal and on its page."""

from __future__ import annotations

import json
from pathlib import Path

from catalog_enrichment.report import backfill, withheld
from catalog_enrichment.report.html import RunReport, write_run_report

from .report_samples import run_row

ATTRIBUTES = {
    "drift": {
        "pauses": [{"attribute": "color", "stratum": "both/en/Apparel", "why": "accept rate 9.0% instead of 50%"}]
    },
    "paused": [
        "stratum color both/en/Apparel is paused: accept rate 9.0% instead of 50%",
        "shop <shop-7> is off: asked by mail",
    ],
    "unseen": {"color": {"category Toys/Puzzles": 1200}, "material": {"Finnish": 3, "category Hats": 1}},
}
LINES = [
    "color both/en/Apparel is paused: accept rate 9.0% instead of 50%",
    "not on: shop <shop-7> is off: asked by mail",
    "color is not certified for: category Toys/Puzzles (1,200 products)",
    "material is not certified for: Finnish (3 products), category Hats (1 products)",
]


def lines(attributes: dict[str, object]) -> list[str]:
    return [*withheld.drifted(attributes), *withheld.refused(attributes)]


def test_every_line_is_named_once() -> None:
    assert lines(ATTRIBUTES) == LINES
    assert lines({}) == []


def test_the_page_of_the_run_says_it(tmp_path: Path) -> None:
    row = run_row()
    row["attributes"] = json.dumps(json.loads(row["attributes"]) | ATTRIBUTES)
    page = write_run_report(tmp_path / "run.html", RunReport(run=row)).read_text()
    for line in LINES:
        assert line.replace("<", "&lt;").replace(">", "&gt;") in page
    assert LINES[0] not in write_run_report(tmp_path / "other.html", RunReport(run=run_row())).read_text()


def test_a_backfill_says_what_its_chunks_did_not_write() -> None:
    other = {"drift": {"compared": 4, "pauses": []}, "paused": ["attribute size is off: not sold"]}
    more = {"unseen": {"color": {"category Toys/Puzzles": 34, "category Bags": 1}}}
    chunks = [{"attributes": json.dumps(one), "counts": {}, "seconds": {}} for one in (ATTRIBUTES, other, more)]
    summed = json.loads(backfill.summed({"run_id": "b"}, chunks)["attributes"])
    assert lines(summed) == [
        *LINES[:2],
        "not on: attribute size is off: not sold",
        "color is not certified for: category Toys/Puzzles (1,234 products), category Bags (1 products)",
        LINES[3],
    ]


def test_a_run_says_how_many_strata_it_compared_if_not_all() -> None:
    (line,) = withheld.not_compared({"drift": {"compared": 0, "strata": 6, "pauses": []}})
    assert line.startswith("drift: compared 0 of 6 strata")
    assert withheld.not_compared({"drift": {"compared": 6, "strata": 6}}) == []
    assert withheld.not_compared({"drift": {"compared": 2}}) == [], "of a release that did not count them"
    assert withheld.not_compared({}) == []
