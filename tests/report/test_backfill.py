"""The report of a backfill adds up its chunks and links to their reports."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

from catalog_enrichment.catalog.coverage_groups import to_rows
from catalog_enrichment.report import backfill
from catalog_enrichment.report.html import RunReport, write_run_report
from catalog_enrichment.validation.by_shop import largest

from .report_samples import NOW, certificate, run_row
from .test_html import ParsedPage


def chunk(number: int, more: int, **counts: int) -> dict[str, Any]:
    covered = 10 + sum((5, 3)[:number])
    decisions = {"color": {"merchant": 100 + number, "written": more, "suggested": 2, "abstained": 1, "retracted": 0,
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


CHUNKS = [chunk(1, 5), chunk(2, 3, **{"predicted": 7, "quarantined.scoring_failed": 1})]
PARENT = run_row() | {"run_id": "backfill-1", "kind": "backfill", "attributes": None, "validation": None}


def test_the_chunks_are_added_up() -> None:
    row = backfill.summed(PARENT, CHUNKS)
    assert row["counts"] == {"products": 20, "predicted": 15, "skipped.unchanged": 4, "quarantined.scoring_failed": 1}
    assert row["seconds"] == {"score": 5.0}
    attributes = json.loads(row["attributes"])
    assert attributes["decisions"] == {
        "color": {"written": 8, "suggested": 4, "abstained": 2, "retracted": 0, "merchant": 102,
                  "coverage_before": 0.1, "coverage_after": 0.18},
        "size": {"written": 1, "suggested": 0, "abstained": 0, "retracted": 0, "merchant": None,
                 "coverage_before": None, "coverage_after": None},
    }  # fmt: skip
    assert len(attributes["certificates"]) == 1
    assert attributes["waiting"] == {"color": 3}


def test_the_page_shows_the_sums_and_links_to_the_chunks_reports(tmp_path: Path) -> None:
    report = RunReport(
        run=backfill.summed(PARENT, CHUNKS), chunks=backfill.listed(CHUNKS), undo="rollback_run backfill-1"
    )
    page = ParsedPage(write_run_report(tmp_path / "backfill-1.html", report).read_text("utf-8"))
    text = re.sub(r"\s+", " ", page.text)
    assert page.open == []
    assert page.links == ["enrich-1.html", "enrich-2.html"]
    assert "Backfill run" in text
    assert "20 products = 15 predicted + 4 skipped + 1 quarantined" in text
    assert "enrich-2 10 7 4 0 2.5" in text
    assert "s color 100 +8 10.0% 18.0%" in text
    assert "s 3 products without a picture" in text
    assert "do not add up" not in text


def test_a_backfill_without_chunks_has_a_page(tmp_path: Path) -> None:
    write_run_report(tmp_path / "b.html", RunReport(run=backfill.summed(PARENT, [])))
