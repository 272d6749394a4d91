"""What another number type changes in a model's scores, and in what its certificates accept. numpy only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from catalog_enrichment.models.compute_types import TOLERANCE, numbers_of
from catalog_enrichment.precision.certificate import Certificate
from catalog_enrichment.precision.classification_metrics import Bools
from catalog_enrichment.precision.units import writable_values
from catalog_enrichment.training.dataset import Dataset, Labels
from catalog_enrichment.training.evaluation import ModelScores


def compute_type_differences(
    reference: ModelScores,
    other: ModelScores,
    reference_certificates: Sequence[Certificate],
    other_certificates: Sequence[Certificate],
    labels: Mapping[str, Labels],
    dataset: Dataset,
) -> list[dict[str, Any]]:
    """A row per attribute: ``other`` against ``reference``, scores of the same products by one model.

    ``max_difference``, ``mean_difference``: of a product's scores; ``tolerance``: what the path states;
    ``accepted_by_both``, ``_by_reference_only``, ``_by_path_only``: products whose values the certificates accept.
    """
    rows = []
    for name, probabilities in reference.probabilities.items():
        differences = np.abs(other.probabilities[name] - probabilities).max(axis=1, initial=0.0)
        first, second = (
            _accepted(scores, [one for one in certificates if one.attribute == name], labels[name], dataset)
            for scores, certificates in ((reference, reference_certificates), (other, other_certificates))
        )
        path = next(one.compute_type for one in other_certificates if one.attribute == name)
        rows.append(
            {
                "attribute": name,
                "path": path,
                "reference": next(one.compute_type for one in reference_certificates if one.attribute == name),
                "products": len(differences),
                "max_difference": float(differences.max(initial=0.0)),
                "mean_difference": float(differences.mean()) if len(differences) else 0.0,
                "tolerance": TOLERANCE[numbers_of(path)],
                "accepted_by_both": int((first & second).sum()),
                "accepted_by_reference_only": int((first & ~second).sum()),
                "accepted_by_path_only": int((second & ~first).sum()),
            }
        )
    return rows


def _accepted(scores: ModelScores, certificates: Sequence[Certificate], label: Labels, dataset: Dataset) -> Bools:
    """(n,): the products with a value at or above the threshold of their modality path's certificate."""
    accepted = np.zeros(len(scores.index), dtype=bool)
    for one in certificates:
        if one.threshold is None:
            continue
        of_path = dataset.on_path(one.modality)[scores.index]
        pool = np.array([value in one.pool for value in label.values], dtype=bool)
        probabilities = scores.probabilities[label.attribute][of_path]
        accepted[of_path] = writable_values(probabilities, label.cardinality, pool, one.threshold).any(axis=1)
    return accepted
