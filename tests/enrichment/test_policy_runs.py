"""Whole runs in which values are suppressed under the cap, retracted without a decision, or not resumed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from catalog_enrichment.catalog.lake import Catalog
from catalog_enrichment.enrichment import decisions, pipeline
from catalog_enrichment.enrichment.request import Window
from catalog_enrichment.operations import rollback
from catalog_enrichment.report import run_report

from ..clock import set_back
from ..sample_catalog import SampleCatalog, enrich, killed_at, table, values


def enrich_saying(sample: SampleCatalog, said: list[str]) -> dict[str, Any]:
    return pipeline.enrich(replace(sample.context(), say=said.append), sample.model(), Window())


def colors(sample: SampleCatalog) -> list[str]:
    """The products whose colour a model wrote."""
    return sorted(product for product, attribute in values(sample, "model") if attribute == "color")


@pytest.mark.slow
def test_values_wait_under_the_cap_until_it_is_raised(sample: SampleCatalog) -> None:
    said: list[str] = []
    capped = sample.with_settings("precision.provisional_cap=5")
    first = enrich_saying(capped, said)
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
    again = enrich_saying(capped, said)
    assert (again["status"], again["waiting"]) == ("nothing_to_do", first["waiting"])
    assert any(sentence in line for line in said)

    raised = sample.with_settings("precision.provisional_cap=8")
    with killed_at(Catalog, "refresh_current_values", unless_label="catch-up"):
        enrich_saying(raised, said)
    resumed = enrich_saying(raised, said)
    assert len({row["run_id"] for row in table(sample, "attribute_values")}) == 2, "the killed run is resumed"
    assert resumed["attributes"]["color"]["written"] == 3
    assert resumed["attributes"]["color"]["abstained"] == 0, "no more are scored than there is room for"
    assert colors(sample) == sorted(best[:8])
    assert resumed["waiting"]["color"] == waiting - 3
    assert enrich_saying(raised, said)["status"] == "nothing_to_do"


@pytest.mark.slow
def test_what_a_run_wrote_that_never_finished_takes_room(sample: SampleCatalog) -> None:
    """Such a run has no row in `runs`; while its values stand no others are opened again and again (I5)."""
    said: list[str] = []
    enrich_saying(sample.with_settings("precision.provisional_cap=5"), said)
    wrote = [row for row in table(sample, "attribute_values") if row["attribute"] == "color"]
    waiting = [row for row in table(sample, "predictions") if row["reason"] == "provisional_cap"]
    colors_waiting = [row["product_id"] for row in waiting if row["attribute"] == "color"][:2]
    killed = [wrote[0] | {"product_id": name, "event_id": name, "run_id": "enrich-0"} for name in colors_waiting]
    sample.context().catalog.append_rows("attribute_values", killed, "enrich-0")
    raised = enrich_saying(sample.with_settings("precision.provisional_cap=6"), said)
    assert raised["status"] == "nothing_to_do" or "color" not in raised["attributes"]


@pytest.mark.slow
def test_a_run_that_was_killed_near_the_cap_after_a_switch_off_is_resumed_i5(sample: SampleCatalog) -> None:
    """What it retracts made the room for what it had landed."""
    enrich(sample.with_settings("precision.provisional_cap=5"))
    hidden = [product for product in colors(sample) if int(product[1:]) % 2]
    assert 0 < len(hidden) < 5
    off = sample.with_settings("precision.provisional_cap=5", "enrich.disabled_shops=['shop-1']")
    with killed_at(decisions, "publish"):
        enrich(off)
    landed = {row["run_id"] for row in table(sample, "predictions")}
    resumed = enrich(off)
    assert resumed["run_id"] in landed
    assert resumed["attributes"]["color"]["written"] == len(hidden)
    assert {row["run_id"] for row in table(sample, "predictions")} == landed
    assert len(colors(sample)) == 5
    assert not set(hidden) & set(colors(sample))


def switch(sample: SampleCatalog, attribute: str, enabled: bool) -> None:
    file = sample.folder / "attributes.json"
    on, off = f'"name": "{attribute}",', f'"name": "{attribute}", "enabled": false,'
    file.write_text(file.read_text().replace(*((off, on) if enabled else (on, off))))


@pytest.mark.slow
def test_an_attribute_that_is_switched_off_is_hidden_until_it_is_switched_on_again_i5_i6(
    enriched: SampleCatalog,
) -> None:
    before = values(enriched, "model")
    others = {key: value for key, value in before.items() if key[1] != "color"}
    switch(enriched, "color", enabled=False)
    with killed_at(Catalog, "refresh_current_values", unless_label="catch-up"):
        enrich(enriched)
    run = enrich(enriched)
    assert (run["status"], run["predicted"]) == ("succeeded", 0)
    assert run["attributes"]["color"]["retracted"] == len(before) - len(others) > 0
    assert values(enriched, "model") == others
    retractions = [row for row in table(enriched, "attribute_values") if row["op"] == "retract"]
    assert {(row["run_id"], row["reason"]) for row in retractions} == {(run["run_id"], "switched_off")}
    assert enrich(enriched)["status"] == "nothing_to_do"

    undone = rollback.rollback_run(enriched.context().catalog, run["run_id"])
    assert values(enriched, "model") == before
    rollback.rollback_run(enriched.context().catalog, undone["run_id"])
    assert values(enriched, "model") == others

    switch(enriched, "color", enabled=True)
    again = enrich(enriched)
    assert set(again["attributes"]) == {"color"}
    assert values(enriched, "model") == before


@pytest.mark.slow
def test_a_shop_that_is_switched_off_again_after_a_rollback(enriched: SampleCatalog) -> None:
    """The switch counts more than the rollback; the second run is another run, although it sees the same values."""
    before = values(enriched, "model")
    off = enriched.with_settings("enrich.disabled_shops=['shop-1']")
    first = enrich(off)
    hidden = {key for key in before if int(key[0][1:]) % 2}
    assert values(off, "model").keys() == before.keys() - hidden
    rollback.rollback_run(off.context().catalog, first["run_id"])
    assert values(off, "model") == before
    second = enrich(off)
    assert second["run_id"] != first["run_id"]
    assert values(off, "model").keys() == before.keys() - hidden


@pytest.mark.slow
def test_a_certificate_that_expires_while_a_run_lies_dead_publishes_nothing_i2(
    sample: SampleCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    with killed_at(decisions, "publish"):
        enrich(sample)
    landed = {row["run_id"] for row in table(sample, "predictions")}
    set_back(monkeypatch, -95)
    resumed = enrich(sample)
    assert resumed["run_id"] not in landed
    assert not table(sample, "attribute_values")
    decided = [row for row in table(sample, "predictions") if row["run_id"] == resumed["run_id"]]
    assert {row["decision"] for row in decided} == {"abstain"}
    assert "certificate_expired" in {row["reason"] for row in decided}
    assert enrich(sample)["status"] == "nothing_to_do"
