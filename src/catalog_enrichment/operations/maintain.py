"""Upkeep of the catalog: old rows, small files, long logs, and files that nothing needs any more.

    retention of predictions and quarantine -> fewer, larger files -> Delta logs -> deletion of unneeded files

What readers see does not change, nor what any later run does. Killed anywhere and started again, the job goes on with
what is left; where nothing is left it says so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from catalog_enrichment.catalog import runs
from catalog_enrichment.catalog.lake import LakeCatalog
from catalog_enrichment.catalog.maintenance import CHECKPOINT_COMMITS, Maintenance
from catalog_enrichment.catalog.runs import RunRecord
from catalog_enrichment.errors import ConfigError
from catalog_enrichment.inputs.stored_pictures import StoredPictures
from catalog_enrichment.monitoring.stages import Stages
from catalog_enrichment.operations import retention
from catalog_enrichment.records import DRY_RUN, NOTHING_TO_DO, RunKind, RunStatus, make_run_id

if TYPE_CHECKING:
    from datetime import datetime

    from pyspark.sql import DataFrame

    from catalog_enrichment.catalog.maintenance import FileSet
    from catalog_enrichment.config.schema import MaintenanceConfig
    from catalog_enrichment.context import Context

MIN_RETENTION_HOURS = 24
"""Jobs that read a version of a table, as training does, and runs that are resumed the next day end within this."""


@dataclass(slots=True)
class TableWork:
    """What was, or with --dry-run would be, done to one table."""

    rows_removed: int = 0
    files_joined: int = 0
    bytes_joined: int = 0
    log_entries_deleted: int = 0
    files_deleted: int = 0
    bytes_deleted: int = 0

    def line(self, table: str) -> str:
        megabytes = {"joined": self.bytes_joined / 2**20, "deleted": self.bytes_deleted / 2**20}
        return (
            f"  {table:<17} rows removed {self.rows_removed:,}  files joined {self.files_joined:,} "
            f"({megabytes['joined']:,.1f} MiB)  log entries deleted {self.log_entries_deleted:,}  "
            f"files deleted {self.files_deleted:,} ({megabytes['deleted']:,.1f} MiB)"
        )


@dataclass
class _Job:
    """One attempt: the catalog, its settings, and what was done so far."""

    lake: LakeCatalog
    pictures: StoredPictures
    settings: MaintenanceConfig
    record: RunRecord
    dry_run: bool
    tables: dict[str, TableWork] = field(default_factory=dict)
    changed: bool = False

    @property
    def maintenance(self) -> Maintenance:
        return Maintenance(self.lake, self.settings.retention_hours)

    def older_than(self, days: int) -> datetime:
        return self.record.started_at - timedelta(days=days)


def check_retention(settings: MaintenanceConfig, force: bool) -> None:
    """Raises ConfigError for a retention that a running reader or a run to be resumed could need, unless ``force``."""
    hours = settings.retention_hours
    if hours < MIN_RETENTION_HOURS and not force:
        raise ConfigError(
            f"maintenance.retention_hours = {hours}: jobs that read the catalog now, and killed runs that are started "
            f"again, may need files of the last {MIN_RETENTION_HOURS} hours. Raise it, or use --force if there are none"
        )


def maintain_catalog(context: Context, dry_run: bool = False) -> dict[str, Any]:
    """Clean up the catalog's folder; returns the summary, with counts and bytes per table.

    ``dry_run``: counts what would be done. Files that compaction and retention free count only when they are deleted,
    by the first run after `maintenance.retention_hours`.
    """
    config, stages = context.config, Stages(context.say)
    record = RunRecord(kind=RunKind.MAINTAIN, stages=stages, config=config.without_secrets(), secrets=config.secrets())
    record.config_hash = config.hash("maintenance")
    lake = context.lake()
    job = _Job(lake, StoredPictures.of(config.pictures()), config.maintenance, record, dry_run)
    job.tables = {table: TableWork() for table in job.maintenance.tables}
    versions = {table: lake.version(table) for table in job.tables}
    record.run_id = make_run_id(RunKind.MAINTAIN, record.config_hash, versions, record.started_at.isoformat())
    with runs.recorded(lake, record, unless=dry_run):
        for name, step in _STEPS.items():
            with stages(name) as stage:
                stage.rows_out = step(job)
        _count(record, job.tables)
        for table, work in job.tables.items():
            context.say(work.line(table))
        status: str = DRY_RUN if dry_run else RunStatus.SUCCEEDED if job.changed else NOTHING_TO_DO
        if status == RunStatus.SUCCEEDED:
            runs.write(lake, record)
    done = {table: asdict(work) for table, work in job.tables.items() if work != TableWork()}
    checkpoints = {"folders": record.counts["folders_deleted"], "bytes": record.counts["folder_bytes_deleted"]}
    pictures = {"files": record.counts["pictures_deleted"], "bytes": record.counts["picture_bytes_deleted"]}
    return {
        "run_id": record.run_id if status == RunStatus.SUCCEEDED else None,
        "status": status,
        "tables": done,
        "checkpoints": checkpoints,
        "pictures": pictures,
        "seconds": stages.seconds,
    }


def _count(record: RunRecord, tables: dict[str, TableWork]) -> None:
    """Counts for the row in `runs`: the sums over the tables."""
    numbers = [asdict(work) for work in tables.values()]
    record.count(**{name: sum(work[name] for work in numbers) for name in asdict(TableWork())})


def _remove_rows(job: _Job) -> int:
    """Retention of predictions and quarantine. Returns how many rows go."""
    removed = 0
    days = job.settings.keep_predictions_days
    if days and "predictions" in job.tables and _finished_before(job, job.older_than(days)):
        old = retention.old_predictions(job.lake, job.older_than(days)).persist()
        try:
            if not old.isEmpty():
                removed += _replace(job, "predictions", retention.kept_predictions(job.lake, old))
        finally:
            old.unpersist()
    days = job.settings.keep_quarantine_days
    if days and "quarantine" in job.tables and _finished_before(job, job.older_than(days)):
        removed += _replace(job, "quarantine", retention.kept_quarantine(job.lake, job.older_than(days)))
    return removed


def _finished_before(job: _Job, before: datetime) -> bool:
    """Whether any run is so old; else nothing has to be read."""
    from pyspark.sql import functions as F

    return not runs.succeeded(job.lake).where(F.col("finished_at") < F.lit(before)).isEmpty()


def _replace(job: _Job, table: str, kept: DataFrame) -> int:
    """Put ``kept`` in place of the table's rows if there are fewer of them; returns how many go."""
    removed = int(job.lake.read(table).count() - kept.count())
    job.tables[table].rows_removed = removed
    if removed and not job.dry_run:
        job.lake.replace(table, kept, job.record.run_id)
        job.changed = True
    return removed


def _compact(job: _Job) -> int:
    """Join small files. Returns how many."""
    for table, work in job.tables.items():
        small = job.maintenance.small_files(table, job.settings.compact_files)
        if not small.paths or (not job.dry_run and not job.maintenance.compact(table, small, job.record.run_id)):
            continue
        work.files_joined, work.bytes_joined = len(small.paths), small.size
        job.changed = True
    return sum(work.files_joined for work in job.tables.values())


def _shorten_logs(job: _Job) -> int:
    """Delta checkpoints of tables with many commits, and expired log entries. Returns how many entries go."""
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
    """Files that no version of the retention needs, and what killed runs left. Returns how many files and folders."""
    for table, work in job.tables.items():
        unneeded = job.maintenance.unreferenced_files(table)
        work.files_deleted, work.bytes_deleted = len(unneeded.paths), unneeded.size
        _delete(job, unneeded)
    folders = job.maintenance.leftover_folders(runs.succeeded_ids(job.lake))
    job.record.count(folders_deleted=len(folders.paths), folder_bytes_deleted=folders.size)
    _delete(job, folders)
    pictures = job.maintenance.unnamed_pictures(job.pictures)  # now that the superseded products are gone
    job.record.count(pictures_deleted=len(pictures.paths), picture_bytes_deleted=pictures.size)
    _delete(job, pictures)
    return sum(work.files_deleted for work in job.tables.values()) + len(folders.paths) + len(pictures.paths)


def _delete(job: _Job, paths: FileSet) -> None:
    if paths.paths and not job.dry_run:
        job.lake.require_held()  # another job may name these files by now
        paths.delete()
        job.changed = True


_STEPS: dict[str, Callable[[_Job], int]] = {
    "retention": _remove_rows,
    "compact": _compact,
    "logs": _shorten_logs,
    "vacuum": _delete_files,
}
"""Stage name -> step, in order. Deletion comes last, when nothing of this attempt can need the files."""
