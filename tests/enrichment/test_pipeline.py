"""The invariants of a run, on a real lake, real MLflow and real Spark.

The model's nonsense is published as if it were certified.
"""

from __future__ import annotations

from typing import Any

import pytest

from catalog_enrichment.catalog import ledger, runs
from catalog_enrichment.catalog.lake import Catalog
from catalog_enrichment.enrichment import decisions, pipeline, score
from catalog_enrichment.enrichment.request import Window
from catalog_enrichment.errors import GateRefused

from ..sample_catalog import PRODUCTS, SampleCatalog, change, enrich, killed_at, ledger_of, table, values


def test_i7_counts_add_up_and_every_applicable_attribute_has_one_decision(run: dict[str, Any]) -> None:
    assert run["status"] == "succeeded"
    assert run["products"] == PRODUCTS
    assert run["skipped_reasons"] == {"opted_out": 1}
    assert run["predicted"] + run["skipped"] + sum(run["quarantined"].values()) == PRODUCTS
    assert run["unusable_images"] == {"image_missing": 1}
    for name, applicable in {"color": 23, "material": 19}.items():
        counts = run["attributes"][name]
        assert counts["written"] + counts["suggested"] + counts["abstained"] == applicable


def test_i1_a_merchant_value_stays_and_is_at_most_disagreed_with(
    template: SampleCatalog, enriched: SampleCatalog
) -> None:
    before = values(template, "merchant")
    assert values(enriched, "merchant") == before
    asserted = {(row["product_id"], row["attribute"]) for row in table(enriched, "attribute_values")}
    assert asserted
    assert not asserted & set(before)


def test_i2_every_written_value_names_a_certificate_that_allows_it(enriched: SampleCatalog) -> None:
    certificates = {c.certificate_id: c for c in enriched.model().certificates}
    for event in table(enriched, "attribute_values"):
        certificate = certificates[event["certificate_id"]]
        assert certificate.attribute == event["attribute"]
        assert certificate.modality == event["modality"] == "both"
        assert event["score"] >= certificate.threshold == event["threshold"]
        assert event["value"] in certificate.values


def test_i2_without_a_picture_nothing_is_written(enriched: SampleCatalog) -> None:
    assert not [row for row in table(enriched, "attribute_values") if row["product_id"] == "p005"]
    decided = [row for row in table(enriched, "predictions") if row["product_id"] == "p005"]
    assert {(row["decision"], row["reason"], row["image_reason"]) for row in decided} == {
        ("abstain", "no_certificate", "image_missing")
    }


def test_i3_every_row_of_a_run_carries_the_one_version_it_resolved(sample: SampleCatalog) -> None:
    model = sample.model()
    sample.promotion.promote("2", expected_current="1")  # the alias moves while the run goes on
    pipeline.enrich(sample.context(), model, Window())
    assert {row["model_version"] for row in table(sample, "predictions")} == {"1"}
    assert {row["model_version"] for row in table(sample, "attribute_values")} == {"1"}


def test_i5_running_again_changes_nothing_and_says_so(enriched: SampleCatalog) -> None:
    catalog = enriched.context().catalog
    before = {name: catalog.version(name) for name in ("predictions", "attribute_values", "current_values", "runs")}
    again = enrich(enriched)
    assert again["status"] == "nothing_to_do"
    assert again["skipped_reasons"] == {"unchanged": 24}
    assert {name: catalog.version(name) for name in before} == before


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        pytest.param(decisions, "decide_once", id="scored", marks=pytest.mark.slow),
        pytest.param(score, "quarantine", id="predictions landed", marks=pytest.mark.slow),
        pytest.param(Catalog, "refresh_current_values", id="ledger committed"),
        pytest.param(runs, "write", id="readers served", marks=pytest.mark.slow),
    ],
)
def test_i5_a_run_killed_anywhere_and_started_again_ends_as_if_undisturbed(
    sample: SampleCatalog, enriched: SampleCatalog, run: dict[str, Any], owner: Any, name: str
) -> None:
    with killed_at(owner, name, unless_label="catch-up"):
        enrich(sample)
    if name in ("decide_once", "quarantine"):
        assert not table(sample, "attribute_values")
        assert not values(sample, "model")
    resumed = enrich(sample)
    assert (ledger_of(sample), values(sample)) == (ledger_of(enriched), values(enriched))
    assert resumed["run_id"] == run["run_id"]
    assert resumed["attributes"] == run["attributes"]
    assert len(table(sample, "runs")) == 2  # the import and the run


@pytest.mark.slow
def test_i1_a_merchant_value_that_arrives_while_a_run_lies_dead_is_respected(sample: SampleCatalog) -> None:
    with killed_at(decisions, "refuse_too_many_changes"):
        enrich(sample)
    change(sample, 1, color="Blue")
    enrich(sample)
    events = table(sample, "attribute_values")
    assert not [row for row in events if (row["product_id"], row["attribute"]) == ("p001", "color")]
    assert values(sample)["p001", "color"] == ("Blue",)


@pytest.mark.slow
def test_a_dry_run_does_not_even_finish_what_was_killed(sample: SampleCatalog) -> None:
    with killed_at(Catalog, "refresh_current_values", unless_label="catch-up"):
        enrich(sample)
    before = values(sample)
    enrich(sample, dry_run=True)
    assert values(sample) == before


def test_a_dry_run_writes_nothing_that_readers_see(sample: SampleCatalog) -> None:
    before = values(sample)
    run = enrich(sample, dry_run=True)
    assert run["status"] == "dry_run"
    assert run["attributes"]["color"]["written"] > 0
    assert values(sample) == before
    assert not table(sample, "predictions")
    assert len(table(sample, "runs")) == 1


def test_the_runs_row_has_what_its_id_is_a_hash_of(enriched: SampleCatalog, run: dict[str, Any]) -> None:
    [row] = [row for row in table(enriched, "runs") if row["kind"] == "enrich"]
    empty = {name for name, value in row.items() if value is None}
    assert empty == {"parent_run_id", "error"}
    assert (row["run_id"], row["model_version"], row["window"]) == (run["run_id"], "1", "{}")


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
    with killed_at(Catalog, "refresh_current_values", unless_label="catch-up"):
        enrich(sample, Window(product_ids=("p001",)))
    catalog = sample.context().catalog
    with killed_at(Catalog, "refresh_current_values", unless_label="catch-up"):
        enrich(sample, Window(product_ids=("p002",)))
    [run_id] = {row["run_id"] for row in table(sample, "attribute_values") if row["product_id"] == "p001"}
    nothing = decisions.Changes(catalog.read("attribute_values").limit(0), 0, {}, None)
    decisions.publish(catalog, nothing, run_id)
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
