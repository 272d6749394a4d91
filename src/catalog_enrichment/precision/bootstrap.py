"""Bootstrap intervals and paired differences of accuracy, F1 and R@P95.

Content groups, not products, are drawn with replacement (a cluster bootstrap): variants of a listing tend to be right
or wrong together, and an interval that treats them as independent is too narrow. A resample is a weight per product,
the number of times it was drawn, so nothing is copied or sorted again: accuracy and F1 are matrix products, R@P95 is a
cumulative sum over scores that were sorted once.

Shapes: n products, V values, m scored pairs, B resamples (b in one block).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import ArrayLike, NDArray

from catalog_enrichment.precision.classification_metrics import Pairs, pairs_from
from catalog_enrichment.precision.units import Bools, Floats, Ints, ratio
from catalog_enrichment.records import Cardinality

Counts = NDArray[np.int32]
"""(b, n): how often every product is in each of b resamples."""

CONFIDENCE = 0.95
"""Confidence of intervals and differences."""

_WEIGHTS_AT_ONCE = 4_000_000
"""Limit on b * n, which bounds the memory of a block of resamples."""
_PAIRS_AT_ONCE = 128
"""Small, so that a sweep stops soon after the last threshold that any resample can use: 5 times faster (measured)."""


@dataclass(frozen=True, slots=True)
class Resamples:
    """``count`` resamples of products by group, in blocks; every iteration gives the same resamples."""

    groups: Ints
    """(n,) content group per product; ``np.arange(n)`` makes it the ordinary bootstrap."""
    count: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"count must be at least 1, not {self.count}")

    def __iter__(self) -> Iterator[Counts]:
        _, group = np.unique(np.asarray(self.groups), return_inverse=True)
        size = int(group.max(initial=-1)) + 1
        generator = np.random.default_rng(self.seed)
        block = max(1, _WEIGHTS_AT_ONCE // max(len(group), 1))
        for start in range(0, self.count, block):
            b = min(block, self.count - start)
            if not size:
                yield np.zeros((b, 0), dtype=np.int32)
                continue
            drawn = generator.integers(size, size=(b, size)) + size * np.arange(b)[:, None]
            counts = np.bincount(drawn.ravel(), minlength=b * size).reshape(b, size)
            yield counts.astype(np.int32)[:, group]


@dataclass(frozen=True, slots=True)
class Measure:
    """A metric of one model on n products, as a function of how often each product counts."""

    products: int
    function: Callable[[Counts], Floats]

    def __call__(self, weights: Counts) -> Floats:
        """Return (b,) values for (b, n) weights. Raises ValueError if n is not the number of products."""
        if weights.shape[1] != self.products:
            raise ValueError(f"the resamples have {weights.shape[1]} products, the metric {self.products}")
        return self.function(weights)

    @property
    def estimate(self) -> float:
        """The metric of the data: every product counts once."""
        return float(self.function(np.ones((1, self.products), dtype=np.int32))[0])


@dataclass(frozen=True, slots=True)
class Interval:
    """A metric and its percentile bootstrap interval."""

    estimate: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Difference:
    """The first model's metric less the second's, on the same products."""

    estimate: float
    low: float
    high: float
    p_value: float
    """Two-sided bootstrap p-value of "no difference"; never 0, at least 2 / (B + 1)."""


def intervals(measures: Mapping[str, Measure], resamples: Iterable[Counts]) -> dict[str, Interval]:
    """Return the interval of every measure, all on the same resamples (a :class:`Resamples`, or blocks of weights)."""
    values = _values(list(measures.values()), resamples)
    return {
        name: Interval(measure.estimate, *_percentiles(column))
        for (name, measure), column in zip(measures.items(), values, strict=True)
    }


def difference(first: Measure, second: Measure, resamples: Iterable[Counts]) -> Difference:
    """Return the paired bootstrap of ``first - second``: both models are measured on each resample, which cancels the
    difficulty of its products.

    The p-value is twice the smaller share of resamples at or beyond 0, with this data as a further resample (Davison
    and Hinkley 1997, section 4.4): 1 for two equal models.
    """
    first_values, second_values = _values([first, second], resamples)
    differences = first_values - second_values
    beyond = min(np.count_nonzero(differences <= 0), np.count_nonzero(differences >= 0))
    p_value = min(1.0, 2 * (beyond + 1) / (len(differences) + 1))
    return Difference(first.estimate - second.estimate, *_percentiles(differences), p_value)


def accuracy(predicted: ArrayLike, truth: ArrayLike) -> Measure:
    """Return :func:`classification_metrics.accuracy`; both (n, V) bool."""
    exact = (np.asarray(predicted, dtype=bool) == np.asarray(truth, dtype=bool)).all(axis=1)
    return ratio_of_sums(exact, np.ones(len(exact)))


def ratio_of_sums(numerator: ArrayLike, denominator: ArrayLike) -> Measure:
    """Return the sum of ``numerator`` over that of ``denominator``, (n,) each; 0 where the latter is 0."""
    above, below = np.asarray(numerator, dtype=np.float64), np.asarray(denominator, dtype=np.float64)
    return Measure(len(above), lambda weights: ratio(weights @ above, weights @ below))


def f1_micro(predicted: ArrayLike, truth: ArrayLike) -> Measure:
    """Return the micro F1 of :func:`classification_metrics.f1`; both (n, V) bool."""
    is_predicted, true = np.asarray(predicted, dtype=bool), np.asarray(truth, dtype=bool)
    return ratio_of_sums(2 * (is_predicted & true).sum(axis=1), is_predicted.sum(axis=1) + true.sum(axis=1))


def f1_macro(predicted: ArrayLike, truth: ArrayLike) -> Measure:
    """Return the macro F1 of :func:`classification_metrics.f1`, over the labels in the resample; both (n, V) bool."""
    return _f1_of_labels(predicted, truth, lambda f1, occurs, _true: ratio(f1.sum(axis=1), (occurs > 0).sum(axis=1)))


def f1_weighted(predicted: ArrayLike, truth: ArrayLike) -> Measure:
    """Return the weighted F1 of :func:`classification_metrics.f1`, by label counts in the resample; both (n, V)."""
    return _f1_of_labels(predicted, truth, lambda f1, _occurs, true: ratio((f1 * true).sum(axis=1), true.sum(axis=1)))


def _f1_of_labels(
    predicted: ArrayLike, truth: ArrayLike, average: Callable[[Floats, Floats, Floats], Floats]
) -> Measure:
    """Return the ``average`` of (b, V): F1 per label, how often it is predicted or true, how often it is true."""
    is_predicted, true = np.asarray(predicted, dtype=bool), np.asarray(truth, dtype=bool)
    hits, is_true = (is_predicted & true).astype(np.float64), true.astype(np.float64)
    occurrences = is_predicted + is_true

    def measured(weights: Counts) -> Floats:
        times = weights.astype(np.float64)  # BLAS multiplies floats only; whole numbers this small stay exact
        occurs = times @ occurrences
        return average(ratio(2 * (times @ hits), occurs), occurs, times @ is_true)

    return Measure(len(is_predicted), measured)


def r_at_p_micro(
    probabilities: ArrayLike,
    truth: ArrayLike,
    cardinality: Cardinality,
    unlearned: ArrayLike | None = None,
    target: float = 0.95,
) -> Measure:
    """Return :func:`classification_metrics.r_at_p_micro`: every resample uses its own best threshold.

    The best of many thresholds is biased upwards, more so in a resample, and so is the interval.

    (n, V) probabilities and bool truth; ``unlearned`` (n,): true values of a product that have no column.
    """
    true = np.asarray(truth, dtype=bool)
    pairs = pairs_from(probabilities, true, cardinality)
    positives = true.sum(axis=1) + (0 if unlearned is None else np.asarray(unlearned, dtype=np.int64))
    sweep = _Sweep.of(pairs.scores, pairs.correct, _products(pairs, len(true)), target)
    return Measure(len(true), lambda weights: ratio(sweep.hits(weights), weights @ positives.astype(np.int64)))


def r_at_p_macro(
    probabilities: ArrayLike,
    truth: ArrayLike,
    cardinality: Cardinality,
    target: float = 0.95,
    min_positives: int = 20,
) -> Measure:
    """Return :func:`classification_metrics.r_at_p_macro`. The values with enough positives are determined once, on the
    data.

    Determined per resample, a value with exactly ``min_positives`` would count as 0 in half of them, and the interval
    would lie below its estimate.
    """
    true = np.asarray(truth, dtype=bool)
    pairs = pairs_from(probabilities, true, cardinality)
    products, sweeps = _products(pairs, len(true)), {}
    for value in np.flatnonzero(pairs.positives >= min_positives).tolist():
        of_value = pairs.values == value
        sweeps[value] = _Sweep.of(pairs.scores[of_value], pairs.correct[of_value], products[of_value], target)

    def measured(weights: Counts) -> Floats:
        total: Floats = np.zeros(len(weights))
        for value, sweep in sweeps.items():
            total = total + ratio(sweep.hits(weights), weights @ true[:, value].astype(np.int64))
        return ratio(total, np.full(len(weights), true.shape[1]))

    return Measure(len(true), measured)


@dataclass(frozen=True, slots=True)
class _Sweep:
    """Pairs by falling score. At threshold t, ``balance`` = sum of gains >= 0 iff the precision is at least the target.

    With the target p / q, a right pair gains q - p and a wrong pair -p: whole numbers, so that a precision of exactly
    the target counts as reached, as in :func:`classification_metrics.operating_point`.
    """

    products: Ints  # (m,)
    correct: Ints  # (m,) 0 or 1
    gain: Ints  # (m,)
    last: Bools  # (m,) the last of its equal scores: a threshold takes all of them or none

    @classmethod
    def of(cls, scores: Floats, correct: Bools, products: Ints, target: float) -> _Sweep:
        order = np.argsort(-scores, kind="stable")
        score, right = scores[order], correct[order]
        exact = Fraction(repr(float(target)))
        gain = np.where(right, exact.denominator - exact.numerator, -exact.numerator).astype(np.int64)
        last = np.append(score[1:] != score[:-1], True)[: len(score)]
        return cls(products[order], right.astype(np.int64), gain, last)

    def hits(self, weights: Counts) -> Ints:
        """Return (b,) right pairs accepted at the resample's best threshold, the lowest with enough precision."""
        best, hits_so_far, balance = np.zeros((3, len(weights)), dtype=np.int64)
        to_gain = weights @ np.bincount(self.products, np.maximum(self.gain, 0), weights.shape[1]).astype(np.int64)
        for start in range(0, len(self.products), _PAIRS_AT_ONCE):
            part = slice(start, start + _PAIRS_AT_ONCE)
            times, right, gain = weights[:, self.products[part]], self.correct[part], self.gain[part]
            run = balance[:, None] + np.cumsum(times * gain, axis=1)
            hits = hits_so_far[:, None] + np.cumsum(times * right, axis=1)
            best = np.maximum(best, np.where((run >= 0) & self.last[part], hits, 0).max(axis=1))
            balance, hits_so_far = run[:, -1], hits[:, -1]
            to_gain = to_gain - times @ np.maximum(gain, 0)
            if (balance + to_gain < 0).all():  # not even with all remaining right pairs
                break
        return best


def _products(pairs: Pairs, n: int) -> Ints:
    """Return the product of each pair, (m,): :func:`pairs_from` lists them in order, each with equally many pairs."""
    return np.repeat(np.arange(n, dtype=np.int64), len(pairs.scores) // max(n, 1))


def _values(measures: Sequence[Measure], resamples: Iterable[Counts]) -> list[Floats]:
    """Return the (B,) values of every measure."""
    blocks = [[measure(weights) for measure in measures] for weights in resamples]
    return [np.concatenate(column) for column in zip(*blocks, strict=True)]


def _percentiles(values: Floats) -> tuple[float, float]:
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)
