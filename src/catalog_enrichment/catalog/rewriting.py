"""Files of a table that are written again because some of their rows changed, or to keep ranges of products narrow.

The tables about products have files that are sorted by ``product_id``, whose range the log records. So a change of few
products looks into few files, and only files that hold a row about one of them are written again: the new rows take the
places of the old, in order. Rows about products that no file holds go into files of their own. Many commits later the
ranges of files overlap; upkeep then joins the files, sorted (:func:`sorted_rows`).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from catalog_enrichment.catalog.part_files import KEY, PART_ARROW, PART_SCHEMA, Part, grouped, written_parts
from catalog_enrichment.catalog.reading import BATCH_ROWS, about, batches_of, read_files, rows_about, spans_of
from catalog_enrichment.catalog.storage import DataFile, Storage
from catalog_enrichment.catalog.table_checks import opened

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

TASK_BYTES = 32 * 2**20
"""Compressed bytes of the files that one task looks into, or the driver alone where they are all."""

SORTED_BYTES = 128 * 2**20
"""Uncompressed bytes of a range of products that :func:`sorted_rows` sorts at once."""

_LOOKED_INTO = f"file string, held array<string>, parts array<struct<{PART_SCHEMA}>>"

_LOOKED_INTO_ARROW = pa.schema(
    {"file": pa.string(), "held": pa.list_(pa.string()), "parts": pa.list_(pa.struct(list(PART_ARROW)))}
)


@dataclass(slots=True)
class Rewritten:
    """What takes the place of which files."""

    parts: list[Part] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)
    """Names of the files that hold a row that changed."""
    held: list[pa.Array] = field(default_factory=list)
    """The products that changed and that a file holds."""

    @property
    def all_held(self) -> pa.Array:
        """Return :attr:`held` of all files, each product once."""
        return pa.concat_arrays(self.held).unique() if self.held else pa.array([], pa.string())

    @property
    def held_twice(self) -> bool:
        """Return whether two files hold rows about the same product."""
        return sum(map(len, self.held)) > len(self.all_held)


# which files


def deepest(files: Sequence[DataFile], most: int) -> list[list[DataFile]]:
    """Return groups of files, each with a product id that is in the range of all its files, and so few that of the
    files in no group at most ``most`` have an id in common. A file whose range is not known has all ids."""
    left, groups = list(files), []
    while len(group := _at_deepest_point(left)) > most:
        groups.append(group)
        left = [file for file in left if file not in group]
    return groups


def _at_deepest_point(files: Sequence[DataFile]) -> list[DataFile]:
    """Return the files that share an id, as many as possible."""
    known = [file.ids for file in files if file.ids is not None]
    lows, highs = sorted(low for low, _ in known), sorted(high for _, high in known)
    # at the lowest id of a file: the ranges that have begun, less those that are over
    depths = {low: bisect_right(lows, low) - bisect_left(highs, low) for low in lows}
    point = max(depths, key=lambda low: (depths[low], low), default=None)
    return [file for file in files if file.ids is None or (point is not None and file.ids[0] <= point <= file.ids[1])]


# some rows replaced


@dataclass(frozen=True, slots=True)
class Rewriter:
    """Replaces rows of the table in ``place``. Few small files are written by the driver, others by Spark's tasks."""

    spark: SparkSession
    place: Storage
    schema: pa.Schema

    def put(self, parts: Sequence[Part], ids: pa.Array, files: Sequence[DataFile]) -> tuple[list[Part], list[str]]:
        """Put the rows of ``parts``, whose files are sorted, in place of the rows about the products ``ids``.

        ``files``: the table's. Returns the files to add, and the names of those to remove. Of ``parts`` only those are
        among them whose rows have found no place in a file: rows about products that no file holds.
        """
        new = [part.file for part in parts]
        changes = self.rewritten(files, ids, new)
        placed = changes.all_held
        if changes.held_twice:  # as another program may leave them: each would get the new rows
            self.place.delete(part.name for part in changes.parts)
            changes, placed = self.rewritten(files, ids, []), pa.array([], pa.string())
        rest = self.rewritten(new, placed, [])
        self.place.delete(rest.replaced)
        left = [part for part in parts if part.name not in rest.replaced]
        return changes.parts + rest.parts + left, changes.replaced

    def rewritten(self, files: Sequence[DataFile], gone: pa.Array, new: Sequence[DataFile]) -> Rewritten:
        """Write again the ``files`` that hold a row about the products ``gone``, without these rows.

        The rows about the same products in the files ``new``, which are sorted, take their places.
        """
        groups = grouped(about(files, gone), lambda file: file.size, TASK_BYTES)
        task = partial(_look_into, groups=groups, gone=gone, new=new, place=self.place, schema=self.schema)
        if len(groups) <= 1:
            found: Iterable[dict[str, Any]] = task(range(len(groups)))
        else:
            numbers = self.spark.range(0, len(groups), numPartitions=len(groups))
            found = numbers.mapInArrow(partial(_as_batches, task=task), _LOOKED_INTO).toArrow().to_pylist()
        result = Rewritten()
        for row in found:
            result.replaced.append(row["file"])
            result.held.append(pa.array(row["held"], pa.string()))
            result.parts += [Part(**part) for part in row["parts"]]
        return result


def _as_batches(batches: Iterable[pa.RecordBatch], task: partial[Iterator[dict[str, Any]]]) -> Iterator[pa.RecordBatch]:
    """Do the work of a task of mapInArrow; ``batches``: one column with the numbers of the task's groups of files."""
    for batch in batches:
        for row in task(batch.column(0).to_pylist()):
            yield pa.RecordBatch.from_pylist([row], schema=_LOOKED_INTO_ARROW)


def _look_into(
    numbers: Iterable[int],
    groups: Sequence[Sequence[DataFile]],
    gone: pa.Array,
    new: Sequence[DataFile],
    place: Storage,
    schema: pa.Schema,
) -> Iterator[dict[str, Any]]:
    """Yield ``file``, ``held`` and ``parts`` of every file that holds a row about a product that is ``gone``."""
    for file in (file for number in numbers for file in groups[number]):
        held = _held(place, file, gone)
        if not len(held):
            continue
        kept = (
            rows.filter(pc.invert(pc.is_in(rows.column(KEY), value_set=held)))
            for rows in read_files(place, [file], BATCH_ROWS, schema)
        )
        instead = pa.Table.from_batches(rows_about(place, new, held, schema), schema)
        parts = [asdict(part) for part in written_parts(merged(kept, instead), place, schema)]
        yield {"file": file.name, "held": held.to_pylist(), "parts": parts}


def _held(place: Storage, file: DataFile, ids: pa.Array) -> pa.Array:
    """Return those of the products ``ids`` about which the file has a row."""
    with opened(place, file.name, file.rows) as parquet:
        there = parquet.read(columns=[KEY])[KEY].unique()
    return ids.filter(pc.is_in(ids, value_set=there))


def merged(rows: Iterable[pa.RecordBatch], new: pa.Table) -> Iterator[pa.RecordBatch]:
    """Yield ``rows`` and the rows of ``new``, all in the order of ``product_id`` if both have it."""
    keys, done = new[KEY].to_pylist(), 0
    for batch in rows:
        if not batch.num_rows:
            continue
        last = pc.max(batch.column(KEY)).as_py()
        upto = len(keys) if last is None else bisect_right(keys, last, done)
        if upto > done:
            both = pa.concat_tables([pa.Table.from_batches([batch]), new.slice(done, upto - done)])
            yield from both.sort_by(KEY).to_batches()
            done = upto
        else:
            yield batch
    yield from new.slice(done).to_batches()


# files joined


def rows_of(place: Storage, files: Sequence[DataFile], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Yield the rows of ``files`` in their order."""
    return read_files(place, files, BATCH_ROWS, schema)


def sorted_rows(place: Storage, files: Sequence[DataFile], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Yield the rows of ``files`` in the order of ``product_id``, with those without one somewhere between.

    Memory: about :data:`SORTED_BYTES`, if the files are sorted; a range of products is read at a time.
    """
    pieces = [piece for file in files for piece in _pieces(place, file)]
    bounds = [None, *_bounds(pieces), None]
    for low, high in pairwise(bounds):
        table = pa.Table.from_batches(_between(place, pieces, low, high, schema), schema)
        yield from table.sort_by(KEY).to_batches(BATCH_ROWS)


@dataclass(frozen=True, slots=True)
class _Piece:
    """A row group of a file."""

    file: DataFile
    number: int
    size: int
    """Uncompressed bytes."""
    span: tuple[str, str] | None


def _pieces(place: Storage, file: DataFile) -> Iterator[_Piece]:
    with opened(place, file.name, file.rows) as parquet:
        for number, span in enumerate(spans_of(parquet)):
            yield _Piece(file, number, parquet.metadata.row_group(number).total_byte_size, span)


def _bounds(pieces: Sequence[_Piece]) -> list[str]:
    """Return ids that divide the products into ranges of about :data:`SORTED_BYTES`."""
    bounds, size = list[str](), 0
    for span, bytes_ in sorted((piece.span, piece.size) for piece in pieces if piece.span is not None):
        if size and size + bytes_ > SORTED_BYTES and (not bounds or span[0] > bounds[-1]):
            bounds.append(span[0])
            size = 0
        size += bytes_
    return bounds


def _between(
    place: Storage, pieces: Sequence[_Piece], low: str | None, high: str | None, schema: pa.Schema
) -> Iterator[pa.RecordBatch]:
    """Yield the rows with ``low`` <= product_id < ``high``, None: no bound. Those without an id have no lower bound."""
    for piece in pieces:
        if piece.span is not None and not _overlap(piece.span, low, high):
            continue
        with opened(place, piece.file.name, piece.file.rows) as parquet:
            for batch in batches_of(parquet, BATCH_ROWS, schema, [piece.number]):
                ids = batch.column(KEY)
                wanted = pc.is_null(ids) if low is None else pa.array([False] * len(ids))
                inside = pa.array([True] * len(ids))
                for bound, test in ((low, pc.greater_equal), (high, pc.less)):
                    inside = inside if bound is None else pc.and_(inside, test(ids, bound))
                yield batch.filter(pc.or_(wanted, pc.fill_null(pc.and_(inside, pc.is_valid(ids)), False)))


def _overlap(span: tuple[str, str], low: str | None, high: str | None) -> bool:
    return (low is None or span[1] >= low) and (high is None or span[0] < high)
