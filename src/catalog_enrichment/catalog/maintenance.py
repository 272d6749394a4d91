"""Upkeep of a catalog's files: files that no version needs, small files, long Delta logs, old checkpoints.

Nothing here changes what a table's newest version holds, and each step can be interrupted and done again. Only for the
job that holds the catalog's write lock. Readers keep what they have open: a file goes only when no version newer than
the retention refers to it.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING

from catalog_enrichment import contract
from catalog_enrichment.catalog import rewriting
from catalog_enrichment.catalog.checkpoints import STAGING
from catalog_enrichment.catalog.delta_tables import files_of, names_of
from catalog_enrichment.catalog.part_files import FILE_BYTES, SORTED_BY_PRODUCT, written_parts
from catalog_enrichment.catalog.storage import DataFile, Storage, Stored

if TYPE_CHECKING:
    import pyarrow as pa
    from deltalake import DeltaTable

    from catalog_enrichment.catalog.lake import Catalog
    from catalog_enrichment.inputs.scaled_copies import ScaledCopies
    from catalog_enrichment.inputs.stored_pictures import StoredPictures

SMALL_BYTES = FILE_BYTES // 2
"""A file below this is joined with others."""

MOST_OVERLAPPING = 8
"""Files that can hold a row about the same product, of which more are joined."""

CHECKPOINT_COMMITS = 10
"""Commits since a table's last Delta checkpoint after which another is made: opening a table reads all of them."""

LOG_RETENTION_HOURS = 30 * 24
"""Delta's own default (`delta.logRetentionDuration`), which ``cleanup_metadata`` applies to log entries."""

_Named = tuple[str | None, str]
"""A picture's URI and version; the catalog keeps pictures without a URI itself."""

_ROWS_OF_IMPORT = re.compile(rf"{STAGING}/[^/]+/rows-[^/]+/[^/]+\.parquet")


@dataclass(frozen=True, slots=True)
class FileSet:
    """Files of a storage, or folders with everything in them."""

    storage: Storage
    paths: Sequence[Stored] = ()
    folders: bool = False

    @property
    def size(self) -> int:
        """Return the bytes of all of them."""
        return sum(path.size for path in self.paths)

    def delete(self) -> None:
        if self.folders:
            for folder in self.paths:
                self.storage.discard(folder.path)
        else:
            self.storage.delete(file.path for file in self.paths)


class Maintenance:
    """The files of ``catalog`` that can be cleaned up; files younger than ``retention_hours`` are never deleted."""

    def __init__(self, catalog: Catalog, retention_hours: int) -> None:
        self.catalog, self._storage = catalog, catalog.storage
        self._retention_hours = retention_hours

    @cached_property
    def tables(self) -> list[str]:
        """The tables that exist, in the contract's order."""
        return [name for name in contract.TABLES if self.catalog.version(name) >= 0]

    # files that no version needs

    def unreferenced_files(self, table: str) -> FileSet:
        """Return files of versions superseded longer ago than the retention, and as old files of killed or repeated
        tasks."""
        # deltalake only looks for them: its own deletion adds commits, and with them another version, to the log
        names = self._open(table).vacuum(
            retention_hours=self._retention_hours, dry_run=True, enforce_retention_duration=False, full=True
        )
        there = {file.name: file for file in self._files_in(table)}
        return FileSet(self._storage, [there[name] for name in names if name in there])

    def leftover_folders(self, finished: set[str]) -> FileSet:
        """Return checkpoints of the runs ``finished``, and other checkpoints and unfinished tables older than the
        retention.

        A run that was killed is resumed from its checkpoints while they are there; later it computes them again.
        """
        checkpoints = [run for run in self._storage.folders(STAGING) if run.name in finished or self._is_old(run)]
        unfinished = [table for table in self._storage.folders() if table.name.startswith("_new-")]
        return FileSet(
            self._storage, checkpoints + [table for table in unfinished if self._is_old(table)], folders=True
        )

    def all_checkpoints(self) -> FileSet:
        """Return the checkpoints of all runs: under the write lock, those of runs that were killed."""
        return FileSet(self._storage, list(self._storage.folders(STAGING)), folders=True)

    def superseded_rows(self, table: str, product_ids: pa.Array) -> dict[str, int]:
        """Return product id -> rows about it in files that the newest version of ``table`` does not need."""
        import pyarrow as pa
        import pyarrow.compute as pc

        current = set(names_of(self._open(table)))
        rows: Counter[str] = Counter()
        for file in self._files_in(table):
            if file.name not in current and file.name.endswith(".parquet"):
                # a file that a killed task left half written cannot be read
                with suppress(pa.ArrowInvalid), self._storage.parquet(file.path) as parquet:
                    ids = parquet.read(columns=["product_id"])["product_id"]
                    rows.update(ids.filter(pc.is_in(ids, value_set=product_ids)).to_pylist())
        return dict(rows)

    def pictures_only_of(
        self, product_ids: pa.Array, store: StoredPictures, copies: ScaledCopies
    ) -> tuple[FileSet, FileSet]:
        """Return pictures of ``store`` of these products alone, and all scaled copies that no other product names.

        A copy of earlier settings, or of an earlier version of a picture, does not say which product it is of. All
        versions of the products table are asked, checkpoints of imports are not.
        """
        import pyarrow as pa

        own, others = set[_Named](), set[_Named]()
        for file in self._files_in("products"):
            if file.name.endswith(".parquet"):
                with suppress(pa.ArrowInvalid):  # a killed task left it half written: no version needs it
                    own.update(_named_pictures(self._storage, file.path, only=product_ids))
                    others.update(_named_pictures(self._storage, file.path, but=product_ids))
        versions = {version for uri, version in own - others if uri is None}
        needed = {copies.key(*picture) for picture in others}
        pictures = [file for file in store.files() if file.name.partition(".")[0] in versions]
        copied = [file for file in copies.files() if file.name.partition(".")[0] not in needed]
        return FileSet(store.storage, pictures), FileSet(copies.storage, copied)

    def unneeded_copies(self, copies: ScaledCopies, are_kept: bool) -> FileSet:
        """Return scaled copies, older than the retention, that no picture of any version still there has with the
        settings of ``copies``; all as old copies if none ``are_kept`` any more."""
        keys = {copies.key(*picture) for picture in self._all_named()} if are_kept else set[str]()
        unneeded = [file for file in copies.files() if file.name not in keys and self._is_old(file)]
        return FileSet(copies.storage, unneeded)

    def unnamed_pictures(self, store: StoredPictures) -> FileSet:
        """Return pictures of ``store`` that no product of any version still there names, put there before the
        retention.

        Pictures that a checkpoint of an import names stay: an import that is resumed does not store them again.
        """
        named = {version for uri, version in self._all_named() if uri is None}
        return FileSet(store.storage, [file for file in store.files() if file.name not in named and self._is_old(file)])

    def _all_named(self) -> set[_Named]:
        """Return all pictures in the files of the products table, superseded files as well, and in the rows of imports
        that are not over."""
        import pyarrow as pa

        named: set[_Named] = set()
        for file in self._storage.files(STAGING):
            if _ROWS_OF_IMPORT.fullmatch(file.path):
                named.update(_named_pictures(self._storage, file.path))
        for file in self._files_in("products"):
            if not file.name.endswith(".parquet"):
                continue
            try:
                named.update(_named_pictures(self._storage, file.path))
            except pa.ArrowInvalid:
                if file.name in names_of(self._open("products")):
                    raise
                # else a killed task left it half written
        return named

    def _files_in(self, table: str) -> Iterator[Stored]:
        """Yield the files of the table's folder, without its log."""
        return (file for file in self._storage.files(table) if file.path == f"{table}/{file.name}")

    def _is_old(self, stored: Stored) -> bool:
        return stored.modified < time.time() - self._retention_hours * 3600

    # small files

    def files_to_join(self, table: str, at_least: int) -> list[list[DataFile]]:
        """Return groups of the newest version's files: the small files, if they are ``at_least`` so many, and files of
        which more than :data:`MOST_OVERLAPPING` can hold a row about the same product."""
        files = files_of(self._open(table))
        small = [file for file in files if file.size < SMALL_BYTES]
        groups = [small] if len(small) >= max(at_least, 2) else []
        if table in SORTED_BY_PRODUCT:
            groups += rewriting.deepest([file for file in files if file.size >= SMALL_BYTES], MOST_OVERLAPPING)
        return groups

    def compact(self, table: str, groups: Sequence[Sequence[DataFile]], run_id: str) -> int:
        """Put the rows of each group of files into few files, in one commit; return how many
        files that made.

        The rows, the transactions of earlier runs and the bound on row groups stay as they were. Concurrent appends do
        not conflict. Returns 0, with nothing changed, if another job replaced the table in between.
        """
        tables, delta = self.catalog.tables, self._open(table)
        fresh = not self.catalog.current_values_stale()
        tables.assert_lease(delta, table)
        schema, place = contract.arrow_schema(table), self._storage.below(table)
        joined = partial(rewriting.sorted_rows if table in SORTED_BY_PRODUCT else rewriting.rows_of, place)
        parts = [part for group in groups for part in written_parts(joined(group, schema), place, schema)]
        rows, names = sum(part.rows for part in parts), [file.name for group in groups for file in group]
        if not tables.commit(delta, parts, run_id, {run_id: rows}, replaced=names, same_rows=True):
            return 0
        if fresh and self.catalog.current_values_stale():  # only by the commit of this moment
            self.catalog.confirm_current_values(run_id)
        return len(parts)

    # the Delta log

    def commits_since_checkpoint(self, table: str) -> int:
        """Return how many log entries a reader of the newest version has to read."""
        checkpoints = [int(entry.name[:20]) for entry in self._log(table) if entry.name.endswith(".checkpoint.parquet")]
        return self.catalog.version(table) - max(checkpoints, default=-1)

    def expired_log_entries(self, table: str) -> FileSet:
        """Return log entries older than :data:`LOG_RETENTION_HOURS` that come before the newest version."""
        limit, newest = time.time() - LOG_RETENTION_HOURS * 3600, self.catalog.version(table)
        expired = [entry for entry in self._log(table) if int(entry.name[:20]) < newest and entry.modified < limit]
        return FileSet(self._storage, sorted(expired, key=lambda entry: entry.path))

    def _log(self, table: str) -> list[Stored]:
        """Return the entries and checkpoints of the table's log."""
        return [entry for entry in self._storage.files(f"{table}/_delta_log") if entry.name[:20].isdigit()]

    def shorten_log(self, table: str) -> None:
        """Make a Delta checkpoint of the newest version, and delete the log entries that have expired."""
        delta = self._open(table)
        delta.create_checkpoint()
        delta.cleanup_metadata()

    def _open(self, table: str) -> DeltaTable:
        delta = self.catalog.tables.open(table)
        if delta is None:
            raise FileNotFoundError(f"there is no table {self.catalog.location(table)}")
        return delta


def _named_pictures(
    storage: Storage, path: str, only: pa.Array | None = None, but: pa.Array | None = None
) -> Iterator[_Named]:
    """Yield the pictures that one file of products names; the column of bytes is not read.

    ``only``: of the products with these ids; ``but``: of all other products.
    """
    import pyarrow.compute as pc

    columns = ["product_id", *(f"images.list.element.{name}" for name in ("uri", "version"))]
    with storage.parquet(path) as parquet:
        for group in range(parquet.num_row_groups):
            rows = parquet.read_row_group(group, columns=columns)
            if only is not None:
                rows = rows.filter(pc.is_in(rows["product_id"], value_set=only))
            if but is not None:
                rows = rows.filter(pc.invert(pc.is_in(rows["product_id"], value_set=but)))
            pictures = rows["images"].combine_chunks().flatten()
            named = pictures.filter(pictures.field("version").is_valid())
            yield from zip(named.field("uri").to_pylist(), named.field("version").to_pylist(), strict=True)
