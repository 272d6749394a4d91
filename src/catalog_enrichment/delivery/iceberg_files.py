"""Which data files of an Iceberg table a step writes again, and what is in them then.

Files are ordered by product: every file holds a range of product ids, and the ranges do not overlap. A step reads and
writes only the files in whose range a changed product is. Another program that writes the table's files again, such as
a compaction, may make ranges that overlap: overlapping files are read and written together.

Memory: a few times the rows of a file (ROWS_PER_FILE), or of the largest group of overlapping files.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from catalog_enrichment.delivery import differences, iceberg
from catalog_enrichment.delivery.differences import DELETE, KEY, UPSERT, difference, key_texts
from catalog_enrichment.delivery.feed import Step
from catalog_enrichment.delivery.sink import Applied

if TYPE_CHECKING:
    from pyiceberg.manifest import DataFile
    from pyiceberg.table import FileScanTask, Table

ROWS_PER_FILE = 200_000
"""About so many rows are written to a file; a product's rows are in a single file."""

_ORDER = [(name, "ascending") for name in KEY]


def ordered(batches: Iterable[pa.RecordBatch], step: Step, folder: Path) -> Iterator[pa.Table]:
    """Yield the batches of ``step`` in tables ordered by product and attribute; a snapshot is sorted in ``folder``."""
    if not step.snapshot:
        yield from (pa.Table.from_batches([batch]) for batch in batches if batch.num_rows)
        return
    rows, sample, file = 0, [], folder / "all.arrow"
    with differences.new_file(file, differences.SCHEMA) as writer:
        for batch in batches:
            writer.write_batch(batch)
            rows += batch.num_rows
            sample.append(differences.sampled(batch))
    with pa.memory_map(str(file)) as source, pa.ipc.open_file(source) as reader:
        stored = (reader.get_batch(number) for number in range(reader.num_record_batches))
        bounds = differences.bounds_of(rows, sample)
        for read in differences.in_ranges(stored, bounds, folder / "ranges", differences.SCHEMA):
            part = read()
            if part.num_rows:
                yield part.sort_by(_ORDER)


@dataclass(slots=True)
class _Group:
    """Data files whose ranges of product ids overlap; mostly a single file."""

    low: str
    high: str | None
    """None if the files do not say their highest id."""
    tasks: list[FileScanTask] = field(default_factory=list)


class Rewriting:
    """The files that a step adds to a table and removes from it, and the counts of changed rows.

    :meth:`run` writes the new files; they belong to the table when somebody commits ``added`` and ``gone``.
    """

    def __init__(self, table: Table, step: Step) -> None:
        self._table, self._step = table, step
        self._groups = _groups(table)
        self.applied = Applied()
        self.added: list[DataFile] = []
        self.gone: list[DataFile] = []
        self._written: list[DataFile] = []
        """The files that were written for the group at work."""
        self._visited: set[int] = set()
        self._at: int | None = None
        self._old = self._waiting = iceberg.schema().empty_table()
        """Rows of the group at work that the changes have not reached, and rows to write."""
        self._changed_before = 0

    def run(self, changes: Iterable[pa.Table]) -> None:
        """Apply ``changes``, which are ordered by product and attribute."""
        lows = [group.low for group in self._groups]
        for part in _at_ends_of_products(changes):
            self.applied.staged += part.num_rows
            ids = part["product_id"].to_pylist()
            start = 0
            while start < len(ids):
                number = max(0, bisect_right(lows, ids[start]) - 1)
                end = bisect_left(ids, lows[number + 1], start) if number + 1 < len(lows) else len(ids)
                self._open(number)
                self._merge(part.slice(start, end - start))
                start = end
        self._close()
        if self._step.snapshot:
            for number, group in enumerate(self._groups):
                if number not in self._visited:
                    self.gone += [task.file for task in group.tasks]
                    self.applied.deleted += sum(task.file.record_count for task in group.tasks)

    def remove_written(self) -> None:
        """Delete the files that :meth:`run` wrote."""
        self._remove([*self.added, *self._written])

    def _open(self, number: int) -> None:
        if number == self._at:
            return
        self._close()
        self._at, self._changed_before = number, self.applied.upserted + self.applied.deleted
        self._visited.add(number)
        if self._groups:
            self._old = _read(self._table, self._groups[number].tasks)

    def _merge(self, part: pa.Table) -> None:
        """Apply changes, whose products come after those of the changes before, to the group at work."""
        reached = pc.less_equal(self._old["product_id"], part["product_id"][-1])
        old, self._old = self._old.filter(reached), self._old.filter(pc.invert(reached))
        seen = old.drop_columns(["version"])
        upserts = part.filter(pc.equal(part["op"], UPSERT)).drop_columns(["op"]).cast(seen.schema)
        # a snapshot is everything that there is to be; changes leave the rows that they do not name
        target = upserts if self._step.snapshot else pa.concat_tables([_without(seen, part), upserts])
        changed = difference(seen, target)
        new = changed.filter(pc.equal(changed["op"], UPSERT))
        self.applied.upserted += new.num_rows
        self.applied.deleted += pc.sum(pc.equal(changed["op"], DELETE)).as_py() or 0
        version = pa.array([self._step.version] * new.num_rows, pa.int64())
        new = new.drop_columns(["op"]).append_column("version", version).cast(old.schema)
        self._write(pa.concat_tables([_without(old, changed), new]).sort_by(_ORDER))

    def _close(self) -> None:
        """End the group at work: its files are replaced, unless no row of it has changed."""
        if self._at is None:
            return
        if self._step.snapshot:
            self.applied.deleted += self._old.num_rows
        else:
            self._write(self._old)
        self._write_file(self._waiting)
        if self.applied.upserted + self.applied.deleted > self._changed_before:
            self.added += self._written
            self.gone += [task.file for task in self._groups[self._at].tasks] if self._groups else []
        else:
            self._remove(self._written)
        self._at, self._written = None, []
        self._old = self._waiting = iceberg.schema().empty_table()

    def _write(self, rows: pa.Table) -> None:
        """Add ``rows``, which come after those before, to the group's files."""
        self._waiting = pa.concat_tables([self._waiting, rows])
        while self._waiting.num_rows > 2 * ROWS_PER_FILE:
            last = self._waiting["product_id"][ROWS_PER_FILE]
            size = pc.sum(pc.less_equal(self._waiting["product_id"], last)).as_py()
            self._write_file(self._waiting.slice(0, size))
            self._waiting = self._waiting.slice(size)

    def _write_file(self, rows: pa.Table) -> None:
        from pyiceberg.io.pyarrow import _dataframe_to_data_files

        if rows.num_rows:
            rows = rows.combine_chunks()
            self._written += _dataframe_to_data_files(self._table.metadata, rows, self._table.io)

    def _remove(self, files: list[DataFile]) -> None:
        for file in files:
            self._table.io.delete(file.file_path)


def _groups(table: Table) -> list[_Group]:
    """Return the table's data files, ordered by their product ids and joined where these overlap."""
    from pyiceberg.conversions import from_bytes
    from pyiceberg.types import StringType

    column = table.schema().find_field("product_id").field_id

    def bound(bounds: dict[int, bytes] | None) -> Any:
        return from_bytes(StringType(), bounds[column]) if bounds and column in bounds else None

    tasks = list(table.scan().plan_files())
    files = [(bound(task.file.lower_bounds) or "", bound(task.file.upper_bounds), task) for task in tasks]
    groups: list[_Group] = []
    for low, high, task in sorted(files, key=lambda file: file[0]):
        if groups and (groups[-1].high is None or low <= groups[-1].high):
            groups[-1].high = None if high is None or groups[-1].high is None else max(high, groups[-1].high)
            groups[-1].tasks.append(task)
        else:
            groups.append(_Group(low, high, [task]))
    return groups


def _read(table: Table, tasks: list[FileScanTask]) -> pa.Table:
    """Return the rows of data files, in the order of :data:`_ORDER`."""
    from pyiceberg.expressions import AlwaysTrue
    from pyiceberg.io.pyarrow import ArrowScan

    rows = ArrowScan(table.metadata, table.io, table.schema(), AlwaysTrue()).to_table(tasks)
    return rows.select(iceberg.schema().names).cast(iceberg.schema()).sort_by(_ORDER)


def _without(rows: pa.Table, keys: pa.Table) -> pa.Table:
    """Return the ``rows`` whose product and attribute are not in ``keys``."""
    return rows.filter(pc.invert(pc.is_in(key_texts(rows), value_set=key_texts(keys))))


def _at_ends_of_products(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Yield the rows of ``tables`` in others, no two of which have rows of the same product."""
    waiting: pa.Table | None = None
    for table in tables:
        rows = table if waiting is None else pa.concat_tables([waiting, table])
        last = pc.equal(rows["product_id"], rows["product_id"][-1])
        waiting, whole = rows.filter(last), rows.filter(pc.invert(last))
        if whole.num_rows:
            yield whole
    if waiting is not None:
        yield waiting
