"""Guesses which columns hold numbers with units, and which hold texts that no list can hold: brands, model numbers."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import floor, log10
from typing import Any

import numpy as np

from catalog_enrichment.ingest.file_columns import FileColumn, percent
from catalog_enrichment.values import numbers, same, units
from catalog_enrichment.values.kinds import Kind, NumberRule
from catalog_enrichment.values.same import Quantity
from catalog_enrichment.values.spelling import spelling, text_key

ENOUGH_NUMBERS = 0.9
"""Share of the cells that must be numbers of one dimension."""
ENOUGH_IN_TEXT = 0.3
"""Share of the cells that must stand in the title or the description of their own row, for a text to be found there."""
MOST_WORDS = 5
"""Words of a text value, on average."""
FEWEST_CELLS = 20
"""With fewer cells nothing is guessed."""
WIDER = 5
"""The plausible range is so many times wider than the cells', at both ends."""
_OUTSIDE = 0.01
"""Share of the cells at each end that the range may leave out before it is made wider."""


_SHOWS_MARK = re.compile(r"(?<![\d.,])\d+([.,])(?:\d{1,2}|\d{4,})(?![\d.,])|\d[.,]\d{3}([.,])\d+(?![\d.,])")
"""A number that shows the mark before its decimals."""

_IN_NAMES = frozenset(
    {
        *("mm", "cm", "m", "km", "inch", "inches", "ft", "mg", "g", "kg", "lb", "lbs", "oz", "ml", "cl", "l", "ltr"),
        *("w", "kw", "v", "mah", "wh", "kwh", "mb", "gb", "tb", "hz", "khz", "mhz", "ghz", "rpm", "lm", "psi"),
    }
)
"""Units that the name of a column may end with; others, such as "in" and "year", are words of names, too."""


@dataclass(frozen=True, slots=True)
class OpenGuess:
    """An attribute without a closed list."""

    entry: dict[str, Any]
    """What the dictionary says of it, without its name."""
    why: str
    decimal_mark: str = ""
    """What stands before the decimals of its numbers, where the cells show it."""


def number(column: FileColumn) -> OpenGuess | None:
    """Return the guess for a column of numbers with units, in its cells or in its name ("width_cm"); None for another.

    The unit is the most frequent one of the most frequent dimension; cells in its other units count, too.
    """
    cells = column.first_texts
    if len(cells) < FEWEST_CELLS:
        return None
    in_name = next((word for word in reversed(column.words.split()[1:]) if word in _IN_NAMES), "")
    unit = _most_frequent_unit(cells) or in_name
    if units.unit_of_attribute(unit) is None:
        return None
    mark = _decimal_mark(cells)
    language = numbers.LANGUAGE_OF_MARK.get(mark)
    read = [same.read_number(cell, NumberRule(unit=unit), language) for cell in cells]
    found_numbers = np.array([each.number for each in read if isinstance(each, Quantity)])
    if len(found_numbers) < ENOUGH_NUMBERS * len(cells):
        return None
    low, high = np.quantile(found_numbers, [_OUTSIDE, 1 - _OUTSIDE])
    smallest, largest = low / WIDER if low > 0 else low * WIDER, high * WIDER if high > 0 else high / WIDER
    plausible = [_rounded(smallest), _rounded(largest)]
    why = f"numbers in {unit} in {percent(len(found_numbers) / len(cells))} of {len(cells):,} cells"
    entry = {"kind": Kind.NUMBER.value, "unit": unit, "range": plausible}
    return OpenGuess(entry, f"{why}; plausible range guessed", mark)


def text(column: FileColumn, texts: Sequence[str]) -> OpenGuess | None:
    """Return the guess for a column of short texts that often stand in the title or description of their own row; None
    for another. ``texts``: title and description of each row."""
    pairs = [(cells[0], own) for cells, own in zip(column.texts, texts, strict=True) if cells]
    if len(pairs) < FEWEST_CELLS or column.words_per_text > MOST_WORDS or any(len(cells) > 1 for cells in column.texts):
        return None
    said = sum(_says(own, cell) for cell, own in pairs)
    different = len({text_key(cell) for cell, _ in pairs})
    if said < ENOUGH_IN_TEXT * len(pairs) or different < 2:
        return None
    share = percent(said / len(pairs))
    why = f"{different:,} different values, of which {share} stand in the title or description of their row"
    return OpenGuess({"kind": Kind.TEXT.value}, why)


def _says(text_of_row: str, value: str) -> bool:
    words = spelling(value)
    return bool(words) and f" {words} " in f" {spelling(text_of_row)} "


def _decimal_mark(cells: Sequence[str]) -> str:
    """Return what stands before the decimals in all cells that show it: before other than three digits, or behind the
    other mark; "" where no cell shows it, or cells differ."""
    found = {match[1] or match[2] for cell in cells for match in _SHOWS_MARK.finditer(cell)}
    return found.pop() if len(found) == 1 else ""


def _most_frequent_unit(cells: Sequence[str]) -> str:
    """Return the spelling of the most frequent unit of the most frequent dimension of cells with one number; "" where
    too few cells have a unit of one dimension. The others may have numbers without a unit, which are read in it."""
    spellings: Counter[str] = Counter()
    for cell in cells:
        found = numbers.find(cell)
        if found and (unit := found[0].unit) is not None and not found[0].shares_unit:
            spelled = _unit_in(cell[found[0].start : found[0].end], unit)
            if spelled and isinstance(same.read_number(cell, NumberRule(unit=spelled)), Quantity):
                spellings[spelled] += 1
    of_dimension: dict[str, Counter[str]] = {}
    for spelled, count in spellings.most_common():
        unit = str(units.unit_of(spelled))
        first = next((known for known in of_dimension if units.conversion(unit, known)), unit)
        of_dimension.setdefault(first, Counter())[spelled] += count
    most = max(of_dimension.values(), key=Counter.total, default=Counter[str]())
    return most.most_common(1)[0][0] if most.total() >= ENOUGH_NUMBERS * len(cells) / 2 else ""


def _unit_in(text: str, unit: str) -> str:
    """Return how ``unit`` is spelled at the end of a number, in plain characters; "" if it is not."""
    plain = unicodedata.normalize("NFKC", text)
    ends = (plain[place:].lstrip(" -") for place in range(len(plain)))
    return next((end for end in ends if units.unit_of(end) == unit), "")


def _rounded(value: float) -> float:
    """Return a number with one significant digit."""
    if value == 0 or not np.isfinite(value):
        return 0.0
    digits = -floor(log10(abs(value)))
    return round(float(value), digits)
