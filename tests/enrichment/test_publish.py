"""What readers see after a run, and the cap on how much one run may change."""

from __future__ import annotations

import pytest

from catalog_enrichment.catalog import ledger, runs
from catalog_enrichment.catalog.lake import LakeCatalog
from catalog_enrichment.enrichment import publish
from catalog_enrichment.enrichment.request import Window
from catalog_enrichment.errors import GateRefused

from ..sample_catalog import SampleCatalog, change, enrich, killed_at, table, values


def test_the_cap_on_changes_refuses_before_anything_is_written(sample: SampleCatalog) -> None:
    with pytest.raises(GateRefused, match=r"enrich\.max_changes = 3"):
        enrich(sample.with_settings("enrich.max_changes=3"))
    assert not table(sample, "predictions")
    assert not values(sample, "model")
    refused = [row for row in table(sample, "runs") if row["kind"] == "enrich"]
    assert [(row["attempt"], row["status"]) for row in refused] == [(1, "refused")]
    assert "enrich.max_changes = 3" in refused[0]["error"]
    done = enrich(sample)
    attempts = {(row["attempt"], row["status"]) for row in table(sample, "runs") if row["run_id"] == done["run_id"]}
    assert attempts == {(1, "refused"), (2, "succeeded")}


@pytest.mark.slow
def test_a_dry_run_over_the_cap_shows_the_changes_and_keeps_only_scores_of_a_refused_attempt(
    sample: SampleCatalog, capsys: pytest.CaptureFixture[str]
) -> None:
    def checkpoints() -> list[str]:
        return [folder.name.rpartition("-")[0] for folder in (sample.folder / "catalog" / "_staging").glob("*/*")]

    capped = sample.with_settings("enrich.max_changes=0")
    shown = enrich(capped, dry_run=True)
    assert (shown["status"], checkpoints()) == ("dry_run", [])
    printed = capsys.readouterr().err
    assert "would publish" in printed
    assert "warning: this run would be refused: the run would change" in printed
    for _ in range(2):
        with pytest.raises(GateRefused):
            enrich(capped)
    assert checkpoints() == ["scored"]
    assert enrich(capped, dry_run=True)["would_be_refused"] == shown["would_be_refused"]
    assert checkpoints() == ["scored"], "the run with a higher cap must not score again"
    assert "would_be_refused" not in enrich(sample, dry_run=True)


@pytest.mark.slow
def test_the_cap_does_not_refuse_what_readers_see_already(sample: SampleCatalog) -> None:
    with killed_at(runs, "write"):
        enrich(sample)
    assert enrich(sample.with_settings("enrich.max_changes=0"))["status"] == "succeeded"


@pytest.mark.slow
def test_a_run_that_is_resumed_after_its_commit_shows_what_others_committed_meanwhile(sample: SampleCatalog) -> None:
    with killed_at(LakeCatalog, "refresh_current_values", unless_label="catch-up"):
        enrich(sample, Window(product_ids=("p001",)))
    catalog = sample.context().catalog
    with killed_at(LakeCatalog, "refresh_current_values", unless_label="catch-up"):
        enrich(sample, Window(product_ids=("p002",)))
    [run_id] = {row["run_id"] for row in table(sample, "attribute_values") if row["product_id"] == "p001"}
    nothing = publish.Changes(catalog.read("attribute_values").limit(0), {}, {})
    publish.publish(catalog, nothing, run_id)
    assert {"p001", "p002"} <= {product for product, _ in values(sample, "model")}


@pytest.mark.slow
def test_readers_see_the_same_after_a_run_as_after_a_replay_of_the_ledger(enriched: SampleCatalog) -> None:
    """The run derives current values from what was seen before and its own products; here from all events."""
    change(enriched, 1, title="Another thing altogether", image=None)
    change(enriched, 2, title="Something else")
    enrich(enriched)
    catalog = enriched.context().catalog
    replayed = ledger.current_values(catalog.read("products"), ledger.active(catalog.read("attribute_values")))
    assert values(enriched) == {(row.product_id, row.attribute): tuple(row["values"]) for row in replayed.collect()}
    assert not catalog.current_values_stale()
