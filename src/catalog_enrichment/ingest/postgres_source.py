"""Products from PostgreSQL as a source: Spark's Python data source over the ranges of a table.

Every import reads the table: a database has no cheap sign that is equal only where all rows are. Counters of statistics
are lost and reset, and the numbers of transactions do not tell what a view or a foreign table shows. So the fingerprint
is a new one each time; an import of the same rows changes nothing and says so, after it has compared them.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from catalog_enrichment.config.source import SourceConfig
from catalog_enrichment.errors import ConfigError
from catalog_enrichment.ingest.postgres_tables import TableReading, TableSnapshot, read_range
from catalog_enrichment.ingest.source_frame import FileLocation, SourceFrame, quoted, with_origin
from catalog_enrichment.monitoring.stages import Say
from catalog_enrichment.records import stable_hash

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.datasource import DataSource
    from pyspark.sql.types import DataType

_FORMAT = "catalog_enrichment_postgres"


@dataclass(frozen=True, slots=True)
class PostgresFeed:
    """One source that is a database, in one import."""

    spark: SparkSession
    snapshot: TableSnapshot

    @property
    def location(self) -> FileLocation:
        return FileLocation(self.snapshot.shown, "")  # a relative picture has no folder to be in

    def fingerprint(self, imported: str | None) -> str:  # noqa: ARG002  as of other sources
        """Another one each time."""
        return stable_hash("postgres", uuid.uuid4().hex)

    def open(self, wanted: Sequence[str]) -> SourceFrame:
        reading = self.snapshot.reading
        kinds = {column.name: column.type for column in reading.columns if column.name in wanted}
        path = _literal_path(self.snapshot.shown)
        rows = _rows(self.spark, reading, kinds)
        frame = with_origin(rows, [quoted(name) for name in kinds], _null(), path)
        types = {name: _spark_type(kind) for name, kind in kinds.items()}
        return SourceFrame(frame, types, lambda: [column.name for column in reading.columns])

    def release(self) -> None:
        """The rows are stored: the server may forget the snapshot."""
        self.snapshot.close()

    def forget(self) -> None:
        """Nothing is kept."""


def postgres_feed(spark: SparkSession, source: SourceConfig, say: Say) -> PostgresFeed:
    """Raises ConfigError for what cannot be read, TemporaryFailure for a server that does not answer."""
    if source.postgres is None:
        raise ConfigError('source.format = "postgres" needs a section [source.postgres]')
    snapshot = TableSnapshot(source.path, source.postgres)
    ranges = len(snapshot.reading.ranges)
    alone = ranges == 1 < source.postgres.partitions
    note = "; a view or query is read in parallel with source.postgres.key" if alone and source.postgres.query else ""
    say(f"{snapshot.shown} is read in {ranges} range{'s' * (ranges > 1)} of one snapshot{note}")
    return PostgresFeed(spark, snapshot)


def _rows(spark: SparkSession, reading: TableReading, kinds: dict[str, str]) -> DataFrame:
    """The columns as text, bytea as binary."""
    from pyspark.sql.types import BinaryType, StringType, StructField, StructType

    types = {name: BinaryType() if kind == "binary" else StringType() for name, kind in kinds.items()}
    schema = StructType([StructField(name, data_type) for name, data_type in types.items()])
    if not kinds:  # none of the mapped columns exists: the mapping says so, with those that do
        return spark.createDataFrame([], schema)
    spark.dataSource.register(_data_source(reading, schema))
    return spark.read.format(_FORMAT).load()


def _data_source(reading: TableReading, columns: Any) -> type[DataSource]:
    """Spark's Python data source with a partition per range; the class carries the reading, the password included, so
    that it is in no option, plan or log."""
    from pyspark.sql.datasource import DataSource, DataSourceReader, InputPartition

    class RangesReader(DataSourceReader):  # type: ignore[misc]
        def partitions(self) -> Sequence[InputPartition]:
            return [InputPartition(number) for number in range(len(reading.ranges))]

        def read(self, partition: Any) -> Iterator[pa.RecordBatch]:
            return read_range(reading, columns.names, partition.value)

    class PostgresRanges(DataSource):  # type: ignore[misc]
        @classmethod
        def name(cls) -> str:
            return _FORMAT

        def schema(self) -> Any:
            return columns

        def reader(self, schema: Any) -> DataSourceReader:  # noqa: ARG002  the base's signature
            return RangesReader()

    return PostgresRanges


def _spark_type(kind: str) -> DataType:
    from pyspark.sql import types as T

    if kind.startswith("array<"):
        return T.ArrayType(_spark_type(kind.removeprefix("array<").removesuffix(">")))
    known = {
        "boolean": T.BooleanType, "smallint": T.ShortType, "int": T.IntegerType, "bigint": T.LongType,
        "decimal": T.DecimalType, "float": T.FloatType, "double": T.DoubleType, "date": T.DateType,
        "timestamp_ntz": T.TimestampNTZType, "timestamp": T.TimestampType, "binary": T.BinaryType,
    }  # fmt: skip
    return known.get(kind, T.StringType)()


def _null() -> Any:
    from pyspark.sql import functions as F

    return F.lit(None)


def _literal_path(shown: str) -> Any:
    from pyspark.sql import functions as F

    return F.lit(shown)
