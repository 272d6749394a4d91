"""Undoes everything that a model version has published and that still has an effect: one rollback of many runs (I6).

It is one run with one commit, so that readers never see a part of it (I4), and one command takes it back: a rollback of
its own run id. Chunks of backfills are runs like others. What later runs, people and merchants said keeps its effect.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from catalog_enrichment.catalog import ledger, runs
from catalog_enrichment.catalog.runs import RunRecord
from catalog_enrichment.errors import ConfigError
from catalog_enrichment.monitoring.stages import Say, Stages, to_stderr
from catalog_enrichment.records import DRY_RUN, NOTHING_TO_DO, Op, RunKind, RunStatus, Source, make_run_id

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from catalog_enrichment.catalog.base import Catalog

REMOVED, REPLACED, BROUGHT_BACK, UNSEEN = "removed", "replaced", "brought_back", "unseen"
"""What a rollback does to what readers see of a product and attribute: no value then, another set of values, values
where there are none now, and nothing (a merchant's or a person's values stand before, or the same values remain)."""


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """A version of a registered model, whose runs are undone; of one attribute only, if that is given."""

    name: str
    version: str
    attribute: str | None = None

    def window(self) -> dict[str, Any]:
        """What the table `runs` records as asked for, beside the ids of the runs."""
        return {"model_name": self.name, "model_version": self.version, "attribute": self.attribute}


def rollback_version(
    catalog: Catalog, target: ModelVersion, dry_run: bool = False, say: Say = to_stderr
) -> dict[str, Any]:
    """Undo all runs of a model version that still have an effect; ``dry_run`` only says which and what would change.

    Returns the summary. Raises ConfigError for a version that wrote nothing, or nothing of the attribute; the message
    has the versions, or the attributes, that it could be. Killed at any moment and called again it ends the same.
    """
    record = RunRecord(kind=RunKind.ROLLBACK, stages=Stages(say))
    record.window = target.window()
    with runs.recorded(catalog, record, unless=dry_run):
        with record.stages("plan") as stage:
            events = catalog.read("attribute_values")
            run_ids = _runs_of(catalog, events, target)
            rollback_id, resumed = _rollback_id(catalog, target, dry_run)
            record.run_id = rollback_id
            planned = _planned(catalog, events, record, run_ids)
            undone = _undone_runs(events, planned)
            record.window |= {"run_ids": [run["run_id"] for run in undone]}
            record.count(events=_by_attribute(undone))
            readers = readers_after(catalog, events, planned) if undone else {}
            stage.rows_out = sum(record.by_reason("events").values())
        _say_what_is_undone(say, target, undone, readers)
        status: str = RunStatus.SUCCEEDED
        if dry_run or not undone:
            status = DRY_RUN if dry_run else NOTHING_TO_DO
        else:
            with record.stages("publish") as stage:
                stage.rows_out = catalog.append("attribute_values", planned, rollback_id)
                catalog.refresh_current_values(rollback_id, planned)
            runs.write(catalog, record)
        catalog.drop_checkpoints(rollback_id)
    summary = {
        "run_id": rollback_id,
        "undoes": [run["run_id"] for run in undone],
        **target.window(),
        "undone_runs": undone,
        "events": record.by_reason("events"),
        "readers": readers,
        "status": status,
        "seconds": record.stages.seconds,
    }
    if not resumed:
        return summary
    # the version may have written more since the rollback was killed
    more = rollback_version(catalog, target, say=say)
    return summary if more["status"] == NOTHING_TO_DO else more | {"undoes": [*summary["undoes"], *more["undoes"]]}


def _rollback_id(catalog: Catalog, target: ModelVersion, dry_run: bool) -> tuple[str, bool]:
    """The id of the next rollback, and whether it is one that was killed after its commit; a dry run is of the next."""

    def of(number: int) -> str:
        return make_run_id(RunKind.ROLLBACK, target.window(), number)

    number = _earlier_rollbacks(catalog, target)
    killed = catalog.committed("attribute_values", of(number))
    return of(number + 1) if killed and dry_run else of(number), killed and not dry_run


def _runs_of(catalog: Catalog, events: DataFrame, target: ModelVersion) -> list[str]:
    """Ids of the runs under this version that wrote to the ledger, also of those that failed or were killed later.

    A killed run has no row in `runs`: it is known by the model of the values that it asserted. Raises ConfigError.
    """
    from pyspark.sql import functions as F

    model = ("model_name", "model_version")
    asserted = events.where((F.col("op") == Op.ASSERT.value) & (F.col("source") == Source.MODEL.value))
    wrote = events.select("run_id").distinct()
    recorded = runs.latest_attempts(catalog).where(F.col("kind") == RunKind.ENRICH.value).join(wrote, "run_id")
    found = asserted.select("run_id", *model).union(recorded.select("run_id", *model)).distinct().collect()
    run_ids = sorted(
        {row["run_id"] for row in found if (row[model[0]], row[model[1]]) == (target.name, target.version)}
    )
    if not run_ids:
        named = {f"{row['model_name']} {row['model_version']}" for row in found if row["model_version"]}
        versions = sorted(named, key=_natural)
        raise ConfigError(
            f"version {target.version!r} of model {target.name!r} wrote nothing to the ledger. "
            f"Versions that did: {versions}"
        )
    if target.attribute is not None:
        of_runs = events.where(F.col("run_id").isin(run_ids)).select("attribute").distinct()
        attributes = sorted(row["attribute"] for row in of_runs.collect())
        if target.attribute not in attributes:
            raise ConfigError(f"version {target.version!r} wrote no {target.attribute!r}; it wrote {attributes}")
    return run_ids


def _natural(text: str) -> tuple[str, int, str]:
    """A name and version in an order in which version 10 follows version 9."""
    name, _, version = text.rpartition(" ")
    return name, int(version) if version.isdecimal() else 0, version


def _earlier_rollbacks(catalog: Catalog, target: ModelVersion) -> int:
    """How often the version was rolled back, killed rollbacks not counted: a part of the next rollback's id."""
    from pyspark.sql import functions as F

    def of_window(name: str) -> Any:
        return F.get_json_object("window", f"$.{name}")

    same = (of_window("model_name") == target.name) & (of_window("model_version") == target.version)
    return int(runs.succeeded(catalog).where((F.col("kind") == RunKind.ROLLBACK.value) & same).count())


def _planned(catalog: Catalog, events: DataFrame, record: RunRecord, run_ids: Collection[str]) -> DataFrame:
    """The rollback's events, computed once; of a rollback that is resumed after its commit, those committed."""
    if catalog.committed("attribute_values", record.run_id):
        return events.where(events["run_id"] == record.run_id)
    catalog.drop_checkpoints(record.run_id)  # a plan that was never carried out may be out of date
    stamp = ledger.RunStamp(record.run_id, None, None, ledger.next_asserted_at(events, record.started_at))
    attribute = None if record.window is None else record.window["attribute"]
    return catalog.checkpoint(record.run_id, "events", ledger.undo(events, run_ids, attribute, stamp))


def _undone_runs(events: DataFrame, planned: DataFrame) -> list[dict[str, Any]]:
    """The runs whose events ``planned`` undoes, newest first: run_id, asserted_at, attribute -> number of events."""
    from pyspark.sql import functions as F

    undone = events.join(planned.select(F.col("undoes").alias("event_id")).distinct(), "event_id", "left_semi")
    rows = undone.groupBy("run_id", "attribute").agg(F.count("*").alias("events"), F.max("asserted_at").alias("at"))
    found: dict[str, dict[str, Any]] = {}
    for row in rows.orderBy(F.desc("at"), "run_id", "attribute").collect():
        run = found.setdefault(row["run_id"], {"run_id": row["run_id"], "asserted_at": row["at"], "events": {}})
        run["events"][row["attribute"]] = row["events"]
    return list(found.values())


def _by_attribute(undone: list[dict[str, Any]]) -> dict[str, int]:
    names = sorted({name for run in undone for name in run["events"]})
    return {name: sum(run["events"].get(name, 0) for run in undone) for name in names}


def readers_after(catalog: Catalog, events: DataFrame, planned: DataFrame) -> dict[str, dict[str, int]]:
    """Attribute -> kind of change -> number of products for which ``planned`` changes what readers see.

    ``planned``: events of a rollback; where they are in the ledger ``events`` already, the state before them is that
    without them. The kinds: :data:`REMOVED`, :data:`REPLACED`, :data:`BROUGHT_BACK`, :data:`UNSEEN`.
    """
    from pyspark.sql import functions as F

    key = ["product_id", "attribute"]
    touched = planned.select(*key).distinct()
    ids = touched.select("product_id").distinct()
    products = catalog.read("products").join(ids, "product_id", "left_semi")
    mine = events.join(ids, "product_id", "left_semi")
    before = mine.join(planned.select("event_id"), "event_id", "left_anti")

    def seen(some: DataFrame, name: str) -> DataFrame:
        values = ledger.current_values(products, ledger.active(some))
        return values.select(*key, F.col("values").alias(name))

    both = touched.join(seen(before, "now"), key, "left").join(seen(before.unionByName(planned), "then"), key, "left")
    kind = (
        F.when(F.col("now").eqNullSafe(F.col("then")), UNSEEN)
        .when(F.col("then").isNull(), REMOVED)
        .when(F.col("now").isNull(), BROUGHT_BACK)
        .otherwise(REPLACED)
    )
    counts: dict[str, dict[str, int]] = {}
    for row in both.groupBy("attribute", kind.alias("kind")).count().orderBy("attribute", "kind").collect():
        counts.setdefault(row["attribute"], {})[row["kind"]] = row["count"]
    return counts


def _say_what_is_undone(
    say: Say, target: ModelVersion, undone: list[dict[str, Any]], readers: dict[str, dict[str, int]]
) -> None:
    """The runs, newest first, and what readers see of each attribute afterwards."""
    model = f"version {target.version} of {target.name}"
    if not undone:
        say(f"nothing to do: no run of {model} has an effect any more")
        return
    say(f"{len(undone):,} run{'s' * (len(undone) > 1)} of {model} with an effect, newest first:")
    for run in undone:
        numbers = ", ".join(f"{name} {number:,}" for name, number in run["events"].items())
        say(f"  {run['run_id']}  {run['asserted_at']:%Y-%m-%d %H:%M}  {numbers}")
    for name, kinds in readers.items():
        removed, replaced, back, unseen = (kinds.get(kind, 0) for kind in (REMOVED, REPLACED, BROUGHT_BACK, UNSEEN))
        say(
            f"  {name}: readers see no value of {removed:,} products, another of {replaced:,}, one again of {back:,}; "
            f"{unseen:,} look the same"
        )
