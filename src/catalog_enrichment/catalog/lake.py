"""The lake catalog: Delta tables in one folder or one place of an object store, without a server and extra jars.

Spark tasks write parquet files (:mod:`catalog_enrichment.catalog.part_files`), the driver commits them at once
through deltalake. Spark reads the files of a folder itself, and those of an object store through
:mod:`catalog_enrichment.catalog.object_frames`. The run id is the commit's Delta application transaction and the number
of rows is the transaction's version, so the log says which runs wrote what, also after old log entries are cleaned up.
``current_values`` keeps in the same way the versions of the tables that it was derived from.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from catalog_enrichment import contract
from catalog_enrichment.catalog import ledger
from catalog_enrichment.catalog.checkpoints import RunCheckpoints, parquet_files
from catalog_enrichment.catalog.delta_tables import (
    COMMIT_POINTS,
    COMMIT_RETRIES,
    FENCED,
    DeltaTables,
    files_of,
    names_of,
)
from catalog_enrichment.catalog.lease import FENCE, Lease
from catalog_enrichment.catalog.object_storage import ObjectStorage, storage_of
from catalog_enrichment.catalog.storage import FolderStorage, Storage
from catalog_enrichment.catalog.table_versions import TableVersions
from catalog_enrichment.errors import ConfigError, DataContractError, GateRefused, TemporaryFailure
from catalog_enrichment.spark.frames import empty_frame, few_ids, persisted_frames, with_ids

if TYPE_CHECKING:
    import pyarrow as pa
    from deltalake import DeltaTable
    from pyspark.sql import DataFrame, SparkSession

    from catalog_enrichment.catalog.part_files import Part
    from catalog_enrichment.config.schema import Config

SCAN_ROWS = 256
"""Rows in a batch of :meth:`LakeCatalog.scan`: a few megabytes, with pictures."""

REFRESH_ATTEMPTS = 5

KEPT_FILE_BYTES = 32 * 2**20
"""Files that are written again without some of their rows are joined up to about this size."""

_AMBIGUOUS = set("%[]{}*?\\")
"""In a path, deltalake decodes the percent sign, and Spark reads the other characters as patterns."""

_SOURCES = COMMIT_POINTS
"""What current_values is derived from."""

_WIDENS = {"bigint": {"int"}, "double": {"int", "float"}}
"""Types that a column may have instead of the contract's: every value survives the cast."""


class LakeCatalog(DeltaTables, RunCheckpoints, TableVersions):
    """A :class:`~catalog_enrichment.catalog.base.Catalog` in ``place``: a folder that all executors share, or an object
    store.

    Without ``spark`` it can scan tables, append rows and give versions. Raises ConfigError for a path that deltalake
    or Spark would read as another one.
    """

    def __init__(self, place: Path | Storage, spark: SparkSession | None = None, lease_seconds: float = 60) -> None:
        self.storage = FolderStorage(place.resolve()) if isinstance(place, Path) else place
        self._spark = spark
        self._lease: Lease | None = None
        self._lease_seconds = lease_seconds
        if isinstance(self.storage, ObjectStorage):
            self._lease = Lease(self.storage, "writing", lease_seconds, self.largest_token)
        elif forbidden := sorted(_AMBIGUOUS & set(self.storage.uri)):
            raise ConfigError(
                f"catalog.path {self.path} contains {' '.join(forbidden)}: choose a folder without these characters"
            )

    @classmethod
    def of(cls, config: Config, spark: SparkSession | None = None) -> LakeCatalog:
        """The catalog that the config names. Raises ConfigError or TemporaryFailure if its object store refuses or does
        not answer."""
        storage = storage_of(config)
        if isinstance(storage, ObjectStorage):
            storage.check()
        return cls(storage, spark, config.catalog.lease_seconds)

    def on(self, spark: SparkSession) -> LakeCatalog:
        """The same catalog with Spark, under the same lease."""
        same = type(self)(self.storage, spark, self._lease_seconds)
        same._lease = self._lease
        return same

    @property
    def path(self) -> Path:
        """Its folder. Raises ValueError where it is in an object store."""
        if self.storage.folder is None:
            raise ValueError(f"the catalog {self.storage.uri} is in no folder")
        return self.storage.folder

    # reading

    def read(self, table: str, version: int | None = None, columns: Sequence[str] | None = None) -> DataFrame:
        delta = None if version == -1 else self._open(table, version)
        whole = contract.spark_schema(table)
        schema = whole if columns is None else type(whole)([whole[name] for name in columns])
        files = names_of(delta)
        if not files:
            return empty_frame(self._session(), schema)
        if self.storage.folder is not None:
            folder = self.storage.folder / table
            return parquet_files(self._session(), [folder / name for name in files], schema)
        from catalog_enrichment.catalog.object_frames import StoredTable

        stored = StoredTable(self.storage.below(table), files_of(delta))
        return stored.frame(self._session(), schema)

    def scan(
        self, table: str, columns: Sequence[str] | None = None, version: int | None = None
    ) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        from catalog_enrichment.catalog.part_files import batches_of, conform

        names = contract.columns(table) if columns is None else list(columns)
        schema = pa.schema([contract.arrow_schema(table).field(name) for name in names])
        place = self.storage.below(table)
        for name in names_of(None if version == -1 else self._open(table, version)):
            with place.parquet(name) as parquet:
                # a file that an older contract wrote may lack columns: they are null there
                for batch in batches_of(parquet, SCAN_ROWS, names):
                    yield conform(batch, schema)

    # writing

    def append(self, table: str, df: DataFrame, run_id: str) -> int:
        return self._write(table, "append", run_id, lambda _: self._spark_parts(table, df))

    def append_rows(self, table: str, rows: Sequence[dict[str, Any]], run_id: str) -> int:
        return self._write(table, "append", run_id, lambda _: self._row_parts(table, rows))

    def replace(self, table: str, df: DataFrame, run_id: str) -> int:
        return self._write(table, "overwrite", run_id, lambda _: self._spark_parts(table, df))

    def replace_products(self, table: str, df: DataFrame, changed: DataFrame, run_id: str) -> int:
        def write(delta: DeltaTable) -> list[Part]:
            return self._updated_parts(table, delta, df, changed, few_ids(changed))

        return self._write(table, "overwrite", run_id, write)

    def _write(self, table: str, mode: str, run_id: str, write: Callable[[DeltaTable], list[Part]]) -> int:
        # opened before anything is written: what others commit from here on is seen as concurrent
        delta = self._create(table)
        self.require_lease(delta, table)
        done = delta.transaction_version(run_id)
        if done is not None:
            return int(done)
        parts = write(delta)
        rows = sum(part.rows for part in parts)
        if self._commit(delta, parts, mode, run_id, {run_id: rows}):
            return rows
        winner = self._rows_of(table, run_id)
        if winner is None:
            self.require_lease(self._create(table), table)
            raise DataContractError(
                f"{self.location(table)}: another job changed the table while run {run_id} was writing it; "
                "nothing was written. Run the job again"
            )
        return winner

    def _spark_parts(self, table: str, df: DataFrame) -> list[Part]:
        from catalog_enrichment.catalog.part_files import PART_SCHEMA, Part, write_parts

        task = partial(write_parts, place=self.storage.below(table), schema=contract.arrow_schema(table))
        rows = _select_contract(table, df).mapInArrow(task, PART_SCHEMA).collect()
        return [Part(**row.asDict()) for row in rows]

    def _updated_parts(
        self, table: str, delta: DeltaTable, df: DataFrame, changed: DataFrame, ids: pa.Array | None
    ) -> list[Part]:
        """``df``, and the rows of ``delta`` about products that are not ``changed``; ``ids``: theirs, if few."""
        if ids is None:
            kept = self.read(table, int(delta.version())).join(changed.select("product_id"), "product_id", "left_anti")
            return self._spark_parts(table, kept.select(df.columns).unionByName(df))
        return self._kept_parts(table, delta, ids) + self._spark_parts(table, df)

    def _kept_parts(self, table: str, delta: DeltaTable, gone: pa.Array) -> list[Part]:
        """The rows of ``delta`` about other products than ``gone``. From file to file: Spark has no part in it."""
        from catalog_enrichment.catalog.part_files import PART_SCHEMA, Part, write_kept_parts

        groups = _joined(files_of(delta))
        if not groups:
            return []
        task = partial(
            write_kept_parts,
            groups=groups,
            gone=gone,
            place=self.storage.below(table),
            schema=contract.arrow_schema(table),
        )
        numbers = self._session().range(0, len(groups), numPartitions=len(groups))
        return [Part(**row.asDict()) for row in numbers.mapInArrow(task, PART_SCHEMA).collect()]

    def _row_parts(self, table: str, rows: Sequence[dict[str, Any]]) -> list[Part]:
        import pyarrow as pa

        from catalog_enrichment.catalog.part_files import write_part

        known = contract.columns(table)
        if unknown := sorted({name for row in rows for name in row} - set(known)):
            raise DataContractError(f"table {table} has no columns {unknown}; its columns are {known}")
        schema = contract.arrow_schema(table)
        try:
            batches = pa.Table.from_pylist(list(rows), schema=schema).to_batches()
        except (pa.ArrowInvalid, pa.ArrowTypeError) as problem:
            raise DataContractError(f"table {table}: a row does not fit its contract: {problem}") from None
        part = write_part(batches, self.storage.below(table), schema)
        return [part] if part else []

    def _commit(
        self, delta: DeltaTable, parts: list[Part], mode: str, run_id: str, transactions: dict[str, int]
    ) -> bool:
        """One atomic commit on top of ``delta``; False if a concurrent commit excludes it."""
        from deltalake import CommitProperties, Transaction
        from deltalake.exceptions import CommitFailedError
        from deltalake.transaction import AddAction

        table = Path(unquote(delta.table_uri)).name
        self.check_parts(table, parts)
        self.require_lease(delta, table)
        now = int(time.time() * 1000)
        properties = CommitProperties(
            custom_metadata={"run_id": run_id, "rows": sum(part.rows for part in parts)},
            max_commit_retries=COMMIT_RETRIES,
            app_transactions=[
                Transaction(name, number) for name, number in (transactions | self.fencing(table)).items()
            ],
        )
        actions = [AddAction(part.name, part.size, {}, now, True, part.stats) for part in parts]
        try:
            delta.create_write_transaction(actions, mode, delta.schema(), commit_properties=properties)
        except CommitFailedError:
            return False
        return True

    def check_parts(self, table: str, parts: list[Part]) -> None:
        """Raise rather than commit rows that break the contract, or files that are not there: Delta takes both."""
        if problems := sorted({part.problem for part in parts if part.problem}):
            raise DataContractError(f"table {table}: {'; '.join(problems)}. Nothing was written")
        place = self.storage.below(table)
        for part in parts:
            if place.size(part.name) != part.size:
                raise ConfigError(
                    f"{place.uri}/{part.name} was written by an executor but is not here: catalog.path must be a "
                    "folder that the driver and all executors share, or in an object store"
                )

    def fencing(self, table: str) -> dict[str, int]:
        """The Delta transaction that every commit of the lease's holder carries; none without a lease."""
        token = self._lease.token if self._lease else None
        return {} if token is None or table not in FENCED else {FENCE: token}

    def require_lease(self, delta: DeltaTable, table: str) -> None:
        """Raises TemporaryFailure if the lease under which this job writes may be another's by now."""
        fencing = self.fencing(table)
        if self._lease and fencing:
            self._lease.require()
            if (delta.transaction_version(FENCE) or 0) > fencing[FENCE]:
                raise self._lease.lost()

    def require_held(self) -> None:
        """Raises TemporaryFailure if the lease under which this job writes may be another's by now: for what no commit
        guards."""
        if self._lease:
            self._lease.require()

    def may_clean_up(self) -> bool:
        try:
            self.require_held()
        except TemporaryFailure:
            return False
        return True

    def writing(self) -> AbstractContextManager[Any]:
        if self._lease:
            return self._lease.held(wait_seconds=0, fence=self.fence)
        return self.locked("writing", wait_seconds=0)

    @contextmanager
    def locked(self, name: str, wait_seconds: float) -> Iterator[Callable[[], None]]:
        if isinstance(self.storage, ObjectStorage):
            lease = Lease(self.storage, name, self._lease_seconds)
            with lease.held(wait_seconds):
                yield lease.require
            return
        # the lock is on a file: the operating system releases it when the job's process ends
        from filelock import FileLock, Timeout

        self.path.mkdir(parents=True, exist_ok=True)
        lock = self.path / f"_{name}.lock"
        try:
            with FileLock(lock, timeout=wait_seconds):
                yield lambda: None
        except Timeout:
            raise GateRefused(f"another job is writing to this catalog ({lock}); run again when it is done") from None

    # what readers see

    def current_values_stale(self) -> bool:
        delta = self._open("current_values")
        return delta is None or self._derived_from(delta) != self._source_versions()

    def refresh_current_values(self, run_id: str, changed: DataFrame | None = None) -> bool:
        for _ in range(REFRESH_ATTEMPTS):
            # the order matters: opened before the sources are looked at, so that a refresh that saw older
            # sources conflicts with one that commits in between, instead of overwriting it
            delta = self._create("current_values")
            sources = self._source_versions()
            if self._derived_from(delta) == sources:
                return False
            products, events = (
                self.read(table, sources[table], ledger.CURRENT_VALUES_FROM[table]) for table in _SOURCES
            )
            if changed is not None and self._only_changed_by(run_id, self._derived_from(delta), sources):
                parts = self._derived_again(delta, products, events, changed)
            else:
                parts = self._spark_parts("current_values", ledger.current_values(products, ledger.active(events)))
            if self._commit(delta, parts, "overwrite", run_id, sources):
                return True
        raise DataContractError(
            f"{self.location('current_values')}: other jobs kept refreshing it; run {run_id} is committed, "
            "and the next job's refresh will show it"
        )

    def _derived_again(
        self, delta: DeltaTable, products: DataFrame, events: DataFrame, changed: DataFrame
    ) -> list[Part]:
        """``delta``, the current values, with those of the ``changed`` products derived again."""
        ids = few_ids(changed)
        some = changed.select("product_id") if ids is None else with_ids(self._session(), ids)
        with persisted_frames() as persist:  # events are read twice, products three times
            own_products, own_events = (
                persist(frame.join(some, "product_id", "left_semi")) for frame in (products, events)
            )
            rows = ledger.current_values(own_products, ledger.active(own_events))
            return self._updated_parts("current_values", delta, rows, some, ids)

    def confirm_current_values(self, run_id: str) -> None:
        """Note that ``current_values`` is up to date: a source has another version, with the same rows."""
        self._commit(self._create("current_values"), [], "append", run_id, self._source_versions())

    def _source_versions(self) -> dict[str, int]:
        return {table: self.version(table) for table in _SOURCES}

    def _only_changed_by(self, run_id: str, before: dict[str, int | None], now: dict[str, int]) -> bool:
        """Whether the sources' versions ``now`` are those ``before``, or the next one if ``run_id`` committed it."""

        def by_run(table: str, earlier: int | None) -> bool:
            delta = self._open(table)
            if delta is None or earlier is None or delta.version() != now[table] or now[table] != earlier + 1:
                return now[table] == earlier
            return bool(delta.history(1)[0].get("run_id") == run_id)

        return all(by_run(table, before[table]) for table in _SOURCES)

    def _derived_from(self, delta: DeltaTable) -> dict[str, int | None]:
        return {table: delta.transaction_version(table) for table in _SOURCES}

    def _session(self) -> SparkSession:
        if self._spark is None:
            raise ValueError("this LakeCatalog was opened without Spark: use scan(), or pass a SparkSession")
        return self._spark


def _joined(files: Sequence[tuple[str, int, int]]) -> list[list[str]]:
    """The names of ``files`` in groups of about :data:`KEPT_FILE_BYTES`; a larger file is a group of its own."""
    groups: list[list[str]] = []
    room = 0
    for name, size, _ in files:
        if size > room:
            groups.append([])
            room = KEPT_FILE_BYTES
        groups[-1].append(name)
        room -= size
    return groups


def _select_contract(table: str, df: DataFrame) -> DataFrame:
    """The contract's columns of ``df``, by name; others are left out.

    Raises DataContractError naming every column that is missing or has a type that would lose something.
    """
    from pyspark.sql import functions as F

    given = {field.name: field.dataType.simpleString() for field in df.schema}
    wanted = {field.name: field.dataType.simpleString() for field in contract.spark_schema(table)}
    problems = [f"column {name} is missing" for name in wanted if name not in given]
    for name, kind in wanted.items():
        if given.get(name, "void") not in {kind, "void"} | _WIDENS.get(kind, set()):
            problems.append(f"column {name} is {given[name]}, the contract says {kind}")
    if problems:
        raise DataContractError(f"table {table}: {'; '.join(problems)}. Columns given: {sorted(given)}")
    if list(given.items()) == list(wanted.items()):
        return df
    return df.select(
        *[name if given[name] == kind else F.col(name).cast(kind).alias(name) for name, kind in wanted.items()]
    )
