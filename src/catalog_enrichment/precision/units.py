"""The quantities that certificates count: scores, candidates, the scored products of each fold, and units.

A score is the model's float32 probability, widened to float64 once, in :func:`as_scores`. The widened number is stored,
compared and certified, so that ``score >= threshold`` is the same comparison everywhere.

Shapes: n labelled products, m unlabelled products, V values of the attribute, L ranks that can be written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from catalog_enrichment.records import Cardinality

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

SCORE_TYPE = "float64 of float32"
"""The float type of scores and thresholds, as certificates record it."""

UNIT = "product"
"""The unit of a certificate: a product with at least one written value, wrong if any of them is wrong."""

WRITABLE_RANKS = 3
"""Largest number of values per product of a multi-valued attribute, also in certificates."""


def as_scores(probabilities: ArrayLike) -> Floats:
    """Return probabilities as scores: through float32 to float64. Raises ValueError for NaN or infinity."""
    scores = np.asarray(probabilities, dtype=np.float32).astype(np.float64)
    if not np.isfinite(scores).all():
        raise ValueError("probabilities hold NaN or infinity: the model's output cannot be used")
    return scores


def ratio(numerator: ArrayLike, denominator: ArrayLike) -> Floats:
    """Return ``numerator / denominator``; 0 where the denominator is 0."""
    below = np.asarray(denominator, dtype=np.float64)
    above = np.asarray(numerator, dtype=np.float64)
    return np.divide(above, below, out=np.zeros_like(below), where=below > 0)


def bisect(holds: Callable[[float], bool], low: float, high: float) -> tuple[float, float]:
    """Return bounds of the point between ``low`` and ``high`` from which on ``holds`` is true, by 40 halvings."""
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return low, high


# --- candidates -------------------------------------------------------------------------------------------------------


NOTHING = ""
"""The value of a candidate with score 0: nothing is proposed (rank 1), or there is no answer (:data:`NO_ANSWER`)."""


class Candidate(NamedTuple):
    """A value that the model proposes for a product; rank 1 is the best."""

    value: str
    score: float
    rank: int
    label: str = ""
    """The model's name of the value, where that is another name: the certificate is about labels."""
    listed: bool = True
    """The dictionary lists the value."""


NO_ANSWER = Candidate(NOTHING, 0.0, 0)
"""The candidate of an attribute about which the proposer has said nothing (yet)."""


def ranking(scores: NDArray[Any], cardinality: Cardinality, limit: int = WRITABLE_RANKS) -> Ints:
    """Return the columns that can be written, best first: (..., V) -> (..., L). Equal scores keep the labels' order."""
    if cardinality is Cardinality.ONE:
        return np.asarray(np.argmax(scores, axis=-1, keepdims=True), dtype=np.int64)
    return np.asarray(np.argsort(-scores, axis=-1, kind="stable")[..., :limit], dtype=np.int64)


def top_candidates(probabilities: ArrayLike, labels: Sequence[str], cardinality: Cardinality) -> list[list[Candidate]]:
    """Return the candidates of every product: (n, V) probabilities -> the best value (ONE), or the best
    ``WRITABLE_RANKS`` (MANY).

    Raises ValueError if a probability is not finite, or their number is not that of the labels.
    """
    scores = as_scores(probabilities)
    if scores.ndim != 2 or scores.shape[1] != len(labels) or not labels:
        raise ValueError(f"probabilities of shape {scores.shape} do not fit {len(labels)} labels")
    columns = ranking(scores, cardinality)
    best = np.take_along_axis(scores, columns, axis=1).tolist()
    return [
        [Candidate(labels[column], score, rank) for rank, (column, score) in enumerate(zip(*product, strict=True), 1)]
        for product in zip(columns.tolist(), best, strict=True)
    ]


def writable_values(
    probabilities: ArrayLike, cardinality: Cardinality, pool: Sequence[bool] | Bools, threshold: float
) -> Bools:
    """Return the values that would be written at ``threshold``: (n, V) probabilities, (V,) the values of the pool ->
    (n, V)."""
    scores = as_scores(probabilities)
    proposed = np.zeros(scores.shape, dtype=bool)
    np.put_along_axis(proposed, ranking(scores, cardinality), True, axis=1)
    return np.asarray(proposed & np.asarray(pool, dtype=bool) & (scores >= threshold), dtype=bool)


# --- the products of the folds ----------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class StratifiedProducts:
    """Products with the properties that their weights depend on (:mod:`strata`)."""

    languages: Sequence[str]
    """Language of each product; "" for a product without a language."""
    categories: Sequence[str]
    """Category path of each product; "" for a product without a category."""
    group_sizes: Ints
    """(n,) products in each product's content group."""
    counts: Floats
    """(n,) products of the catalog that each product stands for."""

    @property
    def slices(self) -> list[tuple[str, str]]:
        """Language and category of each product."""
        return list(zip(self.languages, self.categories, strict=True))


@dataclass(frozen=True, kw_only=True)
class UnlabelledProducts(StratifiedProducts):
    """The unlabelled products of a modality path, m of them, or a sample of them."""

    probabilities: NDArray[Any]  # (m, V) calibrated
    near_duplicate_rate: float
    """Share with a product of their content group in training."""


@dataclass(frozen=True, kw_only=True)
class ScoredLabels:
    """Scored and labelled products of one attribute, on one modality path."""

    attribute: str
    labels: tuple[str, ...]
    cardinality: Cardinality
    probabilities: NDArray[Any]  # (n, V) calibrated
    truth: Bools  # (n, V)
    groups: NDArray[Any]
    """(n,) content group of each product."""

    def __post_init__(self) -> None:
        shapes = {np.shape(self.probabilities), np.shape(self.truth), (len(self.groups), len(self.labels))}
        if len(shapes) != 1:
            raise ValueError(f"fold of {self.attribute}: scores, truth, groups and labels do not fit: {shapes}")

    def __len__(self) -> int:
        return len(self.groups)


@dataclass(frozen=True, kw_only=True)
class ChoosingScores(ScoredLabels):
    """The choosing fold: temperature, pool, suggestion threshold and the start of the grid are chosen on it."""


@dataclass(frozen=True, kw_only=True)
class CertificationScores(ScoredLabels):
    """The certification fold: it only tests the choices made elsewhere. All products of a content group count."""

    languages: Sequence[str]
    categories: Sequence[str]
    group_sizes: Ints
    """See :class:`StratifiedProducts`."""
    fold_share: float
    """Share of the labelled products that is in this fold."""
    uniform: bool = False
    """True: the products are a uniform sample of the unlabelled products, answered by people (a gold sample)."""

    @property
    def stratified(self) -> StratifiedProducts:
        """The products without scores and labels."""
        return StratifiedProducts(
            languages=self.languages,
            categories=self.categories,
            group_sizes=self.group_sizes,
            counts=np.ones(len(self)),
        )


# --- units ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Units:
    """The units of a pooled certificate, one per product.

    A unit is accepted at t if and only if ``accept >= t``, and wrong at t if and only if ``error >= t``; -inf where
    nothing, or nothing wrong, can be written.
    """

    accept: Floats
    error: Floats

    def __len__(self) -> int:
        return len(self.accept)

    def counts(self, threshold: float) -> tuple[int, int]:
        """Return N accepted units and K wrong units among them at ``threshold``."""
        return int(np.count_nonzero(self.accept >= threshold)), int(np.count_nonzero(self.error >= threshold))


def units_from(
    probabilities: ArrayLike, truth: ArrayLike, cardinality: Cardinality, pool: Sequence[bool] | Bools
) -> Units:
    """Return the units of a pooled certificate: (n, V) probabilities, (n, V) bool truth, (V,) the values of the pool.

    A product is wrong if any value written to it is wrong. Only values that :func:`top_candidates` proposes and the
    pool holds can be written, so only these count.
    """
    scores, right = as_scores(probabilities), np.asarray(truth, dtype=bool)
    columns = ranking(scores, cardinality)
    top, writable = np.take_along_axis(scores, columns, axis=1), np.asarray(pool, dtype=bool)[columns]
    wrong = writable & ~np.take_along_axis(right, columns, axis=1)
    return Units(accept=_best(top, writable), error=_best(top, wrong))


def accept_scores(probabilities: ArrayLike, cardinality: Cardinality, pool: Sequence[bool] | Bools) -> Floats:
    """Return ``Units.accept`` of products without labels: (n, V) -> (n,)."""
    scores = as_scores(probabilities)
    columns = ranking(scores, cardinality)
    return _best(np.take_along_axis(scores, columns, axis=1), np.asarray(pool, dtype=bool)[columns])


def _best(scores: Floats, where: Bools) -> Floats:
    return np.asarray(np.where(where, scores, -np.inf).max(axis=1, initial=-np.inf), dtype=np.float64)


@dataclass(frozen=True, slots=True)
class ValueCount:
    """A value on the certification fold, at a threshold. The unit of a certificate is the product; this describes."""

    value: str
    accepted: int
    """Certification products that would be given the value."""
    wrong: int
    """Those among them for which it is wrong."""
