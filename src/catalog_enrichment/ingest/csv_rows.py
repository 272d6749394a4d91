"""Reads the rows of CSV and TSV files without losing a physical line (I7). No Spark in here.

Cells may hold separators, quotes and line breaks (RFC 4180). Where the quotes are broken, or a quote is never closed,
the record's first physical line is refused with its text, and reading goes on at the next line: an unclosed quote does
not swallow the rows after it. A quote that is never closed may seem to be closed by a later line (`24" monitor`): see
:func:`_is_unclosed`. A record with another number of cells than the file has columns, or with bytes that are not in the
file's encoding, is refused as a whole. So every physical line that is not blank is part of one accepted or refused row.
"""

from __future__ import annotations

import csv
import re
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

MAX_LINES = 10_000
"""Physical lines in one record. Without a limit the end of an unclosed quote would be looked for in the whole file."""
MAX_CHARACTERS = 20_000_000
"""Characters in one record."""

_LINES = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")
_BLANK = " \r\n"
_BYTE_ORDER_MARK = "\ufeff"
_UNDECODED = re.compile("[\udc80-\udcff]")
"""Bytes that were not in the encoding, as :func:`decoded` keeps them."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How the cells of a file are found."""

    separator: str = ","
    encoding: str = "utf-8"
    header_row: int = 1
    """Number of the record with the columns' names, from 1."""
    columns: tuple[str, ...] = ()
    """The names of all columns of a file without a header."""
    decimal: str = "."
    sheet: str = ""
    """Sheet of an xlsx file; empty: the first."""


COMMAS = Layout()


@dataclass(frozen=True, slots=True)
class TextRow:
    """A row of a file, accepted or refused."""

    line: int
    """Number of the row's first physical line in the file, from 0."""
    cells: list[str | None]
    """The columns that are read; None for an empty cell. A refused row has the cells that could be read."""
    refused: str | None = None
    """Text of a refused row."""
    rows: int = 1
    """Rows of the file that this row was made of."""


def decoded(line: bytes, encoding: str) -> str:
    """Return a line's text, in which a lone surrogate stands for each byte that is not in ``encoding``."""
    return line.decode(encoding, "surrogateescape")


def read_csv(lines: Iterable[str], layout: Layout, names: Sequence[str]) -> Iterator[TextRow]:
    """Yield the rows of one file with the columns ``names``.

    ``lines``: the file cut at line ends (:func:`physical_lines`); blank lines are no rows. If the header lacks one of
    ``names``, every line is refused.
    """
    reader = _Reader(lines, layout.separator)
    columns: Sequence[str] = layout.columns
    if not columns:
        header = next(islice(reader.records(), layout.header_row - 1, None), None)
        if header is None:
            return
        columns = header_names(header.cells or [])
        if not set(names) <= set(columns):
            yield TextRow(header.line, [None] * len(names), _shown(header.text, layout.encoding))
            for line, text in reader.remaining_lines():
                yield TextRow(line, [None] * len(names), _shown(text, layout.encoding))
            return
    reader.columns = len(columns)
    places = [columns.index(name) for name in names]
    for record in reader.records():
        cells = record.cells or []
        complete = len(cells) == len(columns) and record.is_text
        values = cells if len(cells) == len(columns) else [*cells, *[""] * len(columns)]
        refused = None if complete else _shown(record.text, layout.encoding)
        found = [_unquoted(values[place]) or None for place in places]
        yield TextRow(record.line, found if record.is_text else [None] * len(names), refused)


def _unquoted(cell: str) -> str:
    """Return 007 for ="007", with which Excel keeps a text a text."""
    return cell[2:-1] if cell.startswith('="') and cell.endswith('"') and len(cell) > 2 else cell


def read_header(lines: Iterable[str], layout: Layout) -> list[str] | None:
    """Return the names of the columns that the header gives; None if it cannot be read or there is none."""
    header = next(islice(_Reader(lines, layout.separator).records(), layout.header_row - 1, None), None)
    return None if header is None or header.cells is None or not header.is_text else header_names(header.cells)


def first_records(lines: Iterable[str], separator: str, number: int) -> list[list[str]]:
    """Return the cells of the first ``number`` records, none for a broken one."""
    return [record.cells or [] for record in islice(_Reader(lines, separator).records(), number)]


def _shown(text: str, encoding: str) -> str:
    """Return a refused row's text for people; bytes that are not in the encoding are written like \\xe4."""
    if not _UNDECODED.search(text):
        return text
    return text.encode(encoding, "surrogateescape").decode(encoding, "backslashreplace")


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

    @property
    def is_text(self) -> bool:
        """Return whether all its bytes were in the file's encoding."""
        return all(line.isascii() or not _UNDECODED.search(line) for line in self.lines)


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
