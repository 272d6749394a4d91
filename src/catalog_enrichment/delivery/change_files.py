"""Writes changes to a file: JSON lines, CSV or parquet, the same rows in each.

The rows of a file are applied from top to bottom. ``op`` says what a row does::

    reset     discard everything: a snapshot follows
    upsert    the product's attribute now has these values, from this source
    delete    the product's attribute has no value any more
    end       the last row: the consumer is now at ``position``; a file without this row is not complete

The file of a single run has no position: it does not have what other runs did in between.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from catalog_enrichment.delivery import differences
from catalog_enrichment.delivery.feed import Step
from catalog_enrichment.operations.exported_values import Format, WriteTable, parquet_writer, write_whole

if TYPE_CHECKING:
    from catalog_enrichment.catalog.lake import Catalog

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
"""``version`` grows from commit to commit, ``changed_by`` are the runs that made it. Only reset and end have a
``position``, CATALOG:VERSION, and they have no columns of a value."""

_JSON_ROWS = 10_000
"""Rows that are turned into Python objects at a time."""


def rows_of(catalog: Catalog, steps: Iterable[Step], to_follow: bool = True) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a file (SCHEMA) with the changes of ``steps``, at least one step, in their order.

    ``to_follow``: the steps have no gap, so that a consumer that has applied them is at the position of the last step.
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
    """Write ``batches`` of SCHEMA to ``target``; returns op -> rows. ``target`` is only replaced by a whole file."""
    writer = partial(parquet_writer, schema=SCHEMA) if kind == "parquet" else partial(_text_writer, kind=kind)
    return write_whole(batches, SCHEMA, target, writer, "op")


@contextmanager
def _text_writer(file: Path, kind: Format) -> Iterator[WriteTable]:
    """Open ``file`` and yield the function that writes a table to it as JSON lines or CSV.

    JSON lines leave out the keys that are null. In CSV, which has a header, null is an empty cell and a list its JSON
    text; the file is for programs, so that no text is changed to protect spreadsheets.
    """
    with file.open("w", encoding="utf-8", newline="") as stream:
        cells = csv.writer(stream)
        if kind == "csv":
            cells.writerow(SCHEMA.names)

        def put(table: pa.Table) -> None:
            for row in _plain_rows(table):
                if kind == "csv":
                    cells.writerow(_json(value) if isinstance(value, list) else value for value in row.values())
                else:
                    stream.write(_json({name: value for name, value in row.items() if value is not None}) + "\n")

        yield put


def _json(content: Any) -> str:
    return json.dumps(content, ensure_ascii=False)


def _plain_rows(table: pa.Table) -> Iterator[dict[str, Any]]:
    """Yield the rows with ``asserted_at`` in ISO 8601, in UTC."""
    for batch in table.to_batches(max_chunksize=_JSON_ROWS):
        for row in batch.to_pylist():
            at = row["asserted_at"]
            yield row | {"asserted_at": at and at.isoformat()}
