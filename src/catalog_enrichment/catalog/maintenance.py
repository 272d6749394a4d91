"""Upkeep of the lake catalog's files: files that no version needs, small files, long Delta logs, old checkpoints.

Nothing here changes what a table's newest version holds, and each step can be interrupted and done again. Only for the
job that holds the catalog's write lock. Readers keep what they have open: a file goes only when no version newer than
the retention refers to it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from catalog_enrichment import contract
from catalog_enrichment.catalog.checkpoints import STAGING
from catalog_enrichment.catalog.delta_tables import COMMIT_RETRIES, files_of, names_of
from catalog_enrichment.catalog.storage import Storage, Stored

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


_ROWS_OF_IMPORT = re.compile(rf"{STAGING}/[^/]+/rows-[^/]+/[^/]+\.parquet")


@dataclass(frozen=True, slots=True)
class FileSet:
    """Files of a storage, or folders with all in them."""

    storage: Storage
    paths: Sequence[Stored] = ()
    folders: bool = False

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(one.size for one in self.paths)

    def delete(self) -> None:
        if self.folders:
            for folder in self.paths:
                self.storage.discard(folder.path)
        else:
            self.storage.delete(one.path for one in self.paths)


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

    def unreferenced_files(self, table: str) -> FileSet:
        """Files of versions superseded longer ago than the retention, and as old files of killed or repeated tasks."""
        # deltalake only looks for them: its own deletion adds commits, and with them another version, to the log
        names = self._open(table).vacuum(
            retention_hours=self.retention_hours, dry_run=True, enforce_retention_duration=False, full=True
        )
        there = {one.name: one for one in self.lake.storage.files(table) if one.path == f"{table}/{one.name}"}
        return FileSet(self.lake.storage, [there[name] for name in names if name in there])

    def leftover_folders(self, finished: set[str]) -> FileSet:
        """Checkpoints of the runs ``finished``, and other checkpoints and unfinished tables older than the retention.

        A run that was killed is resumed from its checkpoints while they are there; later it computes them again.
        """
        storage = self.lake.storage
        checkpoints = [one for one in storage.folders(STAGING) if one.name in finished or self._old(one)]
        unfinished = [one for one in storage.folders() if one.name.startswith("_new-") and self._old(one)]
        return FileSet(storage, checkpoints + unfinished, folders=True)

    def _old(self, one: Stored) -> bool:
        return one.modified < time.time() - self.retention_hours * 3600

    def unnamed_pictures(self, store: StoredPictures) -> FileSet:
        """Pictures of ``store`` that no product of any version still there names, put there before the retention.

        Nor a checkpoint of an import that may be resumed: it does not put its pictures there again.
        """
        named = self._named_pictures()
        return FileSet(store.storage, [one for one in store.files() if one.name not in named and self._old(one)])

    def _named_pictures(self) -> set[str]:
        """The versions of all pictures without a URI in the files of the products table, superseded ones as well, and
        in the rows of imports that are not over."""
        import pyarrow as pa

        named: set[str] = set()
        storage = self.lake.storage
        for one in storage.files(STAGING):
            if _ROWS_OF_IMPORT.fullmatch(one.path):
                named.update(_own_pictures(storage, one.path))
        for one in storage.files("products"):
            if one.path != f"products/{one.name}" or not one.name.endswith(".parquet"):
                continue
            try:
                named.update(_own_pictures(storage, one.path))
            except pa.ArrowInvalid:
                if one.name in names_of(self._open("products")):
                    raise
                # else a killed task left it half written
        return named

    # small files

    def small_files(self, table: str, at_least: int) -> FileSet:
        """The files below :data:`SMALL_BYTES` of the newest version; none if they are fewer than ``at_least``."""
        files = [Stored(name, size, 0.0) for name, size, _ in files_of(self._open(table)) if size < SMALL_BYTES]
        return FileSet(self.lake.storage.below(table), files if len(files) >= max(at_least, 2) else [])

    def compact(self, table: str, small: FileSet, run_id: str) -> int:
        """Put the rows of the files ``small`` into few files, in one commit; returns how many files that made.

        The rows, the transactions of earlier runs and the bound on row groups stay as they were. Concurrent appends do
        not conflict. Returns 0, with nothing changed, if another job replaced the table in between.
        """
        from deltalake import CommitProperties, Transaction
        from deltalake.exceptions import CommitFailedError
        from deltalake.transaction import AddAction, RemoveAction

        from catalog_enrichment.catalog.part_files import write_part

        delta, now = self._open(table), int(time.time() * 1000)
        fresh = not self.lake.current_values_stale()
        self.lake.require_lease(delta, table)
        schema, place = contract.arrow_schema(table), small.storage
        written = [write_part(_rows(place, group, schema), place, schema) for group in _groups(small.paths)]
        parts = [part for part in written if part is not None]
        self.lake.check_parts(table, parts)
        added = [AddAction(part.name, part.size, {}, now, False, part.stats) for part in parts]
        removed = [RemoveAction(file.name, False, now) for file in small.paths]
        transactions = {run_id: sum(part.rows for part in parts), **self.lake.fencing(table)}
        properties = CommitProperties(
            custom_metadata={"run_id": run_id},
            max_commit_retries=COMMIT_RETRIES,
            app_transactions=[Transaction(name, number) for name, number in transactions.items()],
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
        checkpoints = [int(entry.name[:20]) for entry in self._log(table) if entry.name.endswith(".checkpoint.parquet")]
        return self.lake.version(table) - max(checkpoints, default=-1)

    def expired_log_entries(self, table: str) -> FileSet:
        """Log entries older than :data:`LOG_RETENTION_HOURS` that come before the newest version."""
        limit, newest = time.time() - LOG_RETENTION_HOURS * 3600, self.lake.version(table)
        expired = [entry for entry in self._log(table) if int(entry.name[:20]) < newest and entry.modified < limit]
        return FileSet(self.lake.storage, sorted(expired, key=lambda entry: entry.path))

    def _log(self, table: str) -> list[Stored]:
        """The entries and checkpoints of the table's log."""
        return [entry for entry in self.lake.storage.files(f"{table}/_delta_log") if entry.name[:20].isdigit()]

    def shorten_log(self, table: str) -> None:
        """Make a Delta checkpoint of the newest version, and delete the log entries that have expired."""
        delta = self._open(table)
        delta.create_checkpoint()
        delta.cleanup_metadata()

    def _open(self, table: str) -> DeltaTable:
        from deltalake import DeltaTable

        place = self.lake.storage.below(table)
        return DeltaTable(place.delta_uri, storage_options=place.delta_options)


def _own_pictures(storage: Storage, path: str) -> Iterator[str]:
    """The versions of the pictures without a URI in one file of products. Older files hold the pictures themselves,
    which are not read."""
    columns = [f"images.list.element.{name}" for name in ("uri", "version")]
    with storage.parquet(path) as parquet:
        for group in range(parquet.num_row_groups):
            pictures = parquet.read_row_group(group, columns=columns)["images"].combine_chunks().flatten()
            own = pictures.filter(pictures.field("uri").is_null())
            yield from own.field("version").drop_null().to_pylist()


def _groups(files: Sequence[Stored]) -> Iterator[list[str]]:
    """The names of the files in their order, in groups of up to :data:`TARGET_BYTES`."""
    group: list[str] = []
    size = 0
    for file in files:
        if group and size + file.size > TARGET_BYTES:
            yield group
            group, size = [], 0
        group.append(file.name)
        size += file.size
    if group:
        yield group


def _rows(place: Storage, names: Sequence[str], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    from catalog_enrichment.catalog.lake import SCAN_ROWS
    from catalog_enrichment.catalog.part_files import batches_of

    for name in names:
        with place.parquet(name) as parquet:
            yield from batches_of(parquet, SCAN_ROWS, schema.names)
