"""Two model versions on the same test products: the difference of their certified recall, with bounds by content group.

Certified recall is the share of the true (product, value) pairs that a version would write. Both versions are measured
on the products of both test folds, which neither was trained, calibrated or certified on, against the same labels
(PRECISION, "Promotion"). Shapes: n products.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, inf, isfinite, sqrt

import numpy as np
from scipy import stats

from catalog_enrichment.precision.classification_metrics import Ints
from catalog_enrichment.records import Modality

MOST_UNITS = 10_000_000
"""A larger number of test products is not an answer."""
POWER = 0.8
"""Probability with which :func:`units_to_decide` lets an equally good version pass."""


@dataclass(frozen=True, slots=True)
class HeldOutDecision:
    """What a version would write to one labelled product of its test fold, for one attribute."""

    product_id: str
    group: int
    """Content group; numbered anew in every training."""
    attribute: str
    true_values: tuple[str, ...]
    written_values: tuple[str, ...]
    modality: Modality | None = None
    """The product's modality path; None where it was not recorded (release 0.1.0)."""


@dataclass(frozen=True, slots=True)
class Pairs:
    """The products of two versions' test folds, for one attribute."""

    groups: Ints  # (n,)
    positives: Ints  # (n,) true values
    candidate: Ints  # (n,) true values that the candidate would write
    reference: Ints  # (n,) true values that the reference would write


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


def pair(candidate: Sequence[HeldOutDecision], reference: Sequence[HeldOutDecision], attribute: str) -> Pairs:
    """The products in both versions' decisions for ``attribute``; labels and groups are the candidate's."""
    written = {row.product_id: set(row.written_values) for row in reference if row.attribute == attribute}
    shared = [row for row in candidate if row.attribute == attribute and row.product_id in written]
    columns = [
        (
            row.group,
            len(row.true_values),
            len(set(row.true_values) & set(row.written_values)),
            len(set(row.true_values) & written[row.product_id]),
        )
        for row in shared
    ]
    return Pairs(*np.array(columns, dtype=np.int64).reshape(-1, 4).T)


def recall_difference(pairs: Pairs, confidence: float) -> RecallDifference:
    """The paired difference with one-sided bounds, each at ``confidence``.

    A ratio estimator over content groups: with x_g the group's right values of the candidate less those of the
    reference, and p_g its true values, D = sum x_g / sum p_g, and its variance is that of the residuals x_g - D p_g
    between groups. For the bounds, two groups of average size are added, one that each version alone has right (Bonett
    and Price 2012, here for groups), because otherwise few products without a disagreement would prove equality. With
    fewer than two groups the bounds are -1 and 1.
    """
    positives = int(pairs.positives.sum())
    recalls = [float(right.sum() / positives) if positives else 0.0 for right in (pairs.candidate, pairs.reference)]
    _, group = np.unique(pairs.groups, return_inverse=True)
    x, p = np.bincount(group, pairs.candidate - pairs.reference), np.bincount(group, pairs.positives)
    size = max(1.0, float(p.mean())) if len(p) else 1.0
    x, p = np.append(x, [size, -size]), np.append(p, [size, size])
    groups, total = len(x), float(p.sum())
    center = float(x.sum()) / total
    error = sqrt(groups / (groups - 1) * float(((x - center * p) ** 2).sum())) / total
    quantile = float(stats.t.ppf(confidence, groups - 3)) if groups > 3 else inf
    lower, upper = (max(-1.0, center - quantile * error), min(1.0, center + quantile * error))
    return RecallDifference(
        units=len(pairs.groups),
        candidate=recalls[0],
        reference=recalls[1],
        lower=lower,
        upper=upper,
        standard_error=error,
        quantile=quantile,
    )


def units_to_decide(difference: RecallDifference, margin: float) -> int | None:
    """About how many products would show whether the difference is above -``margin``; None if no number is known.

    As many as let an equally good version pass with probability POWER. Where there are that many already, as many as
    are needed if the difference stays as it is.
    """
    if not difference.units or not isfinite(difference.quantile):
        return None
    spread = difference.standard_error * sqrt(difference.units)
    if_equal = _units(difference.quantile + float(stats.norm.ppf(POWER)), spread, margin)
    as_it_is = _units(difference.quantile, spread, abs(difference.estimate + margin))
    return next((ceil(units) for units in (if_equal, as_it_is) if difference.units < units < MOST_UNITS), None)


def _units(quantiles: float, spread: float, distance: float) -> float:
    """The n at which ``quantiles`` standard errors are ``distance``, for standard errors of ``spread / sqrt(n)``."""
    return float((quantiles * spread / distance) ** 2) if distance > 0 else inf
