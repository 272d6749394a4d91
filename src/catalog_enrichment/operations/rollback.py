"""Undoes a run, everything that a model version wrote, or what a certificate allowed, by appending ledger events (I6).

Each of the three is one run with one commit, so that readers never see a part of it (I4). A rollback of its run id
restores what it took. Later runs, people and merchants keep their effect.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from catalog_enrichment.catalog import gone_products, ledger, renames, runs, switches, value_names
from catalog_enrichment.catalog.runs import RunRecord
from catalog_enrichment.catalog.switches import Scope, State, Switch
from catalog_enrichment.errors import ConfigError
from catalog_enrichment.monitoring.stages import Say, Stages, add_seconds, to_stderr
from catalog_enrichment.reasons import Reason
from catalog_enrichment.records import DRY_RUN, NOTHING_TO_DO, Op, RunKind, RunStatus, add_counts, make_run_id
from catalog_enrichment.spark import value_columns
from catalog_enrichment.web.pages import when

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from catalog_enrichment.catalog.lake import Catalog

REMOVED, REPLACED, REINSTATED, UNSEEN = "removed", "replaced", "reinstated", "unseen"
"""What a rollback does to the values that readers see of a product and attribute: they see no value, another set, a set
where there is none now, or the same as before."""


@dataclass(frozen=True, slots=True)
class RollbackTarget:
    """A version of a registered model whose runs are undone, for all attributes or for one."""

    name: str
    version: str
    attribute: str | None = None

    def window(self) -> dict[str, Any]:
        """Return the request as the table `runs` records it, without the ids of the undone runs."""
        return {"model_name": self.name, "model_version": self.version, "attribute": self.attribute}


def rollback_run(
    catalog: Catalog, run_id: str, attribute: str | None = None, dry_run: bool = False, say: Say = to_stderr
) -> dict[str, Any]:
    """Undo a run, or one attribute of it; undoing a rollback restores the values (I6). Return the summary.

    The id of a backfill stands for its chunks, newest first. Raises ConfigError for a run or an attribute that the
    ledger does not know.
    """
    _refuse_removing(run_id)
    chunks = _published_chunks(catalog, run_id)
    if not chunks:
        return _undo_run(catalog, run_id, attribute, dry_run, Stages(say))
    summaries = [_undo_run(catalog, chunk, attribute, dry_run, Stages(say)) for chunk in chunks]
    statuses = {summary["status"] for summary in summaries}
    status = RunStatus.SUCCEEDED if RunStatus.SUCCEEDED in statuses else min(statuses)
    return {
        "run_id": [summary["run_id"] for summary in summaries if summary["status"] == status],
        "undoes": run_id,
        "events": add_counts(*(summary["events"] for summary in summaries)),
        "status": status,
        "seconds": add_seconds(*(summary["seconds"] for summary in summaries)),
    }


def rollback_version(
    catalog: Catalog, target: RollbackTarget, dry_run: bool = False, say: Say = to_stderr
) -> dict[str, Any]:
    """Undo all runs of a model version that still have an effect. Return the summary.

    ``dry_run``: only say which runs these are and what would change. Killed at any moment and called again, it ends the
    same. Raises ConfigError, with the possible names, for a version that wrote nothing, or nothing of the attribute.
    """
    record = RunRecord(kind=RunKind.ROLLBACK, stages=Stages(say))
    record.window = target.window()
    with runs.recorded(catalog, record, unless=dry_run):
        with record.stages("plan") as stage:
            events = catalog.read("attribute_values")
            run_ids = _runs_of_version(catalog, events, target)
            record.run_id, resumed = _version_rollback_id(catalog, target, dry_run)
            planned = planned_once(
                catalog, record, lambda events, stamp: ledger.undo(events, run_ids, target.attribute, stamp)
            )
            undone = _undone_runs(events, planned)
            record.window |= {"run_ids": [run["run_id"] for run in undone]}
            record.count(events=add_counts(*(run["events"] for run in undone)))
            readers = _changes_for_readers(catalog, events, planned) if undone else {}
            stage.rows_out = sum(record.by_reason("events").values())
        _say_effects(say, target, undone, readers)
        status = _commit(catalog, record, planned, dry_run)
    summary = {
        "run_id": record.run_id,
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
    if more["status"] == NOTHING_TO_DO:
        return summary
    return more | {"run_id": [summary["run_id"], more["run_id"]], "undoes": [*summary["undoes"], *more["undoes"]]}


def revoke_certificate(catalog: Catalog, certificate_id: str, who: str, dry_run: bool = False) -> dict[str, Any]:
    """Switch a certificate off and retract every active value under it, by whichever run. Return the summary.

    The next run decides these values again and writes none under the certificate, until set_switch switches it on.
    Raises ConfigError for a certificate under which nothing was ever written.
    """
    record = RunRecord(kind=RunKind.REVOKE, stages=Stages())
    record.window = {"certificate_id": certificate_id, "by": who}

    def retracts(events: DataFrame, stamp: ledger.RunStamp) -> DataFrame:
        from pyspark.sql import functions as F

        values = ledger.active(events).where(F.col("certificate_id") == certificate_id)
        return ledger.retract(values.withColumn("contradiction", F.lit(Reason.SWITCHED_OFF.value)), stamp)

    with runs.recorded(catalog, record, unless=dry_run):
        with record.stages("plan") as stage:
            _require_certificate(catalog.read("attribute_values"), certificate_id)
            earlier = _times_done(catalog, RunKind.REVOKE, {"$.certificate_id": certificate_id})
            record.run_id = make_run_id(RunKind.REVOKE, certificate_id, earlier)
            planned = planned_once(catalog, record, retracts)
            stage.rows_out = _count_events(record, planned)
        if not dry_run:
            why = "what it had allowed was taken back"
            off = Switch(scope=Scope.CERTIFICATE, target=certificate_id, state=State.OFF, who=who, why=why)
            switches.write(catalog, [off])
        status = _commit(catalog, record, planned, dry_run)
    summary = {"run_id": record.run_id, "certificate_id": certificate_id, "events": record.by_reason("events")}
    return {"status": status, **summary, "seconds": record.stages.seconds}


def planned_once(
    catalog: Catalog, record: RunRecord, plan: Callable[[DataFrame, ledger.RunStamp], DataFrame]
) -> DataFrame:
    """Return the ledger events of a run, computed once; if the run has committed already, the committed events.

    ``plan``: makes the events from all events of the ledger and the stamp of the run.
    """
    events = catalog.read("attribute_values")
    if catalog.committed("attribute_values", record.run_id):
        return events.where(events["run_id"] == record.run_id)
    catalog.checkpoints.drop(record.run_id)  # a plan that was never carried out may be out of date
    stamp = ledger.RunStamp(record.run_id, None, None, catalog.next_asserted_at(record.started_at))
    return catalog.checkpoints.get_or_compute(record.run_id, "events", plan(events, stamp))


def _commit(catalog: Catalog, record: RunRecord, planned: DataFrame, dry_run: bool) -> str:
    """Commit the events and write the run's row, if there are events and it is no dry run. Return the status."""
    status: str = DRY_RUN if dry_run else RunStatus.SUCCEEDED if record.by_reason("events") else NOTHING_TO_DO
    if status == RunStatus.SUCCEEDED:
        with record.stages("publish") as stage:
            stage.rows_out = catalog.append("attribute_values", planned, record.run_id)
            catalog.refresh_current_values(record.run_id, planned)
        runs.write(catalog, record)
    catalog.checkpoints.drop(record.run_id)
    return status


def _count_events(record: RunRecord, planned: DataFrame) -> int:
    """Set the record's number of events per attribute; return the sum."""
    counts = {row["attribute"]: row["count"] for row in planned.groupBy("attribute").count().collect()}
    record.count(events=counts)
    return sum(counts.values())


def _times_done(catalog: Catalog, kind: RunKind, window: dict[str, Any], **columns: str) -> int:
    """Return how many succeeded runs of ``kind`` have these paths in their column `window` and these ``columns``.

    The number is a part of the id of the next such run, so that the same can be undone again after it was restored.
    """
    from pyspark.sql import functions as F

    found = runs.succeeded(catalog).where(F.col("kind") == kind.value)
    for path, value in window.items():
        found = found.where(F.get_json_object("window", path) == value)
    for name, value in columns.items():
        found = found.where(F.col(name) == value)
    return int(found.count())


# --- one run --------------------------------------------------------------------------------------------------------


def _published_chunks(catalog: Catalog, run_id: str) -> list[str]:
    """Return the chunks of a backfill that published, newest first, also those that failed later; [] for other runs."""
    from pyspark.sql import functions as F

    is_chunk = (F.col("parent_run_id") == run_id) & (F.col("kind") == RunKind.ENRICH.value)
    writers = catalog.read("attribute_values", columns=["run_id"]).distinct()
    chunks = runs.latest_attempts(catalog).where(is_chunk).join(writers, "run_id", "left_semi")
    return [row["run_id"] for row in chunks.orderBy(F.desc("finished_at")).select("run_id").collect()]


def _undo_run(catalog: Catalog, run_id: str, attribute: str | None, dry_run: bool, stages: Stages) -> dict[str, Any]:
    record = RunRecord(kind=RunKind.ROLLBACK, stages=stages, parent_run_id=run_id)
    record.window = {"run_id": run_id, "attribute": attribute}
    renamed = catalog.committed(value_names.TABLE, run_id)
    with runs.recorded(catalog, record, unless=dry_run):
        with stages("plan") as stage:
            if not renamed:
                _require_run(catalog.read("attribute_values"), run_id, attribute)
            earlier = _times_done(catalog, RunKind.ROLLBACK, {}, parent_run_id=run_id)
            record.run_id = make_run_id(RunKind.ROLLBACK, run_id, attribute, earlier)
            if not renamed:
                planned = planned_once(
                    catalog, record, lambda events, stamp: ledger.undo(events, run_id, attribute, stamp)
                )
                stage.rows_out = _count_events(record, planned)
        if renamed:
            status = _undo_renames(catalog, record, attribute, dry_run)
        else:
            status = _commit(catalog, record, planned, dry_run)
    summary = {"run_id": record.run_id, "undoes": run_id, "events": record.by_reason("events")}
    return {**summary, "status": status, "seconds": stages.seconds}


def _undo_renames(catalog: Catalog, record: RunRecord, attribute: str | None, dry_run: bool) -> str:
    """Take back the renames of the run ``record.parent_run_id``, or what an earlier rollback did to them."""
    run_id = str(record.parent_run_id)
    renamed = sorted({row["attribute"] for row in renames.events(catalog) if row["run_id"] == run_id})
    if attribute and attribute not in renamed:
        raise ConfigError(f"run {run_id!r} renamed no {attribute!r}; it renamed {renamed}")
    events = renames.undo(catalog, run_id, attribute, record.run_id, dry_run)
    record.count(events=events)
    if dry_run or not events:
        return DRY_RUN if dry_run else NOTHING_TO_DO
    with record.stages("publish") as stage:
        stage.rows_out = sum(events.values())
        catalog.refresh_current_values(record.run_id)
    runs.write(catalog, record)
    record.stages.say(
        "values have their names from before again: a name that is neither in the dictionary's values nor an earlier "
        'name ("was") there must be listed before the next run, which retracts model values that are not'
    )
    return RunStatus.SUCCEEDED


def _require_run(events: DataFrame, run_id: str, attribute: str | None) -> None:
    from pyspark.sql import functions as F

    attributes = _attributes(events.where(F.col("run_id") == run_id))
    if not attributes:
        newest = _newest(events, "run_id")
        raise ConfigError(f"run {run_id!r} wrote nothing to the ledger. The newest runs there: {newest}")
    if attribute and attribute not in attributes:
        raise ConfigError(f"run {run_id!r} wrote no {attribute!r}; it wrote {attributes}")


def _refuse_removing(run_id: str) -> None:
    """Raise ConfigError for a run that adds and removes products: its events come with rows that are gone."""
    if run_id.startswith(tuple(f"{kind.value}-" for kind in gone_products.REMOVING)):
        raise ConfigError(
            f"run {run_id!r} changed products, and rollback_run takes back values only: to bring a product back, "
            "import a source that has it; it is new then, and the next run of enrich_catalog decides its values"
        )


def _require_certificate(events: DataFrame, certificate_id: str) -> None:
    from pyspark.sql import functions as F

    written = events.where(F.col("op") == Op.ASSERT.value)
    if written.where(F.col("certificate_id") == certificate_id).isEmpty():
        raise ConfigError(
            f"nothing was written under certificate {certificate_id!r}. The newest certificates with values: "
            f"{_newest(written, 'certificate_id')}"
        )


def _attributes(events: DataFrame) -> list[str]:
    return sorted(row["attribute"] for row in events.select("attribute").distinct().collect())


def _newest(events: DataFrame, name: str) -> list[str]:
    """Return the five values of the column ``name`` with the newest events."""
    from pyspark.sql import functions as F

    newest = events.groupBy(name).agg(F.max("asserted_at").alias("at")).orderBy(F.desc("at")).limit(5)
    return [row[name] for row in newest.collect()]


# --- all runs of a version ------------------------------------------------------------------------------------------


def _version_rollback_id(catalog: Catalog, target: RollbackTarget, dry_run: bool) -> tuple[str, bool]:
    """Return the id of the next rollback of the version, and whether a rollback that was killed after its commit is
    resumed under it. A dry run is about the rollback after that."""
    window = {"$.model_name": target.name, "$.model_version": target.version}
    number = _times_done(catalog, RunKind.ROLLBACK, window)

    def run_id(number: int) -> str:
        return make_run_id(RunKind.ROLLBACK, target.window(), number)

    killed = catalog.committed("attribute_values", run_id(number))
    return run_id(number + 1) if killed and dry_run else run_id(number), killed and not dry_run


def _runs_of_version(catalog: Catalog, events: DataFrame, target: RollbackTarget) -> list[str]:
    """Return the runs of the version that wrote to the ledger, also those that failed or were killed later.

    A killed run has no row in `runs`: it is known by the model of the values that it asserted. Raises ConfigError.
    """
    from pyspark.sql import functions as F

    model = ("model_name", "model_version")
    asserted = events.where(ledger.asserted_by_model())
    wrote = events.select("run_id").distinct()
    recorded = runs.latest_attempts(catalog).where(F.col("kind") == RunKind.ENRICH.value).join(wrote, "run_id")
    found = asserted.select("run_id", *model).union(recorded.select("run_id", *model)).distinct().collect()
    run_ids = sorted(
        {row["run_id"] for row in found if (row[model[0]], row[model[1]]) == (target.name, target.version)}
    )
    if not run_ids:
        named = {f"{row['model_name']} {row['model_version']}" for row in found if row["model_version"]}
        raise ConfigError(
            f"version {target.version!r} of model {target.name!r} wrote nothing to the ledger. "
            f"Versions that did: {sorted(named, key=_version_order)}"
        )
    if target.attribute is not None:
        attributes = _attributes(events.where(F.col("run_id").isin(run_ids)))
        if target.attribute not in attributes:
            raise ConfigError(f"version {target.version!r} wrote no {target.attribute!r}; it wrote {attributes}")
    return run_ids


def _version_order(text: str) -> tuple[str, int, str]:
    """Return the sort key of a name and version, by which version 10 follows version 9."""
    name, _, version = text.rpartition(" ")
    return name, int(version) if version.isdecimal() else 0, version


def _undone_runs(events: DataFrame, planned: DataFrame) -> list[dict[str, Any]]:
    """Return the runs whose events ``planned`` undoes, newest first: run_id, asserted_at, attribute -> events."""
    from pyspark.sql import functions as F

    undone = events.join(planned.select(F.col("undoes").alias("event_id")).distinct(), "event_id", "left_semi")
    rows = undone.groupBy("run_id", "attribute").agg(F.count("*").alias("events"), F.max("asserted_at").alias("at"))
    found: dict[str, dict[str, Any]] = {}
    for row in rows.orderBy(F.desc("at"), "run_id", "attribute").collect():
        run = found.setdefault(row["run_id"], {"run_id": row["run_id"], "asserted_at": row["at"], "events": {}})
        run["events"][row["attribute"]] = row["events"]
    return list(found.values())


def _changes_for_readers(catalog: Catalog, events: DataFrame, planned: DataFrame) -> dict[str, dict[str, int]]:
    """Return attribute -> kind of change (:data:`REMOVED` and the others) -> products that ``planned`` concerns.

    ``events``: the ledger, which may have the events ``planned`` already; the state before is that without them.
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
        F.when(value_columns.are_same(catalog.dictionary, F.col("now"), F.col("then")), UNSEEN)
        .when(F.col("then").isNull(), REMOVED)
        .when(F.col("now").isNull(), REINSTATED)
        .otherwise(REPLACED)
    )
    counts: dict[str, dict[str, int]] = {}
    for row in both.groupBy("attribute", kind.alias("kind")).count().orderBy("attribute", "kind").collect():
        counts.setdefault(row["attribute"], {})[row["kind"]] = row["count"]
    return counts


def _say_effects(
    say: Say, target: RollbackTarget, undone: Collection[dict[str, Any]], readers: dict[str, dict[str, int]]
) -> None:
    """Print the undone runs, newest first, and what readers see of each attribute afterwards."""
    model = f"version {target.version} of {target.name}"
    if not undone:
        say(f"nothing to do: no run of {model} has an effect any more")
        return
    say(f"{len(undone):,} run{'s' * (len(undone) > 1)} of {model} with an effect, newest first:")
    for run in undone:
        numbers = ", ".join(f"{name} {number:,}" for name, number in run["events"].items())
        say(f"  {run['run_id']}  {when(run['asserted_at'])}  {numbers}")
    for name, kinds in readers.items():
        removed, replaced, again, unseen = (kinds.get(kind, 0) for kind in (REMOVED, REPLACED, REINSTATED, UNSEEN))
        say(
            f"  {name}: readers see no value of {removed:,} products, another of {replaced:,}, one again of {again:,}; "
            f"{unseen:,} look the same"
        )
