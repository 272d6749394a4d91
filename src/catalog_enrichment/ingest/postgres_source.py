"""Products from PostgreSQL as a source: a Spark task for each range of a table.

A database has no cheap sign that is equal only where all rows are: counters of statistics are lost and reset, and the
numbers of transactions do not tell what a view or a foreign table shows. So each fingerprint is a new one. An import of
the same rows changes nothing and says so, after it has compared them: all rows, or with `source.watermark` those whose
time is about as new as the newest of the last import.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from catalog_enrichment.config.remote_sources import PostgresConfig
from catalog_enrichment.ingest.postgres_tables import TableReading, TableSnapshot, read_range
from catalog_enrichment.ingest.source_frame import (
    AllNeeded,
    ChangedRows,
    Location,
    Position,
    SourceFrame,
    quoted,
    read_in_tasks,
    with_origin,
)
from catalog_enrichment.monitoring.stages import Say
from catalog_enrichment.records import stable_hash

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.types import DataType


@dataclass(frozen=True, slots=True)
class PostgresSource:
    """A table, view or query of PostgreSQL, in one import."""

    spark: SparkSession
    snapshot: TableSnapshot
    overlap: float = 0.0
    """Seconds by which the rows that changed may be older than the newest of the last import."""

    @property
    def location(self) -> Location:
        return Location(self.snapshot.shown, "")  # a relative picture has no folder to be in

    def fingerprint(self, imported: str) -> str:  # noqa: ARG002  the protocol's signature
        """Return another text each time."""
        return stable_hash("postgres", uuid.uuid4().hex)

    def open(self, names: Sequence[str]) -> SourceFrame:
        return self._open(names, self.snapshot.reading)

    def position(self) -> Position:
        """Return the newest time in the watermark column, and a hash of the table's columns."""
        watermark = self.snapshot.watermark
        columns = stable_hash(self.snapshot.reading.columns)
        return {"newest": None if watermark is None else watermark.newest, "columns": columns}

    def since(self, position: Position, names: Sequence[str]) -> ChangedRows:  # noqa: ARG002  the protocol's signature
        """Return the rows whose time is at most the overlap older than ``position``, and those without a time.

        Raises AllNeeded where the watermark cannot tell what changed.
        """
        now, watermark = self.position(), self.snapshot.watermark
        if watermark is None or watermark.newest is None or position["newest"] is None:
            raise AllNeeded("no row has a time in source.watermark")
        if now["columns"] != position["columns"]:
            raise AllNeeded("the columns of the table changed")
        if watermark.newest < position["newest"]:
            raise AllNeeded(f"the newest {watermark.column} is older than at the last import")
        condition = watermark.changed_since(position["newest"], self.overlap)
        reading = replace(self.snapshot.reading, changed=condition)
        how = f"rows whose {watermark.column} is at most {self.overlap:g} s older than {position['newest']}"
        how += ", and rows without one" * watermark.has_nulls
        return ChangedRows(self.location, how, lambda asked: self._open(asked, reading))

    def _open(self, names: Sequence[str], reading: TableReading) -> SourceFrame:
        from pyspark.sql import functions as F
        from pyspark.sql.types import DataType

        available = reading.columns
        types = {name: DataType.fromDDL(kind) for name, kind in available.items() if name in names}
        columns = [quoted(name) for name in types]
        frame = with_origin(self._rows(types, reading), columns, F.lit(None), F.lit(self.snapshot.shown))
        return SourceFrame(frame, types, lambda: available)

    def close(self) -> None:
        """Let the server discard the snapshot."""
        self.snapshot.close()

    def discard(self) -> None:
        """Do nothing: nothing is kept."""

    def _rows(self, types: dict[str, DataType], reading: TableReading) -> DataFrame:
        """Return the columns as text, and those of the type bytea as binary."""
        from pyspark.sql.types import BinaryType, StringType, StructField, StructType

        given = {name: kind if isinstance(kind, BinaryType) else StringType() for name, kind in types.items()}
        schema = StructType([StructField(name, kind) for name, kind in given.items()])
        if not types:  # none of the mapped columns exists: the mapping says so, and names the columns that do
            return self.spark.createDataFrame([], schema)

        def read(number: int) -> Iterator[pa.RecordBatch]:
            return read_range(reading, schema.names, number)

        return read_in_tasks(self.spark, "postgres", range(len(reading.ranges)), read, schema)


def postgres_source(
    spark: SparkSession, uri: str, config: PostgresConfig, say: Say, watermark: str = "", overlap: float = 0.0
) -> PostgresSource:
    """Take a snapshot of the table or query, and say in how many ranges it is read.

    ``watermark``: the column with the time of a row's last change, "" for none; ``overlap``: in seconds.
    Raises ConfigError for a table or query that cannot be read, TemporaryFailure for a server that does not answer.
    """
    snapshot = TableSnapshot(uri, config, watermark)
    ranges = len(snapshot.reading.ranges)
    alone = ranges == 1 < config.partitions
    note = "; a view or query is read in parallel with source.postgres.key" if alone and config.query else ""
    say(f"{snapshot.shown} is read in {ranges} range{'s' * (ranges > 1)} of one snapshot{note}")
    return PostgresSource(spark, snapshot, overlap)
