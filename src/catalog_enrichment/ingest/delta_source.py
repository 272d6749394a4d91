"""A Delta table as a source: all rows of its newest version, or those that changed after a version."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from catalog_enrichment.errors import DataContractError
from catalog_enrichment.ingest import delta_log
from catalog_enrichment.ingest.source_frame import (
    DELETED_ROW,
    AllNeeded,
    ChangedRows,
    Location,
    Position,
    SourceFrame,
    parquet_frame,
    quoted,
    refused_if_unreadable,
    with_origin,
)
from catalog_enrichment.records import stable_hash

if TYPE_CHECKING:
    import pyarrow as pa
    from deltalake import DeltaTable
    from pyspark.sql import SparkSession
    from pyspark.sql.types import StructType


class DeltaSource:
    """One version of a Delta table: that which is the newest when it is opened."""

    def __init__(self, spark: SparkSession, location: Location, key: frozenset[str] = frozenset()) -> None:
        """Open the table. ``key``: the columns that the product id can be made of.

        Raises DataContractError if there is no table, or it uses features that cannot be read.
        """
        self._spark, self.location, self._key = spark, location, key
        with refused_if_unreadable(location.path, "delta"):
            self._table = _opened(location.path)

    def fingerprint(self, imported: str) -> str:  # noqa: ARG002  the protocol's signature
        """Return a hash of the table's id and version."""
        return stable_hash("delta", self._table.metadata().id, self._table.version())

    def open(self, names: Sequence[str]) -> SourceFrame:
        """Open the columns ``names``, as far as they exist. Raises DataContractError for a table without rows."""
        files = self._table.file_uris()
        if not files:
            raise DataContractError(
                f"the Delta table {self.location.path} holds no rows (version {self._table.version()})."
            )
        return self._open(files, names)

    def close(self) -> None:
        """Do nothing: the table need not be closed."""

    def discard(self) -> None:
        """Do nothing: nothing was kept."""

    def position(self) -> Position:
        return delta_log.position_of(self._table)

    def since(self, position: Position, names: Sequence[str]) -> ChangedRows:
        """Return the rows of the change data feed after ``position``, or of the files that are new since.

        A row that the feed deletes deletes its product; where the feed cannot be read, deletions are not seen. Raises
        AllNeeded where the log does not tell the changes.
        """
        changes = delta_log.changes_since(self._table, position, self.location.path)
        first, last = position["version"] + 1, self._table.version()
        where = f"version {last}" if first == last else f"versions {first} to {last}"
        if not (changes.files or changes.feed_bytes):
            how = f"no row changed in {where}" if first <= last else "no new version"
            return ChangedRows(self.location, how, self.open, is_empty=True)
        without = "without a change data feed"
        if changes.feed:
            try:
                schema = self._schema(names)
                rows = self._feed(changes, position, schema)
                return self._feed_rows(rows, schema, f"the change data feed of {where}: {rows.num_rows:,} rows")
            except AllNeeded as problem:
                without = f"{problem}; rows that it deletes are not seen"
        files = delta_log.uris_of(self._table, changes.files)
        how = f"{len(files):,} new files of {where} ({without})"
        return ChangedRows(self.location, how, lambda asked: self._open(files, asked), is_empty=not files)

    def deletions(self, position: Position) -> ChangedRows | None:
        """Return a row with the product id for each product that the change data feed deletes after ``position``.

        None for a table that keeps no feed, or has no new rows. Raises AllNeeded where the feed cannot be read.
        """
        if not position["feed"]:
            return None
        changes = delta_log.changes_since(self._table, position, self.location.path)
        if not changes.feed:
            raise AllNeeded("the table did not keep its change data feed all the time")
        if not changes.feed_bytes:
            return None
        schema = self._schema(tuple(self._key))
        rows = self._feed(changes, position, schema)
        rows = rows.filter(rows[DELETED_ROW])
        return self._feed_rows(rows, schema, f"{rows.num_rows:,} rows that the change data feed deletes")

    def _feed(self, changes: delta_log.LogChanges, position: Position, schema: StructType) -> pa.Table:
        """Return the rows of the change data feed. Raises AllNeeded where it cannot be read."""
        from pyspark.sql.pandas.types import to_arrow_schema

        if changes.feed_bytes > delta_log.FEED_BYTES:
            raise AllNeeded(f"the change data feed has {changes.feed_bytes / 2**20:,.0f} MiB")
        if not self._key & set(schema.names):
            raise AllNeeded("the product id is none of its columns")  # said by the mapping, which names the columns
        arrow = to_arrow_schema(schema, timezone="UTC")
        version = position["version"]
        return delta_log.feed_rows(self._table, version, schema.names, set(self._key), arrow, DELETED_ROW)

    def _feed_rows(self, rows: pa.Table, schema: StructType, how: str) -> ChangedRows:
        return ChangedRows(self.location, how, lambda _: self._feed_frame(rows, schema), is_empty=not rows.num_rows)

    def _feed_frame(self, rows: pa.Table, schema: StructType) -> SourceFrame:
        from pyspark.sql import functions as F
        from pyspark.sql.types import BooleanType, StructField, StructType

        whole = StructType([*schema, StructField(DELETED_ROW, BooleanType())])
        columns = [quoted(name) for name in whole.names]
        frame = with_origin(self._spark.createDataFrame(rows, whole), columns, F.lit(None), F.lit(self.location.path))
        return SourceFrame(frame, {field.name: field.dataType for field in schema}, self._available)

    def _open(self, files: list[str], names: Sequence[str]) -> SourceFrame:
        with refused_if_unreadable(self.location.path, "delta"):
            reader = self._spark.read.schema(self._schema(names)).option("basePath", self.location.path)
            return parquet_frame(reader.parquet(*files), names, self._available())

    def _schema(self, names: Sequence[str]) -> StructType:
        """Return the columns ``names`` that the table has."""
        from pyspark.sql.types import StructType

        fields = [field for field in self._fields() if field["name"] in names]
        return StructType.fromJson({"type": "struct", "fields": fields})

    def _available(self) -> list[str]:
        return [field["name"] for field in self._fields()]

    def _fields(self) -> list[dict[str, Any]]:
        fields: list[dict[str, Any]] = json.loads(self._table.schema().to_json())["fields"]
        return fields


def _opened(path: str) -> DeltaTable:
    from deltalake import DeltaTable
    from deltalake.exceptions import DeltaError, TableNotFoundError

    try:
        table = DeltaTable(path)
    except (TableNotFoundError, DeltaError) as problem:
        raise DataContractError(f"{path} is not a readable Delta table: {problem}") from None
    if unread := set(table.protocol().reader_features or ()) & {"deletionVectors", "columnMapping"}:
        raise DataContractError(f"{path} uses {sorted(unread)}, which cannot be read here; export it as parquet.")
    return table
