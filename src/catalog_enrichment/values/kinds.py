"""The kinds of attributes, and the rule of an attribute that has no closed list of values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

DEFAULT_TOLERANCE = 0.01
"""The relative difference up to which two numbers are the same value."""


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
        """Return whether a finite ``number`` of ``unit`` lies in the plausible range, ends included."""
        return (
            math.isfinite(number)
            and (self.low is None or number >= self.low)
            and (self.high is None or number <= self.high)
        )

    def is_same(self, first: float, second: float) -> bool:
        """Return whether two numbers of ``unit`` are the same value."""
        return abs(first - second) <= self.tolerance * max(abs(first), abs(second)) * (1 + 1e-9)


@dataclass(frozen=True, kw_only=True, slots=True)
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
