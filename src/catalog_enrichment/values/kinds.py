"""The kinds of attributes, and the rule of an attribute that has no closed list of values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Any, Self

from catalog_enrichment.values.spelling import text_key

DEFAULT_TOLERANCE = 0.01
"""The relative difference up to which two numbers are the same value."""


SMALLEST, LARGEST = 1e-12, 1e15
"""The sizes of numbers that can be stored: others are mistakes, or would be long rows of zeros."""


class Kind(StrEnum):
    """What an attribute's values are, and so when two of them are the same."""

    CLOSED = "closed"
    """Canonical values and their aliases."""
    NUMBER = "number"
    """Numbers in a unit; the same within a tolerance."""
    TEXT = "text"
    """Texts; case, punctuation, spaces and Unicode forms do not count."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NumberRule:
    """The numbers of an attribute of the kind `number`."""

    unit: str
    """The unit that values are stored in, a spelling that :func:`units.unit_of` knows; "": numbers without a unit."""
    units: tuple[str, ...] = ()
    """The units that values are converted from, as spellings; empty: every unit of the same dimension."""
    tolerance: float = DEFAULT_TOLERANCE
    """Two numbers are the same value if they differ by at most this share of the larger one."""
    low: float | None = None
    """The smallest plausible number, in ``unit``; None: no limit."""
    high: float | None = None
    """The largest plausible number, in ``unit``; None: no limit."""

    def is_plausible(self, number: float) -> bool:
        """Return whether ``number`` of ``unit`` lies in the plausible range, ends included, and can be stored."""
        return (
            (number == 0 or SMALLEST <= abs(number) <= LARGEST)
            and (self.low is None or number >= self.low)
            and (self.high is None or number <= self.high)
        )

    def is_same(self, first: float, second: float) -> bool:
        """Return whether two numbers of ``unit`` are the same value."""
        return abs(first - second) <= self.tolerance * max(abs(first), abs(second)) * (1 + 1e-9)


@dataclass(frozen=True, kw_only=True)
class OpenRule:
    """What the values of an attribute without a closed list are: a kind, and what belongs to it."""

    kind: Kind
    """`number` or `text`."""
    number: NumberRule | None = None
    """The numbers; given if and only if the kind is `number`."""
    aliases: Mapping[str, str] = field(default_factory=dict)
    """Kind `text`: spelling -> the text that it is stored as."""

    def __post_init__(self) -> None:
        if self.kind is Kind.CLOSED or (self.kind is Kind.NUMBER) != (self.number is not None):
            raise ValueError(
                f"an open attribute is a number with its rule, or a text, not {self.kind} and {self.number}"
            )

    @classmethod
    def of_plain(cls, plain: Mapping[str, Any]) -> Self:
        """Return the rule that dataclasses.asdict has made plain."""
        number = plain["number"]
        rule = number and NumberRule(**{**number, "units": tuple(number["units"])})
        return cls(kind=Kind(plain["kind"]), number=rule, aliases=plain["aliases"])

    def why_not_certified(self, certified: OpenRule) -> str:
        """Return why values that were certified by the rule ``certified`` are not certified by this one, as the rest of
        a sentence about the dictionary; "" if they are. A value that both take in the same way is."""
        if self.kind is not certified.kind:
            return f"says kind {self.kind}, the model version was trained for {certified.kind}"
        if self.number and certified.number and self.number.tolerance < certified.number.tolerance:
            return (
                f"says tolerance {self.number.tolerance:g}, the model version was certified with "
                f"{certified.number.tolerance:g}"
            )
        other = sorted(key for key, text in certified.meanings.items() if self.meanings.get(key) != text)
        return f"has no alias {other[0]!r} as the model version was certified with" if other else ""

    @cached_property
    def meanings(self) -> dict[str, str]:
        """The key of each alias (:func:`spelling.text_key`) -> the text that it is stored as."""
        return {text_key(alias): text for alias, text in self.aliases.items()}
