"""Classifiers that tell labelled from unlabelled products: the has-value heads of a model version, and the one of the
comparison that a certificate rests on (PRECISION, "Products that have no value").

Both read the encoders' vectors, reduced to their principal components, and neither reads the shop: a shop that never
fills an attribute says nothing about its products. The comparison also reads the score and the category. Products that
the fit has seen take no part, labelled or not: their vectors differ for that reason alone.

Shapes: n products, D width of the vectors, F features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalog_enrichment.precision.alike import Comparison, Side, side_of
from catalog_enrichment.precision.classification_metrics import Bools, Floats
from catalog_enrichment.records import stable_hash

COMPONENTS = 32
"""Principal components of the vectors that a classifier reads, at most."""

PRODUCTS_PER_COMPONENT = 10
"""With fewer products of either side per component, fewer components are read."""

PARTS = 5
"""Parts of the cross-fit: each product is scored by a classifier that was fitted to the other parts."""

HEAD_P_VALUE = 0.001
"""A head is kept where its cross-fitted rank test is at least as significant: else it would only add noise."""

LARGEST_CATEGORIES = 50
"""Categories that the comparison's classifier tells apart, the most frequent ones."""

SCORE_FLOOR = 1e-6

_PENALTY = 0.1
"""Inverse strength C of the ridge penalty, on features of variance 1."""


@dataclass(frozen=True, slots=True)
class Products:
    """Products of a classifier's fit: n labelled and unlabelled ones."""

    labelled: Bools
    """(n,)"""
    vectors: NDArray[Any]
    """(n, D)"""
    groups: NDArray[Any]
    """(n,) content group: the products of a group are in one part of the cross-fit."""
    weights: Floats
    """(n,) by which the labelled ones represent the unlabelled ones."""

    def __len__(self) -> int:
        return len(self.labelled)


def head(products: Products) -> NDArray[np.float32] | None:
    """Weights of the vector and bias of a has-value head, (D + 1,) (:mod:`catalog_enrichment.models.has_value`); None
    where the classifier does not tell labelled from unlabelled products with :data:`HEAD_P_VALUE`."""
    components = _components(products)
    if not components:
        return None
    reduction = _Reduction.of(products, components)
    if not reduction.matrix.shape[1]:
        return None
    features = reduction(products.vectors)
    outputs = cross_fitted(features, products)
    if Comparison(*sides(outputs, outputs, products)).result.auc_p_value > HEAD_P_VALUE:
        return None
    slope, intercept = _fitted(features, products.labelled, products.weights)
    weights = reduction.matrix @ slope
    return np.append(weights, intercept - reduction.mean @ weights).astype(np.float32)


def told_apart(products: Products, scores: Floats, categories: Sequence[str]) -> Floats:
    """(n,) cross-fitted outputs of the comparison's classifier, large for products like the labelled ones; ``scores``
    (n,) in [0, 1], -inf for none."""
    if products.labelled.all() or not products.labelled.any():
        return np.zeros(len(products))
    given = np.clip(scores, SCORE_FLOOR, 1 - SCORE_FLOOR)
    logits = np.log(given) - np.log1p(-given)
    columns = [logits, np.square(logits), given, *_one_hot(categories)]
    components = _components(products)
    features = np.column_stack([_standardised(np.asarray(column, dtype=np.float64)) for column in columns])
    if components:
        features = np.hstack([features, _Reduction.of(products, components)(products.vectors)])
    return cross_fitted(features, products)


def cross_fitted(features: Floats, products: Products) -> Floats:
    """(n,) log odds of being labelled, of a ridge logistic regression that did not see the product's part; (n, F)."""
    numbers = {group: int(stable_hash("part", str(group))[:8], 16) % PARTS for group in np.unique(products.groups)}
    part = np.array([numbers[group] for group in products.groups], dtype=np.int64)
    outputs = np.zeros(len(products))
    for number in range(PARTS):
        inside = part == number
        fitted = ~inside & (products.weights > 0)
        labelled = products.labelled[fitted]
        if not inside.any() or labelled.all() or not labelled.any():
            continue
        slope, intercept = _fitted(features[fitted], labelled, products.weights[fitted])
        outputs[inside] = features[inside] @ slope + intercept
    return outputs


def sides(scores: Floats, outputs: Floats, products: Products) -> tuple[Side, Side]:
    """The labelled and the unlabelled products of a comparison."""
    first, second = (
        side_of(scores[side], outputs[side], products.groups[side], products.weights[side])
        for side in (products.labelled, ~products.labelled)
    )
    return first, second


@dataclass(frozen=True, slots=True)
class _Reduction:
    """Projection to principal components of variance 1."""

    mean: Floats  # (D,)
    matrix: Floats  # (D, components)

    @classmethod
    def of(cls, products: Products, components: int) -> _Reduction:
        """Return the projection that all products give: it does not depend on which are labelled."""
        from sklearn.utils.extmath import randomized_svd

        mean = products.vectors.mean(axis=0, dtype=np.float64)
        centred = products.vectors - mean.astype(np.float32)
        _, lengths, axes = randomized_svd(centred, components, random_state=0)
        deviations = lengths.astype(np.float64) / np.sqrt(max(len(centred) - 1, 1))
        kept = deviations > 1e-4 * max(float(deviations.max(initial=0.0)), 1e-6)
        return cls(mean, axes[kept].T.astype(np.float64) / deviations[kept])

    def __call__(self, vectors: NDArray[Any]) -> Floats:
        return np.asarray((vectors.astype(np.float64) - self.mean) @ self.matrix)


def _components(products: Products) -> int:
    """Number of components that the products determine; 0 where they are too few."""
    positive = products.weights > 0
    smaller = min(int((products.labelled & positive).sum()), int((~products.labelled & positive).sum()))
    return int(min(COMPONENTS, products.vectors.shape[1], smaller // PRODUCTS_PER_COMPONENT))


def _fitted(features: Floats, labelled: Bools, weights: Floats) -> tuple[Floats, float]:
    """Slope (F,) and intercept; both sides have the same total weight."""
    from sklearn.linear_model import LogisticRegression

    totals = {side: max(float(weights[labelled == side].sum()), 1e-12) for side in (True, False)}
    balanced = weights * np.where(labelled, 0.5 / totals[True], 0.5 / totals[False]) * len(labelled)
    model = LogisticRegression(C=_PENALTY, max_iter=1000).fit(features, labelled, sample_weight=balanced)
    return model.coef_[0], float(model.intercept_[0])


def _one_hot(categories: Sequence[str]) -> list[Floats]:
    """A column for each of the most frequent categories, but for the most frequent one."""
    _, numbers, counts = np.unique(np.asarray(categories, dtype=str), return_inverse=True, return_counts=True)
    frequent = np.argsort(-counts, kind="stable")[1:LARGEST_CATEGORIES]
    return [(numbers == position).astype(np.float64) for position in frequent]


def _standardised(column: Floats) -> Floats:
    deviation = float(column.std())
    return np.asarray((column - column.mean()) / deviation if deviation else np.zeros_like(column))
