"""How good predictions are: R@P95, calibration, exact binomial bounds.

No function returns NaN. Where nothing is accepted, precision and recall are 0 (PRECISION 8).
R@P95 counts every true (product, value) pair, so an abstention is a miss (De la Comble et al. 2022).
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from catalog_enrichment.precision.classification_metrics import Floats, Ints, ratio
from catalog_enrichment.precision.units import Pairs


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """A threshold with its counts; None and zeros where no threshold reaches the target."""

    threshold: float | None
    recall: float = 0.0
    precision: float = 0.0
    accepted: int = 0
    wrong: int = 0


@dataclass(frozen=True, slots=True)
class Curve:
    """Precision and recall at every distinct score, highest threshold first."""

    thresholds: Floats
    precision: Floats
    recall: Floats


@dataclass(frozen=True, slots=True)
class Reliability:
    """Confidence and accuracy per bin of score; bins without scores are left out."""

    confidence: Floats
    accuracy: Floats
    count: Ints
    expected_error: float
    """Mean ``|accuracy - confidence|``, weighted by count (expected calibration error)."""


def precision_recall_curve(scores: ArrayLike, correct: ArrayLike, positives: int) -> Curve:
    """Precision and recall of ``score >= t`` at every distinct score t. Equal scores are accepted together."""
    thresholds, accepted, hits = _cumulative(scores, correct)
    return Curve(thresholds, ratio(hits, accepted), ratio(hits, np.full(len(hits), positives)))


def operating_point(scores: ArrayLike, correct: ArrayLike, positives: int, target: float) -> OperatingPoint:
    """The greatest recall over thresholds whose precision is >= ``target``: R@P95 for 0.95.

    ``positives``: all true pairs, scored or not. Describes this data set; it is not a guarantee.
    """
    thresholds, accepted, hits = _cumulative(scores, correct)
    # the correctly rounded quotient compares exactly with a decimal target; comparing errors with 1 - target does not
    good = np.flatnonzero(hits / accepted >= target)
    if not len(good):
        return OperatingPoint(None)
    best = good[np.argmax(hits[good])]
    n, k = int(accepted[best]), int(accepted[best] - hits[best])
    recall = (n - k) / positives if positives else 0.0
    return OperatingPoint(float(thresholds[best]), recall, (n - k) / n, n, k)


def r_at_p_micro(pairs: Pairs, target: float = 0.95) -> OperatingPoint:
    """R@P95 with one threshold on the pooled scores."""
    return operating_point(pairs.scores, pairs.correct, pairs.total, target)


def r_at_p_macro(pairs: Pairs, target: float = 0.95, min_positives: int = 20) -> float:
    """Mean over the values of R@P95 with a threshold each; a value with fewer positives counts as 0."""
    recalls = [
        operating_point(*pairs.of(value), target).recall if positives >= min_positives else 0.0
        for value, positives in enumerate(pairs.positives.tolist())
    ]
    return float(np.mean(recalls)) if recalls else 0.0


def reliability(scores: ArrayLike, correct: ArrayLike, bins: int = 10) -> Reliability:
    """Confidence against accuracy in ``bins`` equal bins of [0, 1]."""
    score, right = np.asarray(scores, dtype=np.float64), np.asarray(correct, dtype=bool)
    bin_index = np.minimum((score * bins).astype(np.int64), bins - 1)
    count = np.bincount(bin_index, minlength=bins)
    used = count > 0
    confidence = ratio(np.bincount(bin_index, weights=score, minlength=bins), count)[used]
    hits = ratio(np.bincount(bin_index, weights=right, minlength=bins), count)[used]
    error = ratio((np.abs(hits - confidence) * count[used]).sum(), count.sum())
    return Reliability(confidence, hits, count[used], float(error))


def binomial_interval(k: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Two-sided Clopper-Pearson interval of the rate behind ``k`` of ``n``; (0, 1) when n is 0."""
    tail = (1 - confidence) / 2
    low = float(stats.beta.ppf(tail, k, n - k + 1)) if k > 0 else 0.0
    high = float(stats.beta.ppf(1 - tail, k + 1, n - k)) if k < n else 1.0
    return low, high


def precision_lower_bound(n: int, k_wrong: int, delta: float) -> float:
    """One-sided Clopper-Pearson lower bound, at confidence 1 - delta, of the precision behind n accepted, k wrong."""
    return float(stats.beta.ppf(delta, n - k_wrong, k_wrong + 1)) if n > k_wrong else 0.0


def error_rate(target: float) -> float:
    """1 - target in decimal arithmetic: 0.05 for 0.95, where float subtraction gives 0.05000000000000004."""
    return float(1 - Decimal(repr(float(target))))


def p_not_certified(n: int, k_wrong: int, target: float) -> float:
    """P(Bin(n, 1 - target) <= k_wrong): the probability of so few errors if precision were ``target``. 1 for n = 0.

    A threshold fixed in advance is certified iff this is <= delta (PRECISION, certificate 1).
    """
    return float(stats.binom.cdf(k_wrong, n, error_rate(target)))


def not_significantly_below(n: int, k_wrong: int, target: float = 0.95) -> float:
    """P(Bin(n, 1 - target) >= k_wrong): the one-sided p-value against "precision is at least ``target``".

    Below 0.05 the written values are significantly worse than ``target``. 1 when nothing was written.
    """
    return float(stats.binom.sf(k_wrong - 1, n, error_rate(target)))


def _cumulative(scores: ArrayLike, correct: ArrayLike) -> tuple[Floats, Ints, Ints]:
    """Distinct scores, highest first, with how many pairs are accepted and right at each."""
    score, right = np.asarray(scores, dtype=np.float64), np.asarray(correct, dtype=bool)
    order = np.argsort(-score, kind="stable")
    score, hits = score[order], np.cumsum(right[order], dtype=np.int64)
    last = np.flatnonzero(np.append(score[1:] != score[:-1], True)[: len(score)])
    return score[last], (last + 1).astype(np.int64), hits[last]
