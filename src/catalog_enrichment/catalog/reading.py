"""How Spark's tasks and the driver read the Parquet files of tables and checkpoints.

Spark reads the files of a folder itself. Those of an object store are read by tasks of our own, without a Hadoop file
system: Spark asks no more of such a frame than its columns, and cannot leave out columns or row groups. So a caller
that needs few columns or products says so (``columns`` and ``ids`` of :meth:`Catalog.read`).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from math import ceil
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from catalog_enrichment.catalog.part_files import KEY, conform, grouped
from catalog_enrichment.catalog.storage import DataFile, Storage
from catalog_enrichment.catalog.table_checks import check_files, opened
from catalog_enrichment.spark import api_mode
from catalog_enrichment.spark.frames import about_products, empty_frame

if TYPE_CHECKING:
    import pyarrow.parquet as pq
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.types import StructType

BATCH_ROWS = 65_536
"""Rows of a row group that are looked at together where rows of some products are left out."""

SPLIT_BYTES = 32 * 2**20
"""Most compressed bytes of an object store that a task reads, except for a single row group that is larger."""

OPEN_BYTES = 2**20
"""Opening a file of an object store costs about as much as reading this number of bytes."""

FRAME_BATCH_ROWS = 4096
"""Rows of a batch that a task hands to Spark; a row group bounds its bytes."""


def batches_of(
    parquet: pq.ParquetFile, rows: int, schema: pa.Schema, groups: Iterable[int] | None = None
) -> Iterator[pa.RecordBatch]:
    """Yield the columns of ``schema`` of an open file in batches of at most ``rows``; ``groups``: of these row groups.

    It reads a row group at a time: a batch may else span several, and a file of an object store be fetched whole.
    """
    for group in range(parquet.num_row_groups) if groups is None else groups:
        for batch in parquet.iter_batches(rows, row_groups=[group], columns=schema.names):
            yield conform(batch, schema)


def read_files(place: Storage, files: Iterable[DataFile], rows: int, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Yield the rows of the parquet ``files`` of ``place``, in batches of at most ``rows``. Raises as
    :func:`table_checks.opened`."""
    for file in files:
        with opened(place, file.name, file.rows) as parquet:
            yield from batches_of(parquet, rows, schema)


def statistics_of(parquet: pq.ParquetFile, column: str) -> list[Any]:
    """Return the statistics of a column without parts, per row group; None where the footer has none."""
    footer = parquet.metadata
    number = [footer.schema.column(leaf).path for leaf in range(footer.num_columns)].index(column)
    return [footer.row_group(group).column(number).statistics for group in range(footer.num_row_groups)]


def largest(place: Storage, files: Iterable[DataFile], column: str) -> Any | None:
    """Return the largest value of ``column`` in ``files``; of a row group whose footer does not say it, by its rows."""
    found = []
    for file in files:
        with opened(place, file.name, file.rows) as parquet:
            for group, known in enumerate(statistics_of(parquet, column)):
                if known is not None and known.has_min_max:
                    found.append(known.max)
                else:
                    found.append(pc.max(parquet.read_row_group(group, columns=[column])[column]).as_py())
    return max((value for value in found if value is not None), default=None)


# rows about some products


Span = tuple[str, str]
"""The smallest and the largest product id of a file or a row group."""


def may_hold(ids: pa.Array) -> Callable[[Span | None], bool]:
    """Return a function that says whether a range has one of the product ``ids``; one that is not known may have."""
    wanted = sorted(ids.to_pylist())

    def has_one(span: Span | None) -> bool:
        if span is None:
            return bool(wanted)
        first = bisect_left(wanted, span[0])
        return first < len(wanted) and wanted[first] <= span[1]

    return has_one


def about(files: Sequence[DataFile], ids: pa.Array) -> list[DataFile]:
    """Return the ``files`` that can hold a row about the products ``ids``."""
    has_one = may_hold(ids)
    return [file for file in files if has_one(file.ids)]


def rows_about(place: Storage, files: Sequence[DataFile], ids: pa.Array, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Yield the rows about the products ``ids``; only row groups that can hold one are read."""
    has_one = may_hold(ids)
    for file in about(files, ids):
        with opened(place, file.name, file.rows) as parquet:
            groups = [group for group, span in enumerate(spans_of(parquet)) if has_one(span)]
            for batch in batches_of(parquet, BATCH_ROWS, schema, groups):
                yield batch.filter(pc.is_in(batch.column(KEY), value_set=ids))


def spans_of(parquet: pq.ParquetFile) -> list[Span | None]:
    """Return per row group the smallest and largest product id; None where the file does not say, or ids are null."""
    spans: list[Span | None] = []
    for found in statistics_of(parquet, KEY):
        known = found is not None and found.has_min_max and found.has_null_count and not found.null_count
        spans.append((found.min, found.max) if known else None)
    return spans


# frames


def frame_of(
    spark: SparkSession, place: Storage, files: Sequence[DataFile], schema: StructType, ids: pa.Array | None = None
) -> DataFrame:
    """Return the rows of ``files`` of ``place`` as a frame with the columns of ``schema``, all of which may be null.

    ``ids``: only rows about these products; files that cannot hold one are not opened.
    """
    if ids is not None:
        files = about(files, ids)
    if not files:
        return empty_frame(spark, schema)
    if place.folder is not None:
        check_files(place, files)
        frame = spark.read.schema(schema).parquet(*[f"file://{place.folder / file.name}" for file in files])
        return frame if ids is None else about_products(frame, ids)
    from pyspark.sql.pandas.types import to_arrow_schema

    splits = splits_of(files, api_mode.of(spark).parallelism())
    # Spark takes the frame to have as many rows as the range, of usual size: it must not send a large table to
    # every task because it thinks it small
    width = max(1, ceil(sum(file.rows or 0 for file in files) / len(splits)))
    numbers = spark.range(0, width * len(splits), 1, len(splits))
    nullable = as_nullable(schema)
    arrow = to_arrow_schema(nullable, timezone="UTC")
    task = partial(read_splits, place=place, splits=splits, width=width, schema=arrow, ids=ids)
    return numbers.mapInArrow(task, nullable)


def as_nullable(schema: StructType) -> StructType:
    """Return the same columns, all of which may be null."""
    from pyspark.sql.types import StructField, StructType

    return StructType([StructField(column.name, column.dataType, True) for column in schema])


@dataclass(frozen=True, slots=True)
class Piece:
    """The row groups of one file whose number leaves the remainder ``part`` when it is divided by ``parts``."""

    file: str
    size: int
    """Bytes."""
    part: int = 0
    parts: int = 1
    rows: int | None = None
    """Rows of the whole file."""


def splits_of(files: Sequence[DataFile], parallelism: int) -> list[list[Piece]]:
    """Return the pieces that each task reads: small files together, large files in several pieces, at least one split
    per core where there is as much to read."""
    total = sum(file.size + OPEN_BYTES for file in files)
    limit = min(SPLIT_BYTES, max(OPEN_BYTES, ceil(total / max(parallelism, 1))))
    pieces: list[Piece] = []
    for file in sorted(files, key=lambda file: (-file.size, file.name)):
        parts = max(1, ceil(file.size / SPLIT_BYTES))
        pieces += [Piece(file.name, file.size // parts, part, parts, file.rows) for part in range(parts)]
    return grouped(pieces, lambda piece: piece.size + OPEN_BYTES, limit)


def read_splits(
    batches: Iterable[pa.RecordBatch],
    place: Storage,
    splits: Sequence[Sequence[Piece]],
    width: int,
    schema: pa.Schema,
    ids: pa.Array | None = None,
) -> Iterator[pa.RecordBatch]:
    """Do the work of a task: yield the rows of the splits of which ``batches`` have numbers, ``width`` to a split;
    ``ids``: only rows about these products."""
    done: set[int] = set()
    for batch in batches:  # to the end: a worker that leaves input unread is not used again
        if not batch.num_rows:
            continue
        numbers = batch.column(0)
        for split in range(numbers[0].as_py() // width, numbers[-1].as_py() // width + 1):
            if split not in done:
                done.add(split)
                for piece in splits[split]:
                    yield from _rows_of_piece(place, piece, schema, ids)


def _rows_of_piece(place: Storage, piece: Piece, schema: pa.Schema, ids: pa.Array | None) -> Iterator[pa.RecordBatch]:
    with opened(place, piece.file, piece.rows) as parquet:
        groups: Sequence[int] = range(piece.part, parquet.num_row_groups, piece.parts)
        if ids is None:
            yield from batches_of(parquet, FRAME_BATCH_ROWS, schema, groups)
            return
        has_one, spans = may_hold(ids), spans_of(parquet)
        for batch in batches_of(
            parquet, FRAME_BATCH_ROWS, schema, [group for group in groups if has_one(spans[group])]
        ):
            yield batch.filter(pc.is_in(batch.column(KEY), value_set=ids))
