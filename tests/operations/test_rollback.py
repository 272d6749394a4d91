"""Undoing a run, a model version or a certificate, and undoing that (I6)."""

from __future__ import annotations

import json
import shutil
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from catalog_enrichment.catalog import ledger, runs, switches
from catalog_enrichment.catalog.lake import Catalog
from catalog_enrichment.catalog.runs import RunRecord
from catalog_enrichment.catalog.switches import Scope, State, Switch
from catalog_enrichment.errors import ConfigError
from catalog_enrichment.monitoring.stages import Stages
from catalog_enrichment.operations import run_list
from catalog_enrichment.operations.commands import with_undo
from catalog_enrichment.operations.rollback import RollbackTarget, revoke_certificate, rollback_run, rollback_version
from catalog_enrichment.records import RunKind

from ..catalog.catalog_rows import START, frame, prediction, product, scanned
from ..sample_catalog import SampleCatalog, enrich, killed_at, table, values

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def test_i6_rollback_restores_what_readers_saw_and_so_does_its_rollback(
    template: SampleCatalog, enriched: SampleCatalog, run: dict[str, Any]
) -> None:
    before = values(template)
    after = values(enriched)
    assert after != before
    undone = with_undo(rollback_run(enriched.context().catalog, run["run_id"]), ("--config", "C"), quiet)
    assert values(enriched) == before
    *words, run_to_undo = undone["undo"].split()
    assert words == ["rollback_run", "--config", "C", "--run-id"]
    rollback_run(enriched.context().catalog, run_to_undo)
    assert values(enriched) == after


@pytest.mark.parametrize(
    ("summary", "undo"),
    [
        ({"status": "succeeded", "run_id": "rollback-1"}, "rollback_run --config C --run-id rollback-1"),
        ({"status": "succeeded", "run_id": ["rollback-1", "rollback-2"]},
         "rollback_run --config C --run-id rollback-1 && rollback_run --config C --run-id rollback-2"),
        ({"status": "succeeded", "run_id": "revoke-1", "certificate_id": "c1"},
         "set_switch --config C --state on --reason 'the revocation is undone' certificate c1 && "
         "rollback_run --config C --run-id revoke-1"),
        ({"status": "dry_run", "run_id": "rollback-1"}, None),
        ({"status": "nothing_to_do", "run_id": "rollback-1"}, None),
    ],
)  # fmt: skip
def test_the_command_that_undoes_an_undo_is_printed(summary: dict[str, Any], undo: str | None) -> None:
    said: list[str] = []
    assert with_undo(summary, ("--config", "C"), said.append) == summary | {"undo": undo}
    assert said == ([f"to undo this: {undo}"] if undo else [])


def test_i6_a_rollback_killed_before_readers_see_it_is_finished_by_the_next(
    template: SampleCatalog, enriched: SampleCatalog, run: dict[str, Any]
) -> None:
    before = values(template)
    with killed_at(Catalog, "refresh_current_values"):
        rollback_run(enriched.context().catalog, run["run_id"])
    shutil.rmtree(enriched.folder / "catalog" / "_staging")  # maintain_catalog deletes it a week later
    done = rollback_run(enriched.context().catalog, run["run_id"])
    assert done["status"] == "succeeded"
    assert values(enriched) == before
    assert [row["run_id"] for row in table(enriched, "runs") if row["kind"] == "rollback"] == [done["run_id"]]
    assert rollback_run(enriched.context().catalog, run["run_id"])["status"] == "nothing_to_do"


def test_i6_one_attribute_of_a_run_can_be_taken_back(enriched: SampleCatalog, run: dict[str, Any]) -> None:
    after, catalog = values(enriched), enriched.context().catalog
    undone = rollback_run(catalog, run["run_id"], attribute="color")
    assert list(undone["events"]) == ["color"]
    by_merchants = values(enriched, "merchant")
    assert values(enriched) == {key: v for key, v in after.items() if key[1] != "color" or key in by_merchants}
    assert rollback_run(catalog, run["run_id"], attribute="color")["status"] == "nothing_to_do"


def test_rolling_back_a_run_that_wrote_nothing_says_which_runs_did(
    enriched: SampleCatalog, run: dict[str, Any]
) -> None:
    catalog = enriched.context().catalog
    with pytest.raises(ConfigError, match=run["run_id"]):
        rollback_run(catalog, "enrich-nosuch")
    with pytest.raises(ConfigError, match=r"it wrote \['color', 'material'\]"):
        rollback_run(catalog, run["run_id"], attribute="size")


# --- a certificate ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_revoked_certificates_values_are_retracted_and_not_written_again(enriched: SampleCatalog) -> None:
    catalog = enriched.context().catalog
    before = values(enriched)
    certificates = {row["attribute"]: row["certificate_id"] for row in table(enriched, "attribute_values")}
    with pytest.raises(ConfigError, match="nothing was written under certificate 'other'"):
        revoke_certificate(catalog, "other", "ann")
    colors = {key for key in values(enriched, "model") if key[1] == "color"}
    dry = revoke_certificate(catalog, certificates["color"], "ann", dry_run=True)
    assert (dry["status"], dry["events"]) == ("dry_run", {"color": len(colors)})
    assert table(enriched, "switches") == []
    done = revoke_certificate(catalog, certificates["color"], "ann")
    assert done["events"] == {"color": len(colors)}
    assert set(values(enriched)) == set(before) - colors
    assert revoke_certificate(catalog, certificates["color"], "ann")["status"] == "nothing_to_do"
    enrich(enriched)
    assert set(values(enriched)) == set(before) - colors, "nothing is written under it any more"
    assert {row["reason"] for row in table(enriched, "predictions") if row["decision"] == "abstain"} >= {"paused"}

    rollback_run(catalog, done["run_id"])
    assert values(enriched) == before
    on = Switch(scope=Scope.CERTIFICATE, target=certificates["color"], state=State.ON, who="a", why="b")
    switches.write(catalog, [on])
    enrich(enriched)
    assert values(enriched) == before


@pytest.mark.slow
def test_a_revocation_that_is_killed_and_run_again_ends_the_same(enriched: SampleCatalog) -> None:
    catalog = enriched.context().catalog
    certificate = next(row["certificate_id"] for row in table(enriched, "attribute_values"))
    with killed_at(Catalog, "refresh_current_values"):
        revoke_certificate(catalog, certificate, "ann")
    done = revoke_certificate(catalog, certificate, "ann")
    assert done["status"] == "succeeded"
    rows = [row for row in table(enriched, "attribute_values") if row["op"] == "retract"]
    assert len(rows) == sum(done["events"].values()) == len({row["refers_to"] for row in rows})


# --- a model version --------------------------------------------------------------------------------------------------

Seen = dict[tuple[str, str], tuple[str, ...]]

FIRST, SECOND = RollbackTarget("m", "1"), RollbackTarget("m", "2")


def quiet(_: str) -> None:
    """Print nothing."""


def seen(catalog: Catalog) -> Seen:
    rows = scanned(catalog, "current_values")
    return {(row["product_id"], row["attribute"]): tuple(row["values"]) for row in rows}


class Shop:
    """Four products and a ledger to which runs of any model append."""

    def __init__(self, spark: SparkSession, folder: Path) -> None:
        self.spark, self.catalog, self.minutes = spark, Catalog(folder, spark), 0
        some = [product(name) for name in "abc"] + [product("d", merchant_attributes={"size": ["XL"]})]
        self.catalog.append("products", frame(spark, "products", some), "import-1")

    def run(self, run_id: str, model: tuple[str, str], *decided: dict[str, Any], **how: Any) -> None:
        """A run that writes ``decided`` and retracts what that contradicts. ``how``: parent_run_id, or killed=True."""
        self.minutes += 1
        stamp = ledger.RunStamp(run_id, *model, START + timedelta(minutes=self.minutes))
        events = self.catalog.read("attribute_values")
        rows = frame(self.spark, "predictions", decided)
        new = ledger.assertions(rows, stamp).unionByName(
            ledger.retract(ledger.contradicted(ledger.active(events), rows), stamp)
        )
        self.catalog.append("attribute_values", new, run_id)
        self.catalog.refresh_current_values(run_id)
        if not how.pop("killed", False):
            record = RunRecord(kind=RunKind.ENRICH, run_id=run_id, stages=Stages(say=quiet), **how)
            record.model_name, record.model_version = model
            runs.write(self.catalog, record)

    def undo(self, target: RollbackTarget, **how: Any) -> dict[str, Any]:
        self.said: list[str] = []
        return rollback_version(self.catalog, target, say=self.said.append, **how)


@pytest.fixture(scope="module")
def two_versions(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """Version 1 wrote; version 2 replaced a value, retracted a value, added some: a run, a chunk of a backfill, and a
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
    shutil.copytree(two_versions.catalog.storage.folder, tmp_path / "catalog")
    copied.catalog = Catalog(tmp_path / "catalog", two_versions.spark)
    return copied


OLD: Seen = {("a", "color"): ("Red",), ("b", "color"): ("Blue",), ("c", "color"): ("Teal",), ("b", "size"): ("L",),
             ("d", "size"): ("XL",)}  # fmt: skip
"""What readers see without version 2 of the model m."""


def test_i6_a_versions_runs_are_undone_together_and_one_command_restores_them(shop: Shop) -> None:
    before, versions = seen(shop.catalog), shop.catalog.version("attribute_values")
    assert before[("a", "color")] == ("Pink",)
    assert ("b", "color") not in before

    previewed = shop.undo(SECOND, dry_run=True)
    assert previewed["status"] == "dry_run"
    assert shop.catalog.version("attribute_values") == versions
    assert not list(shop.catalog.storage.folder.glob("_staging/*"))
    assert previewed["undoes"] == ["enrich-5", "enrich-3", "enrich-2"]
    assert [run["events"] for run in previewed["undone_runs"]] == [{"color": 1, "size": 1}, {"size": 1}, {"color": 2}]
    assert previewed["events"] == {"color": 3, "size": 2}
    # a is red again, b is blue again, c stays teal by version 1; c has no size any more, d's merchant stands anyway
    assert previewed["readers"] == {
        "color": {"replaced": 1, "reinstated": 1, "unseen": 1}, "size": {"removed": 1, "unseen": 1},
    }  # fmt: skip
    assert "enrich-5" in shop.said[2]
    assert "color: readers see no value of 0 products, another of 1, one again of 1; 1 look the same" in shop.said[5]

    undone = shop.undo(SECOND)
    assert [undone[name] == previewed[name] for name in ("undoes", "events", "readers")] == [True] * 3
    assert shop.catalog.version("attribute_values") == versions + 1  # one commit: readers see all of it or none (I4)
    assert seen(shop.catalog) == OLD
    [row] = [row for row in scanned(shop.catalog, "runs") if row["kind"] == "rollback"]
    asked = {"model_name": "m", "model_version": "2", "attribute": None, "run_ids": undone["undoes"]}
    assert (json.loads(row["window"]), row["parent_run_id"]) == (asked, None)
    assert dict(row["counts"]) == {"events.color": 3, "events.size": 2}
    assert shop.undo(SECOND)["status"] == "nothing_to_do"
    rollback_run(shop.catalog, undone["run_id"], say=quiet)
    assert seen(shop.catalog) == before
    again = shop.undo(SECOND)
    assert (again["undoes"], again["run_id"] != undone["run_id"]) == (undone["undoes"], True)
    assert seen(shop.catalog) == OLD


@pytest.mark.slow
def test_i6_killed_at_any_write_and_run_again_it_ends_the_same(shop: Shop) -> None:
    with killed_at(Catalog, "append"):
        shop.undo(SECOND)
    with killed_at(Catalog, "refresh_current_values"):
        shop.undo(SECOND)
    shutil.rmtree(shop.catalog.storage.folder / "_staging")  # maintain_catalog deletes it a week later
    with killed_at(runs, "write"):
        shop.undo(SECOND)
    done = shop.undo(SECOND)
    assert (done["status"], done["events"]) == ("succeeded", {"color": 3, "size": 2})
    assert done["readers"]["color"] == {"replaced": 1, "reinstated": 1, "unseen": 1}
    assert seen(shop.catalog) == OLD
    assert [row["kind"] for row in scanned(shop.catalog, "runs")].count("rollback") == 1


@pytest.mark.slow
def test_what_is_undone_already_is_left_out_and_stays_undone_when_the_rest_is_restored(shop: Shop) -> None:
    rollback_run(shop.catalog, "enrich-2", "color", say=quiet)
    before = seen(shop.catalog)
    undone = shop.undo(SECOND)
    assert undone["undoes"] == ["enrich-5", "enrich-3"]
    names = ["color", "size"]
    assert runs.rolled_back(shop.catalog, names) == {
        "color": {"enrich-2", "enrich-3", "enrich-5"}, "size": {"enrich-3", "enrich-5"},
    }  # fmt: skip
    rollback_run(shop.catalog, undone["run_id"], say=quiet)
    assert seen(shop.catalog) == before
    assert runs.rolled_back(shop.catalog, names)["size"] == {undone["run_id"]}


@pytest.mark.slow
def test_one_attribute_of_a_version_can_be_undone(shop: Shop) -> None:
    before = seen(shop.catalog)
    undone = shop.undo(RollbackTarget("m", "2", "size"))
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
    first = rollback_run(shop.catalog, "enrich-2", say=quiet)
    unsure = prediction("b", "color", "Blue", decision="abstain", reason="below_threshold")
    shop.minutes += 60 * 24 * 365 * 3  # after the rollbacks, which have today's time
    shop.run("enrich-6", ("m", "2"), unsure)
    shop.minutes = 0
    rollback_run(shop.catalog, first["run_id"], say=quiet)
    before = seen(shop.catalog)
    undone = shop.undo(SECOND)
    assert seen(shop.catalog) == OLD
    rollback_run(shop.catalog, undone["run_id"], say=quiet)
    assert seen(shop.catalog) == before


def test_a_version_or_attribute_that_wrote_nothing_is_refused_with_those_that_did(shop: Shop) -> None:
    with pytest.raises(ConfigError, match=r"version '3' of model 'm' wrote nothing .*\['m 1', 'm 2', 'n 2'\]"):
        shop.undo(RollbackTarget("m", "3"))
    with pytest.raises(ConfigError, match=r"model 'x' wrote nothing"):
        shop.undo(RollbackTarget("x", "2"))
    with pytest.raises(ConfigError, match=r"version '2' wrote no 'fit'; it wrote \['color', 'size'\]"):
        shop.undo(RollbackTarget("m", "2", "fit"))
    assert sum(bool(row["error"]) for row in scanned(shop.catalog, "runs")) == 3
