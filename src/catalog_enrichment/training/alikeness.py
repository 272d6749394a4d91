"""Comparison of the labelled and the unlabelled products of a training, per attribute and modality path
(:mod:`catalog_enrichment.precision.alike`), and the has-value heads (:mod:`catalog_enrichment.models.has_value`).

Classifiers tell labelled from unlabelled products: the has-value heads of a model version, and the classifier of the
comparison that a certificate rests on (PRECISION, "Products that have no value"). Both read the encoders' vectors,
reduced to their principal components, and neither reads the shop: a shop that never fills an attribute says nothing
about its products. The comparison also reads the score and the category.

Both use products that the fit has not seen: neither they nor a product of their content group are in the train fold,
or were read by self-supervision; vectors of other products would differ for that reason alone. The unlabelled products
that a head is fitted to do not take part in the comparison, nor do the labelled products of the choosing fold then, so
that neither side of the comparison was seen by the head.

Shapes: N products of the data set; n products of a classifier, D width of the vectors, F features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalog_enrichment.models.has_value import Heads, has_value
from catalog_enrichment.precision.alike import AlikenessTest, Product, Side, cell_weights, matched_cells, side_of
from catalog_enrichment.precision.pool import Pool
from catalog_enrichment.precision.strata import size_classes
from catalog_enrichment.precision.units import Bools, Floats, accept_scores
from catalog_enrichment.records import Modality, stable_hash
from catalog_enrichment.training.evaluation import ModelScores
from catalog_enrichment.training.folds import Index, half_of_groups, where
from catalog_enrichment.training.labels import Labels
from catalog_enrichment.training.task import Split

COMPONENTS = 32
"""Principal components of the vectors that a classifier reads, at most."""

PRODUCTS_PER_COMPONENT = 10
"""With fewer products of either side per component, fewer components are read."""

PARTS = 5
"""Parts of the cross-fit: each product is scored by a classifier that was fitted to the other parts."""

HEAD_P_VALUE = 0.001
"""A head is kept where its cross-fitted rank test is at least as significant: else it would only add noise."""

LARGEST_CATEGORIES = 50
"""Categories that the comparison's classifier tells apart: the most frequent."""

SCORE_FLOOR = 1e-6

_PENALTY = 0.1
"""Inverse strength C of the ridge penalty, on features of variance 1."""


@dataclass(frozen=True)
class Populations:
    """The products that heads and comparisons may use."""

    split: Split
    unseen: Bools
    """(N,): the fit has seen no product of the content group."""
    with_heads: bool = True
    """Has-value heads may be fitted (`training.has_value`)."""

    def heads(self, labels: Mapping[str, Labels], scores: ModelScores) -> Heads:
        """Return the has-value heads that tell labelled from unlabelled products, by attribute and modality path.

        Attributes without a closed list have none: their extractor finds nothing where the text says nothing.
        """
        found: dict[tuple[str, Modality], NDArray[np.float32]] = {}
        closed = [name for name in scores.probabilities if not labels[name].is_open]
        for name in closed if self.with_heads else ():
            for modality in Modality:
                path = self.split.dataset.on_path(modality)
                labelled = where(self.split.folds.choosing, labels[name].labelled & path)
                unlabelled = self._unlabelled(labels[name], scores, path & self._for_heads)
                products = self._products(labelled, unlabelled, scores)
                head = head_of(products) if len(labelled) and len(unlabelled) else None
                if head is not None:
                    found[name, modality] = head
        return found

    def head_table(self, heads: Heads, scores: ModelScores) -> list[dict[str, Any]]:
        """Return a row per head: attribute, modality, and the mean probability of having a value, by fold, of the
        products that no head was fitted to."""
        rows = []
        for (name, modality), head in heads.items():
            path = self.split.dataset.on_path(modality)
            in_no_fold = self.split.folds.outside(len(self.split.dataset))
            parts = {
                "certification": where(self.split.folds.certification, path),
                "unlabelled": where(scores.index, self.unseen & path & ~self._for_heads & in_no_fold),
            }
            outputs = {part: has_value(head, scores.vectors_at(index)) for part, index in parts.items()}
            means = {part: float(output.mean()) if len(output) else None for part, output in outputs.items()}
            rows.append({"attribute": name, "modality": modality.value, **means})
        return rows

    def comparison(
        self, labels: Labels, modality: Modality, scores: ModelScores, pool: Pool, has_head: bool
    ) -> AlikenessTest:
        """Compare the labelled with the unlabelled products of a modality path, whose probabilities are ``scores``."""
        dataset, folds = self.split.dataset, self.split.folds
        path = dataset.on_path(modality)
        held_out = [folds.certification, folds.test] + ([] if has_head else [folds.choosing])
        labelled = where(np.sort(np.concatenate(held_out)), labels.labelled & path)
        unlabelled = self._unlabelled(labels, scores, path & ~self._half if has_head else path)
        products = self._products(labelled, unlabelled, scores)
        index = np.concatenate([labelled, unlabelled])
        best = accept_scores(scores.at(labels.attribute, index), pool.cardinality, pool.mask)
        return compared(products, best, [dataset.categories[product] for product in index])

    def untouched(self, has_head: bool) -> Bools:
        """(N,): neither the fit nor, if ``has_head``, a has-value head has seen a product of the content group."""
        return np.asarray(self.unseen & ~self._for_heads) if has_head else self.unseen

    def _unlabelled(self, labels: Labels, scores: ModelScores, mask: Bools) -> Index:
        return where(scores.index, labels.unlabelled & self.unseen & mask)

    def _products(self, labelled: Index, unlabelled: Index, scores: ModelScores) -> TwoSides:
        index = np.concatenate([labelled, unlabelled])
        first, second = (self._cells(side) for side in (labelled, unlabelled))
        return TwoSides(
            labelled=np.arange(len(index)) < len(labelled),
            vectors=scores.vectors_at(index),
            groups=self.split.groups[index],
            weights=np.concatenate(cell_weights(*matched_cells(first, second))),
        )

    def _cells(self, index: Index) -> list[Product]:
        """Return language, category path and class of content-group sizes of each product."""
        dataset, sizes = self.split.dataset, self._sizes
        return [
            (dataset.languages[product], dataset.categories[product], int(sizes[product])) for product in index.tolist()
        ]

    @cached_property
    def _sizes(self) -> Any:
        """(N,): class of the content group's size."""
        return size_classes(np.bincount(self.split.groups)[self.split.groups])

    @cached_property
    def _half(self) -> Bools:
        """(N,): the product is of the content groups that heads may see. The comparison reads the others: if it also
        read those of a gold sample, products like the drawn ones would count twice."""
        return half_of_groups(self.split.dataset.ids, self.split.groups, "has value")

    @cached_property
    def _for_heads(self) -> Bools:
        """(N,): the unlabelled products of these content groups are for the heads: a half, but for those of a gold
        sample."""
        groups = self.split.groups
        return self._half & ~np.isin(groups, groups[self.split.dataset.asked])


# --- classifiers -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TwoSides:
    """The n products of a classifier, labelled and unlabelled."""

    labelled: Bools
    """(n,)"""
    vectors: NDArray[Any]
    """(n, D)"""
    groups: NDArray[Any]
    """(n,) content group: the products of a group are in one part of the cross-fit."""
    weights: Floats
    """(n,) by which the labelled products represent the unlabelled products."""

    def __len__(self) -> int:
        return len(self.labelled)


def head_of(products: TwoSides) -> NDArray[np.float32] | None:
    """Fit the weights of the vector and the bias of a has-value head, (D + 1,); None where the classifier does not tell
    labelled from unlabelled products with :data:`HEAD_P_VALUE`."""
    if not (components := _components(products)):
        return None
    reduction = _Reduction.of(products, components)
    if not reduction.matrix.shape[1]:
        return None
    features = reduction(products.vectors)
    outputs = _cross_fitted(features, products)
    if AlikenessTest(*_sides(outputs, outputs, products)).result.auc_p_value > HEAD_P_VALUE:
        return None
    slope, intercept = _fitted(features, products.labelled, products.weights)
    weights = reduction.matrix @ slope
    return np.append(weights, intercept - reduction.mean @ weights).astype(np.float32)


def compared(products: TwoSides, scores: Floats, categories: Sequence[str]) -> AlikenessTest:
    """Compare the sides by ``scores`` (n,) in [0, 1], -inf for none, and by a classifier that also reads the vectors
    and ``categories``."""
    return AlikenessTest(*_sides(scores, _told_apart(products, scores, categories), products))


def _told_apart(products: TwoSides, scores: Floats, categories: Sequence[str]) -> Floats:
    """(n,) cross-fitted outputs of the comparison's classifier, large for products like the labelled products."""
    if products.labelled.all() or not products.labelled.any():
        return np.zeros(len(products))
    given = np.clip(scores, SCORE_FLOOR, 1 - SCORE_FLOOR)
    logits = np.log(given) - np.log1p(-given)
    columns = [logits, np.square(logits), given, *_one_hot(categories)]
    features = np.column_stack([_standardised(column) for column in columns])
    if components := _components(products):
        features = np.hstack([features, _Reduction.of(products, components)(products.vectors)])
    return _cross_fitted(features, products)


def _cross_fitted(features: Floats, products: TwoSides) -> Floats:
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


def _sides(scores: Floats, outputs: Floats, products: TwoSides) -> tuple[Side, Side]:
    """Return the labelled and the unlabelled products of a comparison."""
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
    def of(cls, products: TwoSides, components: int) -> _Reduction:
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


def _components(products: TwoSides) -> int:
    """Return the number of components that the products determine; 0 where they are too few."""
    positive = products.weights > 0
    smaller = min(int((products.labelled & positive).sum()), int((~products.labelled & positive).sum()))
    return int(min(COMPONENTS, products.vectors.shape[1], smaller // PRODUCTS_PER_COMPONENT))


def _fitted(features: Floats, labelled: Bools, weights: Floats) -> tuple[Floats, float]:
    """Fit slope (F,) and intercept; both sides have the same total weight."""
    from sklearn.linear_model import LogisticRegression

    totals = {side: max(float(weights[labelled == side].sum()), 1e-12) for side in (True, False)}
    balanced = weights * np.where(labelled, 0.5 / totals[True], 0.5 / totals[False]) * len(labelled)
    model = LogisticRegression(C=_PENALTY, max_iter=1000).fit(features, labelled, sample_weight=balanced)
    return model.coef_[0], float(model.intercept_[0])


def _one_hot(categories: Sequence[str]) -> list[Floats]:
    """Return a column for each of the most frequent categories, but for the most frequent."""
    _, numbers, counts = np.unique(np.asarray(categories, dtype=str), return_inverse=True, return_counts=True)
    frequent = np.argsort(-counts, kind="stable")[1:LARGEST_CATEGORIES]
    return [(numbers == position).astype(np.float64) for position in frequent]


def _standardised(column: Floats) -> Floats:
    """Scale to mean 0 and variance 1; a constant column is 0."""
    deviation = float(column.std())
    return np.asarray((column - column.mean()) / deviation if deviation else np.zeros_like(column))
