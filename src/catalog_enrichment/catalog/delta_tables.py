"""The Delta tables of a lake catalog: opened, made from their contracts, and fenced against earlier holders."""

from __future__ import annotations

import json
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from catalog_enrichment import contract
from catalog_enrichment.catalog.lease import FENCE
from catalog_enrichment.errors import DataContractError, TemporaryFailure

if TYPE_CHECKING:
    import pyarrow as pa
    from deltalake import DeltaTable

    from catalog_enrichment.catalog.storage import Storage

COMMIT_RETRIES = 100
"""How often a commit is tried again after a concurrent one; appends do not conflict, they only wait."""

COMMIT_POINTS = ("products", "attribute_values")
"""The tables whose commits decide what a run has done; ``current_values`` is derived from them."""

FENCED = (*COMMIT_POINTS, "current_values", "predictions", "quarantine", "self_derived")
"""The tables that only the holder of the write lease changes, the commit points first. To the others any job adds rows:
a training the labels that it used, and a job that has lost its lease that it failed."""


_FENCE_RUN = "fence-"
"""How the run ids of commits begin that change no row."""


class DeltaTables:
    """The tables in ``storage``, by name."""

    storage: Storage

    def version(self, table: str) -> int:
        delta = self._open(table)
        return -1 if delta is None else int(delta.version())

    def written_versions(self, table: str, count: int = 1) -> list[int]:
        delta = self._open(table)
        newest = -1 if delta is None else int(delta.version())
        if delta is None or not delta.transaction_version(FENCE):
            return [newest - number for number in range(count)]
        looked_at = 4 * count
        while True:  # as a rule once: there is a fence only where a job has died
            history = delta.history(looked_at)
            written = [int(one["version"]) for one in history if not str(one.get("run_id")).startswith(_FENCE_RUN)]
            if len(written) >= count or len(history) < looked_at:
                oldest = written[-1] if written else -1
                return (written + [oldest - 1 - number for number in range(count)])[:count]
            looked_at *= 4

    def readable(self, table: str, version: int) -> bool:
        from deltalake.exceptions import DeltaError

        place = self.storage.below(table)
        try:
            return version == -1 or all(place.size(name) is not None for name in names_of(self._open(table, version)))
        except DeltaError:  # its log entries are gone
            return False

    def committed(self, table: str, run_id: str) -> bool:
        return self._rows_of(table, run_id) is not None

    def location(self, table: str) -> str:
        return self.storage.below(table).uri

    def _rows_of(self, table: str, run_id: str) -> int | None:
        delta = self._open(table)
        return None if delta is None else delta.transaction_version(run_id)

    def _open(self, table: str, version: int | None = None) -> DeltaTable | None:
        from deltalake import DeltaTable
        from deltalake.exceptions import TableNotFoundError

        place = self.storage.below(table)
        uri, options = place.delta_uri, place.delta_options
        if place.folder is not None:
            return DeltaTable(uri, version) if DeltaTable.is_deltatable(uri) else None
        try:  # to ask first whether it is a table would be one more request
            return DeltaTable(uri, version, options)
        except TableNotFoundError:
            return None

    def _create(self, table: str) -> DeltaTable:
        """The table, made from its contract on first use. Raises DataContractError if it has another shape."""
        import pyarrow as pa
        from deltalake import DeltaTable, Schema

        delta = self._open(table)
        if delta is None:
            _make(self.storage.below(table), contract.table_json(table))
            place = self.storage.below(table)
            delta = DeltaTable(place.delta_uri, storage_options=place.delta_options)
        stored = pa.schema(delta.schema().to_arrow())
        missing = _missing_columns(stored, contract.arrow_schema(table))
        if missing is not None and not len(missing):
            return delta
        if missing is not None:
            # an older contract, which lacked some nullable columns: they are null in the rows that are there
            delta.alter.add_columns(Schema.from_arrow(missing).fields)
            return DeltaTable(delta.table_uri, storage_options=self.storage.delta_options)
        raise DataContractError(
            f"{self.location(table)} does not have the columns of contract {table}.v{contract.TABLES[table]}: it has "
            f"{json.dumps(stored.names)}. Tables of older releases are migrated when they are opened: a newer release "
            "wrote this one (use that release), or something else changed it (restore it)"
        )

    # the lease

    def largest_token(self) -> int:
        """The largest token of a lease that a table knows; 0 if none does."""
        opened = [self._open(table) for table in FENCED]
        return max((delta.transaction_version(FENCE) or 0 for delta in opened if delta), default=0)

    def fence(self, token: int) -> None:
        """Let no holder of an earlier lease commit any more. Commit points that do not exist yet are made.

        The rows stay; so does whether ``current_values`` is up to date.
        """
        before = {table: self.version(table) for table in COMMIT_POINTS}
        for table in FENCED:
            if table in COMMIT_POINTS or self._open(table):
                self._fence(table, token, before)

    def _fence(self, table: str, token: int, before: dict[str, int]) -> None:
        from deltalake import CommitProperties, Transaction
        from deltalake.exceptions import CommitFailedError

        for _ in range(COMMIT_RETRIES):
            delta = self._create(table)
            transactions = [Transaction(FENCE, token)]
            if table == "current_values" and all(delta.transaction_version(name) == before[name] for name in before):
                now = {name: self.version(name) for name in before}
                if all(now[name] == before[name] + 1 for name in before):  # by the fence alone
                    transactions += [Transaction(name, version) for name, version in now.items()]
            properties = CommitProperties(
                custom_metadata={"run_id": f"{_FENCE_RUN}{token}"},
                max_commit_retries=COMMIT_RETRIES,
                app_transactions=transactions,
            )
            with suppress(CommitFailedError):  # the earlier holder committed at this moment: once more, after it
                delta.create_write_transaction([], "append", delta.schema(), commit_properties=properties)
                return
        raise TemporaryFailure(f"{self.location(table)} cannot be fenced: other jobs kept writing to it. Run again")


def _make(place: Storage, columns: str) -> None:
    """Make an empty table, if there is none; of several processes the first one wins, and deltalake alone would let
    each of them make the table again."""
    from deltalake import DeltaTable, Schema

    if place.folder is not None:
        place.folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        prefix="_new-", dir=place.folder.parent if place.folder else None, ignore_cleanup_errors=True
    ) as scratch:
        folder = Path(scratch)
        if place.folder is not None:
            folder = folder / "table"
            folder.mkdir()
        DeltaTable.create(folder.as_uri(), Schema.from_json(columns))
        if place.folder is not None:
            with suppress(OSError):
                folder.rename(place.folder)
        else:
            first = "_delta_log/00000000000000000000.json"
            place.put_new(first, (folder / first).read_bytes())


def _missing_columns(stored: pa.Schema, expected: pa.Schema) -> pa.Schema | None:
    """The columns to add to ``stored`` to make it ``expected``; None if adding nullable columns does not do it."""
    import pyarrow as pa

    missing = pa.schema([field for field in expected if field.name not in stored.names])
    others_equal = all(name in expected.names and expected.field(name) == stored.field(name) for name in stored.names)
    return missing if others_equal and all(field.nullable for field in missing) else None


def names_of(delta: DeltaTable | None) -> list[str]:
    """The files of this version, by name: no table here has partitions, so that none is in a folder."""
    return [] if delta is None else [uri.rpartition("/")[2] for uri in delta.file_uris()]


def files_of(delta: DeltaTable | None) -> list[tuple[str, int, int]]:
    """Name, bytes and rows of the files of a version, oldest first."""
    import pyarrow as pa

    if delta is None:
        return []
    actions = pa.table(delta.get_add_actions()).sort_by("modification_time")
    columns = (actions[name].to_pylist() for name in ("path", "size_bytes", "num_records"))
    return [(name, size, rows or 0) for name, size, rows in zip(*columns, strict=True)]
