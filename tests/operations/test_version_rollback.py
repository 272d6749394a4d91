"""Taking back all that a model version wrote, and taking that back (I6)."""

from __future__ import annotations

import json
import shutil
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from catalog_enrichment.catalog import ledger, runs
from catalog_enrichment.catalog.lake import LakeCatalog
from catalog_enrichment.catalog.runs import RunRecord
from catalog_enrichment.errors import ConfigError
from catalog_enrichment.monitoring.stages import Stages
from catalog_enrichment.operations import rollback, run_list
from catalog_enrichment.operations.version_rollback import ModelVersion, rollback_version
from catalog_enrichment.records import RunKind

from ..catalog.catalog_rows import START, frame, prediction, product
from ..sample_catalog import killed_at

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

Seen = dict[tuple[str, str], tuple[str, ...]]

FIRST, SECOND = ModelVersion("m", "1"), ModelVersion("m", "2")


def seen(catalog: LakeCatalog) -> Seen:
    rows = [row for batch in catalog.scan("current_values") for row in batch.to_pylist()]
    return {(row["product_id"], row["attribute"]): tuple(row["values"]) for row in rows}


class Shop:
    """Four products and a ledger to which runs of any model append."""

    def __init__(self, spark: SparkSession, folder: Path) -> None:
        self.spark, self.catalog, self.minutes = spark, LakeCatalog(folder, spark), 0
        some = [product(name) for name in "abc"] + [product("d", merchant_attributes={"size": ["XL"]})]
        self.catalog.append("products", frame(spark, "products", some), "import-1")

    def run(self, run_id: str, model: tuple[str, str], *decided: dict[str, Any], **how: Any) -> None:
        """A run that writes ``decided`` and retracts what that contradicts. ``how``: parent_run_id, or killed=True."""
        self.minutes += 1
        stamp = ledger.RunStamp(run_id, *model, START + timedelta(minutes=self.minutes))
        events = self.catalog.read("attribute_values")
        rows = frame(self.spark, "predictions", decided)
        new = ledger.assertions(rows, stamp).unionByName(ledger.retractions(ledger.active(events), rows, stamp))
        self.catalog.append("attribute_values", new, run_id)
        self.catalog.refresh_current_values(run_id)
        if not how.pop("killed", False):
            quiet = Stages(say=lambda _: None)
            record = RunRecord(kind=RunKind.ENRICH, run_id=run_id, stages=quiet, **how)
            record.model_name, record.model_version = model
            runs.write(self.catalog, record)

    def undo(self, target: ModelVersion, **how: Any) -> dict[str, Any]:
        self.said: list[str] = []
        return rollback_version(self.catalog, target, say=self.said.append, **how)


@pytest.fixture(scope="module")
def two_versions(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """Version 1 wrote; version 2 replaced a value, retracted one, added some: a run, a chunk of a backfill, and a
    killed run. Another model called n has a version 2, too."""
    shop = Shop(spark, tmp_path_factory.mktemp("versions") / "catalog")
    old = [prediction("a", "color", "Red"), prediction("b", "color", "Blue"), prediction("c", "color", "Teal")]
    shop.run("enrich-1", ("m", "1"), *old)
    unsure = prediction("b", "color", "Blue", decision="abstain", reason="below_threshold")
    shop.run("enrich-2", ("m", "2"), prediction("a", "color", "Pink"), unsure)
    shop.run("enrich-3", ("m", "2"), prediction("c", "size", "M"), parent_run_id="backfill-1")
    shop.run("enrich-4", ("n", "2"), prediction("b", "size", "L"))
    shop.run("enrich-5", ("m", "2"), prediction("d", "size", "S"), prediction("c", "color", "Teal"), killed=True)
    return shop


@pytest.fixture
def shop(two_versions: Shop, tmp_path: Path) -> Shop:
    copied = Shop.__new__(Shop)
    copied.spark, copied.minutes = two_versions.spark, two_versions.minutes
    shutil.copytree(two_versions.catalog.path, tmp_path / "catalog")
    copied.catalog = LakeCatalog(tmp_path / "catalog", two_versions.spark)
    return copied


OLD: Seen = {("a", "color"): ("Red",), ("b", "color"): ("Blue",), ("c", "color"): ("Teal",), ("b", "size"): ("L",),
             ("d", "size"): ("XL",)}  # fmt: skip
"""What readers see without version 2 of the model m."""


def test_i6_a_versions_runs_are_undone_as_one_and_one_command_restores_them(shop: Shop) -> None:
    before, versions = seen(shop.catalog), shop.catalog.version("attribute_values")
    assert before[("a", "color")] == ("Pink",)
    assert ("b", "color") not in before

    previewed = shop.undo(SECOND, dry_run=True)
    assert previewed["status"] == "dry_run"
    assert shop.catalog.version("attribute_values") == versions
    assert not (shop.catalog.path / "_staging").exists() or not list((shop.catalog.path / "_staging").iterdir())
    assert previewed["undoes"] == ["enrich-5", "enrich-3", "enrich-2"]
    assert [run["events"] for run in previewed["undone_runs"]] == [{"color": 1, "size": 1}, {"size": 1}, {"color": 2}]
    assert previewed["events"] == {"color": 3, "size": 2}
    # a is red again, b is blue again, c stays teal by version 1; c has no size any more, d's merchant stands anyway
    assert previewed["readers"] == {
        "color": {"replaced": 1, "brought_back": 1, "unseen": 1}, "size": {"removed": 1, "unseen": 1},
    }  # fmt: skip
    assert "enrich-5" in shop.said[2]
    assert "color: readers see no value of 0 products, another of 1, one again of 1; 1 look the same" in shop.said[5]

    undone = shop.undo(SECOND)
    assert {name: undone[name] for name in ("undoes", "events", "readers")} == {
        name: previewed[name] for name in ("undoes", "events", "readers")
    }
    assert shop.catalog.version("attribute_values") == versions + 1  # one commit: readers see all of it or none (I4)
    assert seen(shop.catalog) == OLD
    rollback.rollback_run(shop.catalog, undone["run_id"], say=lambda _: None)
    assert seen(shop.catalog) == before


@pytest.mark.slow
def test_i6_what_was_restored_can_be_undone_again_and_nothing_is_undone_twice(shop: Shop) -> None:
    before = seen(shop.catalog)
    undone = shop.undo(SECOND)
    assert shop.undo(SECOND)["status"] == "nothing_to_do"
    rollback.rollback_run(shop.catalog, undone["run_id"], say=lambda _: None)
    assert seen(shop.catalog) == before
    again = shop.undo(SECOND)
    assert again["undoes"] == ["enrich-5", "enrich-3", "enrich-2"]
    assert again["run_id"] != undone["run_id"]
    assert seen(shop.catalog) == OLD


@pytest.mark.slow
def test_i6_killed_at_any_write_and_run_again_it_ends_the_same(shop: Shop) -> None:
    with killed_at(LakeCatalog, "append"):
        shop.undo(SECOND)
    with killed_at(LakeCatalog, "refresh_current_values"):
        shop.undo(SECOND)
    shutil.rmtree(shop.catalog.path / "_staging")  # maintain_catalog deletes it a week later
    with killed_at(runs, "write"):
        shop.undo(SECOND)
    done = shop.undo(SECOND)
    assert (done["status"], done["events"]) == ("succeeded", {"color": 3, "size": 2})
    assert done["readers"]["color"] == {"replaced": 1, "brought_back": 1, "unseen": 1}
    assert seen(shop.catalog) == OLD
    kinds = [row["kind"] for batch in shop.catalog.scan("runs") for row in batch.to_pylist()]
    assert kinds.count("rollback") == 1


@pytest.mark.slow
def test_what_is_undone_already_is_left_out_and_stays_undone_when_the_rest_is_restored(shop: Shop) -> None:
    rollback.rollback_run(shop.catalog, "enrich-2", "color", say=lambda _: None)
    before = seen(shop.catalog)
    undone = shop.undo(SECOND)
    assert undone["undoes"] == ["enrich-5", "enrich-3"]
    names = ["color", "size"]
    assert runs.rolled_back(shop.catalog, names) == {
        "color": {"enrich-2", "enrich-3", "enrich-5"}, "size": {"enrich-3", "enrich-5"},
    }  # fmt: skip
    rollback.rollback_run(shop.catalog, undone["run_id"], say=lambda _: None)
    assert seen(shop.catalog) == before
    assert runs.rolled_back(shop.catalog, names)["size"] == {undone["run_id"]}


@pytest.mark.slow
def test_one_attribute_of_a_version_can_be_undone(shop: Shop) -> None:
    before = seen(shop.catalog)
    undone = shop.undo(ModelVersion("m", "2", "size"))
    assert (undone["events"], undone["undoes"]) == ({"size": 2}, ["enrich-5", "enrich-3"])
    assert seen(shop.catalog) == {key: value for key, value in before.items() if key != ("c", "size")}
    [told] = run_list.list_runs(shop.catalog, last=1, kinds=["rollback"])
    assert told["note"] == "undoes size of 2 runs of version 2: 2 events"
    assert shop.undo(SECOND)["events"] == {"color": 3}


@pytest.mark.slow
def test_later_runs_people_and_merchants_keep_their_effect(shop: Shop) -> None:
    undone = shop.undo(FIRST)
    assert undone["undoes"] == ["enrich-1"]
    assert seen(shop.catalog)[("a", "color")] == ("Pink",)
    assert undone["readers"] == {"color": {"unseen": 3}}


@pytest.mark.slow
def test_two_retracts_of_one_value_are_undone_and_restored_together(shop: Shop) -> None:
    """Both make a reinstate of the same value, which has one event id."""
    first = rollback.rollback_run(shop.catalog, "enrich-2", say=lambda _: None)
    unsure = prediction("b", "color", "Blue", decision="abstain", reason="below_threshold")
    shop.minutes += 60 * 24 * 365 * 3  # after the rollbacks, which have today's time
    shop.run("enrich-6", ("m", "2"), unsure)
    shop.minutes = 0
    rollback.rollback_run(shop.catalog, first["run_id"], say=lambda _: None)
    before = seen(shop.catalog)
    undone = shop.undo(SECOND)
    assert seen(shop.catalog) == OLD
    rollback.rollback_run(shop.catalog, undone["run_id"], say=lambda _: None)
    assert seen(shop.catalog) == before


def test_a_version_or_attribute_that_wrote_nothing_is_refused_with_those_that_did(shop: Shop) -> None:
    with pytest.raises(ConfigError, match=r"version '3' of model 'm' wrote nothing .*\['m 1', 'm 2', 'n 2'\]"):
        shop.undo(ModelVersion("m", "3"))
    with pytest.raises(ConfigError, match=r"model 'x' wrote nothing"):
        shop.undo(ModelVersion("x", "2"))
    with pytest.raises(ConfigError, match=r"version '2' wrote no 'fit'; it wrote \['color', 'size'\]"):
        shop.undo(ModelVersion("m", "2", "fit"))
    errors = [row["error"] for batch in shop.catalog.scan("runs") for row in batch.to_pylist() if row["error"]]
    assert len(errors) == 3


@pytest.mark.slow
def test_the_row_in_runs_says_what_was_asked_for_and_undone(shop: Shop) -> None:
    done = shop.undo(SECOND)
    [row] = [row for batch in shop.catalog.scan("runs") for row in batch.to_pylist() if row["kind"] == "rollback"]
    assert json.loads(row["window"]) == {
        "model_name": "m", "model_version": "2", "attribute": None, "run_ids": done["undoes"],
    }  # fmt: skip
    assert dict(row["counts"]) == {"events.color": 3, "events.size": 2}
    assert row["parent_run_id"] is None
