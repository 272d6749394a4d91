"""The Delta tables of a catalog: opened, made from their contracts, their versions, commits, and the fence of the lock.

The run id is the Delta application transaction of a run's commit, and its number of rows is the transaction's version:
so the log says which runs wrote what, also after old log entries are cleaned up.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from catalog_enrichment import contract, failures
from catalog_enrichment.catalog import locks, table_checks
from catalog_enrichment.catalog.locks import FENCE
from catalog_enrichment.catalog.storage import DataFile, sync
from catalog_enrichment.errors import ConfigError, DataContractError, MissingFileError, TemporaryFailure

if TYPE_CHECKING:
    import pyarrow as pa
    from deltalake import DeltaTable

    from catalog_enrichment.catalog.part_files import Part
    from catalog_enrichment.catalog.storage import Storage

COMMIT_RETRIES = 100
"""How often a commit is tried again after a concurrent commit; appends do not conflict, they only wait."""

COMMIT_POINTS = ("products", "attribute_values", "renames")
"""The tables whose commits decide what a run has done; ``current_values`` is derived from them."""

FENCED = (*COMMIT_POINTS, "current_values", "predictions", "quarantine", "self_derived", "proposals")
"""The tables that only the holder of the write lock changes, the commit points first. To the others any job adds rows:
a training the labels that it used, and a job that has lost its lease that it failed."""

DIFFERING_ROWS = 65_536
"""Rows in a batch of :meth:`DeltaTables.scan_differing`; only for tables without pictures."""

FENCE_RUN = "fence-"
"""Prefix of the run ids of commits that change no row."""


@dataclass(frozen=True, slots=True)
class Commit:
    """A commit of a table."""

    version: int
    run_id: str | None
    """The run that made it; None for the creation of the table."""
    committed_at: datetime


class DeltaTables:
    """The tables in ``storage``, by name, and the lock of the job that changes them."""

    def __init__(self, storage: Storage, lease_seconds: float) -> None:
        self.storage = storage
        self.lock = locks.lock(storage, "writing", lease_seconds, fenced=self)

    def open(self, table: str, version: int | None = None) -> DeltaTable | None:
        """Return the table at its newest version or at ``version``; None if it does not exist, or for version -1.

        Raises DataContractError for a table that is damaged, or that another program made unreadable here, and
        MissingFileError for a version whose log entries upkeep has deleted.
        """
        from deltalake import DeltaTable
        from deltalake.exceptions import DeltaError, TableNotFoundError

        place = self.storage.below(table)
        uri, options = place.delta_uri, place.delta_options
        if version == -1:
            return None
        if place.folder is not None and not DeltaTable.is_deltatable(uri):
            table_checks.check_not_lost(place)
            return None
        try:  # in an object store, to ask first whether it is a table would be another request
            delta = DeltaTable(uri, version, options)
        except DeltaError as problem:
            if known := failures.recognised(problem):  # an outage of the store or the disk
                raise known from problem
            if version is not None:
                raise MissingFileError(f"version {version} of {place.uri} is not there: {problem}") from problem
            if isinstance(problem, TableNotFoundError):
                return None
            raise table_checks.unreadable(place, problem) from problem
        table_checks.check_opened(place, table, delta)
        return delta

    def create(self, table: str) -> DeltaTable:
        """Return the table to write to, made from its contract on first use. Raises as :meth:`open`, and
        DataContractError for a table that must not be written to from here."""
        delta, place = self.open(table), self.storage.below(table)
        if delta is None:
            _make(place, contract.table_json(table))
            delta = self.open(table)
        if delta is None:
            raise DataContractError(f"{place.uri} cannot be made into a table: remove what is there")
        table_checks.check_writable(place, delta)
        return delta

    def location(self, table: str) -> str:
        return self.storage.below(table).uri

    # versions

    def version(self, table: str) -> int:
        delta = self.open(table)
        return -1 if delta is None else int(delta.version())

    def written_versions(self, table: str, count: int = 1) -> list[int]:
        """Return the newest ``count`` versions that a run or a person made, newest first.

        Before the first they are -1 and below. Versions that change no row and only keep an earlier holder of the write
        lease away are left out.
        """
        delta = self.open(table)
        newest = -1 if delta is None else int(delta.version())
        if delta is None or not delta.transaction_version(FENCE):
            return [newest - number for number in range(count)]
        looked_at = 4 * count
        while True:  # as a rule once: there is a fence only where a job has died
            history = delta.history(looked_at)
            written = [int(row["version"]) for row in history if not str(row.get("run_id")).startswith(FENCE_RUN)]
            if len(written) >= count or len(history) < looked_at:
                oldest = written[-1] if written else -1
                return (written + [oldest - 1 - number for number in range(count)])[:count]
            looked_at *= 4

    def readable(self, table: str, *versions: int) -> bool:
        """Return whether these versions, or -1, can still be read: later upkeep may have deleted files of them."""
        place = self.storage.below(table)
        try:
            named = {name for version in versions for name in names_of(self.open(table, version))}
        except MissingFileError:  # its log entries are gone
            return False
        return all(place.size(name) is not None for name in named)

    def identity(self, table: str) -> str | None:
        """Return an id of the table, None if there is none. A table that is removed and made again gets another id."""
        delta = self.open(table)
        return None if delta is None else str(delta.metadata().id)

    def commits(self, table: str, after: int) -> list[Commit]:
        """Return the commits that made the versions later than ``after``, oldest first."""
        delta = self.open(table)
        newer = 0 if delta is None else int(delta.version()) - after
        if delta is None or newer <= 0:
            return []
        found = [
            Commit(int(row["version"]), row.get("run_id"), datetime.fromtimestamp(row["timestamp"] / 1000, UTC))
            for row in delta.history(newer)
        ]
        return sorted((commit for commit in found if commit.version > after), key=lambda commit: commit.version)

    def scan_differing(
        self, table: str, version: int, other: int, columns: Sequence[str] | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Yield the rows of ``version`` in files that the version ``other`` does not have, without Spark.

        Version -1 has no rows. Some of the rows may be in ``other`` as well, in another file. Raises MissingFileError
        where upkeep has deleted a file or log entry.
        """
        from catalog_enrichment.catalog.reading import read_files

        others = set(names_of(self.open(table, other)))
        files = [file for file in files_of(self.open(table, version)) if file.name not in others]
        files.sort(key=lambda file: file.name)
        yield from read_files(self.storage.below(table), files, DIFFERING_ROWS, schema_of(table, columns))

    def rows_of(self, table: str, run_id: str) -> int | None:
        """Return how many rows ``run_id`` has committed to ``table``; None if it has committed nothing."""
        delta = self.open(table)
        return None if delta is None else delta.transaction_version(run_id)

    # commits

    def commit(
        self,
        delta: DeltaTable,
        parts: Sequence[Part],
        run_id: str,
        transactions: Mapping[str, int],
        *,
        replaced: Sequence[str] | None = None,
        same_rows: bool = False,
    ) -> bool:
        """Make one atomic commit on top of ``delta``; False if a concurrent commit excludes it.

        The files ``parts`` are added, and those with the names ``replaced`` removed. Any concurrent commit excludes a
        commit that replaces, even if it is no file: the other may have added what was to be replaced. ``same_rows``:
        ``parts`` have the rows of the files ``replaced``; then only another that removes these files excludes it.
        """
        from deltalake import CommitProperties, Transaction
        from deltalake.exceptions import CommitFailedError
        from deltalake.transaction import AddAction, RemoveAction

        table = Path(unquote(delta.table_uri)).name
        self._check_parts(table, delta, parts, set(replaced or ()))
        self.assert_lease(delta, table)
        token = self.lock.token if table in FENCED else None
        fence = {} if token is None else {FENCE: token}
        alone = replaced is not None and not same_rows
        properties = CommitProperties(
            custom_metadata={"run_id": run_id, "rows": sum(part.rows for part in parts)},
            max_commit_retries=0 if alone else COMMIT_RETRIES,
            app_transactions=[Transaction(name, number) for name, number in (dict(transactions) | fence).items()],
        )
        now = int(datetime.now(UTC).timestamp() * 1000)
        actions: list[Any] = [AddAction(part.name, part.size, {}, now, not same_rows, part.stats) for part in parts]
        actions += [RemoveAction(name, not same_rows, now) for name in replaced or ()]
        try:
            delta.create_write_transaction(actions, "append", delta.schema(), commit_properties=properties)
        except CommitFailedError:
            return False
        self._sync_log(table)
        return True

    def _sync_log(self, table: str) -> None:
        """Have the disk write the newest entry of the log; an object store has it already."""
        if (folder := self.storage.below(table).folder) is not None:
            log = folder / table_checks.LOG
            sync(max(log.glob(f"{'[0-9]' * 20}.json")), log)

    def _check_parts(self, table: str, delta: DeltaTable, parts: Sequence[Part], replaced: set[str]) -> None:
        """Raise rather than commit rows that break the contract, or files that are not there: Delta takes both.

        Nor is anything added to a table in a folder that has lost a file, unless it is one of those ``replaced``.
        """
        if problems := sorted({part.problem for part in parts if part.problem}):
            raise DataContractError(f"table {table}: {'; '.join(problems)}. Nothing was written")
        place = self.storage.below(table)
        if place.folder is not None:
            table_checks.check_files(place, [file for file in files_of(delta) if file.name not in replaced])
        for part in parts:
            if place.size(part.name) != part.size:
                raise ConfigError(
                    f"{place.uri}/{part.name} was written by an executor but is not here: catalog.path must be a "
                    "folder that the driver and all executors share, or in an object store"
                )

    # the fence

    def assert_lease(self, delta: DeltaTable, table: str) -> None:
        """Raise TemporaryFailure if another job may hold the lease under which this job writes."""
        if table in FENCED:
            self.lock.assert_held(known_token=delta.transaction_version(FENCE) or 0)

    def largest_token(self) -> int:
        """Return the largest token of a lease that a table knows; 0 without any."""
        opened = [self.open(table) for table in FENCED]
        return max((delta.transaction_version(FENCE) or 0 for delta in opened if delta), default=0)

    def fence(self, token: int) -> None:
        """Let no holder of an earlier lease commit any more. Commit points that do not exist yet are made.

        The rows stay; so does whether ``current_values`` is up to date.
        """
        before = {table: max(self.version(table), 0) for table in COMMIT_POINTS}  # version 0 is the empty table
        for table in FENCED:
            if table in COMMIT_POINTS or self.open(table):
                self._fence(table, token, before)

    def _fence(self, table: str, token: int, before: dict[str, int]) -> None:
        from deltalake import CommitProperties, Transaction
        from deltalake.exceptions import CommitFailedError

        for _ in range(COMMIT_RETRIES):
            delta = self.create(table)
            transactions = [Transaction(FENCE, token)]
            if table == "current_values" and all(delta.transaction_version(name) == before[name] for name in before):
                now = {name: self.version(name) for name in before}
                if all(now[name] == before[name] + 1 for name in before):  # by the fence alone
                    transactions += [Transaction(name, version) for name, version in now.items()]
            properties = CommitProperties(
                custom_metadata={"run_id": f"{FENCE_RUN}{token}"},
                max_commit_retries=COMMIT_RETRIES,
                app_transactions=transactions,
            )
            with suppress(CommitFailedError):  # the earlier holder committed at this moment: try again, after it
                delta.create_write_transaction([], "append", delta.schema(), commit_properties=properties)
                self._sync_log(table)
                return
        raise TemporaryFailure(f"{self.location(table)} cannot be fenced: other jobs kept writing to it. Run again")


def _make(place: Storage, columns: str) -> None:
    """Make an empty table, if there is none: of several processes the first succeeds.

    deltalake alone would let each of them make the table again.
    """
    from deltalake import DeltaTable, Schema

    if place.folder is not None:
        place.folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        prefix="_new-", dir=place.folder.parent if place.folder else None, ignore_cleanup_errors=True
    ) as scratch:
        folder = Path(scratch, "table")
        folder.mkdir()
        DeltaTable.create(folder.as_uri(), Schema.from_json(columns))
        first = f"{table_checks.LOG}/00000000000000000000.json"
        if place.folder is not None:
            sync(folder / first, folder / table_checks.LOG, folder)
            with suppress(OSError):
                folder.rename(place.folder)
        else:
            place.put_new(first, (folder / first).read_bytes())


def schema_of(table: str, columns: Sequence[str] | None = None) -> pa.Schema:
    """Return the contract as an Arrow schema, of all columns or of ``columns``."""
    import pyarrow as pa

    whole = contract.arrow_schema(table)
    return whole if columns is None else pa.schema([whole.field(name) for name in columns])


def names_of(delta: DeltaTable | None) -> list[str]:
    """Return the files of this version, by name: no table here has partitions, so that none is in a folder."""
    return [file.name for file in files_of(delta)]


def files_of(delta: DeltaTable | None) -> list[DataFile]:
    """Return the files of this version, oldest first."""
    import pyarrow as pa

    if delta is None:
        return []
    actions = pa.table(delta.get_add_actions()).sort_by("modification_time").to_pylist()
    return [DataFile(file["path"], file["size_bytes"], file.get("num_records"), _ids_of(file)) for file in actions]


def _ids_of(action: Mapping[str, Any]) -> tuple[str, str] | None:
    low, high = ((action.get(bound) or {}).get("product_id") for bound in ("min", "max"))
    return None if low is None or high is None else (low, high)
