"""Parquet files of an object store as Spark DataFrames, without a Hadoop file system: tasks read and write them.

Spark asks no more of such a frame than its columns: it cannot leave out columns or row groups as it does for files that
it reads itself. So whoever needs few columns says so (``columns`` of :meth:`LakeCatalog.read`).
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from math import ceil
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from catalog_enrichment.catalog.part_files import batches_of, conform, rows_per_group
from catalog_enrichment.catalog.storage import MARKER
from catalog_enrichment.spark.frames import empty_frame

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.types import StructType

    from catalog_enrichment.catalog.storage import Storage

SPLIT_BYTES = 32 * 2**20
"""Most compressed bytes that a task reads, but for one row group."""

OPEN_BYTES = 2**20
"""Opening a file costs about as much as reading so many bytes."""

BATCH_ROWS = 4096
"""Rows of a batch that a task hands to Spark; a row group bounds its bytes."""

CHECKPOINT_BYTES = 8 * 2**20
"""Uncompressed bytes of a row group of a checkpoint."""

_WRITTEN = "name string, size long, rows long"


@dataclass(frozen=True, slots=True)
class Piece:
    """The row groups of one file whose number leaves the remainder ``part`` when it is divided by ``parts``."""

    name: str
    part: int = 0
    parts: int = 1


@dataclass(frozen=True, slots=True)
class StoredTable:
    """Parquet files of one table or checkpoint."""

    place: Storage
    files: Sequence[tuple[str, int, int]]
    """Name, bytes and rows."""

    def frame(self, spark: SparkSession, schema: StructType) -> DataFrame:
        """Their rows, in the columns of ``schema``, all of which may be null; one that a file lacks is."""
        from pyspark.sql.pandas.types import to_arrow_schema
        from pyspark.sql.types import StructField, StructType

        nullable = StructType([StructField(one.name, one.dataType, True) for one in schema])
        splits = splits_of(self.files, spark.sparkContext.defaultParallelism)
        if not splits:
            return empty_frame(spark, nullable)
        # Spark takes the frame to have as many rows as the range, of usual size: it must not send a large table to
        # every task because it thinks it small
        width = max(1, ceil(sum(rows for _, _, rows in self.files) / len(splits)))
        numbers = spark.range(0, width * len(splits), 1, len(splits))
        arrow = to_arrow_schema(nullable, timezone="UTC")
        task = partial(read_splits, place=self.place, splits=splits, width=width, schema=arrow)
        return numbers.mapInArrow(task, nullable)


def splits_of(files: Sequence[tuple[str, int, int]], parallelism: int) -> list[list[Piece]]:
    """The pieces that each task reads: small files together, large ones in several pieces, at least one split per core
    where there is as much to read."""
    total = sum(size + OPEN_BYTES for _, size, _ in files)
    most = min(SPLIT_BYTES, max(OPEN_BYTES, ceil(total / max(parallelism, 1))))
    splits: list[list[Piece]] = []
    room = 0
    for name, size, _ in sorted(files, key=lambda file: (-file[1], file[0])):
        parts = max(1, ceil(size / SPLIT_BYTES))
        for part in range(parts):
            cost = size // parts + OPEN_BYTES
            if cost > room:
                splits.append([])
                room = max(most, cost)
            splits[-1].append(Piece(name, part, parts))
            room -= cost
    return splits


def read_splits(
    batches: Iterable[pa.RecordBatch], place: Storage, splits: Sequence[Sequence[Piece]], width: int, schema: pa.Schema
) -> Iterator[pa.RecordBatch]:
    """The task: the rows of the splits of which ``batches`` have numbers, ``width`` numbers to a split."""
    done: set[int] = set()
    for batch in batches:  # to the end: a worker that leaves input unread is not used again
        if not batch.num_rows:
            continue
        numbers = batch.column(0)
        for split in range(numbers[0].as_py() // width, numbers[-1].as_py() // width + 1):
            if split not in done:
                done.add(split)
                for piece in splits[split]:
                    yield from read_piece(place, piece, schema)


def read_piece(place: Storage, piece: Piece, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    with place.parquet(piece.name) as parquet:
        groups = range(piece.part, parquet.num_row_groups, piece.parts)
        for batch in batches_of(parquet, BATCH_ROWS, schema.names, groups):
            yield conform(batch, schema)


# checkpoints


def checkpoint(place: Storage, df: DataFrame) -> DataFrame:
    """``df`` computed once and stored in ``place``; read from there if the marker is there."""
    from pyspark.sql.pandas.types import to_arrow_schema

    try:
        listed = json.loads(place.read(MARKER))
    except FileNotFoundError:
        task = partial(write_checkpoint, place=place, schema=to_arrow_schema(df.schema, timezone="UTC"))
        listed = [[row["name"], row["size"], row["rows"]] for row in df.mapInArrow(task, _WRITTEN).collect()]
        # last, and with the names: files of tasks that were tried twice, or of a killed attempt, are not of it
        place.put(MARKER, json.dumps(listed).encode())
    return StoredTable(place, [(name, size, rows) for name, size, rows in listed]).frame(df.sparkSession, df.schema)


def write_checkpoint(batches: Iterable[pa.RecordBatch], place: Storage, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """The task: all rows into one file; one row about it (:data:`_WRITTEN`), none for no rows."""
    waiting: list[pa.RecordBatch] = []
    filled = (batch for batch in batches if batch.num_rows)
    first = next(filled, None)
    if first is None:
        return
    name, rows = f"part-{uuid.uuid4()}.parquet", 0
    with place.sink(name) as target:
        with pq.ParquetWriter(target, schema, compression="zstd") as writer:
            for batch in _chain(first, filled):
                waiting.append(conform(batch, schema))
                rows += batch.num_rows
                if sum(one.nbytes for one in waiting) >= CHECKPOINT_BYTES:
                    _write(writer, waiting)
            _write(writer, waiting)
        size = target.stat().st_size
    columns = {"name": [name], "size": [size], "rows": [rows]}
    yield pa.RecordBatch.from_pydict(columns)


def _write(writer: pq.ParquetWriter, waiting: list[pa.RecordBatch]) -> None:
    if waiting:
        table = pa.Table.from_batches(waiting)
        writer.write_table(table, row_group_size=rows_per_group(table))
        waiting.clear()


def _chain(first: pa.RecordBatch, rest: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    yield first
    yield from rest
