"""Comparison of the labelled and the unlabelled products of a training, per attribute and modality path
(:mod:`catalog_enrichment.precision.alike`), and the has-value heads.

Both use products that the fit has not seen: neither they nor a product of their content group are in the train fold,
or were read by self-supervision. The unlabelled products that a head is fitted to do not take part in the comparison,
nor do the labelled products of the choosing fold then, so that neither side of the comparison was seen by the head.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from catalog_enrichment.models.has_value import Heads
from catalog_enrichment.models.has_value import has_value as has_value_of
from catalog_enrichment.precision.alike import Comparison, Product, cell_weights, matched_cells
from catalog_enrichment.precision.classification_metrics import Bools
from catalog_enrichment.precision.pool import Pool
from catalog_enrichment.precision.strata import size_classes
from catalog_enrichment.precision.units import accept_scores
from catalog_enrichment.records import Modality
from catalog_enrichment.training import has_value
from catalog_enrichment.training.dataset import Labels
from catalog_enrichment.training.evaluation import ModelScores
from catalog_enrichment.training.folds import Index, half_of_groups
from catalog_enrichment.training.task import Split


@dataclass(frozen=True)
class Populations:
    """The products that heads and comparisons may use."""

    split: Split
    unseen: Bools
    """(N,) the fit has seen no product of the content group."""

    def heads(self, labels: Mapping[str, Labels], scores: ModelScores) -> Heads:
        """The has-value heads that tell labelled from unlabelled products, by attribute and modality path."""
        found = {}
        for name in scores.probabilities:
            for modality in Modality:
                path = self.split.dataset.on_path(modality)
                labelled = _where(self.split.folds.choosing, labels[name].labelled & path)
                unlabelled = self._unlabelled(labels[name], scores, path & self._for_heads)
                products = self._products(labelled, unlabelled, scores)
                head = has_value.head(products) if len(labelled) and len(unlabelled) else None
                if head is not None:
                    found[name, modality] = head
        return found

    def head_table(self, heads: Heads, scores: ModelScores) -> list[dict[str, Any]]:
        """A row per head: attribute, modality, and the mean probability of having a value of the products that no head
        was fitted to, by fold."""
        rows = []
        for name, modality in heads:
            path = self.split.dataset.on_path(modality)
            parts = {
                "certification": _where(self.split.folds.certification, path),
                "unlabelled": _where(scores.index, self.unseen & path & ~self._for_heads & self._in_no_fold),
            }
            means = {
                part: float(has_value_of(heads[name, modality], scores.vectors_at(index)).mean())
                if len(index)
                else None
                for part, index in parts.items()
            }
            rows.append({"attribute": name, "modality": modality.value, **means})
        return rows

    def comparison(
        self, labels: Labels, modality: Modality, scores: ModelScores, pool: Pool, has_head: bool
    ) -> Comparison:
        """Labelled against unlabelled products of a modality path, whose probabilities are ``scores``."""
        dataset, folds = self.split.dataset, self.split.folds
        path = dataset.on_path(modality)
        held_out = [folds.certification, folds.test] + ([] if has_head else [folds.choosing])
        labelled = _where(np.sort(np.concatenate(held_out)), labels.labelled & path)
        unlabelled = self._unlabelled(labels, scores, path & ~self._for_heads if has_head else path)
        products = self._products(labelled, unlabelled, scores)
        index = np.concatenate([labelled, unlabelled])
        best = accept_scores(scores.at(labels.attribute, index), pool.cardinality, pool.mask)
        outputs = has_value.told_apart(products, best, [dataset.categories[product] for product in index])
        return Comparison(*has_value.sides(best, outputs, products))

    def untouched(self, has_head: bool) -> Bools:
        """(N,) neither the fit nor, if ``has_head``, a has-value head has seen a product of the content group."""
        return np.asarray(self.unseen & ~self._for_heads) if has_head else self.unseen

    def _unlabelled(self, labels: Labels, scores: ModelScores, mask: Bools) -> Index:
        return _where(scores.index, labels.unlabelled & self.unseen & mask)

    def _products(self, labelled: Index, unlabelled: Index, scores: ModelScores) -> has_value.Products:
        index = np.concatenate([labelled, unlabelled])
        first, second = (self._cells(side) for side in (labelled, unlabelled))
        return has_value.Products(
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
    def _in_no_fold(self) -> Bools:
        """(N,) the product has no label of any attribute."""
        outside = np.ones(len(self.split.dataset), dtype=bool)
        outside[np.concatenate([index for _, index in self.split.folds.items()])] = False
        return outside

    @cached_property
    def _sizes(self) -> Any:
        """(N,) class of the content group's size."""
        return size_classes(np.bincount(self.split.groups)[self.split.groups])

    @cached_property
    def _for_heads(self) -> Bools:
        """(N,) the unlabelled products of these content groups are for the heads."""
        return half_of_groups(self.split.dataset.ids, self.split.groups, "has value")


def _where(index: Index, mask: Bools) -> Index:
    """The products of ``index`` for which ``mask`` (N,) is true."""
    return index[mask[index]]
