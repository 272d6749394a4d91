"""Values of open attributes: what a text is stored as, why it is no value, and whether two values are the same.

This is the only place that decides it: the import, training, certification, scoring, audits and statements ask here.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from catalog_enrichment.values import numbers, units
from catalog_enrichment.values.kinds import Kind, NumberRule, OpenRule
from catalog_enrichment.values.numbers import Literal
from catalog_enrichment.values.spelling import says_something, text_key, without_invisible

MOST_CHARACTERS = 200
"""The length of a text that can be a value."""

_BETWEEN_EQUAL = " /|=()[],;~\u2248\u2259"
"""What stands around a number that is given in two units."""


class Problem(StrEnum):
    """Why a text is no value of an open attribute."""

    EMPTY = "it says nothing"
    TOO_LONG = f"it is longer than {MOST_CHARACTERS} characters"
    NO_NUMBER = "it has no number that can be read"
    SEVERAL_NUMBERS = "it has several numbers"
    OTHER_WORDS = "it has other words than a number and its unit"
    OTHER_UNIT = "its unit cannot be converted into the attribute's"
    NOT_PLAUSIBLE = "the number is not in the plausible range"


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number of an attribute."""

    number: float
    """In the attribute's unit."""
    unit: str
    """The attribute's unit, as its dictionary spells it; "" for numbers without a unit."""

    def __str__(self) -> str:
        return f"{numbers.shown(self.number)} {self.unit}".rstrip()


def stored(text: str, rule: OpenRule, language: str | None = None) -> str | None:
    """Return the text that a value is stored as ("51 cm"); None where ``text`` is no value (:func:`why_not`)."""
    if rule.kind is Kind.NUMBER:
        found = read_number(text, _numbers(rule), language)
        return str(found) if isinstance(found, Quantity) else None
    return None if _problem_of_text(text) else _known_text(clean(text), rule)


def why_not(text: str, rule: OpenRule, language: str | None = None) -> Problem | None:
    """Return why a text is no value of the attribute; None if it is one."""
    if rule.kind is Kind.NUMBER:
        found = read_number(text, _numbers(rule), language)
        return found if isinstance(found, Problem) else None
    return _problem_of_text(text)


def is_same(first: str, second: str, rule: OpenRule) -> bool:
    """Return whether two stored values are the same value: texts with equal keys after their aliases are replaced, and
    numbers that differ by at most the tolerance. A number may be in any unit that the attribute's is converted from."""
    if first == second:
        return True
    if rule.kind is Kind.TEXT:
        return text_key(_known_text(first, rule)) == text_key(_known_text(second, rule))
    one, other = (read_number(text, _numbers(rule)) for text in (first, second))
    return (
        isinstance(one, Quantity) and isinstance(other, Quantity) and _numbers(rule).is_same(one.number, other.number)
    )


def clean(text: str) -> str:
    """Return a text in NFC, with single spaces."""
    return unicodedata.normalize("NFC", " ".join(text.split()))


def read_number(text: str, rule: NumberRule, language: str | None = None) -> Quantity | Problem:
    """Return the number that a cell says, in the rule's unit. A number without a unit is in the rule's unit.

    A number that is given twice, in two units ("100 cm (39.4 in)"), is one number.
    """
    if not says_something(text):
        return Problem.EMPTY
    if len(text) > MOST_CHARACTERS:
        return Problem.TOO_LONG
    cell = " ".join(without_invisible(text).split())
    found = numbers.find(cell, language)
    if not found:
        return Problem.NO_NUMBER
    if len(found) > 1:
        return _one_of(cell, found, rule)
    literal = found[0]
    rest = (cell[: literal.start] + cell[literal.end :]).strip(" .,;:()")
    if rest and literal.unit is None and (unit := units.unit_of_attribute(rest)):
        literal, rest = replace(literal, unit=unit), ""
    return Problem.OTHER_WORDS if rest else quantity(literal, rule)


def _one_of(cell: str, found: Sequence[Literal], rule: NumberRule) -> Quantity | Problem:
    """Return the number of a cell with several, if each has a unit of its own and all are the same number."""
    between = list(cell)
    for literal in reversed(found):
        del between[literal.start : literal.end]
    said = [quantity(literal, rule) for literal in found]
    first = said[0]
    if "".join(between).strip(_BETWEEN_EQUAL) or any(each.unit is None or each.shares_unit for each in found):
        return Problem.SEVERAL_NUMBERS
    if isinstance(first, Quantity) and all(
        isinstance(each, Quantity) and rule.is_same(first.number, each.number) for each in said
    ):
        return first
    return Problem.SEVERAL_NUMBERS


def quantity(literal: Literal, rule: NumberRule) -> Quantity | Problem:
    """Return a number in a text as a number of the attribute. A number without a unit is in the rule's unit."""
    number, unit = literal.number, literal.unit
    if literal.in_thousands:
        unit = _unit_of_k(rule)
        number = number if unit else number * 1000
    converted = number if unit is None else _converted(number, unit, rule)
    if converted is None:
        return Problem.OTHER_UNIT
    return Quantity(converted, rule.unit) if rule.is_plausible(converted) else Problem.NOT_PLAUSIBLE


def _unit_of_k(rule: NumberRule) -> str | None:
    """Return the unit that a K behind a number is for the attribute: karats or kelvins; None: it means thousands."""
    own = units.unit_of_attribute(rule.unit)
    return next((unit for unit in ("karat", "kelvin") if own and units.conversion(unit, own)), None)


def stored_number(literal: Literal, rule: OpenRule, bare: bool = False) -> str | None:
    """Return the text that a number in a text is stored as; None if the attribute cannot have it.

    ``bare``: a number without a unit is read in the attribute's unit. Without it, only attributes without a unit have
    such numbers.
    """
    numbers_of = _numbers(rule)
    found = quantity(literal, numbers_of)
    if found is Problem.OTHER_UNIT and literal.shares_unit:  # the 2 of "2x500 ml" is no volume, but can be a count
        literal = replace(literal, unit=None)
        found = quantity(literal, numbers_of)
    if literal.unit is None and not bare and numbers_of.unit:
        return None
    return str(found) if isinstance(found, Quantity) else None


def number_of(value: str, rule: OpenRule) -> float | None:
    """Return the number of a stored value in the attribute's unit; None for a text, or where it has none."""
    if rule.number is None:
        return None
    found = read_number(value, rule.number)
    return found.number if isinstance(found, Quantity) else None


def _converted(number: float, unit: str, rule: NumberRule) -> float | None:
    own = units.unit_of_attribute(rule.unit) if rule.unit else None
    allowed = {units.unit_of_attribute(spelling) for spelling in rule.units} | {own}
    if own is None or (rule.units and unit not in allowed):
        return None
    converted = units.convert(number, unit, own)
    return converted if converted is not None and math.isfinite(converted) else None


def _problem_of_text(text: str) -> Problem | None:
    if not says_something(text):
        return Problem.EMPTY
    return Problem.TOO_LONG if len(text) > MOST_CHARACTERS else None


def _known_text(text: str, rule: OpenRule) -> str:
    """Return the text that an alias stands for, else the text as it is."""
    return rule.meanings.get(text_key(text), text) if rule.meanings else text


def _numbers(rule: OpenRule) -> NumberRule:
    assert rule.number is not None, "an open attribute of the kind number has a rule for its numbers"
    return rule.number
