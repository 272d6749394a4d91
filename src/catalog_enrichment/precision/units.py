"""Counted things: candidates of products, units of a certificate, (product, value) pairs of R@P95.

Shape suffixes: n products, V values of the attribute, L ranks that can be written.

A score is the model's float32 probability, widened to float64 once, in
:func:`classification_metrics.as_scores`. The widened number is what is stored, compared and certified, so that
``score >= threshold`` is one comparison everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from catalog_enrichment.precision.classification_metrics import Bools, Floats, Ints, as_scores
from catalog_enrichment.records import Cardinality

SCORE_TYPE = "float64 of float32"
"""The float type of scores and thresholds, as certificates record it."""

UNIT = "product"
"""What a certificate counts: a product with at least one written value, wrong if any of them is wrong."""

WRITABLE_RANKS = 3
"""Largest number of values per product of a multi-valued attribute, also in certificates."""


class Candidate(NamedTuple):
    """A value the model proposes for one product; rank 1 is the best."""

    value: str
    score: float
    rank: int


@dataclass(frozen=True, slots=True)
class Units:
    """The units of a pooled certificate, one per product.

    A unit is accepted at t iff ``accept >= t`` and wrong at t iff ``error >= t``; -inf where nothing, or
    nothing wrong, can be written.
    """

    accept: Floats
    error: Floats

    def __len__(self) -> int:
        return len(self.accept)

    def counts(self, threshold: float) -> tuple[int, int]:
        """N accepted and K wrong among them at ``threshold``."""
        return int(np.count_nonzero(self.accept >= threshold)), int(np.count_nonzero(self.error >= threshold))


@dataclass(frozen=True, slots=True)
class Pairs:
    """Scored (product, value) pairs, and how many true pairs there are of each value, scored or not."""

    scores: Floats  # (m,)
    correct: Bools  # (m,)
    values: Ints  # (m,) column of the value
    positives: Ints  # (V,)

    @property
    def total(self) -> int:
        """Number of true pairs: the denominator of recall."""
        return int(self.positives.sum())

    def of(self, value: int) -> tuple[Floats, Bools, int]:
        """Scores, correctness and number of positives of one value."""
        of_value = self.values == value
        return self.scores[of_value], self.correct[of_value], int(self.positives[value])


def ranking(scores: NDArray[Any], cardinality: Cardinality, limit: int = WRITABLE_RANKS) -> Ints:
    """Columns that can be written, best first: (..., V) -> (..., L). Equal scores keep the order of the labels."""
    if cardinality is Cardinality.ONE:
        return np.asarray(np.argmax(scores, axis=-1, keepdims=True), dtype=np.int64)
    return np.asarray(np.argsort(-scores, axis=-1, kind="stable")[..., :limit], dtype=np.int64)


def top_candidates(
    probabilities: ArrayLike, labels: Sequence[str], cardinality: Cardinality, limit: int = WRITABLE_RANKS
) -> list[list[Candidate]]:
    """The candidates of every product: (n, V) probabilities -> the best value (ONE), or up to ``limit`` values (MANY).

    Raises ValueError if a probability is not finite, or their number is not that of the labels.
    """
    scores = as_scores(probabilities)
    if scores.ndim != 2 or scores.shape[1] != len(labels) or not labels:
        raise ValueError(f"probabilities of shape {scores.shape} do not fit {len(labels)} labels")
    columns = ranking(scores, cardinality, limit)
    best = np.take_along_axis(scores, columns, axis=1).tolist()
    return [
        [Candidate(labels[column], score, rank) for rank, (column, score) in enumerate(zip(*product, strict=True), 1)]
        for product in zip(columns.tolist(), best, strict=True)
    ]


def units_from(
    probabilities: ArrayLike,
    truth: ArrayLike,
    cardinality: Cardinality,
    pool: Sequence[bool] | Bools,
    limit: int = WRITABLE_RANKS,
) -> Units:
    """The units of a pooled certificate: (n, V) probabilities, (n, V) bool truth, (V,) which values are in the pool.

    A product is wrong if any value written to it is wrong. Only what :func:`top_candidates` proposes and the pool
    holds can be written, so only that counts.
    """
    scores, right = as_scores(probabilities), np.asarray(truth, dtype=bool)
    columns = ranking(scores, cardinality, limit)
    top, writable = np.take_along_axis(scores, columns, axis=1), np.asarray(pool, dtype=bool)[columns]
    wrong = writable & ~np.take_along_axis(right, columns, axis=1)
    return Units(accept=_best(top, writable), error=_best(top, wrong))


def accept_scores(
    probabilities: ArrayLike, cardinality: Cardinality, pool: Sequence[bool] | Bools, limit: int = WRITABLE_RANKS
) -> Floats:
    """``Units.accept`` of products without labels: (n, V) -> (n,)."""
    scores = as_scores(probabilities)
    columns = ranking(scores, cardinality, limit)
    return _best(np.take_along_axis(scores, columns, axis=1), np.asarray(pool, dtype=bool)[columns])


def writable_values(
    probabilities: ArrayLike, cardinality: Cardinality, pool: Sequence[bool] | Bools, threshold: float
) -> Bools:
    """The values that would be written at ``threshold``: (n, V) probabilities, (V,) which values are in the pool ->
    (n, V)."""
    scores = as_scores(probabilities)
    proposed = np.zeros(scores.shape, dtype=bool)
    np.put_along_axis(proposed, ranking(scores, cardinality), True, axis=1)
    return np.asarray(proposed & np.asarray(pool, dtype=bool) & (scores >= threshold), dtype=bool)


def _best(scores: Floats, where: Bools) -> Floats:
    return np.asarray(np.where(where, scores, -np.inf).max(axis=1, initial=-np.inf), dtype=np.float64)


def pairs_from(probabilities: ArrayLike, truth: ArrayLike, cardinality: Cardinality, limit: int | None = None) -> Pairs:
    """Scored pairs: of every product the top value (ONE), or every value, or the ``limit`` best (MANY)."""
    scores, right = as_scores(probabilities), np.asarray(truth, dtype=bool)
    columns = ranking(scores, cardinality, scores.shape[1] if limit is None else limit)
    return Pairs(
        scores=np.take_along_axis(scores, columns, axis=1).ravel(),
        correct=np.take_along_axis(right, columns, axis=1).ravel(),
        values=columns.ravel(),
        positives=right.sum(axis=0, dtype=np.int64),
    )
