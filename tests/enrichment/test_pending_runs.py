"""The newest decision counts: what is decided again, and what that retracts (PRECISION, One version at a time)."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from catalog_enrichment.enrichment.request import Window
from catalog_enrichment.operations import rollback

from .. import sample_catalog
from ..clock import set_back
from ..sample_catalog import SampleCatalog, change, enrich, jobs_started, table, values


def test_changed_content_is_scored_again_and_an_abstention_then_retracts(
    enriched: SampleCatalog, tmp_path: Path
) -> None:
    assert ("p001", "color") in values(enriched, "model")
    spark, started = enriched.context().spark, []
    started.append(jobs_started(spark))
    change(enriched, 1, title="Another thing altogether", image=None)  # no picture: the text-only path abstains
    started.append(jobs_started(spark))
    run = enrich(enriched)
    started.append(jobs_started(spark))
    imported, decided = (after - before for before, after in pairwise(started))
    assert imported <= 54
    assert decided <= 100, "what a small change costs are Spark's jobs, each with a fixed time"
    assert run["predicted"] == 1
    assert ("p001", "color") not in values(enriched, "model")
    last = [row for row in table(enriched, "attribute_values") if row["run_id"] == run["run_id"]]
    assert {(row["op"], row["reason"]) for row in last} == {("retract", "content_changed")}
    rollback.rollback_run(enriched.context().catalog, run["run_id"])
    assert ("p001", "color") in values(enriched, "model")


@pytest.mark.parametrize("days_back", [0, 1])
@pytest.mark.slow
def test_content_that_changes_back_is_decided_again(
    enriched: SampleCatalog, days_back: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Content A, then B, then A: readers must not keep what was decided about B. The second B is another run, too.

    Also where the clock is set back by ``days_back`` before every import and every enrichment.
    """
    about_a = values(enriched, "model")
    other = {"title": "Another thing altogether", "image": None}  # no picture: abstains, and A's value goes
    ids = []
    for step, (changes, expected) in enumerate(((other, None), ({}, about_a["p001", "color"]), (other, None)), 1):
        set_back(monkeypatch, days_back * step)
        change(enriched, 1, **changes)
        set_back(monkeypatch, days_back * (step + 0.5))
        run = enrich(enriched)
        assert run["predicted"] == 1
        assert values(enriched, "model").get(("p001", "color")) == expected
        ids.append(run["run_id"])
    assert len(set(ids)) == 3
    assert enrich(enriched)["status"] == "nothing_to_do"


@pytest.mark.slow
def test_a_version_that_becomes_champion_again_is_decided_again(enriched: SampleCatalog) -> None:
    by_first = values(enriched, "model")
    only = Window(product_ids=("p001", "p002"))
    enriched.promotion.promote("2", expected_current="1")
    enrich(enriched, only)
    enriched.promotion.promote("1", expected_current="2")
    assert enrich(enriched, only)["predicted"] == 2
    assert values(enriched, "model") == by_first
    assert enrich(enriched)["status"] == "nothing_to_do"


@pytest.mark.slow
def test_a_version_that_abstains_retracts_what_an_older_one_wrote_and_i6_holds(
    enriched: SampleCatalog, tmp_path: Path
) -> None:
    """PRECISION, "One version at a time": for version 3 no colour scores high enough, and it may not write material."""
    before = values(enriched, "model")
    colors = {key for key in before if key[1] == "color"}
    thresholds = {"color": 1.0, "material": None}
    sample_catalog.register(enriched, tmp_path, seed=3, thresholds=thresholds)
    enriched.promotion.promote("3", expected_current="1")
    run = enrich(enriched)
    after = values(enriched, "model")
    assert after == {key: value for key, value in before.items() if key not in colors}
    assert {row["reason"] for row in table(enriched, "attribute_values") if row["op"] == "retract"} == {"superseded"}
    assert run["attributes"]["color"]["retracted"] == len(colors) > 0
    assert run["attributes"]["material"]["retracted"] == 0
    undone = rollback.rollback_run(enriched.context().catalog, run["run_id"])
    assert values(enriched, "model") == before
    rollback.rollback_run(enriched.context().catalog, undone["run_id"])
    assert values(enriched, "model") == after


@pytest.mark.slow
def test_an_attribute_switched_on_again_is_scored_and_nothing_else_is(sample: SampleCatalog) -> None:
    on = (sample.folder / "attributes.json").read_text()
    (sample.folder / "attributes.json").write_text(on.replace('"name": "color",', '"name": "color", "enabled": false,'))
    assert set(enrich(sample)["attributes"]) == {"material"}
    (sample.folder / "attributes.json").write_text(on)
    second = enrich(sample)
    assert set(second["attributes"]) == {"color"}
    assert second["predicted"] == 23


def test_a_merchant_who_opts_out_later_has_no_model_values(enriched: SampleCatalog) -> None:
    assert ("p001", "color") in values(enriched, "model")
    change(enriched, 1, opt_out=True)
    assert not [key for key in values(enriched, "model") if key[0] == "p001"]
