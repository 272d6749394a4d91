"""Fit the models of `[compare]` on the labelled products and evaluate them on the others, by a truth of the caller."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence, Set
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from catalog_enrichment.catalog.lake import Catalog
from catalog_enrichment.config.schema import Config
from catalog_enrichment.context import load_dictionary
from catalog_enrichment.monitoring.stages import Stages

if TYPE_CHECKING:
    from catalog_enrichment.comparison.compared_models import FittedModels
    from catalog_enrichment.comparison.tables import Comparison
    from catalog_enrichment.training.dataset import Labels
    from catalog_enrichment.training.folds import Index
    from catalog_enrichment.training.task import Split

Values = frozenset[str]


def compare_on_unlabelled(
    config: Config, truth: Mapping[str, Mapping[str, Values]], subsets: Mapping[str, Set[str] | None]
) -> tuple[dict[str, Comparison], FittedModels]:
    """Fit every model once; one comparison per subset of the unlabelled products (None: all of them).

    ``truth``: attribute -> product id -> values. Values that the models did not learn stay in every denominator.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "30000")  # read when torch is loaded
    from catalog_enrichment.comparison.compared_models import compare_settings
    from catalog_enrichment.comparison.fit_all import CatalogProducts, fit_all, load_data, with_picture
    from catalog_enrichment.comparison.tables import build_comparison

    catalog = Catalog.of(config)
    with tempfile.TemporaryDirectory() as folder:
        workdir, stages = Path(folder), Stages()
        data = load_data(
            CatalogProducts(lambda: catalog.scan("products")), load_dictionary(config), config, workdir, stages
        )
        unlabelled = with_picture(data.split, products_of_no_fold(data.split))
        fitted = fit_all(replace(data, evaluation_index=unlabelled), config, workdir, stages)
    comparisons = {}
    for name, members in subsets.items():
        labels = {
            attribute: _labels_from_truth(learned, truth[attribute], data.split.dataset.ids, members)
            for attribute, learned in fitted.labels.items()
        }
        has_truth = np.any([label.labelled for label in labels.values()], axis=0)
        index = fitted.evaluation_index[has_truth[fitted.evaluation_index]]
        with_truth = replace(fitted, labels=labels, evaluation_index=index)
        comparisons[name] = build_comparison(with_truth, compare_settings(config))
    return comparisons, fitted


def products_of_no_fold(split: Split) -> Index:
    """The products without a label: the folds have all others."""
    labelled = np.concatenate([index for _, index in split.folds.items()])
    return np.asarray(np.setdiff1d(np.arange(len(split.dataset)), labelled), dtype=np.int64)


def _labels_from_truth(
    learned: Labels, truth: Mapping[str, Values], ids: Sequence[str], members: Set[str] | None
) -> Labels:
    """The labels of one attribute with the values of ``truth``, for ``members`` only (None: for all)."""
    column = {value: number for number, value in enumerate(learned.values)}
    true_values = np.zeros_like(learned.truth)
    unlearned = np.zeros_like(learned.unlearned)
    for product, product_id in enumerate(ids):
        if members is not None and product_id not in members:
            continue
        for value in truth.get(product_id, ()):
            if value in column:
                true_values[product, column[value]] = True
            else:
                unlearned[product] += 1
    labelled = true_values.any(axis=1) | (unlearned > 0)
    return replace(learned, truth=true_values, unlearned=unlearned, labelled=labelled)
