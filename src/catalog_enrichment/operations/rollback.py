"""Undoes a run, or one attribute of it, by appending events to the ledger (I6)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from catalog_enrichment.catalog import ledger, runs
from catalog_enrichment.catalog.runs import RunRecord
from catalog_enrichment.errors import ConfigError
from catalog_enrichment.monitoring.stages import Say, Stages, add_seconds, to_stderr
from catalog_enrichment.records import DRY_RUN, NOTHING_TO_DO, RunKind, RunStatus, add_counts, make_run_id

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from catalog_enrichment.catalog.base import Catalog


def rollback_run(
    catalog: Catalog, run_id: str, attribute: str | None = None, dry_run: bool = False, say: Say = to_stderr
) -> dict[str, Any]:
    """Undo a run, or one attribute of it; rolling back a rollback brings the values back (I6). Returns the summary.

    The id of a backfill stands for its chunks, newest first. Raises ConfigError for a run or an attribute that the
    ledger does not know.
    """
    chunks = _chunks(catalog, run_id)
    if not chunks:
        return _rollback(catalog, run_id, attribute, dry_run, Stages(say))
    summaries = [_rollback(catalog, chunk, attribute, dry_run, Stages(say)) for chunk in chunks]
    statuses = {summary["status"] for summary in summaries}
    return {
        "run_id": [summary["run_id"] for summary in summaries],
        "undoes": run_id,
        "events": add_counts(*(summary["events"] for summary in summaries)),
        "status": RunStatus.SUCCEEDED if RunStatus.SUCCEEDED in statuses else min(statuses),
        "seconds": add_seconds(*(summary["seconds"] for summary in summaries)),
    }


def _chunks(catalog: Catalog, run_id: str) -> list[str]:
    """The chunks of a backfill that published, newest first, also those that failed later; empty for other runs."""
    from pyspark.sql import functions as F

    is_chunk = (F.col("parent_run_id") == run_id) & (F.col("kind") == RunKind.ENRICH.value)
    writers = catalog.read("attribute_values", columns=["run_id"]).distinct()
    chunks = runs.latest_attempts(catalog).where(is_chunk).join(writers, "run_id", "left_semi")
    return [row["run_id"] for row in chunks.orderBy(F.desc("finished_at")).select("run_id").collect()]


def _rollback(catalog: Catalog, run_id: str, attribute: str | None, dry_run: bool, stages: Stages) -> dict[str, Any]:
    record = RunRecord(kind=RunKind.ROLLBACK, stages=stages, parent_run_id=run_id)
    record.window = {"run_id": run_id, "attribute": attribute}
    with runs.recorded(catalog, record, unless=dry_run):
        with stages("plan") as stage:
            events = catalog.read("attribute_values")
            _require_run(events, run_id, attribute)
            rollback_id = make_run_id(RunKind.ROLLBACK, run_id, attribute, _earlier_rollbacks(catalog, run_id))
            record.run_id = rollback_id
            planned = _planned(catalog, events, rollback_id, record, attribute)
            counts = {row["attribute"]: row["count"] for row in planned.groupBy("attribute").count().collect()}
            record.count(events=counts)
            stage.rows_out = sum(counts.values())
        status: str = RunStatus.SUCCEEDED
        if dry_run or not counts:
            status = DRY_RUN if dry_run else NOTHING_TO_DO
        else:
            with stages("publish") as stage:
                stage.rows_out = catalog.append("attribute_values", planned, rollback_id)
                catalog.refresh_current_values(rollback_id, planned)
            runs.write(catalog, record)
        catalog.drop_checkpoints(rollback_id)
    return {"run_id": rollback_id, "undoes": run_id, "events": counts, "status": status, "seconds": stages.seconds}


def _planned(
    catalog: Catalog, events: DataFrame, rollback_id: str, record: RunRecord, attribute: str | None
) -> DataFrame:
    """The rollback's events, computed once; of a rollback that is resumed after its commit, those committed."""
    if catalog.committed("attribute_values", rollback_id):
        return events.where(events["run_id"] == rollback_id)
    catalog.drop_checkpoints(rollback_id)  # a plan that was never carried out may be out of date
    stamp = ledger.RunStamp(rollback_id, None, None, ledger.next_asserted_at(events, record.started_at))
    undoing = ledger.undo(events, str(record.parent_run_id), attribute, stamp)
    return catalog.checkpoint(rollback_id, "events", undoing)


def _earlier_rollbacks(catalog: Catalog, run_id: str) -> int:
    """How often the run was rolled back, killed rollbacks not counted: a part of the next rollback's id."""
    from pyspark.sql import functions as F

    is_rollback = (F.col("parent_run_id") == run_id) & (F.col("kind") == RunKind.ROLLBACK.value)
    return int(runs.succeeded(catalog).where(is_rollback).count())


def _require_run(events: DataFrame, run_id: str, attribute: str | None) -> None:
    from pyspark.sql import functions as F

    of_run = events.where(F.col("run_id") == run_id).select("attribute").distinct()
    attributes = {row["attribute"] for row in of_run.collect()}
    if not attributes:
        newest = events.groupBy("run_id").agg(F.max("asserted_at").alias("at")).orderBy(F.desc("at")).limit(5).collect()
        raise ConfigError(
            f"run {run_id!r} wrote nothing to the ledger. The newest runs there: {[r[0] for r in newest]}"
        )
    if attribute and attribute not in attributes:
        raise ConfigError(f"run {run_id!r} wrote no {attribute!r}; it wrote {sorted(attributes)}")
