"""The check for labels that a model made elsewhere has seen: is it right more often at products from before its time?

A label that a model has learned certifies nothing, and what a model has learned can only be declared. This is the check
beside the declaration (leakage into an evaluation; Kaufman et al. 2012). It finds labels that were learned by heart. It
cannot find them where nothing is known of when products came. With about ten products on a side it accuses too easily:
the test is a normal approximation.
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
"""Below this p-value the labels count as seen."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EarlierAgainstLater:
    """How often a model is right at products from before it was made, and at later ones."""

    earlier: int
    """Products that existed when the model was made, in strata that have both."""
    later: int
    """Products that did not, in strata that have both."""
    difference: float
    """Share that is right among the earlier minus that among the later, at equal score band and category."""
    p_value: float
    """One-sided, that the earlier are not right more often; 1 where there is nothing to compare."""

    @property
    def seen(self) -> bool:
        """The earlier products are right significantly more often."""
        return self.p_value < SIGNIFICANT


def earlier_against_later(
    right: Bools, earlier: Bools, scores: Floats, categories: Sequence[str | None], groups: Ints
) -> EarlierAgainstLater:
    """Compare a model's top values at products from before it was made with those at later ones.

    All (n,): whether the value is right, whether the product existed when the model was made, the score, the category,
    the content group. Score band and category are held equal by comparing within strata (Mantel and Haenszel 1959). The
    variance is over content groups, whose products are right or wrong together (Liang and Zeger 1986).
    """
    strata = _strata(scores, categories)
    size = np.bincount(strata).astype(np.float64)
    earlier_share = np.bincount(strata, weights=earlier) / size
    both = ((earlier_share > 0) & (earlier_share < 1))[strata]
    away = np.where(both, earlier - earlier_share[strata], 0.0)
    # the deviation from the mean of the stratum, corrected for the degree of freedom that the mean takes
    mean = np.bincount(strata, weights=right) / size
    terms = away * (right - mean[strata])
    correction = np.sqrt(size / np.maximum(size - 1, 1))[strata]
    by_group = np.bincount(np.unique(groups, return_inverse=True)[1], weights=terms * correction)
    weight, variance, clusters = float((away * earlier).sum()), float((by_group**2).sum()), np.count_nonzero(by_group)
    return EarlierAgainstLater(
        earlier=int((both & earlier).sum()),
        later=int((both & ~earlier).sum()),
        difference=float(terms.sum()) / weight if weight else 0.0,
        p_value=float(stats.t.sf(terms.sum() / np.sqrt(variance), clusters - 1)) if clusters > 1 else 1.0,
    )


def _strata(scores: Floats, categories: Sequence[str | None]) -> Ints:
    """Return a number per product: 0, 1, ... for every band and category that has products."""
    edges = np.unique(np.quantile(scores, np.linspace(0, 1, BANDS + 1)[1:-1]))
    bands = np.searchsorted(edges, scores, side="right")
    number = np.unique([category or "" for category in categories], return_inverse=True)[1]
    return np.asarray(np.unique(bands * (number.max() + 1) + number, return_inverse=True)[1], dtype=np.int64)
