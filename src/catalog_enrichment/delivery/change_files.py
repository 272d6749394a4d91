"""Writes changes to one file: JSON lines, CSV or parquet, the same rows in each.

A file is a sequence of rows that are applied from top to bottom. ``op`` says what a row does::

    reset     forget everything: what follows is a snapshot
    upsert    the product's attribute now has these values, from this source
    delete    the product's attribute has no value any more
    end       the last row: with it applied, the consumer is at ``position``; a file without it is not complete

The file of a single run has no position: what other runs did in between is not in it.
"""

from __future__ import annotations

import json
import os
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from catalog_enrichment.catalog.part_files import row_groups, rows_per_group
from catalog_enrichment.delivery import differences
from catalog_enrichment.delivery.feed import Step
from catalog_enrichment.operations.value_files import FORMATS, Format

if TYPE_CHECKING:
    from catalog_enrichment.catalog.base import Catalog

RESET, END = "reset", "end"

SCHEMA = pa.schema(
    [
        ("op", pa.string()),
        ("version", pa.int64()),
        ("changed_by", pa.list_(pa.string())),
        *[(field.name, field.type) for field in list(differences.SCHEMA)[1:]],
        ("position", pa.string()),
    ]
)
"""``version`` grows from commit to commit, ``changed_by`` are the runs that made it. Of reset and end everything about
a value is null; ``position``, CATALOG:VERSION, is null but in these two."""

__all__ = ["END", "FORMATS", "RESET", "SCHEMA", "rows_of", "write"]

_JSON_ROWS = 10_000
"""Rows that are Python objects at a time."""

_Write = Callable[[pa.Table], None]


def rows_of(catalog: Catalog, steps: Iterable[Step], to_follow: bool = True) -> Iterator[pa.RecordBatch]:
    """The rows of a file (SCHEMA) with the changes of ``steps``, at least one, in their order.

    ``to_follow``: the steps have no gap, so that a consumer that has applied them is at the last one's position.
    """
    step = None
    for step in steps:
        if step.snapshot:
            yield _marker(RESET, step, to_follow)
        for batch in step.changes(catalog):
            of_step = {
                "version": pa.array([step.version] * batch.num_rows, pa.int64()),
                "changed_by": pa.array([list(step.run_ids)] * batch.num_rows, pa.list_(pa.string())),
                "position": pa.nulls(batch.num_rows, pa.string()),
            }
            columns = [of_step[name] if name in of_step else batch.column(name) for name in SCHEMA.names]
            yield pa.RecordBatch.from_arrays(columns, schema=SCHEMA)
    assert step is not None
    yield _marker(END, step, to_follow)


def _marker(op: str, step: Step, to_follow: bool) -> pa.RecordBatch:
    position = str(step.position) if to_follow else None
    row = {"op": op, "version": step.version, "changed_by": list(step.run_ids), "position": position}
    return pa.RecordBatch.from_pylist([row], schema=SCHEMA)


def write(batches: Iterable[pa.RecordBatch], target: Path, kind: Format) -> Counter[str]:
    """Write ``batches`` of SCHEMA to ``target``; returns op -> rows.

    To another file in the same folder, which takes the place of ``target`` when it is complete and on the disk.
    """
    scratch = target.with_name(f".{target.name[:40]}.{uuid.uuid4().hex[:12]}.tmp")
    counts: Counter[str] = Counter()
    try:
        with _WRITERS[kind](scratch) as put:
            for table in row_groups(batches, SCHEMA):
                put(table)
                for pair in table["op"].value_counts().to_pylist():
                    counts[pair["values"]] += pair["counts"]
        with scratch.open("rb") as written:
            os.fsync(written.fileno())
        scratch.replace(target)
    finally:
        scratch.unlink(missing_ok=True)
    return counts


@contextmanager
def _jsonl(file: Path) -> Iterator[_Write]:
    """A JSON object per line, without the keys that are null."""

    def put(table: pa.Table) -> None:
        for batch in table.to_batches(max_chunksize=_JSON_ROWS):
            for row in batch.to_pylist():
                known = {name: value for name, value in _plain(row).items() if value is not None}
                stream.write(json.dumps(known, ensure_ascii=False) + "\n")

    with file.open("w", encoding="utf-8", newline="\n") as stream:
        yield put


@contextmanager
def _csv(file: Path) -> Iterator[_Write]:
    """With a header, in UTF-8; null is an empty cell, a list its JSON text. For programs: no text is changed to protect
    spreadsheets."""
    import csv

    def put(table: pa.Table) -> None:
        for batch in table.to_batches(max_chunksize=_JSON_ROWS):
            for row in batch.to_pylist():
                writer.writerow([_cell(value) for value in _plain(row).values()])

    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(SCHEMA.names)
        yield put


@contextmanager
def _parquet(file: Path) -> Iterator[_Write]:
    import pyarrow.parquet as pq

    with pq.ParquetWriter(file, SCHEMA, compression="zstd") as writer:
        yield lambda table: writer.write_table(table, row_group_size=rows_per_group(table))


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """With ``asserted_at`` in ISO 8601, in UTC."""
    at = row["asserted_at"]
    return row | {"asserted_at": None if at is None else at.isoformat()}


def _cell(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list) else value


_WRITERS: dict[Format, Callable[[Path], AbstractContextManager[_Write]]] = {
    "csv": _csv,
    "jsonl": _jsonl,
    "parquet": _parquet,
}
