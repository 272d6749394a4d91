"""Upkeep of the lake catalog's folder: files that no version needs, small files, long Delta logs, old checkpoints.

Nothing here changes what a table's newest version holds, and each step can be interrupted and done again. Only for the
job that holds the catalog's write lock. Readers keep what they have open: a file goes only when no version newer than
the retention refers to it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from catalog_enrichment import contract
from catalog_enrichment.catalog.checkpoints import discard_folder

if TYPE_CHECKING:
    import pyarrow as pa
    from deltalake import DeltaTable

    from catalog_enrichment.catalog.lake import LakeCatalog
    from catalog_enrichment.inputs.stored_pictures import StoredPictures

SMALL_BYTES = 32 * 2**20
"""A file below this is joined with others."""

TARGET_BYTES = 128 * 2**20
"""Compressed bytes up to which small files are joined into one."""

CHECKPOINT_COMMITS = 10
"""Commits since a table's last Delta checkpoint after which another is made: opening a table reads all of them."""

LOG_RETENTION_HOURS = 30 * 24
"""Delta's own default (`delta.logRetentionDuration`), which ``cleanup_metadata`` applies to log entries."""


@dataclass(frozen=True, slots=True)
class Paths:
    """Files or folders, and what they occupy."""

    paths: Sequence[Path] = ()
    size: int = 0
    """Bytes."""

    @classmethod
    def of(cls, paths: Sequence[Path]) -> Paths:
        return cls(paths, sum(_size(path) for path in paths))

    def delete(self) -> None:
        for path in self.paths:
            if path.is_dir():
                discard_folder(path)
            else:
                path.unlink(missing_ok=True)


class Maintenance:
    """What can be cleaned up in ``lake``; files younger than ``retention_hours`` are never deleted."""

    def __init__(self, lake: LakeCatalog, retention_hours: int) -> None:
        self.lake = lake
        self.retention_hours = retention_hours

    @cached_property
    def tables(self) -> list[str]:
        """The tables that exist, in the contract's order."""
        return [name for name in contract.TABLES if self.lake.version(name) >= 0]

    # files that no version needs

    def unreferenced_files(self, table: str) -> Paths:
        """Files of versions superseded longer ago than the retention, and as old files of killed or repeated tasks."""
        # deltalake only looks for them: its own deletion adds commits, and with them another version, to the log
        names = self._open(table).vacuum(
            retention_hours=self.retention_hours, dry_run=True, enforce_retention_duration=False, full=True
        )
        return Paths.of([file for name in names if (file := self.lake.path / table / name).is_file()])

    def leftover_folders(self, finished: set[str]) -> Paths:
        """Checkpoints of the runs ``finished``, and other checkpoints and unfinished tables older than the retention.

        A run that was killed is resumed from its checkpoints while they are there; later it computes them again.
        """
        staging = self.lake.path / "_staging"
        checkpoints = sorted(staging.iterdir()) if staging.is_dir() else []
        folders = [folder for folder in checkpoints if folder.name in finished or self._old(folder)]
        return Paths.of(folders + [folder for folder in sorted(self.lake.path.glob("_new-*")) if self._old(folder)])

    def _old(self, folder: Path) -> bool:
        newest = max(path.stat().st_mtime for path in [folder, *folder.rglob("*")])
        return newest < time.time() - self.retention_hours * 3600

    def unnamed_pictures(self, store: StoredPictures) -> Paths:
        """Pictures of ``store`` that no product of any version still there names, put there before the retention.

        Nor a checkpoint of an import that may be resumed: it does not put its pictures there again.
        """
        named = self._named_pictures()
        limit = time.time() - self.retention_hours * 3600
        return Paths.of([file for file in store.files() if file.name not in named and file.stat().st_mtime < limit])

    def _named_pictures(self) -> set[str]:
        """The versions of all pictures without a URI in the files of the products table, superseded ones as well, and
        in the rows of imports that are not over."""
        import pyarrow as pa

        named: set[str] = set()
        for file in (self.lake.path / "_staging").glob("*/rows-*/*.parquet"):
            named.update(_own_pictures(file))
        for file in (self.lake.path / "products").glob("*.parquet"):
            try:
                named.update(_own_pictures(file))
            except pa.ArrowInvalid:
                if file.name in {name for name, _ in _files(self._open("products"))}:
                    raise
                # else a killed task left it half written
        return named

    # small files

    def small_files(self, table: str, at_least: int) -> Paths:
        """The files below :data:`SMALL_BYTES` of the newest version; none if they are fewer than ``at_least``."""
        files = [self.lake.path / table / name for name, size in _files(self._open(table)) if size < SMALL_BYTES]
        return Paths.of(files if len(files) >= max(at_least, 2) else [])

    def compact(self, table: str, small: Paths, run_id: str) -> int:
        """Put the rows of the files ``small`` into few files, in one commit; returns how many files that made.

        The rows, the transactions of earlier runs and the bound on row groups stay as they were. Concurrent appends do
        not conflict. Returns 0, with nothing changed, if another job replaced the table in between.
        """
        from deltalake import CommitProperties, Transaction
        from deltalake.exceptions import CommitFailedError
        from deltalake.transaction import AddAction, RemoveAction

        from catalog_enrichment.catalog.lake import COMMIT_RETRIES
        from catalog_enrichment.catalog.part_files import write_part

        delta, now = self._open(table), int(time.time() * 1000)
        fresh = not self.lake.current_values_stale()
        schema, folder = contract.arrow_schema(table), self.lake.path / table
        written = [write_part(_rows(group, schema), folder, schema) for group in _groups(small.paths)]
        parts = [part for part in written if part is not None]
        self.lake.check_parts(table, parts)
        added = [AddAction(part.name, part.size, {}, now, False, part.stats) for part in parts]
        removed = [RemoveAction(file.name, False, now) for file in small.paths]
        properties = CommitProperties(
            custom_metadata={"run_id": run_id},
            max_commit_retries=COMMIT_RETRIES,
            app_transactions=[Transaction(run_id, sum(part.rows for part in parts))],
        )
        try:
            delta.create_write_transaction([*added, *removed], "append", delta.schema(), commit_properties=properties)
        except CommitFailedError:
            return 0
        if fresh and self.lake.current_values_stale():  # only by the commit of this moment
            self.lake.confirm_current_values(run_id)
        return len(added)

    # the Delta log

    def commits_since_checkpoint(self, table: str) -> int:
        """How many log entries a reader of the newest version has to read."""
        log = self.lake.path / table / "_delta_log"
        checkpoints = [int(file.name[:20]) for file in log.glob("*.checkpoint.parquet")]
        return self.lake.version(table) - max(checkpoints, default=-1)

    def expired_log_entries(self, table: str) -> Paths:
        """Log entries older than :data:`LOG_RETENTION_HOURS` that come before the newest version."""
        limit, newest = time.time() - LOG_RETENTION_HOURS * 3600, self.lake.version(table)
        entries = (self.lake.path / table / "_delta_log").glob("[0-9]*")
        return Paths.of([e for e in sorted(entries) if int(e.name[:20]) < newest and e.stat().st_mtime < limit])

    def shorten_log(self, table: str) -> None:
        """Make a Delta checkpoint of the newest version, and delete the log entries that have expired."""
        delta = self._open(table)
        delta.create_checkpoint()
        delta.cleanup_metadata()

    def _open(self, table: str) -> DeltaTable:
        from deltalake import DeltaTable

        return DeltaTable((self.lake.path / table).as_uri())


def _own_pictures(file: Path) -> Iterator[str]:
    """The versions of the pictures without a URI in one file of products. Older files hold the pictures themselves,
    which are not read."""
    import pyarrow.parquet as pq

    columns = [f"images.list.element.{name}" for name in ("uri", "version")]
    with pq.ParquetFile(file) as parquet:
        for group in range(parquet.num_row_groups):
            pictures = parquet.read_row_group(group, columns=columns)["images"].combine_chunks().flatten()
            own = pictures.filter(pictures.field("uri").is_null())
            yield from own.field("version").drop_null().to_pylist()


def _files(delta: DeltaTable) -> Iterator[tuple[str, int]]:
    """Name and bytes of the files of a version, oldest first."""
    import pyarrow as pa

    actions = pa.table(delta.get_add_actions()).sort_by("modification_time")
    yield from zip(actions["path"].to_pylist(), actions["size_bytes"].to_pylist(), strict=True)


def _groups(files: Sequence[Path]) -> Iterator[list[Path]]:
    """The files in their order, in groups of up to :data:`TARGET_BYTES`."""
    group: list[Path] = []
    size = 0
    for file in files:
        if group and size + file.stat().st_size > TARGET_BYTES:
            yield group
            group, size = [], 0
        group.append(file)
        size += file.stat().st_size
    if group:
        yield group


def _rows(files: Sequence[Path], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    import pyarrow.parquet as pq

    from catalog_enrichment.catalog.lake import SCAN_ROWS

    for file in files:
        with pq.ParquetFile(file) as parquet:
            yield from parquet.iter_batches(batch_size=SCAN_ROWS, columns=schema.names)


def _size(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
