"""Metrics of predicted values: accuracy, F1, R@P95, calibration, and the temperature that calibrates scores.

R@P95 counts every true (product, value) pair, so an abstention is a miss (De la Comble et al. 2022). No function
returns NaN: a ratio is 0 where its denominator is 0, and precision and recall are 0 where nothing is accepted.

Shapes: n products, V values of the attribute, m (product, value) pairs.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, special

from catalog_enrichment.precision.units import Bools, Floats, Ints, as_scores, ranking, ratio
from catalog_enrichment.records import Cardinality

HEAD_SHARE = 0.8
"""Share of the labelled instances that the head of the labels holds (Chen et al. 2022, section 4.2)."""

MIN_PRODUCTS = 30
"""With fewer labelled products the temperature stays 1."""

TEMPERATURES = (0.25, 10.0)
"""Bounds of the temperature. Below the lower bound float32 scores become ties at 1.0, which no threshold separates."""


# --- predicted values -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class F1:
    """F1 per label and its averages."""

    per_label: Floats  # (V,)
    micro: float
    macro: float
    """Mean over the labels that occur in truth or prediction."""
    weighted: float
    """Mean weighted by how often a label is true."""


def predictions(probabilities: ArrayLike, cardinality: Cardinality) -> Bools:
    """Return the (n, V) values predicted without certificates: the top value (ONE), every value >= 0.5 (MANY)."""
    scores = as_scores(probabilities)
    if cardinality is Cardinality.MANY:
        return scores >= 0.5
    predicted = np.zeros(scores.shape, dtype=bool)
    np.put_along_axis(predicted, ranking(scores, cardinality), True, axis=1)
    return predicted


def accuracy(predicted: ArrayLike, truth: ArrayLike) -> float:
    """Return the share of products whose whole set of values is right; both (n, V) bool."""
    exact = (np.asarray(predicted, dtype=bool) == np.asarray(truth, dtype=bool)).all(axis=1)
    return float(exact.mean()) if len(exact) else 0.0


def f1(predicted: ArrayLike, truth: ArrayLike) -> F1:
    """Return the F1 scores; both (n, V) bool."""
    predicted, truth = np.asarray(predicted, dtype=bool), np.asarray(truth, dtype=bool)
    hits, n_predicted, n_true = (predicted & truth).sum(axis=0), predicted.sum(axis=0), truth.sum(axis=0)
    per_label = ratio(2 * hits, n_predicted + n_true)
    occurs = (n_predicted + n_true) > 0
    return F1(
        per_label=per_label,
        micro=float(ratio(2 * hits.sum(), n_predicted.sum() + n_true.sum())),
        macro=float(per_label[occurs].mean()) if occurs.any() else 0.0,
        weighted=float(ratio((per_label * n_true).sum(), n_true.sum())),
    )


def head_labels(support: ArrayLike) -> Bools:
    """Return (V,) the head: as few of the most frequent labels as hold ``HEAD_SHARE`` of all instances. The other
    labels are the tail.

    ``support`` (V,): instances per label. Equally frequent labels come in their order. Without instances the head is
    empty.
    """
    count = np.asarray(support, dtype=np.int64)
    order = np.argsort(-count, kind="stable")
    cumulative_share = ratio(np.cumsum(count[order]), np.full(len(count), count.sum()))
    head = np.zeros(len(count), dtype=bool)
    if count.any():
        head[order[: np.argmax(cumulative_share >= HEAD_SHARE) + 1]] = True
    return head


def f1_head_tail(predicted: ArrayLike, truth: ArrayLike, support: ArrayLike) -> tuple[float, float]:
    """Return macro F1 over the head and over the tail of the labels; both (n, V) bool. 0 for a part without labels."""
    predicted, truth = np.asarray(predicted, dtype=bool), np.asarray(truth, dtype=bool)
    head = head_labels(support)
    return f1(predicted[:, head], truth[:, head]).macro, f1(predicted[:, ~head], truth[:, ~head]).macro


# --- thresholds -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Pairs:
    """Scored (product, value) pairs, and the number of true pairs of each value, scored or not."""

    scores: Floats  # (m,)
    correct: Bools  # (m,)
    values: Ints  # (m,) column of the value
    positives: Ints  # (V,)

    @property
    def total(self) -> int:
        """Number of true pairs: the denominator of recall."""
        return int(self.positives.sum())

    def of(self, value: int) -> tuple[Floats, Bools, int]:
        """Return scores, correctness and number of positives of one value."""
        of_value = self.values == value
        return self.scores[of_value], self.correct[of_value], int(self.positives[value])


def pairs_from(probabilities: ArrayLike, truth: ArrayLike, cardinality: Cardinality, limit: int | None = None) -> Pairs:
    """Return the scored pairs: of every product the top value (ONE), or every value, or the ``limit`` best (MANY)."""
    scores, right = as_scores(probabilities), np.asarray(truth, dtype=bool)
    columns = ranking(scores, cardinality, scores.shape[1] if limit is None else limit)
    return Pairs(
        scores=np.take_along_axis(scores, columns, axis=1).ravel(),
        correct=np.take_along_axis(right, columns, axis=1).ravel(),
        values=columns.ravel(),
        positives=right.sum(axis=0, dtype=np.int64),
    )


@dataclass(frozen=True, slots=True)
class Curve:
    """Precision and recall at every distinct score, highest threshold first."""

    thresholds: Floats
    precision: Floats
    recall: Floats


def precision_recall_curve(scores: ArrayLike, correct: ArrayLike, positives: int) -> Curve:
    """Return precision and recall of ``score >= t`` at every distinct score t. Equal scores are accepted together."""
    thresholds, accepted, hits = _cumulative(scores, correct)
    return Curve(thresholds, ratio(hits, accepted), ratio(hits, np.full(len(hits), positives)))


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """A threshold with its recall; None and 0 where no threshold reaches the target."""

    threshold: float | None
    recall: float = 0.0


def operating_point(scores: ArrayLike, correct: ArrayLike, positives: int, target: float) -> OperatingPoint:
    """Return the greatest recall over thresholds whose precision is >= ``target``: R@P95 for 0.95.

    ``positives``: all true pairs, scored or not. The result describes this data set; it is not a guarantee.
    """
    thresholds, accepted, hits = _cumulative(scores, correct)
    # the correctly rounded quotient compares exactly with a decimal target; comparing errors with 1 - target does not
    good = np.flatnonzero(hits / accepted >= target)
    if not len(good):
        return OperatingPoint(None)
    best = good[np.argmax(hits[good])]
    return OperatingPoint(float(thresholds[best]), float(hits[best] / positives) if positives else 0.0)


def r_at_p_micro(pairs: Pairs, target: float = 0.95) -> OperatingPoint:
    """Return R@P95 with one threshold on the pooled scores."""
    return operating_point(pairs.scores, pairs.correct, pairs.total, target)


def r_at_p_macro(pairs: Pairs, target: float = 0.95, min_positives: int = 20) -> float:
    """Return the mean over the values of R@P95 with a threshold each; a value with fewer positives counts as 0."""
    recalls = [
        operating_point(*pairs.of(value), target).recall if positives >= min_positives else 0.0
        for value, positives in enumerate(pairs.positives.tolist())
    ]
    return float(np.mean(recalls)) if recalls else 0.0


def _cumulative(scores: ArrayLike, correct: ArrayLike) -> tuple[Floats, Ints, Ints]:
    """Return the distinct scores, highest first, and how many pairs are accepted and right at each."""
    score, right = np.asarray(scores, dtype=np.float64), np.asarray(correct, dtype=bool)
    order = np.argsort(-score, kind="stable")
    score, hits = score[order], np.cumsum(right[order], dtype=np.int64)
    last = np.flatnonzero(np.append(score[1:] != score[:-1], True)[: len(score)])
    return score[last], (last + 1).astype(np.int64), hits[last]


# --- calibration ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reliability:
    """Confidence and accuracy per bin of score; bins without scores are left out."""

    confidence: Floats
    accuracy: Floats
    count: Ints
    expected_error: float
    """Mean ``|accuracy - confidence|``, weighted by count (expected calibration error)."""


def reliability(scores: ArrayLike, correct: ArrayLike) -> Reliability:
    """Return confidence and accuracy in 10 equal bins of [0, 1]."""
    bins = 10
    score, right = np.asarray(scores, dtype=np.float64), np.asarray(correct, dtype=bool)
    bin_index = np.minimum((score * bins).astype(np.int64), bins - 1)
    count = np.bincount(bin_index, minlength=bins)
    used = count > 0
    confidence = ratio(np.bincount(bin_index, weights=score, minlength=bins), count)[used]
    hits = ratio(np.bincount(bin_index, weights=right, minlength=bins), count)[used]
    error = ratio((np.abs(hits - confidence) * count[used]).sum(), count.sum())
    return Reliability(confidence, hits, count[used], float(error))


def fit_temperature(logits: ArrayLike, truth: ArrayLike, cardinality: Cardinality) -> float:
    """Return the temperature T > 0 that minimises the loss of ``logits / T`` (Guo et al. 2017); both (n, V).

    The loss for ONE is the negative log-likelihood of the softmax, without products that have no true value. For MANY
    it is the mean binary cross-entropy of the sigmoids. Returns 1.0 with fewer than ``MIN_PRODUCTS`` products.

    The temperature makes scores readable as probabilities and comparable across values. Certificates do not depend on
    it: they are valid for any scores.
    """
    z, y = np.asarray(logits, dtype=np.float64), np.asarray(truth, dtype=bool)
    if cardinality is Cardinality.ONE:
        labelled = y.any(axis=1)
        z, y = z[labelled], y[labelled]
    if len(z) < MIN_PRODUCTS:
        return 1.0

    def loss(log_temperature: float) -> float:
        scaled = z / np.exp(log_temperature)
        if cardinality is Cardinality.ONE:
            return float(-special.log_softmax(scaled, axis=1)[y].mean())
        return float((np.logaddexp(0.0, scaled) - scaled * y).mean())  # BCE with logits

    bounds = (log(TEMPERATURES[0]), log(TEMPERATURES[1]))
    minimum = optimize.minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-4})
    return float(np.exp(minimum.x))
