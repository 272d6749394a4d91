"""Cleans up the catalog: old rows, small files, long logs, and files that nothing needs any more.

    retention of predictions and quarantine -> fewer, larger files -> Delta logs -> deletion of unneeded files

Readers and later runs notice nothing. Killed anywhere and started again, the job goes on with what is left. The ledger,
`runs`, `label_uses`, `self_derived` and `proposals` are never shortened. Only rows of succeeded runs go: a run that was
killed or failed is resumed from its rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from catalog_enrichment.catalog import runs
from catalog_enrichment.catalog.maintenance import CHECKPOINT_COMMITS, Maintenance
from catalog_enrichment.catalog.runs import RunRecord
from catalog_enrichment.enrichment.pending import is_rolled_back
from catalog_enrichment.errors import ConfigError
from catalog_enrichment.inputs.scaled_copies import copies_of
from catalog_enrichment.inputs.stored_pictures import StoredPictures
from catalog_enrichment.monitoring.stages import Stages
from catalog_enrichment.records import (
    DRY_RUN,
    NOTHING_TO_DO,
    Decision,
    QuarantineStage,
    RunKind,
    RunStatus,
    make_run_id,
)
from catalog_enrichment.spark.frames import persisted_frames

if TYPE_CHECKING:
    from datetime import datetime

    from pyspark.sql import DataFrame

    from catalog_enrichment.catalog.lake import Catalog
    from catalog_enrichment.catalog.maintenance import FileSet
    from catalog_enrichment.config.images import StoredImagesConfig
    from catalog_enrichment.config.schema import MaintenanceConfig
    from catalog_enrichment.context import Context

MIN_RETENTION_HOURS = 24
"""Jobs that read a version of a table, as training does, and runs that are resumed the next day end within this."""

_DECISION = ("product_id", "attribute", "run_id")


@dataclass(slots=True)
class TableWork:
    """The work that was, or with --dry-run would be, done on a table."""

    rows_removed: int = 0
    files_joined: int = 0
    bytes_joined: int = 0
    log_entries_deleted: int = 0
    files_deleted: int = 0
    bytes_deleted: int = 0

    def line(self, table: str) -> str:
        return (
            f"  {table:<17} rows removed {self.rows_removed:,}  files joined {self.files_joined:,} "
            f"({self.bytes_joined / 2**20:,.1f} MiB)  log entries deleted {self.log_entries_deleted:,}  "
            f"files deleted {self.files_deleted:,} ({self.bytes_deleted / 2**20:,.1f} MiB)"
        )


@dataclass
class _Job:
    """One attempt: the catalog, its settings, and what was done so far."""

    maintenance: Maintenance
    images: StoredImagesConfig
    settings: MaintenanceConfig
    record: RunRecord
    dry_run: bool
    tables: dict[str, TableWork] = field(default_factory=dict)
    changed: bool = False

    @property
    def lake(self) -> Catalog:
        return self.maintenance.catalog


def check_retention(settings: MaintenanceConfig, force: bool) -> None:
    """Raise ConfigError for a retention that a running reader or a run to be resumed could need, unless ``force``."""
    hours = settings.retention_hours
    if hours < MIN_RETENTION_HOURS and not force:
        raise ConfigError(
            f"maintenance.retention_hours = {hours}: jobs that read the catalog now, and killed runs that are started "
            f"again, may need files of the last {MIN_RETENTION_HOURS} hours. Raise it, or use --force if there are none"
        )


def maintain_catalog(context: Context, dry_run: bool = False) -> dict[str, Any]:
    """Clean up the catalog's folder. Return the summary, with counts and bytes per table.

    ``dry_run``: only count. Files that compaction and retention free count when they are deleted, by the first run
    after `maintenance.retention_hours`.
    """
    config, stages, lake = context.config, Stages(context.say), context.catalog
    record = RunRecord(kind=RunKind.MAINTAIN, stages=stages, config=config.without_secrets(), secrets=config.secrets())
    record.config_hash = config.hash("maintenance")
    maintenance = Maintenance(lake, config.maintenance.retention_hours)
    job = _Job(maintenance, config.pictures(), config.maintenance, record, dry_run)
    job.tables = {table: TableWork() for table in maintenance.tables}
    versions = {table: lake.version(table) for table in job.tables}
    record.run_id = make_run_id(RunKind.MAINTAIN, record.config_hash, versions, record.started_at.isoformat())
    with runs.recorded(lake, record, unless=dry_run):
        for name, step in _STEPS.items():
            with stages(name) as stage:
                stage.rows_out = step(job)
        numbers = [asdict(work) for work in job.tables.values()]
        record.count(**{name: sum(work[name] for work in numbers) for name in asdict(TableWork())})
        for table, work in job.tables.items():
            context.say(work.line(table))
        status: str = DRY_RUN if dry_run else RunStatus.SUCCEEDED if job.changed else NOTHING_TO_DO
        if status == RunStatus.SUCCEEDED:
            runs.write(lake, record)
    counts = record.counts
    return {
        "run_id": record.run_id if status == RunStatus.SUCCEEDED else None,
        "status": status,
        "tables": {table: asdict(work) for table, work in job.tables.items() if work != TableWork()},
        "checkpoints": {"folders": counts["folders_deleted"], "bytes": counts["folder_bytes_deleted"]},
        "pictures": {"files": counts["pictures_deleted"], "bytes": counts["picture_bytes_deleted"]},
        "copies": {"files": counts["copies_deleted"], "bytes": counts["copy_bytes_deleted"]},
        "seconds": stages.seconds,
    }


# --- the steps: each returns how many rows, entries or files it has cleaned up --------------------------------------


def _remove_rows(job: _Job) -> int:
    """Remove old predictions and quarantined rows."""
    from pyspark.sql import functions as F

    before = job.record.started_at - timedelta(days=job.settings.keep_days)
    if not job.settings.keep_days or runs.succeeded(job.lake).where(F.col("finished_at") < F.lit(before)).isEmpty():
        return 0
    if "predictions" in job.tables:
        with persisted_frames() as persist:
            old = persist(old_predictions(job.lake, before))
            if not old.isEmpty():
                _replace(job, "predictions", job.lake.read("predictions").join(old, list(_DECISION), "left_anti"))
    if "quarantine" in job.tables:
        _replace(job, "quarantine", kept_quarantine(job.lake, before))
    return sum(work.rows_removed for work in job.tables.values())


def _replace(job: _Job, table: str, kept: DataFrame) -> None:
    """Put ``kept`` in place of the table's rows if there are fewer of them."""
    removed = int(job.lake.read(table).count() - kept.count())
    job.tables[table].rows_removed = removed
    if removed and not job.dry_run:
        job.lake.replace(table, kept, job.record.run_id)
        job.changed = True


def _compact(job: _Job) -> int:
    """Join small files, and files whose ranges of products overlap."""
    for table, work in job.tables.items():
        groups = job.maintenance.files_to_join(table, job.settings.compact_files)
        if not groups or (not job.dry_run and not job.maintenance.compact(table, groups, job.record.run_id)):
            continue
        files = [file for group in groups for file in group]
        work.files_joined, work.bytes_joined = len(files), sum(file.size for file in files)
        job.changed = True
    return sum(work.files_joined for work in job.tables.values())


def _shorten_logs(job: _Job) -> int:
    """Write Delta checkpoints of tables with many commits, and delete expired log entries."""
    for table, work in job.tables.items():
        expired = job.maintenance.expired_log_entries(table)
        if not expired.paths and job.maintenance.commits_since_checkpoint(table) < CHECKPOINT_COMMITS:
            continue
        work.log_entries_deleted = len(expired.paths)
        if not job.dry_run:
            job.maintenance.shorten_log(table)
            job.changed = True
    return sum(work.log_entries_deleted for work in job.tables.values())


def _delete_files(job: _Job) -> int:
    """Delete files and folders that no version of the retention needs, and files of killed runs."""
    for table, work in job.tables.items():
        unneeded = job.maintenance.unreferenced_files(table)
        work.files_deleted, work.bytes_deleted = len(unneeded.paths), unneeded.size
        _delete(job, unneeded)
    folders = job.maintenance.leftover_folders(runs.succeeded_ids(job.lake))
    job.record.count(folders_deleted=len(folders.paths), folder_bytes_deleted=folders.size)
    _delete(job, folders)
    # now that the superseded products are gone
    pictures = job.maintenance.unnamed_pictures(StoredPictures.of(job.images))
    copies = job.maintenance.unneeded_copies(copies_of(job.images), are_kept=job.images.keep_scaled)
    job.record.count(copies_deleted=len(copies.paths), copy_bytes_deleted=copies.size)
    _delete(job, copies)
    job.record.count(pictures_deleted=len(pictures.paths), picture_bytes_deleted=pictures.size)
    _delete(job, pictures)
    others = sum(len(files.paths) for files in (folders, pictures, copies))
    return sum(work.files_deleted for work in job.tables.values()) + others


def _delete(job: _Job, files: FileSet) -> None:
    if files.paths and not job.dry_run:
        job.lake.tables.lock.assert_held()  # another job may name these files by now
        files.delete()
        job.changed = True


_STEPS: dict[str, Callable[[_Job], int]] = {
    "retention": _remove_rows,
    "compact": _compact,
    "logs": _shorten_logs,
    "vacuum": _delete_files,
}
"""Stage name -> step, in order. Deletion comes last, when nothing of this attempt can need the files."""


# --- retention ------------------------------------------------------------------------------------------------------


def old_predictions(catalog: Catalog, before: datetime) -> DataFrame:
    """Return product_id, attribute and run_id of superseded abstentions, of runs that finished ``before``.

    All decisions that published (`explain_value` shows them) or suggested (merchants' values that repeat them are
    marked as self-derived) are kept. Of the others, per product, attribute and model version, the newest of these runs
    and the newest of the rolled back runs are kept: so the pending attributes, now and after a rollback of a newer run,
    are the same as before.
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    finished = runs.succeeded(catalog).where(F.col("finished_at") < F.lit(before)).select("run_id", "finished_at")
    rows = catalog.read("predictions").join(F.broadcast(finished), "run_id")
    by_decision = rows.groupBy(*_DECISION, "model_name", "model_version").agg(
        F.max("finished_at").alias("finished_at"),
        F.min(F.col("decision") == Decision.ABSTAIN.value).alias("abstained"),
    )
    names = [row["attribute"] for row in catalog.read("predictions", columns=["attribute"]).distinct().collect()]
    undone = is_rolled_back(F.col("attribute"), F.col("run_id"), runs.rolled_back(catalog, sorted(names)))
    newest = Window.partitionBy("product_id", "attribute", "model_name", "model_version", "undone").orderBy(
        F.desc("finished_at"), F.desc("run_id")
    )
    ranked = by_decision.withColumn("undone", undone).withColumn("age", F.row_number().over(newest))
    return ranked.where(F.col("abstained") & (F.col("age") > 1)).select(*_DECISION)


def kept_quarantine(catalog: Catalog, before: datetime) -> DataFrame:
    """Return the quarantine without the rows of runs that finished ``before`` and that no job looks for.

    Jobs look for the rows of the newest import of each source, by its config, that read all rows, and of those after it
    (an import whose refused rows are known has nothing to do), and for products whose present content could not be
    scored (they are not tried again).
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    rows = catalog.read("quarantine")
    written = rows.select("run_id").distinct().withColumn("wrote", F.lit(True))
    # one that only noted its position found the rows of an earlier one again
    refused = F.exists(F.coalesce(F.map_keys("counts"), F.array()), lambda name: name.startswith("quarantined."))
    read_all = F.coalesce(F.get_json_object("window", "$.read"), F.lit("all")) == "all"
    whole = read_all & (F.coalesce("wrote", F.lit(False)) | ~refused)
    of_source = Window.partitionBy("kind", "config_hash")
    since = F.coalesce(F.max(F.when(whole, F.col("finished_at"))).over(of_source), F.min("finished_at").over(of_source))
    finished = runs.succeeded(catalog).join(F.broadcast(written), "run_id", "left")
    finished = finished.select(
        "run_id",
        (F.col("finished_at") < F.lit(before)).alias("old"),
        ((F.col("kind") == RunKind.IMPORT.value) & (F.col("finished_at") >= since)).alias("looked_for"),
    )
    present = catalog.read("products", columns=["product_id", "content_hash"]).withColumn("present", F.lit(True))
    needed = F.when(F.col("stage") == QuarantineStage.DECODE.value, F.coalesce("present", F.lit(False))).otherwise(
        F.col("looked_for")
    )
    joined = rows.join(F.broadcast(finished), "run_id", "left").join(present, ["product_id", "content_hash"], "left")
    return joined.where(~F.coalesce("old", F.lit(False)) | needed).select(*rows.columns)
