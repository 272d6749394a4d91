"""What the values of a file's column look like, from a sample of its rows: the facts that guesses are made from."""

from __future__ import annotations

import ast
import json
import re
import unicodedata
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from functools import cached_property
from typing import Any

from catalog_enrichment.dictionary import fold
from catalog_enrichment.ingest.file_sample import FileSample
from catalog_enrichment.ingest.source_frame import RESERVED

EMPTY_TEXTS = ("NaN", "nan", "NULL", "null", "N/A", "n/a", "#N/A", "<NA>", "\\N")
"""Texts with which programs write that there is no value."""
_FLAGS = frozenset({"true", "false", "t", "f", "yes", "no", "y", "n", "1", "0"})
"""Texts that the import reads as true or false."""
_WHOLE_NUMBER = re.compile(r"[+-]?\d+")
_NUMBER = re.compile(r"[+-]?\d+(?:[.,]\d+)*(?:[eE][+-]?\d+)?%?")
_MOSTLY = 0.99
_PICTURE_STARTS = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"RIFF")
_LONGEST_LIST = 10_000
"""Characters of a text that is tried as a list."""


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
class Column:
    name: str
    kind: Kind
    texts: list[list[str]]
    """Per sampled row its values as the import reads them, none for an empty cell. Empty for bytes."""
    problem: str = ""
    """Why no mapping can name it."""

    @cached_property
    def words(self) -> str:
        """The name in lower case, without accents, its words apart: `productDisplayName` is product display name."""
        apart = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", self.name)
        plain = "".join(c for c in unicodedata.normalize("NFKD", apart) if not unicodedata.combining(c))
        return fold(plain)

    @cached_property
    def first_texts(self) -> list[str]:
        """The first value of every row that has one."""
        return [texts[0] for texts in self.texts if texts]

    @property
    def filled(self) -> float:
        """Share of the rows that have a value."""
        return len(self.first_texts) / len(self.texts) if self.texts else 0.0

    @cached_property
    def different(self) -> int:
        """Number of different cells."""
        return len({tuple(texts) for texts in self.texts if texts})

    @property
    def distinct(self) -> float:
        """Different cells per cell with a value."""
        return self.different / len(self.first_texts) if self.first_texts else 0.0

    @cached_property
    def characters(self) -> float:
        """Mean length of a value."""
        return sum(map(len, self.first_texts)) / max(len(self.first_texts), 1)

    @cached_property
    def words_per_text(self) -> float:
        return sum(len(text.split()) for text in self.first_texts) / max(len(self.first_texts), 1)

    def fact(self) -> str:
        """The column in a few words."""
        if self.kind in (Kind.PICTURE, Kind.BYTES):
            return str(self.kind)
        values = "one value" if self.different == 1 else f"{self.different:,} different values"
        return f"{self.kind}, {values}, filled in {percent(self.filled)} of the rows"


def columns_of(sample: FileSample) -> tuple[dict[str, Column], dict[str, float]]:
    """The file's columns, in its order; and the texts that mean "no value" -> their share of the cells of the column
    that has most of them."""
    empty = _empty_texts(sample)
    columns = {name: _column(name, values, empty) for name, values in sample.columns.items()}
    columns |= {name: Column(name, Kind.UNUSABLE, [], why) for name, why in sample.unusable.items()}
    return columns, empty


def percent(share: float) -> str:
    """``0.9996`` is `over 99%`, not 100%: what is not in every row is not called so."""
    if share in (0, 1):
        return f"{share:.0%}"
    return "over 99%" if share > 0.99 else "under 1%" if share < 0.01 else f"{share:.0%}"


def _column(name: str, values: list[Any], empty: Collection[str]) -> Column:
    if problem := _problem_of_name(name):
        return Column(name, Kind.UNUSABLE, [], problem)
    given = [value for value in values if value is not None]
    if given and all(isinstance(value, bytes) for value in given):
        pictures = sum(value.startswith(_PICTURE_STARTS) for value in given)
        return Column(name, Kind.PICTURE if 2 * pictures >= len(given) else Kind.BYTES, [])
    texts = [[text for text in texts_of(value) if text not in empty] for value in values]
    return Column(name, _kind(given, [row[0] for row in texts if row]), texts)


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
    if all(issubclass(one, date) for one in types):
        return Kind.TIME
    if float in types:
        return Kind.NUMBER
    for kind, pattern in ((Kind.WHOLE, _WHOLE_NUMBER), (Kind.NUMBER, _NUMBER)):
        if sum(bool(pattern.fullmatch(text)) for text in texts) >= _MOSTLY * len(texts):
            return kind
    return Kind.TEXT


def texts_of(value: Any) -> list[str]:
    """The distinct values of a cell as the import reads an attribute's (`SelectedColumn.texts`)."""
    if value is None or value == "":
        return []
    items: Iterable[Any] = value if isinstance(value, list) else _listed(value)
    stripped = (_text(item).strip(" ") for item in items if item is not None)
    return list(dict.fromkeys(text for text in stripped if text))


def _listed(value: Any) -> list[Any]:
    """The elements of a text that holds a list as JSON or Python writes it; else the value alone."""
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
    """Those of EMPTY_TEXTS that are at least a hundredth of the cells of some column -> that share."""
    found: dict[str, float] = {}
    for values in sample.columns.values():
        texts = [value for value in values if isinstance(value, str)]
        for text in EMPTY_TEXTS:
            if (share := texts.count(text) / len(texts) if texts else 0.0) >= 0.01:
                found[text] = max(share, found.get(text, 0.0))
    return found
