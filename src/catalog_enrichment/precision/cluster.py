"""The test of one threshold: an exact binomial test on the effective sample size of a clustered, weighted sample.

Source: Korn and Graubard 1998; PRECISION, certificate 4. A unit is a product, a cluster is a content group. With groups
of one product and weights of 1 this is the exact binomial test.

Two additions, because few groups are wrong at a certified threshold and group sizes are skewed: if by chance the large
groups have no error, their variance is not seen (violations of 6.4 to 7.5% in simulations where large groups are
copies). The design effect is shrunk towards that of the correlation which the choosing fold shows, and the
degrees of freedom are those of the effective number of groups (Satterthwaite 1946).

Shapes: n products of a fold, G content groups with an accepted product.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from catalog_enrichment.precision.certificate import ThresholdTest
from catalog_enrichment.precision.units import Bools, Floats, Ints, bisect

MIN_WRONG = 5
"""With fewer wrong products a fold does not determine how correlated its groups are."""

PRIOR_GROUPS = 10
"""How many wrong groups the design effect that the choosing fold suggests counts as."""

MOST_TIMES = 128
"""An error rate that would pass only with more than so many times the products is as good as above the target's."""


@dataclass(frozen=True, slots=True)
class AcceptedSample:
    """The accepted products of a fold at one threshold, summed by content group."""

    weight: Floats  # (G,) summed weights of the accepted products
    wrong_weight: Floats  # (G,) summed weights of the wrong products among them
    count: Ints  # (G,) accepted products
    squared_weights: float
    """Sum of the squared weights of the accepted products."""
    wrong: int
    """Number of accepted products that are wrong."""

    @classmethod
    def of(cls, accepted: Bools, wrong: Bools, groups: Ints, weights: Floats | None = None) -> AcceptedSample:
        """Return the sample of (n,) accepted, (n,) wrong, (n,) group number in 0, 1, ... and (n,) weights; without
        ``weights`` each is 1."""
        group = groups[accepted]
        weight = np.ones(len(group)) if weights is None else weights[accepted]
        mistaken = wrong[accepted]
        count = np.bincount(group)
        present = count > 0
        return cls(
            weight=np.bincount(group, weights=weight)[present].astype(np.float64),
            wrong_weight=np.bincount(group, weights=weight * mistaken)[present].astype(np.float64),
            count=count[present].astype(np.int64),
            squared_weights=float(np.square(weight).sum()),
            wrong=int(np.count_nonzero(mistaken)),
        )

    @property
    def accepted(self) -> int:
        """N: number of accepted products."""
        return int(self.count.sum())

    @property
    def error_rate(self) -> float:
        """Weighted share of wrong products; 0 where nothing is accepted."""
        total = float(self.weight.sum())
        return float(self.wrong_weight.sum()) / total if total else 0.0

    def deff(self, correlation: float) -> float:
        """Return the design effect: the variance of the error rate over that of N independent products of equal weight,
        at least 1 and at least that of the weights.

        It is the mean of the observed effect, which counts as many as groups are wrong, and the effect of groups with
        the intraclass ``correlation``, which counts ``PRIOR_GROUPS``.
        """
        total, wrong_groups = float(self.weight.sum()), int(np.count_nonzero(self.wrong_weight))
        if not total:
            return 1.0
        weighting = self.accepted * self.squared_weights / total**2  # Kish: unequal weights of independent products
        correlated = self.accepted * float(np.square(self.weight).sum()) / total**2
        expected = weighting + (correlated - weighting) * correlation
        observed = self._observed_deff()
        if observed is None:
            return max(1.0, expected)
        blended = (wrong_groups * observed + PRIOR_GROUPS * expected) / (wrong_groups + PRIOR_GROUPS)
        return max(1.0, blended, weighting)

    def _observed_deff(self) -> float | None:
        """Return None where the sample has no variance (no errors, or errors only) or fewer than two groups."""
        p, groups = self.error_rate, len(self.weight)
        if not 0 < p < 1 or groups < 2:
            return None
        residuals = self.wrong_weight - p * self.weight
        variance = groups / (groups - 1) * float(np.square(residuals).sum()) / float(self.weight.sum()) ** 2
        return variance * (self.accepted - 1) / (p * (1 - p))

    @property
    def effective_groups(self) -> float:
        """Number of equal groups whose variance would be as well determined; G where all groups are equal."""
        squares = np.square(self.weight)
        return float(squares.sum() ** 2 / np.square(squares).sum()) if len(squares) else 0.0


def cluster_test(
    sample: AcceptedSample, threshold: float, target: float, delta: float, correlation: float = 1.0
) -> ThresholdTest:
    """Test "the precision of the products accepted at ``threshold`` is below ``target``" at level ``delta``.

    ``correlation``: of errors within groups, as the choosing fold shows it (:func:`intraclass_correlation`); 1: the
    products of a group are taken as right or wrong together. The p-value is 1 with fewer than two groups.
    """
    groups, deff = len(sample.weight), sample.deff(correlation)
    p_value, lower_bound = 1.0, 0.0
    if groups >= 2 and sample.error_rate < 1:
        n, k = _effective_counts(sample, delta, deff)
        p_value = float(special.betainc(n - k, k + 1, target))
        lower_bound = float(special.betaincinv(n - k, k + 1, delta))
    return ThresholdTest(
        threshold, sample.accepted, sample.wrong, groups, deff, p_value, lower_bound, passed=p_value <= delta
    )


def products_needed(sample: AcceptedSample, target: float, delta: float, correlation: float) -> float:
    """Return how many accepted products would pass the test at this sample's error rate and design effect; infinite
    where more than ``MOST_TIMES`` as many would not be enough, or nothing is known."""
    if len(sample.weight) < 2 or sample.error_rate >= 1:
        return float("inf")
    n, k = _effective_counts(sample, delta, sample.deff(correlation))

    def passes(times: float) -> bool:
        return bool(special.betainc(times * (n - k), times * k + 1, target) <= delta)

    low, high = 1.0, 2.0
    while not passes(high):
        low, high = high, 2 * high
        if high > MOST_TIMES:
            return float("inf")
    return bisect(passes, low, high)[1] * sample.accepted  # the p-value falls as the counts grow


def precision_interval(sample: AcceptedSample) -> tuple[float, float]:
    """Return the two-sided 95% interval of the precision (Korn and Graubard 1998), by the design effect of
    :func:`cluster_test`; (0, 1) with fewer than two groups.

    With groups of one product it is the interval of Clopper and Pearson.
    """
    if len(sample.weight) < 2:
        return 0.0, 1.0
    tail = (1 - 0.95) / 2
    n, k = _effective_counts(sample, tail, sample.deff(1.0))
    low = float(special.betaincinv(n - k, k + 1, tail)) if k < n else 0.0
    high = float(special.betaincinv(n - k + 1, k, 1 - tail)) if k > 0 else 1.0
    return low, high


def _effective_counts(sample: AcceptedSample, tail: float, deff: float) -> tuple[float, float]:
    """Return the effective numbers of accepted and of wrong products, n* and k* of Korn and Graubard, at the quantile
    ``tail``."""
    degrees = np.array([sample.accepted - 1, max(sample.effective_groups - 1, 1.0)])
    quantiles = special.stdtrit(degrees, 1 - tail)
    correction = float(quantiles[0] / quantiles[1]) ** 2
    n = correction * sample.accepted / deff
    return n, sample.error_rate * n


def intraclass_correlation(wrong: Bools, groups: Ints) -> float:
    """Return the correlation of errors within content groups, in [0, 1], by analysis of variance (Donner 1986); (n,)
    each.

    It is 1, the safe side, with fewer than ``MIN_WRONG`` wrong or right products or without a group of several.
    """
    size = np.bincount(groups).astype(np.float64)
    errors = np.bincount(groups, weights=wrong)[size > 0]
    size = size[size > 0]
    n, count, total = float(size.sum()), len(size), float(errors.sum())
    if min(total, n - total) < MIN_WRONG or n == count or count < 2:
        return 1.0
    between = float((np.square(errors - total / n * size) / size).sum()) / (count - 1)
    within = float((errors * (1 - errors / size)).sum()) / (n - count)
    typical = (n - float(np.square(size).sum()) / n) / (count - 1)
    return float(np.clip((between - within) / (between + (typical - 1) * within), 0.0, 1.0))


def group_numbers(groups: ArrayLike) -> Ints:
    """Return content groups numbered 0, 1, ... within one fold: (n,) -> (n,)."""
    labels: NDArray[Any] = np.asarray(groups)
    return np.unique(labels, return_inverse=True)[1].astype(np.int64)
