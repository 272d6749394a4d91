"""Plain classification metrics: predicted values, accuracy, F1, the head and the tail of the labels. numpy only.

Shapes: n products, V values of the attribute. No function returns NaN: every ratio is 0 where its denominator is 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from catalog_enrichment.records import Cardinality

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class F1:
    per_label: Floats  # (V,)
    micro: float
    macro: float
    """Mean over the labels that occur in truth or prediction."""
    weighted: float
    """Mean weighted by how often a label is true."""


def as_scores(probabilities: ArrayLike) -> Floats:
    """Probabilities as scores: through float32 to float64. Raises ValueError for NaN or infinity."""
    scores = np.asarray(probabilities, dtype=np.float32).astype(np.float64)
    if not np.isfinite(scores).all():
        raise ValueError("probabilities hold NaN or infinity: the model's output cannot be used")
    return scores


def predictions(probabilities: ArrayLike, cardinality: Cardinality) -> Bools:
    """(n, V) predicted values, without certificates: the top value (ONE), every value >= 0.5 (MANY)."""
    scores = as_scores(probabilities)
    if cardinality is Cardinality.MANY:
        return scores >= 0.5
    predicted = np.zeros(scores.shape, dtype=bool)
    np.put_along_axis(predicted, np.argmax(scores, axis=-1, keepdims=True), True, axis=1)
    return predicted


def accuracy(predicted: ArrayLike, truth: ArrayLike) -> float:
    """Share of products whose whole set of values is right; both (n, V) bool."""
    exact = (np.asarray(predicted, dtype=bool) == np.asarray(truth, dtype=bool)).all(axis=1)
    return float(exact.mean()) if len(exact) else 0.0


def f1(predicted: ArrayLike, truth: ArrayLike) -> F1:
    """F1 per label and its averages; both (n, V) bool."""
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


def head_labels(support: ArrayLike, share: float = 0.8) -> Bools:
    """(V,): the head, as few of the most frequent labels as hold ``share`` of all instances; the others are the tail.

    ``support`` (V,): instances per label, of the training labels (Chen et al. 2022, section 4.2). Equally frequent
    labels come in their order. Without instances the head is empty.
    """
    count = np.asarray(support, dtype=np.int64)
    order = np.argsort(-count, kind="stable")
    cumulative_share = ratio(np.cumsum(count[order]), np.full(len(count), count.sum()))
    head = np.zeros(len(count), dtype=bool)
    if count.any():
        head[order[: np.argmax(cumulative_share >= share) + 1]] = True
    return head


def f1_head_tail(predicted: ArrayLike, truth: ArrayLike, support: ArrayLike, share: float = 0.8) -> tuple[float, float]:
    """Macro F1 over the head and over the tail of the labels; both (n, V) bool. 0 for a part without labels."""
    predicted, truth = np.asarray(predicted, dtype=bool), np.asarray(truth, dtype=bool)
    head = head_labels(support, share)
    return f1(predicted[:, head], truth[:, head]).macro, f1(predicted[:, ~head], truth[:, ~head]).macro


def ratio(numerator: ArrayLike, denominator: ArrayLike) -> Floats:
    """``numerator / denominator``; 0 where the denominator is 0."""
    below = np.asarray(denominator, dtype=np.float64)
    above = np.asarray(numerator, dtype=np.float64)
    return np.divide(above, below, out=np.zeros_like(below), where=below > 0)
