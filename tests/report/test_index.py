"""The page over all runs."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from catalog_enrichment import contract
from catalog_enrichment.catalog import review_tables
from catalog_enrichment.catalog.coverage_groups import to_rows
from catalog_enrichment.precision.certificate import Certificate, CertificateStatus
from catalog_enrichment.report.index import SHOWN, write_index

from .report_samples import NASTY, NOW, ParsedPage, abstention, certificate


class Runs:
    """A catalog with a table of runs alone."""

    def __init__(self, *rows: dict[str, Any]) -> None:
        self.rows = rows

    def version(self, _table: str) -> int:
        return -1

    def scan(self, table: str, columns: Any) -> Any:
        assert table == "runs"
        if self.rows:
            schema = pa.schema([contract.arrow_schema("runs").field(name) for name in columns])
            yield pa.RecordBatch.from_pylist([{name: row[name] for name in columns} for row in self.rows], schema)


def run(number: int, coverage: float | None = 0.5, **changes: Any) -> dict[str, Any]:
    decisions = {
        "color": {"written": 10 * number, "values_written": 11 * number, "retracted": 1, "coverage_after": coverage}
    }
    content = {
        "run_id": f"enrich-{number}", "parent_run_id": None, "kind": "enrich", "status": "succeeded",
        "model_version": "3", "error": None,
        "counts": [("products", 1000), ("predicted", 990), ("quarantined.empty_title", 7), ("quarantined.x", 3)],
        "attributes": json.dumps({"decisions": decisions}),
        "started_at": NOW + timedelta(days=number), "finished_at": NOW + timedelta(days=number, minutes=3),
    }  # fmt: skip
    return content | changes


def page(tmp_path: Path, *rows: dict[str, Any]) -> tuple[str, ParsedPage]:
    path = write_index(Runs(*rows), tmp_path)  # type: ignore[arg-type]
    assert path == tmp_path / "index.html"
    parsed = ParsedPage(path.read_text(encoding="utf-8"))
    assert parsed.open == []
    return parsed.text, parsed


def test_runs_are_listed_newest_first_with_links_to_the_reports_that_exist(tmp_path: Path) -> None:
    (tmp_path / "enrich-2.html").touch()
    failed = run(3, status="failed", attributes=None, error=f"{NASTY}\nsecond line")
    text, parsed = page(tmp_path, run(1), run(2), failed)
    assert "2026-03-03 09:33 UTC enrich enrich-2 succeeded 3 3.0 1,000 990 10 20 22 1" in text
    assert text.index("enrich-3") < text.index("enrich-2") < text.index("enrich-1")
    assert parsed.links == ["enrich-2.html"]
    assert NASTY in text
    assert "second line" not in text
    assert parsed.tags & {"script", "img"} == set()


def test_a_backfill_is_listed_with_what_its_chunks_did(tmp_path: Path) -> None:
    (tmp_path / "backfill-1.html").touch()
    counts = [("products", 2000), ("predicted", 1980)]
    parent = run(9, kind="backfill", run_id="backfill-1", attributes=None, counts=counts)
    chunks = [run(number, parent_run_id="backfill-1") for number in (1, 2)]
    failed = run(3, parent_run_id="backfill-1", status="failed", error="disk full")
    undone = run(10, kind="rollback", run_id="rollback-1", parent_run_id="backfill-1")
    text, parsed = page(tmp_path, *chunks, failed, parent, undone)
    assert " rollback rollback-1 " in text
    assert "backfill backfill-1 2 chunks succeeded 3 3.0 2,000 1,980 20 30 33 2" in text
    assert "enrich-2" not in text, "it is on the backfill's page"
    assert "chunk of a backfill enrich-3 disk full failed 3 3.0 1,000 990 10 – – –" in text
    assert parsed.links == ["backfill-1.html"]


def test_chunks_of_a_backfill_that_has_no_row_yet_are_listed_themselves(tmp_path: Path) -> None:
    chunk = run(2, parent_run_id="backfill-1")
    row = "chunk of a backfill enrich-2 succeeded 3 3.0 1,000 990 10 20 22 1"
    assert row in page(tmp_path, chunk)[0]
    killed = run(9, kind="backfill", run_id="backfill-1", attributes=None, status="failed", error="disk full")
    text, _ = page(tmp_path, chunk, killed)
    assert row in text
    assert "backfill backfill-1 disk full failed 3 3.0 1,000 990 0 – – –" in text


def test_a_backfill_counts_as_a_single_run_however_many_chunks_it_has(tmp_path: Path) -> None:
    chunks = [run(number, parent_run_id="backfill-1") for number in range(1, SHOWN + 3)]
    parent = run(SHOWN + 3, kind="backfill", run_id="backfill-1", attributes=None)
    others = [run(SHOWN + 4 + number) for number in range(SHOWN - 1)]
    text, _ = page(tmp_path, run(0), *chunks, parent, *others)
    written = sum(10 * number for number in range(1, SHOWN + 3))
    numbers = f"2,020 {written:,} {written * 11 // 10:,} {SHOWN + 2}"
    assert f"backfill backfill-1 {SHOWN + 2} chunks succeeded 3 3.0 1,000 990 {numbers}" in text
    assert "1 older run is in the table runs" in text


def test_values_of_a_run_that_was_refused_are_not_shown(tmp_path: Path) -> None:
    """Its row has the decisions that were made before it was refused; none of them was written."""
    text, _ = page(tmp_path, run(4, status="refused", error="over the cap"))
    assert "enrich-4 over the cap refused 3 3.0 1,000 990 10 – – –" in text
    imported = run(1, kind="import", run_id="import-1")
    assert " import import-1 succeeded 3 3.0 1,000 990 10 – – –" in page(tmp_path, imported)[0]


def test_coverage_of_a_backfill_is_that_after_its_last_chunk(tmp_path: Path) -> None:
    chunks = [run(number, 0.1 * number, parent_run_id="backfill-1") for number in (2, 3)]
    parent = run(4, kind="backfill", run_id="backfill-1", attributes=None)
    assert "color 10.0% → 30.0% in 2 runs" in page(tmp_path, run(1, 0.1), *chunks, parent)[0]


def test_coverage_is_drawn_where_several_runs_have_it(tmp_path: Path) -> None:
    text, parsed = page(tmp_path, run(1, 0.6), run(2, None), run(3, 0.75), run(4, 0.9, status="refused"))
    assert "color 60.0% → 75.0% in 2 runs" in text
    assert "polyline" in parsed.tags
    assert "polyline" not in page(tmp_path, run(1))[1].tags


def test_older_runs_are_counted(tmp_path: Path) -> None:
    text, _ = page(tmp_path, *(run(number) for number in range(SHOWN + 12)))
    assert "12 older runs are in the table runs" in text
    assert "enrich-11 " not in text


def test_without_runs_the_page_says_so(tmp_path: Path) -> None:
    assert "No run has finished yet." in page(tmp_path)[0]


def test_pages_of_trainings_and_the_comparison_are_linked_where_they_exist(tmp_path: Path) -> None:
    text, parsed = page(tmp_path)
    assert "Trainings" not in text
    assert "comparison" not in text
    for version in (2, 10, 9):
        (tmp_path / f"training-{version}.html").touch()
    text, parsed = page(tmp_path)
    assert "Trainings of version 10 , 9 , 2 Newest first" in text
    assert parsed.links == ["training-10.html", "training-9.html", "training-2.html"]
    (tmp_path / "comparison").mkdir()
    (tmp_path / "comparison" / "comparison.html").touch()
    text, parsed = page(tmp_path)
    assert "2 · comparison of models Newest first" in text
    assert parsed.links[3:] == ["comparison/comparison.html"]


def shops(number: int, shops: dict[str | None, tuple[int, int]], *certificates: Certificate, **changes: Any) -> Any:
    """A run after which the shops have these products, and products with a colour."""
    groups = {("shop", name, "color", False): of[0] for name, of in shops.items()}
    groups |= {("shop", name, "color", True): of[1] for name, of in shops.items()}
    content = json.loads(run(number)["attributes"]) | {"coverage": {"groups": to_rows(groups)}}
    content["certificates"] = [issued.to_dict() for issued in certificates]
    return run(number, attributes=json.dumps(content), **changes)


def test_coverage_by_shop_is_that_after_the_newest_run_with_a_line_over_the_runs(tmp_path: Path) -> None:
    first = shops(1, {"corner": (10, 5), NASTY: (4, 4), "gone": (3, 0)})
    refused = shops(3, {"corner": (10, 0)}, status="refused")
    text, _ = page(tmp_path, first, shops(2, {"corner": (20, 15), NASTY: (4, 4), None: (2, 1), "": (1, 0)}), refused)
    assert "Coverage by shop" in text
    assert f"shop products color corner 20 75.0% 2026-03-02 09:33 UTC to 2026-03-03 09:33 UTC {NASTY} 4 100.0%" in text
    assert "no shop 1 0.0%" in text
    assert "other shops 2 50.0%" in text
    assert "gone" not in text
    html = (tmp_path / "index.html").read_text()
    assert '<polyline points="0.0,20.0 240.0,10.0"/>' in html, "corner: from half to three quarters of 40 units"
    assert page(tmp_path, run(1))[0].count("Coverage by shop") == 0


def test_an_attribute_that_does_not_apply_to_a_shop_any_more_has_no_coverage_there(tmp_path: Path) -> None:
    groups = {("shop", "corner", "size", False): 5}
    before = {**groups, ("shop", "corner", "color", False): 5}
    rows = []
    for number, counted in enumerate((before, {**groups, ("shop", "other", "color", False): 2})):
        content = json.loads(run(number)["attributes"]) | {"coverage": {"groups": to_rows(counted)}}
        rows.append(run(number, attributes=json.dumps(content)))
    text, _ = page(tmp_path, *rows)
    assert "shop products color size corner 5 – 0.0%" in text


def test_the_certificates_of_the_newest_run_say_whether_an_audit_confirmed_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new, gold = certificate(threshold=0.7), certificate(), certificate("size", status=CertificateStatus.CONFIRMED)
    monkeypatch.setattr(review_tables, "confirmed", lambda _: {old.certificate_id})
    rows = [shops(1, {}, old), shops(2, {}, new, gold, abstention())]
    text, _ = page(tmp_path, *rows)
    row = "color with text and picture 3 0.8000 95.6%"
    assert f"{row} provisional 2026-05-30 09:30 UTC size with text and picture 3 0.8000 95.6% confirmed 2026" in text
    monkeypatch.setattr(review_tables, "confirmed", lambda _: {new.certificate_id})
    assert f"{row} confirmed by an audit 2026" in page(tmp_path, *rows)[0]
