"""Certified recall: what a version would write on its test fold, alone and against another version.

Certified recall is the share of the true (product, value) pairs that a version would write. Two versions are measured
on the products of both test folds, which neither was trained, calibrated or certified on, against the same labels
(PRECISION, "Reporting" and "Promotion"). Bounds and intervals are by content group.

Shapes: n products.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, inf, isfinite, sqrt

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from catalog_enrichment.precision import bootstrap
from catalog_enrichment.precision.cluster import AcceptedSample, group_numbers, precision_interval
from catalog_enrichment.precision.units import Ints
from catalog_enrichment.records import Modality

MOST_UNITS = 10_000_000
"""A larger number of test products is not an answer."""
POWER = 0.8
"""Probability with which :func:`units_to_decide` lets an equally good version pass."""


@dataclass(frozen=True, slots=True)
class HeldOutDecision:
    """The values that a version would write to a labelled product of its test fold, for one attribute."""

    product_id: str
    group: int
    """Content group; numbered anew in every training."""
    attribute: str
    true_values: tuple[str, ...]
    written_values: tuple[str, ...]
    modality: Modality

    @property
    def right(self) -> int:
        """Number of true values that are written."""
        return len(set(self.true_values) & set(self.written_values))


def certified_metrics(decisions: Sequence[HeldOutDecision], in_training: ArrayLike) -> dict[str, float]:
    """Return certified recall, precision of the written products and near-duplicate rate of one attribute's n
    ``decisions``, with 95% intervals; ``in_training`` (n,): a product of the content group is in training.

    A product is wrong if any value written to it is wrong. Recall and near-duplicate rate have bootstrap intervals.
    Precision has the interval of Korn and Graubard (1998), because a bootstrap of products without an error would be a
    point. Precision is 0 where nothing is written.
    """
    groups = group_numbers([row.group for row in decisions])
    written = np.array([bool(row.written_values) for row in decisions], dtype=bool)
    wrong = np.array([not set(row.written_values) <= set(row.true_values) for row in decisions], dtype=bool)
    right, true = [row.right for row in decisions], [len(row.true_values) for row in decisions]
    measures = {
        "recall": bootstrap.ratio_of_sums(right, true),
        "near_duplicate_rate": bootstrap.ratio_of_sums(in_training, np.ones(len(decisions))),
    }
    accepted, mistaken = int(written.sum()), int(wrong.sum())
    low, high = precision_interval(AcceptedSample.of(written, wrong, groups))
    found = {
        "products": float(len(decisions)),
        "accepted": float(accepted),
        "wrong": float(mistaken),
        "precision": (accepted - mistaken) / accepted if accepted else 0.0,
        "precision_low": low,
        "precision_high": high,
    }
    for name, interval in bootstrap.intervals(measures, bootstrap.Resamples(groups)).items():
        found |= {name: interval.estimate, f"{name}_low": interval.low, f"{name}_high": interval.high}
    return found


@dataclass(frozen=True, slots=True)
class PairedProducts:
    """The products that are in the test folds of two versions, for one attribute."""

    groups: Ints  # (n,)
    positives: Ints  # (n,) true values
    candidate: Ints  # (n,) true values that the candidate would write
    reference: Ints  # (n,) true values that the reference would write


def pair(candidate: Sequence[HeldOutDecision], reference: Sequence[HeldOutDecision], attribute: str) -> PairedProducts:
    """Return the products in both versions' decisions for ``attribute``; labels and groups are the candidate's."""
    written = {row.product_id: set(row.written_values) for row in reference if row.attribute == attribute}
    columns = [
        (row.group, len(row.true_values), row.right, len(set(row.true_values) & written[row.product_id]))
        for row in candidate
        if row.attribute == attribute and row.product_id in written
    ]
    return PairedProducts(*np.array(columns, dtype=np.int64).reshape(-1, 4).T)


@dataclass(frozen=True, kw_only=True, slots=True)
class RecallDifference:
    """Certified recall of the candidate less the reference's; ``lower`` and ``upper`` are one-sided bounds."""

    units: int
    """Products that were compared."""
    candidate: float
    reference: float
    lower: float
    upper: float
    standard_error: float
    quantile: float
    """Number of standard errors between the estimate and a bound."""

    @property
    def estimate(self) -> float:
        return self.candidate - self.reference


def recall_difference(pairs: PairedProducts, confidence: float) -> RecallDifference:
    """Return the paired difference with one-sided bounds, each at ``confidence``.

    A ratio estimator over content groups: with x_g the group's right values of the candidate less those of the
    reference, and p_g its true values, D = sum x_g / sum p_g, and its variance is that of the residuals x_g - D p_g
    between groups. For the bounds, a group of average size is added that the candidate alone has right, and another
    for the reference (Bonett and Price 2012, here for groups), because otherwise few products without a disagreement
    would prove equality. With fewer than two groups the bounds are -1 and 1.
    """
    positives = int(pairs.positives.sum())
    recalls = [float(right.sum() / positives) if positives else 0.0 for right in (pairs.candidate, pairs.reference)]
    group = group_numbers(pairs.groups)
    x, p = np.bincount(group, pairs.candidate - pairs.reference), np.bincount(group, pairs.positives)
    size = max(1.0, float(p.mean())) if len(p) else 1.0
    x, p = np.append(x, [size, -size]), np.append(p, [size, size])
    groups, total = len(x), float(p.sum())
    center = float(x.sum()) / total
    error = sqrt(groups / (groups - 1) * float(((x - center * p) ** 2).sum())) / total
    quantile = float(stats.t.ppf(confidence, groups - 3)) if groups > 3 else inf
    return RecallDifference(
        units=len(pairs.groups),
        candidate=recalls[0],
        reference=recalls[1],
        lower=max(-1.0, center - quantile * error),
        upper=min(1.0, center + quantile * error),
        standard_error=error,
        quantile=quantile,
    )


def units_to_decide(difference: RecallDifference, margin: float) -> int | None:
    """Return about how many products would show whether the difference is above -``margin``; None if no number is
    known.

    The number lets an equally good version pass with probability ``POWER``. Where there are that many already, it is
    the number that is needed if the difference stays as it is.
    """
    if not difference.units or not isfinite(difference.quantile):
        return None
    spread = difference.standard_error * sqrt(difference.units)
    if_equal = _units(difference.quantile + float(stats.norm.ppf(POWER)), spread, margin)
    as_it_is = _units(difference.quantile, spread, abs(difference.estimate + margin))
    return next((ceil(units) for units in (if_equal, as_it_is) if difference.units < units < MOST_UNITS), None)


def _units(quantiles: float, spread: float, distance: float) -> float:
    """Return the n at which ``quantiles`` standard errors of ``spread / sqrt(n)`` are ``distance``."""
    return float((quantiles * spread / distance) ** 2) if distance > 0 else inf
