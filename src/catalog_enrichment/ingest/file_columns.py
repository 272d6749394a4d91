"""What the values of a file's columns look like in a sample of its rows: the facts that guesses are made from."""

from __future__ import annotations

import ast
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from datetime import date
from enum import StrEnum
from functools import cached_property
from itertools import pairwise
from typing import Any

from catalog_enrichment.config.source import KEY
from catalog_enrichment.ingest.file_sample import FileSample
from catalog_enrichment.ingest.source_frame import RESERVED, between_values
from catalog_enrichment.values.spelling import fold

EMPTY_TEXTS = frozenset(
    {
        "nan",
        "null",
        "n/a",
        "#n/a",
        "<na>",
        "\\n",
        "n.a.",
        "n.a",
        "-",
        "--",
        "---",
        "?",
        "(null)",
        "(none)",
        "k.a.",
        "nil",
    }
    | {"not specified", "not available", "not applicable", "unspecified", "keine angabe", "nicht angegeben", "[]", "{}"}
)
"""Texts with which programs and people write that there is no value, in lower case."""
DOUBTFUL_TEXTS = frozenset({"none", "unknown", "na", "false", "undefined", "unbekannt", "tbd"})
"""Texts that mostly mean it, and may be a value: they are named to the user."""
SEPARATORS = ("|", ";", ",")
"""What may stand between several values in one cell, the least doubtful first."""
_FLAGS = frozenset({"true", "false", "t", "f", "yes", "no", "y", "n", "1", "0"})
"""Texts that the import reads as true or false."""
_WHOLE_NUMBER = re.compile(r"[+-]?\d+(?:\.0)?")
_NUMBER = re.compile(r"[+-]?\d+(?:[.,]\d+)*(?:[eE][+-]?\d+)?%?")
_TIME_TEXT = re.compile(
    r"(?:\d{4}-\d\d?-\d\d?|\d\d?[./-]\d\d?[./-]\d{2,4})(?:[ T]+\d\d?:\d\d(?::\d\d(?:\.\d+)?)?(?: ?[AaPp][Mm])?)?"
    r"(?: ?(?:Z|UTC|GMT|[+-]\d\d:?\d\d))?"
)
_MOSTLY = 0.99
_PICTURE_STARTS = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"RIFF")
_KEY_VALUE = re.compile(r"([^\W\d][\w ]{2,30})\s*[:=]\s*\S")
_FEW_KEYS = 20
_MANY = 20
"""Cells: as many as a value needs by default."""
BLANKS = "".join(
    chr(code) for code in range(0x10000) if chr(code).isspace() or unicodedata.category(chr(code)) in ("Cc", "Cf", "Zs")
)
"""White space and invisible characters, such as no-break spaces and byte order marks."""
_LONGEST_LIST = 10_000
"""Characters. A longer text is not tried as a list."""
_ADDRESS = re.compile(r"(?:https?|ftp|s3a?|gs|file)://\S+", re.IGNORECASE)
_PICTURE_FILE = re.compile(r"[^\n]*\.(?:jpe?g|png|webp|gif|bmp|tiff?)(?:[?#]\S*)?", re.IGNORECASE)


class Kind(StrEnum):
    TEXT = "text"
    LIST = "lists"
    WHOLE = "whole numbers"
    NUMBER = "numbers"
    FLAG = "yes or no"
    TIME = "times"
    PICTURE = "pictures as bytes"
    BYTES = "bytes"
    EMPTY = "empty"
    UNUSABLE = "unusable"


@dataclass(frozen=True)
class FileColumn:
    name: str
    kind: Kind
    texts: list[list[str]]
    """The values of each sampled row as the import reads them, none for an empty cell. Empty for bytes."""
    problem: str = ""
    """Why no mapping can name the column."""
    joined_by: str = ""
    """What is known to stand between several values in one cell."""
    usual_name: str = ""
    """What such a column is called elsewhere."""

    @cached_property
    def words(self) -> str:
        """Return the name in lower case, without accents, in words: `productDisplayName` is product display name.

        The prefix of a key is left out, and what Shopify puts in brackets behind the name of a metafield.
        """
        plain_name = self.usual_name or re.sub(
            r"\s*\(product\.metafields\.[^()]*\)$", "", self.name.removeprefix(KEY).removeprefix("g:")
        )
        apart = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", plain_name)
        plain = "".join(c for c in unicodedata.normalize("NFKD", apart) if not unicodedata.combining(c))
        return fold(plain)

    @property
    def role_words(self) -> str:
        """Return the words of the name without a locale: `name-en_US` and `name(en)` are name."""
        plain = re.sub(r"(?:[-_ ][a-z]{2}_[A-Z]{2}(?:[-_ ]\w+)?|\s*\([a-z]{2}\))$", "", self.name)
        return replace(self, name=plain).words if plain != self.name else self.words

    @cached_property
    def first_texts(self) -> list[str]:
        """Return the first value of every row that has a value."""
        return [texts[0] for texts in self.texts if texts]

    @property
    def filled(self) -> float:
        """Return the share of the rows that have a value."""
        return len(self.first_texts) / len(self.texts) if self.texts else 0.0

    @cached_property
    def different(self) -> int:
        """Return the number of different cells."""
        return len({tuple(texts) for texts in self.texts if texts})

    @property
    def distinct(self) -> float:
        """Return the number of different cells per cell with a value."""
        return self.different / len(self.first_texts) if self.first_texts else 0.0

    @cached_property
    def characters(self) -> float:
        """Return the mean length of a value."""
        return sum(map(len, self.first_texts)) / max(len(self.first_texts), 1)

    @cached_property
    def words_per_text(self) -> float:
        return sum(len(text.split()) for text in self.first_texts) / max(len(self.first_texts), 1)

    @cached_property
    def picture_share(self) -> float:
        """Return the share of the values that end like a picture's file or address."""
        return self._share(_PICTURE_FILE)

    @cached_property
    def address_share(self) -> float:
        """Return the share of the values that are addresses."""
        return self._share(_ADDRESS)

    @cached_property
    def looks_like_pairs(self) -> bool:
        """Return whether the values are objects, or keys with values of a form that is not known."""
        keys = Counter(match[1] for text in self.first_texts if (match := _KEY_VALUE.match(text)))
        objects = sum(text[:1] in "{[" and text[-1:] in "}]" for text in self.first_texts)
        return max(objects, keys.total() if len(keys) <= _FEW_KEYS else 0) > 0.5 * max(len(self.first_texts), 1)

    @cached_property
    def looks_like_times(self) -> bool:
        """Return whether the values are dates or times, in whatever form."""
        return self._share(_TIME_TEXT) >= _MOSTLY

    @cached_property
    def is_running_number(self) -> bool:
        """Return whether the rows are numbered from 0 or 1, as programs do that write a table with its row numbers."""
        numbers = [int(float(text)) for text in self.first_texts] if self.kind is Kind.WHOLE else []
        return len(numbers) > 1 and numbers[0] in (0, 1) and all(b - a == 1 for a, b in pairwise(numbers))

    @cached_property
    def separator(self) -> str:
        """Return what stands between several values in one cell; empty where a cell is one value.

        A separator parts a cell into texts that occur in other cells, too: "red|blue" beside "red".
        """
        if self.kind not in (Kind.TEXT, Kind.LIST) or self.looks_like_files or self.looks_like_times:
            return ""
        if self.looks_like_pairs:
            return ""
        cells = Counter(text for texts in self.texts for text in texts)
        if self.joined_by:
            return self.joined_by if any(self.joined_by in cell for cell in cells) else ""
        for separator in SEPARATORS:
            joined = {cell: split_values(cell, separator) for cell in cells if separator in cell}
            in_cells = Counter(part for cell in cells for part in set(joined.get(cell, [cell])))
            parts = {part for found in joined.values() for part in found if part}
            again = sum(in_cells[part] > 1 for part in parts)
            short = parts and sum(len(part.split()) for part in parts) <= 3 * len(parts)
            needed = len(parts) / 2 if separator == "," else 1
            if short and again >= needed and len(parts) < 0.5 * len(self.first_texts):
                return separator
        return ""

    def split(self) -> FileColumn:
        """Return the column with the values of each cell apart."""
        if not self.separator:
            return self
        parts = [[part for text in row for part in split_values(text, self.separator)] for row in self.texts]
        return replace(self, texts=[list(dict.fromkeys(part for part in row if part)) for row in parts])

    @property
    def looks_like_files(self) -> bool:
        """Return whether the values are addresses or names of picture files."""
        return self.picture_share >= 0.8 or self.address_share >= 0.8

    def _share(self, pattern: re.Pattern[str]) -> float:
        return sum(bool(pattern.fullmatch(text)) for text in self.first_texts) / max(len(self.first_texts), 1)

    def fact(self) -> str:
        """Return the column in a few words."""
        if self.kind in (Kind.PICTURE, Kind.BYTES):
            return str(self.kind)
        values = "one value" if self.different == 1 else f"{self.different:,} different values"
        return f"{self.kind}, {values}, filled in {percent(self.filled)} of the rows"


def split_values(cell: str, separator: str) -> list[str]:
    r"""Return the values in a cell; a separator after a backslash is part of a value (`Red\, matt`)."""
    parts = re.split(between_values(separator), cell)
    return [re.sub(r"\\([,;|])", r"\1", part).strip() for part in parts]


def columns_of(sample: FileSample) -> tuple[dict[str, FileColumn], dict[str, float]]:
    """Return the file's columns, in order, and the texts that mean "no value" -> their largest share of a column."""
    empty = _empty_texts(sample)
    ignored = {text.casefold() for text in empty}
    columns = {name: _column(name, values, ignored) for name, values in sample.columns.items()}
    columns |= {name: FileColumn(name, Kind.UNUSABLE, [], why) for name, why in sample.unusable.items()}
    return columns, empty


def percent(share: float) -> str:
    """Return the share in percent. 0.9996 is "over 99%": "100%" is said only of what is in every row."""
    if share in (0, 1):
        return f"{share:.0%}"
    return "over 99%" if share > 0.99 else "under 1%" if share < 0.01 else f"{share:.0%}"


def _column(name: str, values: list[Any], empty: Collection[str]) -> FileColumn:
    if problem := _problem_of_name(name):
        return FileColumn(name, Kind.UNUSABLE, [], problem)
    given = [value for value in values if value is not None]
    if given and all(isinstance(value, bytes) for value in given):
        pictures = sum(value.startswith(_PICTURE_STARTS) for value in given)
        return FileColumn(name, Kind.PICTURE if 2 * pictures >= len(given) else Kind.BYTES, [])
    texts = [[text for text in texts_of(value) if text.casefold() not in empty] for value in values]
    return FileColumn(name, _kind(given, [row[0] for row in texts if row]), texts)


def _problem_of_name(name: str) -> str:
    if not name:
        return "it has no name"
    if name in RESERVED:
        return "the import uses this name itself"
    if not name.isascii() and name.encode("utf-8", "replace").decode() != name:
        return "its name is no valid text"
    return ""


def _kind(given: list[Any], texts: list[str]) -> Kind:
    if not texts:
        return Kind.EMPTY
    types = {type(value) for value in given}
    if list in types:
        return Kind.LIST
    if types == {bool} or all(text.casefold() in _FLAGS for text in set(texts)):
        return Kind.FLAG
    if all(issubclass(kind, date) for kind in types):
        return Kind.TIME
    if float in types:
        return Kind.NUMBER
    for kind, pattern in ((Kind.WHOLE, _WHOLE_NUMBER), (Kind.NUMBER, _NUMBER)):
        if sum(bool(pattern.fullmatch(text)) for text in texts) >= _MOSTLY * len(texts):
            return kind
    return Kind.TEXT


def texts_of(value: Any) -> list[str]:
    """Return the distinct values of a cell as the import reads those of an attribute (`SelectedColumn.texts`)."""
    if value is None or value == "":
        return []
    items: Iterable[Any] = value if isinstance(value, list) else _listed(value)
    stripped = (_text(item).strip(BLANKS) for item in items if item is not None and item == item)
    return list(dict.fromkeys(text for text in stripped if text))


def _listed(value: Any) -> list[Any]:
    """Return the elements of a text that holds a list as JSON or Python writes it; else the value alone."""
    if isinstance(value, str) and len(value) <= _LONGEST_LIST and re.fullmatch(r"\s*\[.*\]\s*", value, re.DOTALL):
        for parse in (json.loads, ast.literal_eval):
            try:
                items = parse(value)
            except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
                continue
            if isinstance(items, list):
                return items
    return [value]


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    text = str(value)
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _empty_texts(sample: FileSample) -> dict[str, float]:
    """Return the texts that mean "no value", as they are written -> their largest share of a column.

    They are EMPTY_TEXTS, and DOUBTFUL_TEXTS beside other texts, unless the rows' other texts say them too: the products
    of a brand "None" have it in their titles.
    They are at least a hundredth of a column's cells, or so many that a value needs no more.
    """
    found: dict[str, float] = {}
    spelled: dict[str, str] = {}
    for name, values in sample.columns.items():
        texts = Counter(value.strip(BLANKS).casefold() for value in values if isinstance(value, str))
        total = texts.total() - texts[""]
        others = [text for text in texts if text and text not in EMPTY_TEXTS | DOUBTFUL_TEXTS | _FLAGS]
        for text in EMPTY_TEXTS | (DOUBTFUL_TEXTS if others else frozenset()):
            if texts[text] and (texts[text] >= 0.01 * total or texts[text] >= _MANY):
                as_written = next(v for v in values if isinstance(v, str) and v.strip(BLANKS).casefold() == text)
                if text in DOUBTFUL_TEXTS and _is_said_elsewhere(sample, name, as_written.strip(BLANKS)):
                    continue
                written = spelled.setdefault(text, as_written.strip(BLANKS))
                found[written] = max(texts[text] / total, found.get(written, 0.0))
    return found


def _is_said_elsewhere(sample: FileSample, name: str, text: str) -> bool:
    """Return whether another column has ``text``, in this case, among other words in most rows that have it in the
    column ``name``."""
    rows = [row for row, value in enumerate(sample.columns[name]) if value == text]
    word = re.compile(rf"(?<!\w){re.escape(text)}(?!\w)")
    others = [values for other, values in sample.columns.items() if other != name]

    def is_said(row: int) -> bool:
        cells = (values[row] for values in others)
        return any(isinstance(cell, str) and cell.strip(BLANKS) != text and word.search(cell) for cell in cells)

    return sum(map(is_said, rows)) > len(rows) / 2
