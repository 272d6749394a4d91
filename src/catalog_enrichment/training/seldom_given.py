"""Categories in which merchants hardly ever give an attribute: their products probably have no value of it.

Such a category belongs out of the attribute's `categories` in the dictionary: then nothing is predicted there, and its
products do not count as unlabelled.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from catalog_enrichment.precision.classification_metrics import Floats
from catalog_enrichment.precision.strata import first_level
from catalog_enrichment.training.dataset import Dataset, Labels

FEWEST_PRODUCTS = 30
"""A category with fewer products of an attribute says nothing."""

LARGEST_SHARE = 0.05
"""Merchants hardly ever give the attribute where at most this share of the products has it."""


def seldom_given(dataset: Dataset, labels: Mapping[str, Labels], represented: Floats) -> list[dict[str, Any]]:
    """A row per attribute and category path in which it is seldom given: attribute, category, products, labelled, and
    ``categories``, the dictionary's list without all such categories. ``represented`` (N,): how many products of the
    catalog each one stands for.

    An attribute that merchants seldom give anywhere has no row: nothing tells where it applies.
    """
    rows = []
    for name, label in labels.items():
        products, labelled = _counted(dataset, label.labelled | label.unlabelled, represented), Counter[str]()
        labelled.update(_counted(dataset, label.labelled, represented))
        seldom = [
            category
            for category, count in products.items()
            if category and count >= FEWEST_PRODUCTS and labelled[category] <= LARGEST_SHARE * count
        ]
        kept = _kept(set(products) - {""}, set(seldom))
        rows += [
            {
                "attribute": name,
                "category": category,
                "products": round(products[category]),
                "labelled": round(labelled[category]),
                "categories": kept,
            }
            for category in sorted(seldom, key=lambda category: -products[category])
            if kept
        ]
    return rows


def _counted(dataset: Dataset, mask: Any, represented: Floats) -> Counter[str]:
    """Products by category path."""
    counts: Counter[str] = Counter()
    for product in np.flatnonzero(mask).tolist():
        counts[dataset.categories[product]] += represented[product]
    return counts


def _kept(categories: set[str], seldom: set[str]) -> list[str]:
    """Paths that cover the ``categories`` but for the ``seldom`` ones: a first-level category where it has none."""
    mixed = {first_level(category) for category in seldom}
    kept = {category if first_level(category) in mixed else first_level(category) for category in categories - seldom}
    return sorted(kept)
