"""Pages fit a window of 1280 pixels: what is wider scrolls in a box of its own, however long names and values are."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from catalog_enrichment.catalog.coverage_groups import to_rows
from catalog_enrichment.report.index import write_index
from catalog_enrichment.report.promotion_page import PromotionReport, ValueChange, write_promotion_report
from catalog_enrichment.report.run_page import Sample, write_run_report
from catalog_enrichment.report.training_page import write_training_page
from catalog_enrichment.validation.by_shop import largest

from .report_samples import certificate, counted, full_report, run_row
from .test_index import Runs, run
from .test_training_page import training

if TYPE_CHECKING:
    from playwright.sync_api import Browser

LONG = "x" * 300
ATTRIBUTES = [f"an_attribute_with_a_long_name_{number}" for number in range(12)]


def _run(folder: Path) -> Path:
    row = run_row()
    known = json.loads(row["attributes"])
    known["decisions"] |= {name: dict(known["decisions"]["color"]) for name in ATTRIBUTES}
    known["certificates"].append(certificate(ATTRIBUTES[0], values=(LONG,)).to_dict())
    report = full_report()
    sample = Sample(product_id=LONG, attribute="color", value=LONG, score=0.5, title=LONG, merchant_values=[LONG])
    return write_run_report(
        folder / "run.html",
        replace(
            report,
            run=row | {"attributes": json.dumps(known)},
            published=[sample],
            reasons=[*report.reasons, counted("paused", 9, attribute=ATTRIBUTES[1], sentence=LONG)],
            written_values={("color", LONG): 5},
            imported={"unmapped_value": {"color": [[LONG, "en", 9]]}, "shops": largest({LONG: {"empty_title": 3}})},
        ),
    )


def _index(folder: Path) -> Path:
    groups = {("shop", shop, name, False): 10 for shop in ("corner", LONG) for name in ATTRIBUTES}
    rows = []
    for number in (1, 2):
        content = json.loads(run(number)["attributes"]) | {"coverage": {"groups": to_rows(groups)}}
        content["certificates"] = [certificate(LONG).to_dict()]
        rows.append(run(number, run_id=f"enrich-{number}0123456789abcdef012", attributes=json.dumps(content)))
    failed = run(3, status="failed", attributes=None, error=LONG)
    return write_index(Runs(*rows, failed), folder)  # type: ignore[arg-type]


def _training(folder: Path) -> Path:
    values = [
        {"attribute": "color", "value": LONG, "support": 9, "precision": 1.0, "recall": 1.0, "f1": 1.0, "r_at_p95": 1.0}
    ]
    return write_training_page(folder / "training.html", training(tables={"values": values}, warnings=[LONG]))


def _promotion(folder: Path) -> Path:
    change = ValueChange(product_id=LONG, attribute="color", kind="changed", old=[LONG], new=[LONG], title=LONG)
    comparison = {"attribute": LONG, "modality": "both", "version": "3", "units": 5, "units_needed": 9}
    gate = {
        "model_name": LONG, "model_version": "4", "champion_before": "3", "verdict": "passed", "reasons": [LONG],
        "comparisons": [comparison],
    }  # fmt: skip
    counts = {name: dict.fromkeys(("added", "changed", "retracted", "unchanged"), 5) for name in [*ATTRIBUTES, LONG]}
    report = PromotionReport(
        gate=gate, products=5, catalog_products=9, provisional_cap=7, counts=counts, samples=[change]
    )
    return write_promotion_report(folder / "promotion.html", report)


def test_every_page_fits_1280_pixels(tmp_path: Path, browser: Browser) -> None:
    widths = {}
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    for write in (_run, _index, _training, _promotion):
        path = write(tmp_path)
        page.goto(path.as_uri())
        page.evaluate("document.querySelectorAll('details').forEach((details) => { details.open = true })")
        widths[path.name] = page.evaluate("document.documentElement.scrollWidth")
    page.close()
    assert widths == dict.fromkeys(widths, 1280)
