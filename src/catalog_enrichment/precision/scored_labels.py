"""Scored products of one attribute: the labelled ones of each fold, and those to fill.

Shapes: n labelled products, m products to fill, V values of the attribute.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalog_enrichment.precision.classification_metrics import Bools, Floats, Ints
from catalog_enrichment.precision.strata import Cells, Population, UniformDraw
from catalog_enrichment.records import Cardinality


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


@dataclass(frozen=True, kw_only=True)
class ChoosingScores(ScoredLabels):
    """Choosing fold: temperature, pool, suggestion threshold and the start of the grid are chosen here."""


@dataclass(frozen=True, kw_only=True)
class CertificationScores(ScoredLabels):
    """Certification fold: only tests the choices made elsewhere. All products of a content group count."""

    categories: Sequence[str]
    """Category path of each product; "" for a product without one."""
    languages: Sequence[str]
    group_sizes: Ints
    """(n,) products in each product's content group."""
    fold_share: float
    """Share of the labelled products that is in this fold."""
    uniform: bool = False
    """The products are a uniform sample of the unlabelled ones, answered by people (a gold sample)."""

    def cells(self, unlabelled_products: UnlabelledProducts) -> Cells | UniformDraw:
        """The cells of the products' weights."""
        if self.uniform:
            return UniformDraw(self.population, unlabelled_products.population)
        return Cells(self.population, unlabelled_products.population, self.fold_share)

    @property
    def population(self) -> Population:
        """What the weights need to know of these products."""
        return Population(
            languages=self.languages,
            categories=self.categories,
            group_sizes=self.group_sizes,
            counts=np.ones(len(self.groups)),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class UnlabelledProducts:
    """The products to fill on one modality path: m of them, with V scores each."""

    probabilities: NDArray[Any]  # (m, V) calibrated
    categories: Sequence[str]
    languages: Sequence[str]
    group_sizes: Ints  # (m,)
    counts: Floats
    """(m,) how many products of the catalog each one stands for, where they are a sample."""
    near_duplicate_rate: float
    """Share with a product of their content group in training."""

    @property
    def population(self) -> Population:
        """What the weights need to know of these products."""
        return Population(
            languages=self.languages,
            categories=self.categories,
            group_sizes=self.group_sizes,
            counts=self.counts,
        )
