"""Statistics of audits: estimates from unequal sampling probabilities, bounds, and an alarm that holds at every look.

Bounds and alarm rest on betting (Waudby-Smith and Ramdas 2020): a product of factors with mean at most 1 under the
hypothesis exceeds 1 / alpha at any time with probability at most alpha (Ville's inequality). So a sample may be looked
at after every verdict, and verdicts may be added later.

    alarm    W_n = mean over l of prod(1 + l (X_i - rate)), X_i = 1 if wrong, on the uniform stratum only; alarm at
             W_n >= 20 (PRECISION, After deployment). Rows that were drawn more often where errors are would raise it
             without a cause.
    bounds   every row counts by Z_i = X_i n / (N p_i): n rows were drawn of N, row i with probability p_i. Its mean is
             the error rate of the N rows. An error rate of at least m is rejected when
             mean over f of prod(1 + f (m - Z_i) / (B_i - m)) reaches 1 / alpha, B_i >= Z_i the largest possible value.

Neither depends on the order of the rows. Shapes: n audited rows.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from catalog_enrichment.precision.units import Bools, Floats, bisect

ALARM = 20.0
"""The wealth that is an alarm: under a precision of at least the target it is ever reached with probability 1/20."""

BETS = (0.05, 0.1, 0.2, 0.4)
"""Bets l of the alarm as shares of 1 / rate: 1, 2, 4 and 8 at a rate of .05. Below 1, so that no factor is negative."""

FRACTIONS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.75, 0.9)
"""Bets of the bounds as shares of the largest bet that keeps every factor positive."""

MOST_MISSING = 100_000
"""Further rows up to which :func:`right_rows_missing` looks."""


def wealth(wrong: ArrayLike, rate: float) -> Floats:
    """Return W after each verdict: (n,) verdicts, 1 = wrong -> (n,); ``rate``: the error rate that is allowed, 1 -
    target."""
    x = np.asarray(wrong, dtype=np.float64)
    of_bets = [np.cumprod(1.0 + bet / rate * (x - rate)) for bet in BETS]
    return np.asarray(np.mean(of_bets, axis=0), dtype=np.float64)


@dataclass(frozen=True)
class AuditedRows:
    """Judged rows of one or several samples."""

    wrong: Bools  # (n,)
    unsure: Bools
    """(n,) the reviewer could not tell; such a row is not ``wrong``."""
    weight: Floats
    """(n,) average rows of its sample that each row stands for: n / (N p), about 1."""
    highest: Floats
    """(n,) the largest weight that any row of the same sample could have had."""

    def __post_init__(self) -> None:
        if len({len(self.wrong), len(self.unsure), len(self.weight), len(self.highest)}) != 1:
            raise ValueError("audited rows: wrong, unsure, weight and highest must have one entry per row")
        if (self.weight <= 0).any() or (self.highest < self.weight).any():
            raise ValueError("audited rows: weights must be positive and at most the highest of their sample")


NO_ROWS = AuditedRows(np.zeros(0, dtype=bool), np.zeros(0, dtype=bool), np.zeros(0), np.zeros(0))


@dataclass(frozen=True, slots=True)
class AuditEstimate:
    """The precision of the rows that a sample was drawn of."""

    rows: int
    """Judged rows, including rows that nobody could tell."""
    wrong: int
    unsure: int
    precision: float | None
    """Estimate by inverse probabilities, without the unsure rows; None without other rows."""
    lower: float
    """Lower bound at confidence 1 - alpha, at every look; unsure rows count as wrong."""
    upper: float
    """Upper bound of the same confidence; unsure rows count as right."""


def estimate(rows: AuditedRows, alpha: float) -> AuditEstimate:
    """Return the precision with one-sided bounds, each wrong with probability at most ``alpha`` however often it is
    asked."""
    known = ~rows.unsure
    total = float(rows.weight[known].sum())
    right = float(rows.weight[known & ~rows.wrong].sum())
    return AuditEstimate(
        rows=len(rows.wrong),
        wrong=int(np.count_nonzero(rows.wrong)),
        unsure=int(np.count_nonzero(rows.unsure)),
        precision=right / total if total else None,
        lower=1.0 - highest_error(rows.weight * (rows.wrong | rows.unsure), rows.highest, alpha),
        upper=1.0 - lowest_error(rows.weight * rows.wrong, alpha),
    )


def right_rows_missing(rows: AuditedRows, target: float, alpha: float) -> int | None:
    """Return how many further rows, all right and weighted as these are on average, bring the lower bound to
    ``target``; None for more than MOST_MISSING."""
    rate, highest = 1.0 - target, np.maximum(rows.highest, 1.0)
    weighted = rows.weight * (rows.wrong | rows.unsure)
    logs = _logs((rate - weighted) / (highest - rate))
    usual = float(highest.mean()) if len(highest) else 1.0
    of_right = _logs(np.array([rate / (usual - rate)]))
    found = bisect_left(range(MOST_MISSING + 1), True, key=lambda more: _is_rejected(logs + more * of_right, alpha))
    return found if found <= MOST_MISSING else None


def highest_error(weighted: Floats, highest: Floats, alpha: float) -> float:
    """Return the smallest error rate that is rejected as too high; 1 if none is.

    ``weighted`` (n,): the weight of each wrong row, 0 for the others; ``highest`` (n,): the largest possible weight, at
    least 1.
    """
    bound = np.maximum(highest, 1.0)
    return bisect(lambda rate: _reached((rate - weighted) / (bound - rate), alpha), 0.0, 1.0)[1]


def lowest_error(weighted: Floats, alpha: float) -> float:
    """Return the largest error rate that is rejected as too low; 0 if none is. Arguments: :func:`highest_error`."""
    if not weighted.any():
        return 0.0
    return bisect(lambda rate: not _reached(weighted / rate - 1.0, alpha), 0.0, 1.0)[1]


def _reached(gains: Floats, alpha: float) -> bool:
    """Return whether the mean of the products of (1 + f gain) is at least 1 / alpha after all rows; (n,) gains >= -1.

    Earlier rows alone do not count: the bound then does not depend on the order of the rows, which verdicts do not
    keep.
    """
    return _is_rejected(_logs(gains), alpha)


def _logs(gains: Floats) -> Floats:
    """Return the logarithm of the product of (1 + f gain) for each bet f."""
    return np.array([np.log1p(fraction * gains).sum() for fraction in FRACTIONS])


def _is_rejected(logs: Floats, alpha: float) -> bool:
    return bool(np.exp(np.minimum(logs, 700.0)).mean() >= 1 / alpha)
