"""Numbers in product texts: every number with the unit that belongs to it, whatever the script and the locale.

"160x200 cm" and "12-15 kg" are two numbers each, which share the unit at the end. A digit inside a word (G7, B4) is no
number: it is a part of a name.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, replace
from decimal import Decimal

from catalog_enrichment.values import units
from catalog_enrichment.values.spelling import primary_language

MOST_NUMBERS = 200
"""The numbers that are read in a text, the first ones: the rest of a text of 10,000 numbers describes nothing."""

_COMMA_LANGUAGES = frozenset(
    code
    for codes in (
        "af az be bg bs ca cs da de el es et eu fi fr gl hr hu hy id is it ka kk lt lv mk nb nl nn no pl pt ro ru sk",
        "sl sq sr sv tr uk uz vi",
    )
    for code in codes.split()
)
"""Languages that write a comma before the decimals and a full stop between thousands."""
_POINT_COUNTRIES = frozenset({"ch", "do", "gt", "hn", "li", "mx", "ni", "pa", "pe", "pr", "sv", "us"})
"""Countries that write a full stop before the decimals, also where others with the same language write a comma."""
LANGUAGE_OF_MARK: dict[str, str | None] = {".": None, ",": "de"}
"""The mark before the decimals -> a language in which numbers are read so."""
_HALVES = "¼½¾⅐⅑⅒⅓⅔⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞"
_WITH_FRACTION = (
    rf"(?P<whole>\d{{1,6}})(?:[ \u00a0-]?(?P<vulgar>[{_HALVES}])"
    r"|[ \u00a0-](?P<over>\d{1,2})/(?P<under>\d{1,3})(?![\d/]))"
)
_FRACTION = rf"(?P<half>[{_HALVES}])|(?P<top>\d{{1,2}})/(?P<bottom>\d{{1,3}})(?![\d/])"
_DIGITS = (
    r"(?P<plain>\d{1,3}(?:[\u00a0\u202f\u2009]\d{3})+(?:[.,]\d+)?|\d{1,3}(?: \d{3})+,\d{1,2}(?!\d)"
    r"|\d[\d.,']*(?<=\d)|[.,]\d+)(?P<power>[eE][+-]?\d{1,4})?"
)
_NUMBER = re.compile(
    rf"(?:(?<![^\W_])|(?<=[\d\"'mnt][xX]))(?P<sign>(?<![^\s(])[-+])?(?:{_WITH_FRACTION}|{_FRACTION}|{_DIGITS})"
)
"""A number: with a fraction behind it, a fraction, or digits with separators. Not inside a word; an x behind a number
or its unit (cm, in, ft) is the sign of a product."""
_PRODUCT = re.compile(r"\s?(?:[wdhlWDHL]\.?)?\s?[xX×*]\s?|\s(?:by|auf|par|por)\s", re.IGNORECASE)
_THOUSAND = re.compile(r"[kK](?=[\s-]?[^\W\d_])")
"""A K between a number and a word: thousands, if the word is a unit."""
_SMALLER: dict[tuple[str | None, str | None], int] = {("foot", "inch"): 12, ("pound", "ounce"): 16}
"""A unit and the smaller unit of a number that is written with both -> how many of the smaller make one."""
_RANGE = re.compile(r"\s?[-–—~]\s?|\s(?:to|bis|à|a|up to)\s", re.IGNORECASE)
_SAME_SIGNS = str.maketrans(
    {"٫": ".", "٬": ",", "−": "-"}
    | dict.fromkeys("’‘′", "'")
    | dict.fromkeys("“”″", '"')
    | {chr(code + 0xFEE0): chr(code) for code in range(0x21, 0x7F)}  # full width
)


@dataclass(frozen=True, slots=True)
class Literal:
    """A number in a text."""

    start: int
    """Where it begins in the text, in characters."""
    end: int
    """Where it ends, its own unit included."""
    number: float
    """The number, finite."""
    unit: str | None
    """Its unit, as :func:`units.unit_of` names it: the one that follows it, or the one at the end of "160x200 cm"."""
    is_part: bool = False
    """It is one of several numbers of a product (160x200) or of a range (12-15)."""
    in_thousands: bool = False
    """A K follows the number and no unit: it means thousands, or karats."""
    shares_unit: bool = False
    """The unit is another number's: the 2 of "2x500 ml" can be a count."""


def find(text: str, language: str | None = None) -> list[Literal]:
    """Return the numbers of a text in order, at most :data:`MOST_NUMBERS`.

    ``language``: decides what "1.299" is where nothing else does: 1,299 in languages that write a comma before the
    decimals. Numbers that are not finite (1e400) are left out.
    """
    plain = _plain(text)
    found = list(_with_own_units(plain, language))
    return _with_two_units(_with_shared_units(found, plain), plain)


def shown(number: float) -> str:
    """Return a number with at most 6 significant digits, but with all digits before the point (up to 15), and without
    an exponent."""
    digits = min(max(6, len(f"{abs(number):.0f}")), 15)
    return f"{Decimal(f'{number:.{digits}g}').normalize() + 0:f}"


def _plain(text: str) -> str:
    """Return the text with ASCII digits and signs, character by character, so that places stay."""
    if text.isascii():
        return text
    digits = (str(unicodedata.decimal(char)) if char.isdecimal() else char for char in text)
    return "".join(digits).translate(_SAME_SIGNS)


def _with_own_units(plain: str, language: str | None) -> Iterator[Literal]:
    read, unit_behind, place = 0, units.pattern(), 0
    while read < MOST_NUMBERS and (match := _NUMBER.search(plain, place)):
        place = match.end()
        read += 1
        thousand = _THOUSAND.match(plain, place)
        in_thousands = unit_behind.match(plain, thousand.end()) if thousand else None
        unit_match = in_thousands or unit_behind.match(plain, place)
        unit = units.unit_of(unit_match["unit"]) if unit_match else None
        if unit_match and unit:
            place = unit_match.end()
        elif plain[place : place + 1].isalpha() and plain[place].lower() not in "x×kma":
            continue  # 4K, 3M and 8A are numbers; 5th and 3D are none
        is_short = unit is None and bool(re.match(r"[kK](?![^\W_])", plain[place : place + 2]))
        place += is_short
        number = _number(match, language)
        if number is not None:
            yield Literal(match.start(), place, number * 1000 if in_thousands and unit else number, unit,
                          in_thousands=is_short)  # fmt: skip


def _number(match: re.Match[str], language: str | None) -> float | None:
    """Return the number of a match; None where it is not finite or is divided by 0."""
    parts = match.groupdict()
    try:
        if parts["plain"] is not None:
            size = float(_decimal(parts["plain"], language) + (parts["power"] or ""))
        elif parts["half"] is not None:
            size = unicodedata.numeric(parts["half"])
        elif parts["top"] is not None:
            size = int(parts["top"]) / int(parts["bottom"])
        elif parts["vulgar"] is not None:
            size = int(parts["whole"]) + unicodedata.numeric(parts["vulgar"])
        else:
            size = int(parts["whole"]) + int(parts["over"]) / int(parts["under"])
    except (ZeroDivisionError, ValueError, OverflowError):
        return None
    return (-size if parts["sign"] == "-" else size) if math.isfinite(size) else None


def _decimal(digits: str, language: str | None) -> str:
    """Return digits with separators as Python writes the number. Raises ValueError where no locale writes it so."""
    digits = re.sub(r"[\s\u00a0\u202f\u2009']", "", digits)
    marks = [char for char in digits if char in ".,"]
    if not marks:
        return digits
    last, kinds = marks[-1], set(marks)
    head, _, tail = digits.rpartition(last)
    if len(kinds) == 1 and (len(marks) > 1 or (_is_thousands(last, language) and len(tail) == 3)):
        groups = digits.split(last)
        if 1 <= len(groups[0]) <= 3 and groups[0] != "0" and all(len(group) == 3 for group in groups[1:]):
            return "".join(groups)
        if len(marks) > 1:
            raise ValueError(f"{digits} is no number")  # a date, a version, an address
    if len(kinds) == 2:
        other = (kinds - {last}).pop()
        groups = head.split(other)
        if marks.count(last) > 1 or not all(len(group) == 3 for group in groups[1:]):
            raise ValueError(f"{digits} is no number")
        head = "".join(groups)
    return f"{head or '0'}.{tail}"


def _is_thousands(mark: str, language: str | None) -> bool:
    """Return whether a single mark before three digits stands between thousands."""
    subtags = re.split("[-_]", (language or "").lower())[1:]
    is_comma = primary_language(language) in _COMMA_LANGUAGES and _POINT_COUNTRIES.isdisjoint(subtags)
    return mark == ("." if is_comma else ",")


def _with_shared_units(found: list[Literal], plain: str) -> list[Literal]:
    """Return the numbers with the units that they share, and with what is a part of a product or range."""
    shared = list(found)
    for place in range(len(found) - 2, -1, -1):
        first, second = shared[place], shared[place + 1]
        between = plain[first.end : second.start]
        if _PRODUCT.fullmatch(between) or (_RANGE.fullmatch(between) and first.unit in (None, second.unit)):
            shares = first.unit is None and second.unit is not None
            shared[place] = replace(first, unit=first.unit or second.unit, is_part=True, shares_unit=shares)
            shared[place + 1] = replace(second, is_part=True)
    return shared


def _with_two_units(found: list[Literal], plain: str) -> list[Literal]:
    """Return the numbers with 5' 6" as one number of inches, and 1 lb 8 oz as one of ounces."""
    joined: list[Literal] = []
    for literal in found:
        before = joined[-1] if joined else None
        size = _SMALLER.get((before.unit, literal.unit), 0) if before else 0
        if before and 0 <= literal.number < size and plain[before.end : literal.start] in ("", " ", "-"):
            whole = before.number * size + literal.number
            joined[-1] = Literal(before.start, literal.end, whole, literal.unit, before.is_part or literal.is_part)
        else:
            joined.append(literal)
    return joined
