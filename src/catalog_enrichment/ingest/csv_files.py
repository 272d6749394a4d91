"""CSV and TSV files as a frame of text columns, without losing a physical line (I7).

Cells may hold separators, quotes and line breaks (RFC 4180), so each file is read by one task. Where the quotes are
broken, or a quote is never closed, the record's first physical line is refused with its text, and reading goes on at
the next line: an unclosed quote does not swallow the rows after it. A quote that is never closed may seem to be closed
by a later line (`24" monitor`): see :func:`_is_unclosed`. A record with another number of cells than the file has
columns is refused as a whole. So every physical line that is not blank is part of one accepted or refused row.
"""

from __future__ import annotations

import csv
import re
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING
from urllib.parse import unquote

import pyarrow as pa

from catalog_enrichment.errors import DataContractError
from catalog_enrichment.ingest.source_frame import Location, SourceFrame, with_origin

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

MAX_LINES = 10_000
"""Physical lines in one record. Without a limit the end of an unclosed quote would be looked for in the whole file."""
MAX_CHARACTERS = 20_000_000
"""Characters in one record."""

_PATH, _LINE, _TEXT = "path", "line", "text"
_HEADER_LINES = 100
_BATCH_ROWS, _BATCH_CHARACTERS = 10_000, 16_000_000
_LINES = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")
_BLANK = " \r\n"
_BYTE_ORDER_MARK = "\ufeff"


def open_csv(
    spark: SparkSession, separator: str, location: Location, columns: Sequence[str], names: Sequence[str]
) -> SourceFrame:
    """Open the columns ``names``, as far as the files have them.

    ``columns``: the names of all columns, for files without a header. In a folder, the columns are those of the first
    file. A file that lacks one of them, or whose header cannot be read, is refused line by line. Raises
    DataContractError for a header that cannot be read, and in a folder for a mapped column without a name.
    """
    from pyspark.sql import functions as F
    from pyspark.sql.types import LongType, StringType, StructField, StructType

    lines = spark.read.text(location.path, lineSep="\n")
    available = list(columns) or _header(spark, lines, separator, location)
    read = [name for name in available if name in names]
    unnamed = [name for place, name in enumerate(available) if name == f"_c{place}" and name in read]
    if unnamed and not columns and not location.is_file:
        raise DataContractError(
            f"{location.path}: {unnamed} have no name in the header. In a folder the columns are found by their names: "
            "import such files one by one."
        )
    places = [f"c{place}" for place in range(len(read))]  # names of the source could clash with the added columns
    fields = [StructField(name, StringType()) for name in (_PATH, _TEXT, *places)]
    schema = StructType([*fields[:2], StructField(_LINE, LongType()), *fields[2:]])
    task = partial(_parse, separator=separator, columns=list(columns) or None, names=read)
    rows = _in_file_order(lines).mapInArrow(task, schema)
    selected = [F.col(place).alias(name) for place, name in zip(places, read, strict=True)]
    frame = with_origin(rows, selected, corrupt=F.col(_TEXT), path=F.col(_PATH), row_number=F.col(_LINE))
    return SourceFrame(frame, dict.fromkeys(read, StringType()), lambda: available)


def _header(spark: SparkSession, lines: DataFrame, separator: str, location: Location) -> list[str]:
    """Return the names of the columns of the first file; none if it has no line."""
    from pyspark.sql import functions as F

    files = [location.path] if location.is_file else [unquote(uri) for uri in sorted(lines.inputFiles())]
    first = spark.read.text(files[0], lineSep="\n") if files else lines
    # a file's first part comes first, and `limit` takes the first rows of the first part
    head = [row[0] for row in first.select(F.col("value").cast("binary")).limit(_HEADER_LINES).collect()]
    text = [line for value in head for line in physical_lines(_decoded(value))]
    names = read_header(text, separator) if text else []
    if names is None:
        raise DataContractError(f"{location.path}: the header cannot be read: its quotes are broken or never closed.")
    return names


def _in_file_order(lines: DataFrame) -> DataFrame:
    """Return (path, text as bytes), with every file in one partition and its lines in order."""
    from pyspark.sql import functions as F

    text = F.col("value").cast("binary").alias(_TEXT)  # bytes: what is no valid UTF-8 must reach the task, too
    path, start = F.col("_metadata.file_path").alias(_PATH), F.col("_metadata.file_block_start").alias("start")
    if lines.rdd.getNumPartitions() <= 1:
        return lines.select(path, text)
    placed = lines.select(path, text, start, F.monotonically_increasing_id().alias("place"))
    return placed.repartition(_PATH).sortWithinPartitions(_PATH, "start", "place").select(_PATH, _TEXT)


def _parse(
    batches: Iterable[pa.RecordBatch], separator: str, columns: list[str] | None, names: list[str]
) -> Iterator[pa.RecordBatch]:
    """Turn batches of (path, text) into batches of (path, text, line, columns ``names``); runs on executors."""

    def source() -> Iterator[tuple[str, bytes]]:
        for batch in batches:
            yield from zip(batch.column(0).to_pylist(), batch.column(1).to_pylist(), strict=True)

    for path, lines in groupby(source(), key=itemgetter(0)):
        text = (line for _, value in lines for line in physical_lines(_decoded(value)))
        for rows in _batched(read_csv(text, separator, columns, names)):
            arrays = {
                _PATH: pa.array([path] * len(rows), pa.string()),
                _TEXT: pa.array([row.refused for row in rows], pa.string()),
                _LINE: pa.array([row.line for row in rows], pa.int64()),
                **{f"c{n}": pa.array([row.cells[n] for row in rows], pa.string()) for n in range(len(names))},
            }
            yield pa.RecordBatch.from_pydict(arrays)


def _batched(rows: Iterable[CsvRow]) -> Iterator[list[CsvRow]]:
    batch: list[CsvRow] = []
    characters = 0
    for row in rows:
        batch.append(row)
        characters += len(row.refused or "") + sum(len(cell or "") for cell in row.cells)
        if len(batch) >= _BATCH_ROWS or characters >= _BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _decoded(line: bytes) -> str:
    """Return a line with its end, which Spark took away."""
    return line.decode("utf-8", "replace") + "\n"


# --- the rows of one file, without Spark ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CsvRow:
    """A row of a file, accepted or refused."""

    line: int
    """Number of the row's first physical line in the file, from 0."""
    cells: list[str | None]
    """The columns that are read; None for an empty cell. A refused row has the cells that could be read."""
    refused: str | None = None
    """Text of a refused row."""


def read_csv(
    lines: Iterable[str], separator: str, columns: Sequence[str] | None, names: Sequence[str]
) -> Iterator[CsvRow]:
    """Yield the rows of one file with the columns ``names``.

    ``lines``: the file cut at line ends (:func:`physical_lines`); blank lines are no rows. ``columns``: all columns of
    the file, or None if its first record names them. If the header lacks one of ``names``, every line is refused.
    """
    reader = _Reader(lines, separator)
    if columns is None:
        header = next(reader.records(), None)
        if header is None:
            return
        columns = header_names(header.cells or [])
        if not set(names) <= set(columns):
            yield CsvRow(header.line, [None] * len(names), header.text)
            for line, text in reader.remaining_lines():
                yield CsvRow(line, [None] * len(names), text)
            return
    reader.columns = len(columns)
    places = [columns.index(name) for name in names]
    for record in reader.records():
        cells = record.cells or []
        complete = len(cells) == len(columns)
        values = cells if complete else [*cells, *[""] * len(columns)]
        yield CsvRow(record.line, [values[place] or None for place in places], None if complete else record.text)


def read_header(lines: Iterable[str], separator: str) -> list[str] | None:
    """Return the names of the columns that the first record gives; None if it cannot be read or there is none."""
    header = next(_Reader(lines, separator).records(), None)
    return None if header is None or header.cells is None else header_names(header.cells)


def header_names(cells: Sequence[str]) -> list[str]:
    """Return the column names of a header.

    A column without a name is called ``_c0``, ``_c1``, ... by its position. A name that several columns have is
    followed by their positions.
    """
    names = [cell or f"_c{place}" for place, cell in enumerate(cells)]
    repeated = {name for name, count in Counter(names).items() if count > 1}
    return [f"{name}{place}" if name in repeated else name for place, name in enumerate(names)]


def physical_lines(text: str) -> list[str]:
    r"""Return ``text`` cut after every ``\n``, ``\r\n`` and ``\r``."""
    content = text.removesuffix("\n").removesuffix("\r")
    return [text] if content and "\r" not in content and "\n" not in content else _LINES.findall(text)


@dataclass(frozen=True, slots=True)
class _Record:
    line: int
    cells: list[str] | None
    """The fields of the record; None where its quotes are broken, and only its first physical line is taken."""
    lines: list[str]

    @property
    def text(self) -> str:
        return "".join(self.lines).rstrip("\r\n")


class _Reader:
    """Python's csv reader in strict mode, which knows the lines of each record and starts again after an error."""

    def __init__(self, lines: Iterable[str], separator: str) -> None:
        csv.field_size_limit(max(csv.field_size_limit(), MAX_CHARACTERS))
        self._source = enumerate(lines)
        self._again: deque[tuple[int, str]] = deque()
        """Lines that a broken record had taken, to be read again."""
        self._taken: list[tuple[int, str]] = []
        """Lines of the record that is being read."""
        self._separator = separator
        self.columns = 0
        """Cells of a complete row; 0 until they are known."""

    def records(self) -> Iterator[_Record]:
        while True:
            parser = csv.reader(self._feed(), delimiter=self._separator, strict=True)
            try:
                for cells in parser:
                    yield self._first_line() if self._is_unclosed() else self._record(cells)
            except csv.Error:
                yield self._first_line()
            else:
                return

    def remaining_lines(self) -> Iterator[tuple[int, str]]:
        """Yield number and text of the lines that are not blank and not yet part of a record."""
        for line, text in self._lines():
            if text.strip(_BLANK):
                yield line, text.rstrip("\r\n")

    def _is_unclosed(self) -> bool:
        lines = [text for _, text in self._taken]
        return len(lines) > 1 < self.columns and _is_unclosed(lines, self._separator, self.columns)

    def _first_line(self) -> _Record:
        """Return the first physical line as a broken record; the others are read again."""
        self._again.extendleft(reversed(self._taken[1:]))
        del self._taken[1:]
        return self._record(None)

    def _record(self, cells: list[str] | None) -> _Record:
        record = _Record(self._taken[0][0], cells, [text for _, text in self._taken])
        self._taken.clear()
        return record

    def _feed(self) -> Iterator[str]:
        """Yield the lines for the parser, without blank lines between records, and note them in ``_taken``."""
        characters = 0
        for line, text in self._lines():
            if not self._taken:
                if not text.strip(_BLANK):
                    continue
                characters = 0
            self._taken.append((line, text))
            characters += len(text)
            if len(self._taken) > MAX_LINES or characters > MAX_CHARACTERS:
                raise csv.Error("the record is too long")
            yield text

    def _lines(self) -> Iterator[tuple[int, str]]:
        while True:
            if self._again:
                yield self._again.popleft()
                continue
            numbered = next(self._source, None)
            if numbered is None:
                return
            line, text = numbered
            yield line, text.removeprefix(_BYTE_ORDER_MARK) if line == 0 else text


def _is_unclosed(lines: Sequence[str], separator: str, columns: int) -> bool:
    """Return whether the quote that is open after the first of a record's ``lines`` was probably never closed.

    That is the case if the first line has all its cells without the others, and more than half of the others are rows
    by themselves. Where the first cell is quoted, the writer may quote every cell: then only if no other cell is
    quoted. A text that holds a table of as many columns on lines of its own cannot be told from such lines.
    """
    first, others = lines[0], [line for line in lines[1:] if line.strip(_BLANK)]
    if first.startswith('"') and sum(line.count('"') for line in lines) > 2:
        return False
    cells = next(csv.reader([first], delimiter=separator))
    if len(cells) + cells[-1].count(separator) < columns:
        return False
    return 2 * sum(_is_row(line, separator, columns) for line in others) > len(others)


def _is_row(line: str, separator: str, columns: int) -> bool:
    """Return whether the line alone is a complete row. In a text, but hardly in a row, blanks follow separators."""
    try:
        cells = next(csv.reader([line], delimiter=separator, strict=True))
    except csv.Error:
        return False
    return len(cells) == columns and not any(cell.startswith(" ") for cell in cells[1:])
