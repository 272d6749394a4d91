"""Plain aligned tables for terminals."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its heading and how a row's cell is printed."""

    heading: str
    cell: Callable[[Row], str]
    align: str = ">"
    """">": right-aligned, "<": left-aligned."""


def text(name: str) -> Callable[[Row], str]:
    """Print the text as it is."""
    return lambda row: str(row[name])


def count(name: str) -> Callable[[Row], str]:
    """Print a whole number with thousands separators; "-" if the row has none."""
    return lambda row: "-" if row.get(name) is None else f"{row[name]:,}"


def share(name: str) -> Callable[[Row], str]:
    """Print a share as a percentage; "-" if the row has none."""
    return lambda row: "-" if row.get(name) is None else f"{row[name]:.1%}"


def _coverage(row: Row) -> str:
    return f"{share('coverage_before')(row):>6} -> {share('coverage_after')(row):>6}"


ATTRIBUTE = Column("attribute", text("attribute"), "<")
"""The first column of most tables."""

RUN_COLUMNS = (
    ATTRIBUTE,
    Column("merchant", count("merchant")),
    Column("written", count("written")),
    Column("values", count("values_written")),
    *(Column(name, count(name)) for name in ("suggested", "abstained", "retracted")),
    Column("precision", share("precision")),
    Column("coverage", _coverage),
)
"""Columns of the summary of a run whose truth is known, with a row per attribute."""

ATTRIBUTE_COLUMNS = tuple(column for column in RUN_COLUMNS if column.heading != "precision")
"""Columns of the summary of any other run."""


def aligned_table(rows: Sequence[Row], columns: Sequence[Column] = RUN_COLUMNS) -> str:
    """Return the rows as text under their headings; each column is as wide as its widest cell."""
    lines = [[column.heading for column in columns]]
    lines += [[_one_line(column.cell(row)) for column in columns] for row in rows]
    widths = [max(map(_width, column_cells)) for column_cells in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "  ".join(
            _pad(cell, width, column.align) for cell, width, column in zip(line, widths, columns, strict=True)
        ).rstrip()
        for line in lines
    )


def attributes_table(attributes: Mapping[str, Row]) -> str:
    """Return the summary of a run; ``attributes``: name -> its numbers."""
    return aligned_table([{"attribute": name, **numbers} for name, numbers in attributes.items()], ATTRIBUTE_COLUMNS)


def _one_line(text: str) -> str:
    return "".join(character if character.isprintable() else " " for character in text)


def _width(text: str) -> int:
    """Count terminal cells: an East Asian wide character takes two, a combining character none."""
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in text)
    return len(text) + wide - sum(unicodedata.combining(character) > 0 for character in text)


def _pad(text: str, width: int, align: str) -> str:
    space = " " * (width - _width(text))
    return text + space if align == "<" else space + text
