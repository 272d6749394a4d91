"""Finds out how a text file is written: its encoding, the separator of its columns, and the row with their names.

Encodings are guessed by charset-normalizer. The separator is the character that parts most of the first records into
the same number of cells; DuckDB's CSV sniffer says whether names or data stand in the first row.
"""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from catalog_enrichment.errors import DataContractError
from catalog_enrichment.ingest.csv_rows import first_records, physical_lines

_SNIFFED = 2**18
"""Bytes of the start that are given to the libraries."""
_ENCODINGS = (
    *("cp1252", "cp1250", "cp1251", "shift_jis", "gb18030", "cp1254", "iso8859_2", "cp1253", "cp1255", "cp1256"),
    *("cp1257", "cp874", "euc_jp", "euc_kr", "big5", "koi8_r", "cp850", "mac_roman"),
)
"""Encodings of shops' files, the most frequent first: it is taken where several fit."""
_SIMILAR = 0.05
"""Difference of charset-normalizer's chaos (0 to 1) that says nothing."""
HEADER_RECORDS = 30
"""Records that are looked at for the header."""
_SEPARATORS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "vertical bars"}
_COMMA_NUMBER = re.compile(r"[+-]?(?:\d{1,3}(?:\.\d{3})+|\d+),(?:\d{1,2}|\d{4,})")
"""With three digits after it a comma may stand between thousands."""
_POINT_NUMBER = re.compile(r"[+-]?(?:\d{1,3}(?:,\d{3})+|\d+)\.(?:\d{1,2}|\d{4,})")
_NUMBER = re.compile(r"[+-]?\d+(?:[.,]\d+)*")


Recognises = Callable[[Sequence[str]], bool]


@dataclass(frozen=True, slots=True)
class Sniffed:
    """How a CSV or TSV file is written."""

    separator: str
    header_row: int
    """Number of the record with the columns' names, from 1; 0: there seems to be none."""
    why: str
    """The separator in words, and the rows that are skipped."""


def encodings_of(sample: bytes, file: Path) -> list[str]:
    """Return the encoding of a text, and others that are as likely: UTF-8 alone if nearly all lines are valid.

    ``sample``: whole lines of the file. Raises DataContractError if no encoding fits.
    """
    lines = [line for line in sample.split(b"\n") if not line.isascii()]
    if 2 * sum(map(_is_utf8, lines)) >= len(lines):  # in other encodings hardly any line is valid UTF-8
        return ["utf-8"]
    from charset_normalizer import from_bytes

    text = b"\n".join(lines)[:_SNIFFED]
    matches = list(from_bytes(text, cp_isolation=list(_ENCODINGS)))
    if not matches:
        raise DataContractError(
            f"{file} is not written in UTF-8, and its encoding cannot be recognised. Name it (--encoding cp1252), or "
            "save the file as UTF-8"
        )
    # where several fit, the one whose signs are letters: Polish read as Western European has superscripts in words
    texts = {m.encoding: text.decode(m.encoding, "replace") for m in matches if m.chaos <= matches[0].chaos + _SIMILAR}
    western = text.decode("cp1252", "replace")
    if western in texts.values():  # charset-normalizer names one of several encodings that give the same text
        texts["cp1252"] = western
    likely = sorted(texts, key=lambda name: (_symbols(texts[name]), _ENCODINGS.index(name)))
    first = texts[likely[0]]
    as_good = [name for name in likely if texts[name] != first and _symbols(texts[name]) == _symbols(first)]
    return [name.replace("_", "-") for name in (likely[0], *as_good)]


def _symbols(text: str) -> int:
    """Return how many characters beyond ASCII are no letters."""
    return sum(not char.isascii() and not char.isalpha() for char in text)


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def sniff(head: str, known: frozenset[str], recognises: Recognises) -> Sniffed | None:
    """Return how the file with this start is written; None where nothing separates its columns.

    ``known``: column names in lower case that a header may have. ``recognises``: see :func:`header_row`.
    """
    text = head[:_SNIFFED]
    text = text if len(head) <= _SNIFFED else text.rpartition("\n")[0]
    lines = physical_lines(text)
    likely = max(_SEPARATORS, key=lambda separator: _regularity(lines, separator))
    if _regularity(lines, likely) == (0, 0):
        return None
    records = first_records(lines, likely, HEADER_RECORDS)
    row = header_row(records, known, recognises, has_header=_has_header(text, likely))
    why = f"its columns are separated by {_SEPARATORS[likely]}"
    if row > 1:
        why += f"; {'the first row is' if row == 2 else f'the first {row - 1} rows are'} above the columns' names"
    return Sniffed(likely, row, why)


def _regularity(lines: Sequence[str], separator: str) -> tuple[int, int]:
    """Return how many of the first records have the most frequent number of cells, if that is not 1, and this number.

    DuckDB alone takes the comma of 12,50 for the separator where a title stands above columns with semicolons.
    """
    widths = Counter(map(len, first_records(lines, separator, 4 * HEADER_RECORDS)))
    width, number = widths.most_common(1)[0] if widths else (0, 0)
    return (number, width) if width > 1 else (0, 0)


def _has_header(text: str, separator: str) -> bool:
    """Return whether DuckDB sees a header; True if it cannot tell."""
    import duckdb

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "head.csv"
        file.write_text(text, encoding="utf-8", errors="replace", newline="")
        try:
            query = "select HasHeader from sniff_csv(?, delim = ?, ignore_errors = true)"
            found = duckdb.connect().execute(query, [str(file), separator]).fetchone()
        except duckdb.Error:
            return True
    return found is None or bool(found[0])


def header_row(
    records: Sequence[Sequence[str]], known: frozenset[str], recognises: Recognises, has_header: bool
) -> int:
    """Return the number of the record with the columns' names, from 1; 0 if there seems to be none.

    ``recognises``: whether cells are the columns of a known export.
    """
    if exported := next((number for number, cells in enumerate(records, 1) if cells and recognises(cells)), 0):
        return exported
    if not records or not records[0]:  # its quotes are broken, which the reader of the header says
        return 1
    width = Counter(map(len, records)).most_common(1)[0][0]
    used = [place for place in range(width) if any(len(cells) > place and cells[place].strip() for cells in records)]
    width = len(used)  # columns that are empty everywhere need no name
    for number, cells in enumerate(records, 1):
        filled = [cell.strip() for cell in cells if cell.strip()]
        # a title line, or the lines that Amazon puts above the names, fill few cells, or hold no names
        if len(filled) >= 0.8 * width:
            is_known = bool({name.casefold() for name in filled} & known)
            data = sum(bool(_NUMBER.fullmatch(cell) or "://" in cell) for cell in filled)
            return number if is_known or ((has_header or number > 1) and 2 * data <= len(filled)) else 0
    return 1 if has_header else 0


def decimal_of(columns: Sequence[Sequence[str | None]]) -> str:
    """Return the sign before decimals, from the cells of some rows of each column: a comma if a column has no other."""
    found = False
    for cells in columns:
        numbers = [cell.strip() for cell in cells if cell and _NUMBER.fullmatch(cell.strip())]
        filled = sum(bool(cell) for cell in cells)
        commas = sum(bool(_COMMA_NUMBER.fullmatch(cell)) for cell in numbers)
        if len(numbers) < 0.9 * filled:
            continue
        if any(_POINT_NUMBER.fullmatch(cell) for cell in numbers):
            return "."
        found = found or (filled > 0 and commas > 0.5 * filled)
    return "," if found else "."
