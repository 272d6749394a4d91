"""Runs under the provisional cap: nothing waits that there is room for, and a run twice has nothing to do (I5)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from catalog_enrichment.catalog.lake import LakeCatalog
from catalog_enrichment.enrichment import pipeline
from catalog_enrichment.enrichment.request import Window
from catalog_enrichment.report import run as run_report

from ..sample_catalog import SampleCatalog, killed_at, table, values


def enrich(sample: SampleCatalog, said: list[str]) -> dict[str, Any]:
    return pipeline.enrich(replace(sample.context(), say=said.append), sample.model(), Window())


def colors(sample: SampleCatalog) -> list[str]:
    """The products whose colour a model wrote."""
    return sorted(product for product, attribute in values(sample, "model") if attribute == "color")


@pytest.mark.slow
def test_values_wait_under_the_cap_until_it_is_raised(sample: SampleCatalog) -> None:
    said: list[str] = []
    capped = sample.with_settings("precision.provisional_cap=5")
    first = enrich(capped, said)
    rows = [row for row in table(sample, "predictions") if row["attribute"] == "color"]
    certified = [row for row in rows if row["reason"] in ("certified", "provisional_cap")]
    best = [row["product_id"] for row in sorted(certified, key=lambda row: (-row["score"], row["product_id"]))]
    waiting = len(best) - 5
    assert waiting > 5
    assert colors(sample) == sorted(best[:5])
    assert first["waiting"]["color"] == waiting
    assert first["attributes"]["color"]["written"] == 5
    waits = next(row for row in certified if row["product_id"] == best[5])
    assert (waits["decision"], waits["reason"], waits["threshold"]) == ("abstain", "provisional_cap", 0.0)
    assert waits["certificate_id"]
    sentence = f"{waiting} values wait under the provisional cap of color"
    assert any(sentence in line for line in said)
    assert sentence in run_report.write_report(sample.context().catalog, sample.config, first["run_id"]).read_text()

    said.clear()
    again = enrich(capped, said)
    assert (again["status"], again["waiting"]) == ("nothing_to_do", first["waiting"])
    assert any(sentence in line for line in said)

    raised = sample.with_settings("precision.provisional_cap=8")
    with killed_at(LakeCatalog, "refresh_current_values", unless_label="catch-up"):
        enrich(raised, said)
    resumed = enrich(raised, said)
    assert len({row["run_id"] for row in table(sample, "attribute_values")}) == 2, "the killed run is resumed"
    assert resumed["attributes"]["color"]["written"] == 3
    assert resumed["attributes"]["color"]["abstained"] == 0, "no more are scored than there is room for"
    assert colors(sample) == sorted(best[:8])
    assert resumed["waiting"]["color"] == waiting - 3
    assert enrich(raised, said)["status"] == "nothing_to_do"


@pytest.mark.slow
def test_what_a_run_wrote_that_never_finished_takes_room(sample: SampleCatalog) -> None:
    """Such a run has no row in `runs`; while its values stand no others are opened again and again (I5)."""
    said: list[str] = []
    enrich(sample.with_settings("precision.provisional_cap=5"), said)
    wrote = [row for row in table(sample, "attribute_values") if row["attribute"] == "color"]
    waiting = [row for row in table(sample, "predictions") if row["reason"] == "provisional_cap"]
    colors_waiting = [row["product_id"] for row in waiting if row["attribute"] == "color"][:2]
    killed = [wrote[0] | {"product_id": name, "event_id": name, "run_id": "enrich-0"} for name in colors_waiting]
    sample.context().catalog.append_rows("attribute_values", killed, "enrich-0")
    raised = enrich(sample.with_settings("precision.provisional_cap=6"), said)
    assert raised["status"] == "nothing_to_do" or "color" not in raised["attributes"]
