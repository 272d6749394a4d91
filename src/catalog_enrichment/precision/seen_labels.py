"""The check for labels that a model made elsewhere has seen: is it right more often at products from before its time?

A label that a model has learned certifies nothing, and what a model has learned can only be declared. This is the check
beside the declaration (leakage into an evaluation; Kaufman et al. 2012). It finds labels that were learned by heart. It
cannot find them where nothing is known of when products came.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from catalog_enrichment.precision.units import Bools, Floats, Ints

BANDS = 10
"""Bands of the scores, of about the same number of products; products with the same score are in the same band."""

SIGNIFICANT = 0.05
"""At or below this p-value the labels count as seen."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EarlierAgainstLater:
    """How often a model is right at products from before it was made, and at later ones: one of each content group, in
    strata that have both."""

    earlier: int
    """Products that existed when the model was made."""
    later: int
    """Products that did not."""
    wrong_earlier: int
    """Earlier products whose value is wrong."""
    expected: float
    """How many that would be if time made no difference within a stratum."""
    p_value: float
    """The probability of ``wrong_earlier`` or fewer then; 1 where there is nothing to compare."""

    @property
    def seen(self) -> bool:
        """The earlier products are right significantly more often."""
        return self.p_value <= SIGNIFICANT


def earlier_against_later(
    right: Bools, earlier: Bools, scores: Floats, categories: Sequence[str | None], groups: Ints
) -> EarlierAgainstLater:
    """Compare a model's top values at products from before it was made with those at later ones.

    All (n,): whether the value is right, whether the product existed when the model was made, the score, the category,
    the content group. Of a group the first product stands for all, since they are right or wrong together. Score band
    and category are held equal: within a stratum the errors among the earlier are hypergeometric, and the test is exact
    for any number of errors (Mantel and Haenszel 1959; Agresti 2002, section 6.3.4).
    """
    first = np.unique(groups, return_index=True)[1]
    wrong, earlier = ~right[first], earlier[first]
    strata = _strata(scores[first], [categories[product] for product in first])
    counted = [np.bincount(strata, weights=those).astype(np.int64) for those in (np.ones(len(first)), earlier, wrong)]
    tables = [(size, before, bad) for size, before, bad in zip(*counted, strict=True) if 0 < before < size]
    possible = np.ones(1)  # the probability of 0, 1, ... errors among the earlier
    for size, before, bad in tables:
        possible = np.convolve(possible, stats.hypergeom(size, bad, before).pmf(np.arange(bad + 1)))
    both = np.isin(strata, [number for number, size in enumerate(counted[0]) if 0 < counted[1][number] < size])
    wrong_earlier = int((both & earlier & wrong).sum())
    return EarlierAgainstLater(
        earlier=int((both & earlier).sum()),
        later=int((both & ~earlier).sum()),
        wrong_earlier=wrong_earlier,
        expected=float(sum(before * bad / size for size, before, bad in tables)),
        p_value=float(min(1.0, possible[: wrong_earlier + 1].sum())),
    )


def _strata(scores: Floats, categories: Sequence[str | None]) -> Ints:
    """Return a number per product: 0, 1, ... for every band and category that has products."""
    if not len(scores):
        return np.empty(0, dtype=np.int64)
    edges = np.unique(np.quantile(scores, np.linspace(0, 1, BANDS + 1)[1:-1]))
    bands = np.searchsorted(edges, scores, side="right")
    number = np.unique([category or "" for category in categories], return_inverse=True)[1]
    return np.asarray(np.unique(bands * (number.max() + 1) + number, return_inverse=True)[1], dtype=np.int64)
