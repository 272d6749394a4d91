"""The test of one threshold: an exact binomial test on the effective sample size of a clustered, weighted sample.

Source: Korn and Graubard 1998; PRECISION, certificate 4. A unit is a product, a cluster is a content group. With groups
of one product and weights of one this is the exact binomial test.

Shapes: n products of a fold.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from catalog_enrichment.classification_metrics import Bools, Floats, Ints

MIN_WRONG = 5
"""With fewer wrong products a fold does not determine the variance between its groups."""


@dataclass(frozen=True, slots=True)
class AcceptedSample:
    """The accepted products of a fold at one threshold, summed by content group; G groups have one."""

    weight: Floats  # (G,) summed weights of the accepted products
    wrong_weight: Floats  # (G,) summed weights of those that are wrong
    count: Ints  # (G,) accepted products
    squared_weights: float
    """Sum of the squared weights of the accepted products."""
    wrong: int
    """Number of accepted products that are wrong."""

    @classmethod
    def of(cls, accepted: Bools, wrong: Bools, groups: Ints, weights: Floats | None = None) -> AcceptedSample:
        """(n,) accepted, (n,) wrong, (n,) group number in 0, 1, ... and (n,) weights; None: weights of one."""
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

    def clustering_deff(self) -> float | None:
        """Variance of the error rate over that of N independent products. None where the sample has no variance (no
        errors, or errors only) or fewer than two groups."""
        p, groups = self.error_rate, len(self.weight)
        if not 0 < p < 1 or groups < 2:
            return None
        residuals = self.wrong_weight - p * self.weight
        variance = groups / (groups - 1) * float(np.square(residuals).sum()) / float(self.weight.sum()) ** 2
        return variance * (self.accepted - 1) / (p * (1 - p))

    def full_correlation_deff(self) -> float:
        """Design effect if all products of a group were right or wrong together; 1 where nothing is accepted."""
        return float(np.square(self.count).sum()) / self.accepted if self.accepted else 1.0

    def weighting_deff(self) -> float:
        """Design effect of unequal weights (Kish); 1 where nothing is accepted."""
        total = float(self.weight.sum())
        return self.accepted * self.squared_weights / total**2 if total else 1.0


@dataclass(frozen=True, slots=True)
class ClusterTest:
    """Result of the test "the precision is below the target" at one threshold."""

    accepted: int
    """N: accepted products."""
    wrong: int
    """K: wrong products among them."""
    groups: int
    """G: content groups with an accepted product."""
    deff: float
    """Design effect: variance of the error rate over that of N independent products of equal weight, at least 1."""
    p_value: float
    lower_bound: float
    """Lower confidence bound of the precision at 1 - delta; at least the target iff p_value <= delta."""


def cluster_test(
    sample: AcceptedSample, target: float, delta: float, fallback_deff: float | None = None
) -> ClusterTest:
    """Test the precision of the accepted products against ``target`` at level ``delta``.

    ``fallback_deff``: the clustering design effect of the calibration fold, which stands in where no accepted product
    is wrong; None: products of a group are then taken as right or wrong together. The p-value is 1 with fewer than two
    groups.
    """
    accepted, groups, p = sample.accepted, len(sample.weight), sample.error_rate
    clustering = sample.clustering_deff()
    if clustering is None:
        clustering = sample.full_correlation_deff() if fallback_deff is None else fallback_deff
    deff = max(1.0, clustering, sample.weighting_deff())
    if groups < 2 or p >= 1:
        return ClusterTest(accepted, sample.wrong, groups, deff, 1.0, 0.0)
    correction = (_t_quantile(accepted - 1, delta) / _t_quantile(groups - 1, delta)) ** 2
    n = correction * accepted / deff
    k = p * n
    p_value, lower_bound = special.betainc(n - k, k + 1, target), special.betaincinv(n - k, k + 1, delta)
    return ClusterTest(accepted, sample.wrong, groups, deff, float(p_value), float(lower_bound))


def sample_deff(sample: AcceptedSample) -> float:
    """Clustering design effect of a sample, at least 1; of fully correlated groups with fewer than ``MIN_WRONG`` wrong
    products, too few to estimate it."""
    clustering = sample.clustering_deff() if sample.wrong >= MIN_WRONG else None
    return max(1.0, sample.full_correlation_deff() if clustering is None else clustering)


def group_numbers(groups: ArrayLike) -> Ints:
    """Content groups numbered 0, 1, ... within one fold: (n,) -> (n,)."""
    labels: NDArray[Any] = np.asarray(groups)
    return np.unique(labels, return_inverse=True)[1].astype(np.int64)


def _t_quantile(degrees: int, delta: float) -> float:
    return float(special.stdtrit(degrees, 1 - delta))
