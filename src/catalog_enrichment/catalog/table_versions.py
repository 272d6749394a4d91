"""The versions of a table: which table it is, which run made which version, and how two versions differ in files.

Files are opened through deltalake's own file system, so that it does not matter where the table lies.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from catalog_enrichment import contract

if TYPE_CHECKING:
    import pyarrow as pa
    from deltalake import DeltaTable

DIFFERING_ROWS = 65_536
"""Rows in a batch of :meth:`TableVersions.scan_differing`; only for tables without pictures."""


@dataclass(frozen=True, slots=True)
class Commit:
    """One commit of a table."""

    version: int
    run_id: str | None
    """The run that made it; None for the creation of the table."""
    committed_at: datetime


class TableVersions:
    """The part of a :class:`~catalog_enrichment.catalog.base.Catalog` about the versions of its tables."""

    def _open(self, table: str, version: int | None = None) -> DeltaTable | None:
        raise NotImplementedError

    def location(self, table: str) -> str:
        raise NotImplementedError

    def identity(self, table: str) -> str | None:
        delta = self._open(table)
        return None if delta is None else str(delta.metadata().id)

    def commits(self, table: str, after: int) -> list[Commit]:
        delta = self._open(table)
        newer = 0 if delta is None else int(delta.version()) - after
        if delta is None or newer <= 0:
            return []
        found = [
            Commit(int(one["version"]), one.get("run_id"), datetime.fromtimestamp(one["timestamp"] / 1000, UTC))
            for one in delta.history(newer)
        ]
        return sorted((one for one in found if one.version > after), key=lambda one: one.version)

    def scan_differing(
        self, table: str, version: int, other: int, columns: Sequence[str] | None = None
    ) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa
        import pyarrow.fs
        import pyarrow.parquet as pq
        from deltalake.fs import DeltaStorageHandler

        from catalog_enrichment.catalog.part_files import conform

        delta, same = self._at(table, version), _files(self._at(table, other))
        if delta is None:
            return
        names = contract.columns(table) if columns is None else list(columns)
        schema = pa.schema([contract.arrow_schema(table).field(name) for name in names])
        storage = pyarrow.fs.PyFileSystem(DeltaStorageHandler.from_table(delta._table))
        for name in sorted(_files(delta) - same):
            with storage.open_input_file(name) as file, pq.ParquetFile(file) as parquet:
                for group in range(parquet.num_row_groups):  # one at a time: a batch may span several
                    for batch in parquet.iter_batches(DIFFERING_ROWS, row_groups=[group], columns=names):
                        yield conform(batch, schema)

    def _at(self, table: str, version: int) -> DeltaTable | None:
        """The table at ``version``; None for -1. Raises FileNotFoundError where its log entries are deleted."""
        from deltalake.exceptions import DeltaError

        try:
            return None if version == -1 else self._open(table, version)
        except DeltaError as problem:
            raise FileNotFoundError(f"version {version} of {self.location(table)}: {problem}") from problem


def _files(delta: DeltaTable | None) -> set[str]:
    """The files of this version, relative to the table."""
    import pyarrow as pa

    return set() if delta is None else set(pa.table(delta.get_add_actions())["path"].to_pylist())
