"""Products from PostgreSQL as a source: a Spark task for each range of a table.

Every import reads the table, because a database has no cheap sign that is equal only where all rows are: counters of
statistics are lost and reset, and the numbers of transactions do not tell what a view or a foreign table shows. So each
fingerprint is a new one. An import of the same rows changes nothing and says so, after it has compared them.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from catalog_enrichment.config.remote_sources import PostgresConfig
from catalog_enrichment.ingest.postgres_tables import TableSnapshot, read_range
from catalog_enrichment.ingest.source_frame import Location, SourceFrame, quoted, read_in_tasks, with_origin
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

    @property
    def location(self) -> Location:
        return Location(self.snapshot.shown, "")  # a relative picture has no folder to be in

    def fingerprint(self, imported: str) -> str:  # noqa: ARG002  the protocol's signature
        """Return another text each time."""
        return stable_hash("postgres", uuid.uuid4().hex)

    def open(self, names: Sequence[str]) -> SourceFrame:
        from pyspark.sql import functions as F
        from pyspark.sql.types import DataType

        available = self.snapshot.reading.columns
        types = {name: DataType.fromDDL(kind) for name, kind in available.items() if name in names}
        columns = [quoted(name) for name in types]
        frame = with_origin(self._rows(types), columns, F.lit(None), F.lit(self.snapshot.shown))
        return SourceFrame(frame, types, lambda: available)

    def close(self) -> None:
        """Let the server discard the snapshot."""
        self.snapshot.close()

    def discard(self) -> None:
        """Do nothing: nothing is kept."""

    def _rows(self, types: dict[str, DataType]) -> DataFrame:
        """Return the columns as text, and those of the type bytea as binary."""
        from pyspark.sql.types import BinaryType, StringType, StructField, StructType

        given = {name: kind if isinstance(kind, BinaryType) else StringType() for name, kind in types.items()}
        schema = StructType([StructField(name, kind) for name, kind in given.items()])
        if not types:  # none of the mapped columns exists: the mapping says so, and names the columns that do
            return self.spark.createDataFrame([], schema)
        reading = self.snapshot.reading

        def read(number: int) -> Iterator[pa.RecordBatch]:
            return read_range(reading, schema.names, number)

        return read_in_tasks(self.spark, "postgres", range(len(reading.ranges)), read, schema)


def postgres_source(spark: SparkSession, uri: str, config: PostgresConfig, say: Say) -> PostgresSource:
    """Take a snapshot of the table or query, and say in how many ranges it is read.

    Raises ConfigError for a table or query that cannot be read, TemporaryFailure for a server that does not answer.
    """
    snapshot = TableSnapshot(uri, config)
    ranges = len(snapshot.reading.ranges)
    alone = ranges == 1 < config.partitions
    note = "; a view or query is read in parallel with source.postgres.key" if alone and config.query else ""
    say(f"{snapshot.shown} is read in {ranges} range{'s' * (ranges > 1)} of one snapshot{note}")
    return PostgresSource(spark, snapshot)
