"""Compares two versions of `current_values`, row by row, in bounded memory and without Spark.

Files that both versions have are not read. The others are split by ranges of product ids, and the rows of a range are
compared by their keys: a row that the older version does not have, or has with other content, is an upsert; a key that
only the older version has is a delete.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from catalog_enrichment import contract
from catalog_enrichment.catalog.table_checks import WAY_OUT
from catalog_enrichment.errors import DataContractError

if TYPE_CHECKING:
    from catalog_enrichment.catalog.lake import Catalog

TABLE = "current_values"
"""The table that readers see."""

NOTHING = -1
"""The version before the first: it has no rows."""

UPSERT, DELETE = "upsert", "delete"

SCHEMA = pa.schema([("op", pa.string()), *((field.name, field.type) for field in contract.arrow_schema(TABLE))])
"""The columns of `current_values` after ``op``. For deletes, all columns after ``attribute`` are null."""

KEY = ("product_id", "attribute")

ROWS_AT_A_TIME = 500_000
"""Rows of both versions that are compared at a time: about 400 MB."""

SAMPLED = 64
"""The bounds of the ranges are drawn from every 64th row."""


def changes(catalog: Catalog, before: int, after: int) -> Iterator[pa.RecordBatch]:
    """Yield rows of SCHEMA that turn version ``before`` into version ``after``, each key at most once.

    The rows are ordered by product and attribute, unless ``before`` is :data:`NOTHING`.
    """
    if before == NOTHING:
        for batch in catalog.tables.scan_differing(TABLE, after, NOTHING):
            yield from _with_op(pa.Table.from_batches([batch]), UPSERT).to_batches()
        return
    bounds = _bounds(catalog, before, after)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory())) if bounds else None
        old, new = (
            in_ranges(
                catalog.tables.scan_differing(TABLE, version, other),
                bounds,
                folder and folder / str(version),
                contract.arrow_schema(TABLE),
            )
            for version, other in ((before, after), (after, before))
        )
        for read_old, read_new in zip(old, new, strict=True):
            yield from difference(read_old(), read_new()).to_batches(max_chunksize=65_536)


def difference(old: pa.Table, new: pa.Table) -> pa.Table:
    """Return rows of SCHEMA, ordered by key: the rows of ``new`` that ``old`` does not have, and the keys that only
    ``old`` has. Raises DataContractError if a key is twice in a table."""
    old_keys, new_keys = key_texts(old), key_texts(new)
    for rows, keys in ((old, old_keys), (new, new_keys)):
        _check_unique(rows, keys)
    place = pc.index_in(new_keys, value_set=old_keys).combine_chunks()
    before, after = old.take(place.drop_null()), new.filter(pc.is_valid(place))
    upserts = pa.concat_tables([new.filter(pc.is_null(place)), after.filter(pc.invert(_same(before, after)))])
    deletes = old.filter(pc.invert(pc.is_in(old_keys, value_set=new_keys))).select(KEY)
    rows = pa.concat_tables([_with_op(upserts, UPSERT), _with_op(deletes, DELETE)])
    return rows.sort_by([(name, "ascending") for name in KEY])


def _check_unique(rows: pa.Table, keys: pa.ChunkedArray) -> None:
    if pc.count_distinct(keys).as_py() == len(keys):
        return
    counts = pc.value_counts(keys)
    twice = counts.filter(pc.greater(counts.field("counts"), 1)).field("values")[0]
    product_id, attribute = (rows[name][pc.index(keys, twice).as_py()].as_py() for name in KEY)
    raise DataContractError(
        f"the table {TABLE} has several rows of the product {product_id!r} and the attribute {attribute!r}: another "
        f"program changed it, or the products. {WAY_OUT}"
    )


def _same(before: pa.Table, after: pa.Table) -> pa.ChunkedArray:
    """Compare two tables with the same keys row by row: true where all other columns are equal or both null."""
    same = pa.chunked_array([pa.array([True] * after.num_rows, pa.bool_())])
    for name in set(after.column_names).difference(KEY):
        left, right = _comparable(before[name]), _comparable(after[name])
        both_null = pc.and_(pc.is_null(left), pc.is_null(right))
        same = pc.and_(same, pc.or_(pc.fill_null(pc.equal(left, right), False), both_null))
    return same


def _with_op(rows: pa.Table, op: str) -> pa.Table:
    """Return ``rows`` in the columns of SCHEMA; columns that it lacks are null."""
    columns = {name: rows[name] for name in rows.column_names} | {"op": pa.array([op] * rows.num_rows, pa.string())}
    empty = pa.nulls(rows.num_rows)
    return pa.Table.from_arrays([columns.get(field.name, empty).cast(field.type) for field in SCHEMA], schema=SCHEMA)


def key_texts(rows: pa.Table) -> pa.ChunkedArray:
    """Return a text per row; two rows have the same text if and only if their keys are equal."""
    texts = [_escaped(rows[name].cast(pa.large_string())) for name in KEY]
    return pc.binary_join_element_wise(*texts, pa.scalar("\x1f", pa.large_string()))


def _escaped(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return the texts without the separator \\x1f; null becomes n, every other text begins with v."""
    for given, written in (("\\", "\\\\"), ("\x1f", "\\u")):
        if pc.any(pc.match_substring(texts, given)).as_py():  # hardly ever, and to look is faster than to replace
            texts = pc.replace_substring(texts, given, written)
    empty = pa.scalar("", pa.large_string())
    return pc.fill_null(pc.binary_join_element_wise(pa.scalar("v", pa.large_string()), texts, empty), "n")


def _comparable(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return the column; for a column of lists, their elements joined to texts: Arrow does not compare lists."""
    if not pa.types.is_list(column.type):
        return column
    return pa.chunked_array([_joined(chunk) for chunk in column.chunks], pa.large_string())


def _joined(lists: pa.Array) -> pa.Array:
    import numpy as np

    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int64())
    elements = _escaped(pa.chunked_array([lists.flatten().cast(pa.large_string())])).combine_chunks()
    return pc.binary_join(pa.LargeListArray.from_arrays(offsets, elements), pa.scalar("\x1f", pa.large_string()))


def _bounds(catalog: Catalog, before: int, after: int) -> list[str]:
    """Return the product ids between ranges of about ROWS_AT_A_TIME rows of both versions; empty for a single range."""
    rows, sample = 0, []
    for version, other in ((before, after), (after, before)):
        for batch in catalog.tables.scan_differing(TABLE, version, other, ["product_id"]):
            rows += batch.num_rows
            sample.append(sampled(batch))
    return bounds_of(rows, sample)


def sampled(batch: pa.RecordBatch) -> pa.Array:
    """Return every SAMPLED-th product id."""
    return batch.column("product_id").take(pa.array(range(0, batch.num_rows, SAMPLED), pa.int64()))


def bounds_of(rows: int, sample: Sequence[pa.Array]) -> list[str]:
    """Return the product ids between ranges of about ROWS_AT_A_TIME of ``rows`` rows, by a sample of their ids."""
    ranges = ceil(rows / ROWS_AT_A_TIME)
    if ranges < 2:
        return []
    ids = pa.chunked_array(sample)
    ids = ids.take(pc.sort_indices(ids))
    return sorted({ids[len(ids) * number // ranges].as_py() for number in range(1, ranges)}, key=str.encode)


def in_ranges(
    batches: Iterator[pa.RecordBatch], bounds: Sequence[str], folder: Path | None, schema: pa.Schema
) -> list[Callable[[], pa.Table]]:
    """Return a function per range between ``bounds`` that reads its rows: from memory without bounds, else from a file
    in ``folder``."""
    if folder is None:
        table = pa.Table.from_batches(list(batches), schema)
        return [lambda: table]
    folder.mkdir()
    files = [folder / f"{number}.arrow" for number in range(len(bounds) + 1)]
    with ExitStack() as stack:
        writers = [stack.enter_context(new_file(file, schema)) for file in files]
        for batch in batches:
            number = pa.array([0] * batch.num_rows, pa.int64())
            for bound in bounds:
                number = pc.add(number, pc.greater_equal(batch.column("product_id"), bound).cast(pa.int64()))
            for index, writer in enumerate(writers):
                writer.write_batch(batch.filter(pc.equal(number, index)))
    return [partial(_read, file) for file in files]


def new_file(file: Path, schema: pa.Schema) -> pa.ipc.RecordBatchFileWriter:
    """Open a temporary file for batches."""
    return pa.ipc.new_file(str(file), schema, options=pa.ipc.IpcWriteOptions(compression="lz4"))


def _read(file: Path) -> pa.Table:
    with pa.OSFile(str(file)) as source, pa.ipc.open_file(source) as reader:
        return reader.read_all()
