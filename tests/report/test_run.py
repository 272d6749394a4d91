"""The report of a run."""

from __future__ import annotations

from typing import Any

from catalog_enrichment.report import run as run_report

from ..sample_catalog import SampleCatalog


def test_the_report_shows_the_run(enriched: SampleCatalog, run: dict[str, Any]) -> None:
    page = run_report.write_report(enriched.context().catalog, enriched.config, run["run_id"]).read_text()
    assert run["run_id"] in page
    assert "Shirt number" in page
    assert "data:image/jpeg" in page


def test_the_report_shows_the_runs_own_stages_whoever_writes_it(enriched: SampleCatalog, run: dict[str, Any]) -> None:
    page = run_report.write_report(enriched.context().catalog, enriched.config, run["run_id"]).read_text()
    shown = [name for name in ("select", "score", "decide", "publish") if f">{name}<" in page]
    assert shown == ["select", "score", "decide", "publish"]
    assert ">read<" not in page, "a stage of the import"
