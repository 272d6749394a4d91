"""Tables of single values, and the status of certificates on pages that were written before an audit."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from catalog_enrichment.catalog.lake import Catalog
from catalog_enrichment.cli.audit import refresh_pages
from catalog_enrichment.precision.units import ValueCount
from catalog_enrichment.records import Modality
from catalog_enrichment.report import statuses, value_tables
from catalog_enrichment.report.run_page import write_run_report

from ..catalog.catalog_rows import START, run_row
from ..sample_catalog import build
from .report_samples import abstention, certificate, full_report


@pytest.mark.parametrize(
    ("judged", "wrong", "expected"),
    [
        (0, 0, "–"),
        (300, 4, "98.7% (96.6 to 99.6)"),
        (30, 0, "100.0% (88.4 to 100.0)"),
        (29, 0, "100.0% (88.1 to 100.0; few products)"),
        (2, 2, "0.0% (0.0 to 84.2; few products)"),
    ],
)
def test_the_share_of_right_values_has_an_exact_interval(judged: int, wrong: int, expected: str) -> None:
    assert value_tables.right_share(judged, wrong) == expected


def test_the_values_of_a_run_are_those_written_certified_and_judged() -> None:
    both = certificate(by_value=(ValueCount("Red", 50, 2), ValueCount("Blue", 40, 0)))
    text_only = certificate(modality=Modality.TEXT_ONLY, by_value=(ValueCount("Red", 10, 1),))
    ids = both.certificate_id, text_only.certificate_id
    written = {("color", "Blue"): 9, ("color", "Green"): 3, ("size", "S"): 5}
    judged = {
        (ids[0], "color", "Red"): (7, 1), (ids[1], "color", "Red"): (3, 0), ("old", "color", "Red"): (99, 99),
        (ids[0], "size", "Red"): (99, 99),
    }  # fmt: skip
    [color, size] = value_tables.of_run([both, text_only, abstention("size")], written, judged)
    names = ("value", "written", "accepted", "wrong", "judged", "judged_wrong")
    assert [tuple(row[name] for name in names) for row in color["rows"]] == [
        ("Blue", 9, 40, 0, 0, 0),
        ("Green", 3, 0, 0, 0, 0),
        ("Red", 0, 60, 3, 10, 1),
    ]
    assert color["rows"][2]["right"] == value_tables.right_share(60, 3)
    assert [row["value"] for row in size["rows"]] == ["S"]
    many = {("color", f"v{n:03}"): 100 - n for n in range(value_tables.SHOWN + 7)}
    [found] = value_tables.of_run([abstention("color")], many, {})
    assert (len(found["rows"]), found["rows"][0]["value"], found["more"]) == (value_tables.SHOWN, "v000", 7)


def test_pages_say_that_an_audit_confirmed_a_certificate_and_no_longer_when_it_is_undone(tmp_path: Path) -> None:
    sample = build(tmp_path / "sample")
    catalog, folder = Catalog(sample.config.path("catalog")), sample.config.path(sample.config.report.path)
    page = write_run_report(folder / "run.html", full_report())
    (folder / "other.html").write_text("<p>provisional</p>")
    before = page.read_bytes()
    audit = run_row("ingest-1", kind="audit", attempt=1, finished_at=START)
    catalog.append_rows("runs", [audit], "ingest-1")
    refresh_pages(sample.config, catalog)
    assert page.read_bytes() == before

    confirmed = {"lower_bound": 0.96, "rows": 300, "wrong": 2, "alpha": 0.05, "confirmed_at": START}
    confirmed |= {"certificate_id": certificate().certificate_id, "attribute": "color", "run_id": "ingest-1"}
    catalog.append_rows("confirmations", [confirmed], "confirmed")
    refresh_pages(sample.config, catalog)
    assert b">confirmed by an audit</span>" in page.read_bytes()
    assert b">provisional</span>" not in page.read_bytes()
    assert statuses.refresh(catalog, folder) == [], "no page is written twice"
    assert (folder / "other.html").read_text() == "<p>provisional</p>"

    undone = run_row("back", kind="rollback", parent_run_id="ingest-1", window="{}", attempt=1)
    catalog.append_rows("runs", [undone | {"finished_at": START + timedelta(hours=1)}], "back")
    refresh_pages(sample.config, catalog)
    assert page.read_bytes() == before


def test_pages_that_cannot_be_written_are_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sample = build(tmp_path / "sample")
    (sample.config.path(sample.config.report.path) / "run.html").mkdir(parents=True)
    refresh_pages(sample.config, Catalog(sample.config.path("catalog")))
    assert "warning: the pages do not say yet which certificates are confirmed: " in capsys.readouterr().err
