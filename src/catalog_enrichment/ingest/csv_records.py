"""The rows of a CSV file, from its physical lines; no Spark.

Cells may hold separators, quotes and line breaks (RFC 4180). Where the quotes are broken, or a quote is never closed,
the record's first physical line is refused with its text, and reading goes on at the next line: an unclosed quote does
not swallow the rows after it. A quote that is never closed may seem to be closed by a later line (`24" monitor`):
see :func:`_is_unclosed`. A record with another number of cells than the file has columns is refused as a whole. So
every physical line that is not blank is part of one accepted row or of one refused row (I7).
"""

from __future__ import annotations

import csv
import re
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

MAX_LINES = 10_000
"""Physical lines in one record. Without a limit the end of an unclosed quote would be looked for in the whole file."""
MAX_CHARACTERS = 20_000_000
"""Characters in one record."""

_LINES = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")
_BLANK = " \r\n"
_BYTE_ORDER_MARK = "\ufeff"


@dataclass(frozen=True, slots=True)
class CsvRow:
    """A row of a file, accepted or refused."""

    line: int
    """Number of the row's first physical line in the file, from 0."""
    cells: list[str | None]
    """The wanted columns; None for an empty cell. Of a refused row those that it has, if its quotes are right."""
    refused: str | None = None
    """Text of a refused row."""


def read_csv(
    lines: Iterable[str], separator: str, names: Sequence[str] | None, wanted: Sequence[str]
) -> Iterator[CsvRow]:
    """The rows of one file with the columns ``wanted``. ``names``: its columns; None if its first record names them.

    ``lines`` is the file cut at line ends (:func:`physical_lines`). Blank lines are no rows. If the header lacks a
    column of ``wanted``, every line of the file is refused.
    """
    reader = _Reader(lines, separator)
    if names is None:
        header = next(reader.records(), None)
        if header is None:
            return
        names = header_names(header.cells or [])
        if not set(wanted) <= set(names):
            yield CsvRow(header.line, [None] * len(wanted), header.text)
            for line, text in reader.remaining_lines():
                yield CsvRow(line, [None] * len(wanted), text)
            return
    reader.columns = len(names)
    places = [names.index(name) for name in wanted]
    for record in reader.records():
        cells = record.cells or []
        complete = len(cells) == len(names)
        values = cells if complete else [*cells, *[""] * len(names)]
        yield CsvRow(record.line, [values[place] or None for place in places], None if complete else record.text)


def read_header(lines: Iterable[str], separator: str) -> list[str] | None:
    """The names of the columns that the first record gives; None if it cannot be read or there is none."""
    header = next(_Reader(lines, separator).records(), None)
    return None if header is None or header.cells is None else header_names(header.cells)


def header_names(cells: Sequence[str]) -> list[str]:
    """Column names of a header: a column without a name is called ``_c0``, ``_c1``, ... by its position.

    A name that several columns have is followed by their positions.
    """
    names = [cell or f"_c{place}" for place, cell in enumerate(cells)]
    repeated = {name for name, count in Counter(names).items() if count > 1}
    return [f"{name}{place}" if name in repeated else name for place, name in enumerate(names)]


def physical_lines(text: str) -> list[str]:
    r"""``text`` cut after every ``\n``, ``\r\n`` and ``\r``."""
    content = text.removesuffix("\n").removesuffix("\r")
    return [text] if content and "\r" not in content and "\n" not in content else _LINES.findall(text)


@dataclass(frozen=True, slots=True)
class _Record:
    line: int
    cells: list[str] | None
    """None: the record's quotes are broken, and only its first physical line is taken."""
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
        """Number and text of the lines that are not blank and not yet part of a record."""
        for line, text in self._lines():
            if text.strip(_BLANK):
                yield line, text.rstrip("\r\n")

    def _is_unclosed(self) -> bool:
        lines = [text for _, text in self._taken]
        return len(lines) > 1 < self.columns and _is_unclosed(lines, self._separator, self.columns)

    def _first_line(self) -> _Record:
        """The first physical line as a broken record; the others are read again."""
        self._again.extendleft(reversed(self._taken[1:]))
        del self._taken[1:]
        return self._record(None)

    def _record(self, cells: list[str] | None) -> _Record:
        record = _Record(self._taken[0][0], cells, [text for _, text in self._taken])
        self._taken.clear()
        return record

    def _feed(self) -> Iterator[str]:
        """The lines for the parser, noted in ``_taken``; without the blank ones between records."""
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
    """Whether the quote that is open after the first of a record's ``lines`` was probably never closed.

    So it is where the first line has all its cells without the others, and more than half of the others are rows of
    their own. Where the first cell is quoted, the writer may quote every cell: then only if no other cell is quoted.
    Nothing tells such lines from a text that has a table of as many columns on its own lines.
    """
    first, others = lines[0], [line for line in lines[1:] if line.strip(_BLANK)]
    if first.startswith('"') and sum(line.count('"') for line in lines) > 2:
        return False
    cells = next(csv.reader([first], delimiter=separator))
    if len(cells) + cells[-1].count(separator) < columns:
        return False
    return 2 * sum(_is_row(line, separator, columns) for line in others) > len(others)


def _is_row(line: str, separator: str, columns: int) -> bool:
    """Whether the line alone is a complete row. In a text, but hardly in a row, a blank follows most separators."""
    try:
        cells = next(csv.reader([line], delimiter=separator, strict=True))
    except csv.Error:
        return False
    return len(cells) == columns and not any(cell.startswith(" ") for cell in cells[1:])
