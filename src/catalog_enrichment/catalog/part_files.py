"""What a Spark task does to write a table: its rows into one new parquet file with a unique name.

The driver makes the files part of the table in one commit. A file of a task that failed, was tried twice or whose
driver died is never referenced: readers do not see it.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from catalog_enrichment.catalog.storage import Storage

ROW_GROUP_BYTES = 16 * 2**20
"""Most bytes of rows, uncompressed, that a row group holds (one row may be larger); bounds a reader's memory."""

KEPT_BATCH_ROWS = 65_536
"""Rows of a row group that are looked at together when rows of some products are left out."""

STATISTICS_COLUMNS = ("product_id", "run_id")
"""Columns whose range is recorded per file, so that Delta readers can skip files."""

PART_SCHEMA = "name string, size long, rows long, stats string, problem string"


@dataclass(frozen=True, slots=True)
class Part:
    """One file to commit, or the reason why there is none."""

    name: str
    """Relative to the table's folder."""
    size: int
    """Bytes."""
    rows: int
    stats: str
    """Delta's per-file statistics, JSON."""
    problem: str | None = None
    """How the rows break the contract; then nothing may be committed."""


@dataclass(slots=True)
class _Ranges:
    """Smallest and largest value per statistics column, over batches."""

    low: dict[str, str] = field(default_factory=dict)
    high: dict[str, str] = field(default_factory=dict)

    def add(self, table: pa.Table) -> None:
        for name in set(STATISTICS_COLUMNS) & set(table.column_names):
            span = pc.min_max(table[name]).as_py()
            if span["min"] is not None:
                self.low[name] = min(self.low.get(name, span["min"]), span["min"])
                self.high[name] = max(self.high.get(name, span["max"]), span["max"])

    def to_json(self, rows: int) -> str:
        return json.dumps({"numRecords": rows, "minValues": self.low, "maxValues": self.high})


def write_parts(batches: Iterable[pa.RecordBatch], place: Storage, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """The task: :func:`write_part` in the shape of mapInArrow; one row per file (:data:`PART_SCHEMA`)."""
    part = write_part(batches, place, schema)
    if part is not None:
        columns = [[part.name], [part.size], [part.rows], [part.stats], [part.problem]]
        types = [pa.string(), pa.int64(), pa.int64(), pa.string(), pa.string()]
        arrays = [pa.array(column, kind) for column, kind in zip(columns, types, strict=True)]
        yield pa.RecordBatch.from_arrays(arrays, names=["name", "size", "rows", "stats", "problem"])


def write_kept_parts(
    batches: Iterable[pa.RecordBatch],
    groups: Sequence[Sequence[str]],
    gone: pa.Array,
    place: Storage,
    schema: pa.Schema,
) -> Iterator[pa.RecordBatch]:
    """The task that keeps the rows of a table's files but for those about the products ``gone``.

    ``batches``: one column with the numbers of the ``groups`` of files to write together, as one file each.
    """
    for batch in batches:
        for number in batch.column(0).to_pylist():
            yield from write_parts(kept_rows(place, groups[number], gone, schema), place, schema)


def kept_rows(place: Storage, files: Iterable[str], gone: pa.Array, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """The rows of the parquet ``files`` of ``place`` whose ``product_id`` is not in ``gone``."""
    for file in files:
        with place.parquet(file) as parquet:
            # a file that an older contract wrote may lack columns: they are null there
            for batch in batches_of(parquet, KEPT_BATCH_ROWS, schema.names):
                yield batch.filter(pc.invert(pc.is_in(batch.column("product_id"), value_set=gone)))


def batches_of(
    parquet: pq.ParquetFile, rows: int, columns: Sequence[str], groups: Iterable[int] | None = None
) -> Iterator[pa.RecordBatch]:
    """``columns`` of an open file in batches of at most ``rows``; ``groups``: only of these row groups.

    A row group at a time: a batch may else span several, and a file of an object store be fetched whole.
    """
    for group in range(parquet.num_row_groups) if groups is None else groups:
        yield from parquet.iter_batches(rows, row_groups=[group], columns=list(columns))


def write_part(batches: Iterable[pa.RecordBatch], place: Storage, schema: pa.Schema) -> Part | None:
    """Write all rows to one file in ``place``, the table's; None, and no file, for no rows.

    A null in a required column stops the writing and is reported as the part's problem, not raised: a task that
    raises reaches the driver as a Spark failure, after retries, with the message buried in a stack trace.
    """
    filled = (table for table in row_groups(batches, schema) if table.num_rows)
    first = next(filled, None)
    if first is None:
        return None
    name = f"part-{uuid.uuid4()}.parquet"
    ranges, rows = _Ranges(), 0
    with place.sink(name) as target:
        with pq.ParquetWriter(target, schema, compression="zstd") as writer:
            for table in _chain(first, filled):
                if problem := missing_values(table):
                    return Part(name, 0, 0, "", problem)
                writer.write_table(table, row_group_size=rows_per_group(table))
                ranges.add(table)
                rows += table.num_rows
        size = target.stat().st_size
    return Part(name, size, rows, ranges.to_json(rows))


def row_groups(batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.Table]:
    """Batches in the contract's columns and types, joined up to about :data:`ROW_GROUP_BYTES`."""
    waiting: list[pa.RecordBatch] = []
    size = 0
    for batch in batches:
        waiting.append(conform(batch, schema))
        size += batch.nbytes
        if size >= ROW_GROUP_BYTES:
            yield pa.Table.from_batches(waiting, schema)
            waiting, size = [], 0
    yield pa.Table.from_batches(waiting, schema)


def conform(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """The columns of ``schema``, by name and cast; a nullable column that ``batch`` lacks is null."""
    arrays = [_column(batch, field) for field in schema]
    # nulls in required columns are looked for later; from_arrays does not look
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _column(batch: pa.RecordBatch, field: pa.Field) -> pa.Array:
    if field.nullable and field.name not in batch.schema.names:
        return pa.nulls(batch.num_rows, field.type)
    return batch.column(field.name).cast(field.type)


def missing_values(table: pa.Table) -> str | None:
    """Which required columns have nulls, in words; None if none."""
    nulls = {f.name: table[f.name].null_count for f in table.schema if not f.nullable}
    columns = [f"{name} (in at least {count} rows)" for name, count in nulls.items() if count]
    return f"null in required columns: {', '.join(columns)}" if columns else None


def rows_per_group(table: pa.Table) -> int:
    """How many rows of ``table`` fit a row group, at least one."""
    return max(1, int(table.num_rows * ROW_GROUP_BYTES // max(table.nbytes, 1)))


def _chain(first: pa.Table, rest: Iterator[pa.Table]) -> Iterator[pa.Table]:
    yield first
    yield from rest
