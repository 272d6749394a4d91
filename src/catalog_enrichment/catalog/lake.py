"""The catalog: Delta tables in one folder or one place of an object store, without a server and extra jars.

Its parts: ``tables`` (the Delta tables and the write lock), ``checkpoints`` (what a run has stored before its commit),
and here reading, writing, and the table ``current_values``, which is derived from the products and the ledger.

Spark tasks write parquet files (part_files.py) and read them (reading.py), and the driver commits them at once through
deltalake. A commit removes and adds only the files that hold a changed row (rewriting.py). Every write is one commit,
labelled with a run id. Readers, in any process, see all of it or nothing (I4). Writing again under the same run id
changes nothing, in any process and at any later time (I5).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from copy import copy
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catalog_enrichment import contract
from catalog_enrichment.catalog import ledger, locks, value_names
from catalog_enrichment.catalog.checkpoints import Checkpoints
from catalog_enrichment.catalog.delta_tables import COMMIT_POINTS, DeltaTables, files_of, names_of, schema_of
from catalog_enrichment.catalog.locks import AssertHeld
from catalog_enrichment.catalog.object_storage import ObjectStorage, storage_of
from catalog_enrichment.catalog.storage import FolderStorage, Storage
from catalog_enrichment.catalog.value_names import Names
from catalog_enrichment.dictionary import Dictionary
from catalog_enrichment.errors import ConfigError, DataContractError
from catalog_enrichment.records import strictly_later
from catalog_enrichment.spark.frames import few_ids, persisted_frames

if TYPE_CHECKING:
    import pyarrow as pa
    from deltalake import DeltaTable
    from pyspark.sql import DataFrame, SparkSession

    from catalog_enrichment.catalog.part_files import Part
    from catalog_enrichment.config.schema import Config

SCAN_ROWS = 256
"""Rows in a batch of :meth:`Catalog.scan`: a few megabytes, with pictures."""

REFRESH_ATTEMPTS = 5

_AMBIGUOUS = set("%[]{}*?\\")
"""In a path, deltalake decodes the percent sign, and Spark reads the other characters as patterns."""

_NUMBERS = "numbers"
"""Beside the tables that ``current_values`` is derived from: the hash of the attributes that are numbers."""

_WIDENS = {"bigint": {"int"}, "double": {"int", "float"}}
"""Types that a column may have instead of the contract's: every value survives the cast."""


class Catalog:
    """The catalog in ``place``: a folder that all executors share, or an object store.

    Without ``spark`` it can scan tables, append rows and give versions. Raises ConfigError for a path that deltalake
    or Spark would read as another path.
    """

    def __init__(self, place: Path | Storage, spark: SparkSession | None = None, lease_seconds: float = 60) -> None:
        self.storage = FolderStorage(place.resolve()) if isinstance(place, Path) else place
        if self.storage.folder is not None and (forbidden := sorted(_AMBIGUOUS & set(self.storage.uri))):
            raise ConfigError(
                f"catalog.path {self.storage.uri} contains {' '.join(forbidden)}: choose a folder without these "
                "characters"
            )
        self.tables = DeltaTables(self.storage, lease_seconds)
        self.checkpoints = Checkpoints(self.storage, self.tables.lock)
        self._spark = spark
        self._lease_seconds = lease_seconds
        self._names: Names | None = None
        self.dictionary = Dictionary({})
        """Says which values are numbers, and which are the same; jobs set it (context.follow_dictionary)."""

    @classmethod
    def of(cls, config: Config, spark: SparkSession | None = None) -> Catalog:
        """Return the catalog that the config names.

        Raises ConfigError or TemporaryFailure if its object store refuses or does not answer.
        """
        storage = storage_of(config)
        if isinstance(storage, ObjectStorage):
            storage.check()
        return cls(storage, spark, config.catalog.lease_seconds)

    def on(self, spark: SparkSession) -> Catalog:
        """Return the same catalog with Spark, under the same lock."""
        same = copy(self)
        same._spark = spark
        return same

    def location(self, table: str) -> str:
        """Return the place of the table, for people and other tools."""
        return self.tables.location(table)

    def version(self, table: str) -> int:
        """Return the newest version. It grows with every commit, and is -1 before the first."""
        return self.tables.version(table)

    def committed(self, table: str, run_id: str) -> bool:
        """Return whether ``run_id`` has committed to ``table``, also if it was zero rows."""
        return self.tables.rows_of(table, run_id) is not None

    def check_has_products(self) -> None:
        """Raise DataContractError if there are no products yet."""
        if self.version("products") < 0:
            raise DataContractError(f"no products at {self.location('products')}: run import_products first")

    # locks

    def writing(self) -> AbstractContextManager[AssertHeld]:
        """Run a block in which this is the only job that writes. Raises GateRefused if another job does."""
        return self.tables.lock.held(wait_seconds=0)

    def locked(self, name: str, wait_seconds: float) -> AbstractContextManager[AssertHeld]:
        """Run a block that one process at a time can be in, per ``name``. Raises GateRefused after ``wait_seconds``.

        The function that it yields raises TemporaryFailure if another process may be in the block by now: it is to be
        called before anything that must not happen twice.
        """
        return locks.lock(self.storage, name, self._lease_seconds).held(wait_seconds)

    # reading

    @property
    def names(self) -> Names:
        """The names by which this catalog's reader calls values that were renamed; read from the catalog once."""
        if self._names is None:
            rows = [row for batch in self.scan(value_names.TABLE) for row in batch.to_pylist()]
            self._names = value_names.in_force(rows)
        return self._names

    @names.setter
    def names(self, names: Names) -> None:
        self._names = names

    def read(
        self,
        table: str,
        version: int | None = None,
        columns: Sequence[str] | None = None,
        ids: pa.Array | None = None,
    ) -> DataFrame:
        """Return the newest version of the table, or ``version``; empty if the table does not exist yet.

        Values have the names in force (:mod:`value_names`), also in an earlier version.

        ``columns``: only these. From an object store Spark cannot leave out the others by itself. ``ids``: only rows
        about these products; files whose range has none of them are not opened. The frame keeps reading that version,
        whatever is committed later.
        """
        frame = self.stored(table, version, columns, ids)
        return value_names.frame_with_names(table, frame, self.names) if value_names.has_values(table) else frame

    def stored(
        self,
        table: str,
        version: int | None = None,
        columns: Sequence[str] | None = None,
        ids: pa.Array | None = None,
    ) -> DataFrame:
        """Return the rows with the names that values were stored with, for rows that are written again."""
        from catalog_enrichment.catalog.reading import frame_of

        whole = contract.spark_schema(table)
        schema = whole if columns is None else type(whole)([whole[name] for name in columns])
        files = files_of(self.tables.open(table, version))
        return frame_of(self._session(), self.storage.below(table), files, schema, ids)

    def scan(
        self, table: str, columns: Sequence[str] | None = None, version: int | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Yield the same rows without Spark, in batches small enough for pictures."""
        from catalog_enrichment.catalog.reading import read_files

        files = files_of(self.tables.open(table, version))
        rows = read_files(self.storage.below(table), files, SCAN_ROWS, schema_of(table, columns))
        if not value_names.has_values(table):
            yield from rows
            return
        for batch in rows:
            yield value_names.batch_with_names(table, batch, self.names)

    def next_asserted_at(self, now: datetime) -> datetime:
        """Return ``now``, or the first microsecond after the ledger's newest event if that is later; in UTC."""
        from catalog_enrichment.catalog.reading import largest

        events = self.storage.below("attribute_values")
        return strictly_later(now, largest(events, files_of(self.tables.open("attribute_values")), "asserted_at"))

    # writing

    def append(self, table: str, df: DataFrame, run_id: str, number: int | None = None) -> int:
        """Add the rows of ``df``; return how many the run wrote, also when an earlier call did it.

        ``number``: of the rows, if it is known; without any, no Spark job is started. Raises DataContractError, with
        nothing committed, if ``df`` does not keep the table's contract.
        """
        if number == 0:
            return self.append_rows(table, [], run_id)
        return self._write(table, run_id, lambda _: (self._spark_parts(table, df), None))

    def append_rows(self, table: str, rows: Sequence[dict[str, Any]], run_id: str) -> int:
        """Do as :meth:`append` for a few rows of the driver's, without Spark. Columns left out are null."""
        return self._write(table, run_id, lambda _: (self._row_parts(table, rows), None))

    def replace(self, table: str, df: DataFrame, run_id: str) -> int:
        """Put the rows of ``df`` in place of all others; otherwise as :meth:`append`.

        If two runs replace a table at once, the second to commit gets a DataContractError.
        """
        return self._write(table, run_id, lambda delta: (self._spark_parts(table, df), names_of(delta)))

    def replace_products(
        self, table: str, df: DataFrame, changed: DataFrame, run_id: str, ids: pa.Array | None = None
    ) -> int:
        """Put the rows of ``df`` in place of those about the products whose ``product_id`` is in ``changed``; otherwise
        as :meth:`replace`.

        ``df`` has rows about these products only. The rows of all other products stay, most of them in the files in
        which they are: only files that hold a row about a changed product are written again. Returns how many rows
        the table has. ``ids``: of ``changed``, if they are known; else they are looked up.
        """

        def write(delta: DeltaTable) -> tuple[list[Part], list[str]]:
            return self._updated_parts(table, delta, df, changed, few_ids(changed) if ids is None else ids)

        return self._write(table, run_id, write)

    def _write(
        self, table: str, run_id: str, write: Callable[[DeltaTable], tuple[list[Part], list[str] | None]]
    ) -> int:
        """Commit what ``write`` returns: files to add, and names of the files that they replace, None to add only."""
        # opened before anything is written: what others commit from here on is seen as concurrent
        delta = self.tables.create(table)
        self.tables.assert_lease(delta, table)
        done = delta.transaction_version(run_id)
        if done is not None:
            return int(done)
        parts, replaced = write(delta)
        rows = sum(part.rows for part in parts)
        if replaced is not None:
            rows += self._rows_but(table, delta, set(replaced))
        if self.tables.commit(delta, parts, run_id, {run_id: rows}, replaced=replaced):
            return rows
        winner = self.tables.rows_of(table, run_id)
        if winner is None:
            self.tables.assert_lease(self.tables.create(table), table)
            raise DataContractError(
                f"{self.location(table)}: another job changed the table while run {run_id} was writing it; "
                "nothing was written. Run the job again"
            )
        return winner

    def _rows_but(self, table: str, delta: DeltaTable, replaced: set[str]) -> int:
        """Return how many rows the files of ``delta`` have that are not ``replaced``."""
        place, rows = self.storage.below(table), 0
        for file in files_of(delta):
            if file.name not in replaced:
                rows += place.parquet(file.name).metadata.num_rows if file.rows is None else file.rows
        return rows

    def _spark_parts(self, table: str, df: DataFrame) -> list[Part]:
        from catalog_enrichment.catalog.part_files import KEY, PART_SCHEMA, SORTED_BY_PRODUCT, Part, write_parts

        task = partial(write_parts, place=self.storage.below(table), schema=contract.arrow_schema(table))
        rows = _select_contract(table, df)
        if table in SORTED_BY_PRODUCT:  # each file has a range of products
            rows = rows.repartitionByRange(KEY).sortWithinPartitions(KEY)
        return [Part(**row.asDict()) for row in rows.mapInArrow(task, PART_SCHEMA).collect()]

    def _updated_parts(
        self, table: str, delta: DeltaTable, df: DataFrame, changed: DataFrame, ids: pa.Array | None
    ) -> tuple[list[Part], list[str]]:
        """Write ``df``, and other rows of the files of ``delta`` that hold a row about the products ``changed``.

        ``ids``: theirs, if few. Returns the files, and the names of those that they replace.
        """
        if ids is None:
            stored = self.stored(table, int(delta.version()))
            kept = stored.join(changed.select("product_id"), "product_id", "left_anti")
            return self._spark_parts(table, kept.select(df.columns).unionByName(df)), names_of(delta)
        from catalog_enrichment.catalog.rewriting import Rewriter

        parts = self._spark_parts(table, df)
        if any(part.problem for part in parts):
            return parts, []
        rewriter = Rewriter(self._session(), self.storage.below(table), contract.arrow_schema(table))
        return rewriter.put(parts, ids, files_of(delta))

    def _row_parts(self, table: str, rows: Sequence[dict[str, Any]]) -> list[Part]:
        import pyarrow as pa

        from catalog_enrichment.catalog.part_files import KEY, SORTED_BY_PRODUCT, written_parts

        known = contract.columns(table)
        if unknown := sorted({name for row in rows for name in row} - set(known)):
            raise DataContractError(f"table {table} has no columns {unknown}; its columns are {known}")
        schema = contract.arrow_schema(table)
        try:
            found = pa.Table.from_pylist(list(rows), schema=schema)
        except (pa.ArrowInvalid, pa.ArrowTypeError) as problem:
            raise DataContractError(f"table {table}: a row does not fit its contract: {problem}") from None
        if table in SORTED_BY_PRODUCT:
            found = found.sort_by(KEY)
        return list(written_parts(found.to_batches(), self.storage.below(table), schema))

    # what readers see

    def current_values_stale(self) -> bool:
        """Return whether products, ledger, names or the dictionary's numbers have changed since ``current_values`` was
        derived from them."""
        delta = self.tables.open("current_values")
        return delta is None or _derived_from(delta) != self._source_versions()

    def refresh_current_values(
        self, run_id: str, changed: DataFrame | None = None, ids: pa.Array | None = None
    ) -> bool:
        """Derive ``current_values`` again if it is stale; return whether it was.

        Its commit keeps the versions of the tables that it was derived from, and a hash of the dictionary's numbers.
        ``changed``: has the ``product_id`` of every product that ``run_id`` changed, in the products or the ledger.
        Where nothing else has changed since the last refresh, only these products are derived again. ``ids``: theirs,
        if they are known; else they are looked up.
        """
        for _ in range(REFRESH_ATTEMPTS):
            # the order matters: opened before the sources are looked at, so that a refresh that saw older
            # sources conflicts with a refresh that commits in between, instead of overwriting it
            delta = self.tables.create("current_values")
            sources = self._source_versions()
            if _derived_from(delta) == sources:
                return False
            some = changed is not None and self._only_changed_by(run_id, _derived_from(delta), sources)
            parts, replaced = self._derived(delta, sources, changed if some else None, ids)
            if self.tables.commit(delta, parts, run_id, sources, replaced=replaced):
                return True
        raise DataContractError(
            f"{self.location('current_values')}: other jobs kept refreshing it; run {run_id} is committed, "
            "and the next job's refresh will show it"
        )

    def _derived(
        self, delta: DeltaTable, sources: dict[str, int], changed: DataFrame | None, ids: pa.Array | None
    ) -> tuple[list[Part], list[str]]:
        """Write the current values by these versions of the ``sources``, in place of ``delta``, the table as it is.

        ``changed``: only those of these products, ``ids`` if known. Returns files, and the names of those that they
        replace.
        """
        if changed is None:
            ids = None
        elif ids is None:
            ids = few_ids(changed)
        products, events = (
            self.read(table, sources[table] or -1, columns, ids)
            for table, columns in ledger.CURRENT_VALUES_FROM.items()
        )
        if changed is None:
            rows = ledger.current_values(products, ledger.active(events), self.dictionary)
            return self._spark_parts("current_values", rows), names_of(delta)
        if ids is None:
            products, events = (
                frame.join(changed.select("product_id"), "product_id", "left_semi") for frame in (products, events)
            )
        with persisted_frames() as persist:  # events are read twice, products three times
            active = ledger.active(persist(events))
            rows = ledger.current_values(persist(products), active, self.dictionary)
            return self._updated_parts("current_values", delta, rows, changed, ids)

    def confirm_current_values(self, run_id: str) -> None:
        """Note that ``current_values`` is up to date: a source has another version, with the same rows."""
        self.tables.commit(self.tables.create("current_values"), [], run_id, self._source_versions())

    def _source_versions(self) -> dict[str, int]:
        versions = {table: max(self.version(table), 0) for table in COMMIT_POINTS}  # version 0 is the empty table
        return versions | {_NUMBERS: self.dictionary.numbers_hash()}

    def _only_changed_by(self, run_id: str, before: dict[str, int | None], now: dict[str, int]) -> bool:
        """Return whether the sources' versions ``now`` are those ``before``, or the next if ``run_id`` committed it;
        the dictionary's numbers are the same."""

        def by_run(table: str, earlier: int | None) -> bool:
            delta = self.tables.open(table)
            if delta is None or earlier is None or delta.version() != now[table] or now[table] != earlier + 1:
                return now[table] == earlier
            return bool(delta.history(1)[0].get("run_id") == run_id)

        return before[_NUMBERS] == now[_NUMBERS] and all(by_run(table, before[table]) for table in COMMIT_POINTS)

    def _session(self) -> SparkSession:
        if self._spark is None:
            raise ValueError("this Catalog was opened without Spark: use scan(), or pass a SparkSession")
        return self._spark


def _derived_from(delta: DeltaTable) -> dict[str, int | None]:
    versions = {table: delta.transaction_version(table) for table in COMMIT_POINTS}
    return versions | {_NUMBERS: delta.transaction_version(_NUMBERS) or 0}


def _select_contract(table: str, df: DataFrame) -> DataFrame:
    """Return the contract's columns of ``df``, by name; others are left out.

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
