"""Parquet files of tables and checkpoints, as Spark's tasks and the driver write them.

A task writes its rows into a new file with a unique name. The driver makes the files part of a table in one commit:
a file of a task that failed, was tried twice or whose driver died is never referenced, and readers do not see it.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from itertools import chain
from typing import TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from catalog_enrichment.catalog.storage import DataFile, Storage

T = TypeVar("T")

ROW_GROUP_BYTES = 16 * 2**20
"""Most bytes of rows, uncompressed, that a row group holds (one row may be larger); bounds a reader's memory."""

MOST_GROUP_BYTES = 4 * ROW_GROUP_BYTES
"""Most bytes of rows about a single product that wait for their row group to end."""

FILE_BYTES = 16 * 2**20
"""Compressed bytes after which a task begins another file. A change of one row writes its whole file again."""

KEY = "product_id"

SORTED_BY_PRODUCT = frozenset(
    {"products", "current_values", "predictions", "attribute_values", "proposals", "self_derived", "quarantine"}
)
"""The tables whose files are sorted by :data:`KEY`. The others are small, and some keep the order of their rows."""

STATISTICS_COLUMNS = (KEY, "run_id")
"""Columns whose range is recorded per file, so that Delta readers can skip files."""

PART_SCHEMA = "name string, size long, rows long, stats string, problem string"

PART_ARROW = pa.schema(
    {"name": pa.string(), "size": pa.int64(), "rows": pa.int64(), "stats": pa.string(), "problem": pa.string()}
)


@dataclass(frozen=True, slots=True)
class Part:
    """A file to commit, or the reason why there is none."""

    name: str
    """Relative to the table's folder."""
    size: int
    """Bytes."""
    rows: int
    stats: str
    """Delta's per-file statistics, JSON."""
    problem: str | None = None
    """How the rows break the contract; then nothing may be committed."""

    @property
    def file(self) -> DataFile:
        """Return the file as the log will name it."""
        stats = json.loads(self.stats)
        low, high = (stats[bound].get(KEY) for bound in ("minValues", "maxValues"))
        return DataFile(self.name, self.size, self.rows, None if low is None else (low, high))


def grouped(items: Iterable[T], cost: Callable[[T], int], limit: int) -> list[list[T]]:
    """Return ``items`` in their order, in groups whose costs sum to at most ``limit``.

    An item that costs more is a group of its own.
    """
    groups: list[list[T]] = []
    room = 0
    for item in items:
        if not groups or cost(item) > room:
            groups.append([])
            room = limit
        groups[-1].append(item)
        room -= cost(item)
    return groups


# writing


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


def write_part(groups: Iterator[pa.Table], place: Storage, schema: pa.Schema) -> Part | None:
    """Write the next of the row ``groups`` to one file in ``place``, the table's; None, and no file, for no rows.

    A file of :data:`FILE_BYTES` takes no more: they are left for the next call. A null in a required column stops the
    writing and is reported as the part's problem, not raised: a task that raises reaches the driver as a Spark failure,
    after retries, with the message buried in a stack trace.
    """
    filled = (table for table in groups if table.num_rows)
    first = next(filled, None)
    if first is None:
        return None
    name = f"part-{uuid.uuid4()}.parquet"
    ranges, rows = _Ranges(), 0
    with place.sink(name) as target:
        with pq.ParquetWriter(target, schema, compression="zstd", write_page_index=True) as writer:
            for table in chain([first], filled):
                if problem := missing_values(table):
                    return Part(name, 0, 0, "", problem)
                writer.write_table(table, row_group_size=rows_per_group(table))
                ranges.add(table)
                rows += table.num_rows
                if target.stat().st_size >= FILE_BYTES:
                    break
        size = target.stat().st_size
    return Part(name, size, rows, ranges.to_json(rows))


def written_parts(batches: Iterable[pa.RecordBatch], place: Storage, schema: pa.Schema) -> Iterator[Part]:
    """Write all rows to files in ``place``, as :func:`write_part`; nothing more after a part with a problem."""
    groups = row_groups(batches, schema)
    while part := write_part(groups, place, schema):
        yield part
        if part.problem:
            return


def write_parts(batches: Iterable[pa.RecordBatch], place: Storage, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Do the work of a task of mapInArrow: :func:`written_parts`, and a row about each file (:data:`PART_SCHEMA`)."""
    for part in written_parts(batches, place, schema):
        yield pa.RecordBatch.from_pylist([asdict(part)], schema=PART_ARROW)


def row_groups(batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.Table]:
    """Yield the batches in the columns and types of ``schema``, joined up to about :data:`ROW_GROUP_BYTES`.

    A group ends with the last row about a product, if rows about the same product follow each other: so a file has all
    of them, and no other file has to be looked into. Only a product with very many rows is divided.
    """
    waiting: list[pa.RecordBatch] = []
    size = 0
    for batch in batches:
        waiting.append(conform(batch, schema))
        size += batch.nbytes
        if size >= ROW_GROUP_BYTES:
            table = pa.Table.from_batches(waiting, schema)
            end = _end_of_products(table) or (table.num_rows if size >= MOST_GROUP_BYTES else 0)
            if not end:
                continue
            yield table.slice(0, end)
            waiting = table.slice(end).to_batches()
            size = sum(batch.nbytes for batch in waiting)
    yield pa.Table.from_batches(waiting, schema)


def _end_of_products(table: pa.Table) -> int:
    """Return the number of rows before those about the last product, of which more may follow."""
    if KEY not in table.schema.names:
        return int(table.num_rows)
    ids = table[KEY]
    others = pc.indices_nonzero(pc.fill_null(pc.not_equal(ids, ids[-1]), True))
    return others[-1].as_py() + 1 if len(others) else 0


def conform(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Return the columns of ``schema``, by name and cast."""
    arrays = [batch.column(field.name).cast(field.type) for field in schema]
    # nulls in required columns are looked for later; from_arrays does not look
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def missing_values(table: pa.Table) -> str | None:
    """Return in words which required columns have nulls; None if none has."""
    nulls = {f.name: table[f.name].null_count for f in table.schema if not f.nullable}
    columns = [f"{name} (in at least {count} rows)" for name, count in nulls.items() if count]
    return f"null in required columns: {', '.join(columns)}" if columns else None


def rows_per_group(table: pa.Table) -> int:
    """Return how many rows of ``table`` fit a row group, at least one."""
    return max(1, int(table.num_rows * ROW_GROUP_BYTES // max(table.nbytes, 1)))
