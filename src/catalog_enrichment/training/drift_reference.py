"""The scores that a model version had when it was certified, by stratum: what every run compares its own with.

Part of the model version (drift.json), one entry per certificate: the products to fill of the certificate's modality
path, by language and first-level category. A sample of those with a picture is scored again with each modality masked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalog_enrichment.precision.certificate import Certificate
from catalog_enrichment.precision.certify import score_histogram
from catalog_enrichment.precision.classification_metrics import as_scores
from catalog_enrichment.precision.drift import MASKED
from catalog_enrichment.precision.strata import first_level
from catalog_enrichment.precision.units import accept_scores
from catalog_enrichment.records import Modality, stable_hash
from catalog_enrichment.training.dataset import Dataset, Labels
from catalog_enrichment.training.evaluation import ModelScores
from catalog_enrichment.training.folds import Index

MASKED_PRODUCTS = 1000
"""Products with a picture that are scored with a modality masked, at most."""

ScoreMasked = Callable[[Index, str], ModelScores]
"""(products, masked modality) -> their scores without it."""


def drift_reference(
    dataset: Dataset,
    labels: Mapping[str, Labels],
    scores: ModelScores,
    certificates: Sequence[Certificate],
    score_masked: ScoreMasked | None,
) -> list[dict[str, Any]]:
    """An entry per certificate, plain data. ``certificates``: those of the compute type of ``scores``;
    ``score_masked``: None for a model of one modality."""
    masked = _masked_scores(dataset, labels, scores, score_masked)
    return [
        {
            "attribute": one.attribute,
            "modality": one.modality.value,
            "compute_type": one.compute_type,
            "strata": _strata(dataset, labels[one.attribute], scores, one, masked),
        }
        for one in certificates
        if one.attribute in scores.probabilities
    ]


def _masked_scores(
    dataset: Dataset, labels: Mapping[str, Labels], scores: ModelScores, score_masked: ScoreMasked | None
) -> dict[str, ModelScores]:
    """Masked modality -> scores of the sampled products: those to fill that have the smallest hashes."""
    if score_masked is None:
        return {}
    open_somewhere = np.any([label.unlabelled for label in labels.values()], axis=0) & dataset.has_image
    index = scores.index[open_somewhere[scores.index]]
    order = np.argsort([stable_hash("masked", dataset.ids[product]) for product in index.tolist()], kind="stable")
    sample = np.sort(index[order[:MASKED_PRODUCTS]])
    return {name: score_masked(sample, name) for name in MASKED}


def _strata(
    dataset: Dataset,
    label: Labels,
    scores: ModelScores,
    certificate: Certificate,
    masked: Mapping[str, ModelScores],
) -> list[dict[str, Any]]:
    unlabelled = label.unlabelled & dataset.on_path(certificate.modality)
    index = scores.index[unlabelled[scores.index]]
    names = [(dataset.languages[product], first_level(dataset.categories[product])) for product in index.tolist()]
    found = []
    for language, category in sorted(set(names)):
        members = index[[name == (language, category) for name in names]]
        probabilities = as_scores(scores.at(label.attribute, members))
        in_pool = np.array([value in certificate.pool for value in label.values], dtype=bool)
        accept = accept_scores(probabilities, label.cardinality, in_pool)
        level = np.inf if certificate.threshold is None else certificate.threshold
        found.append(
            {
                "language": language,
                "category": category,
                "products": len(members),
                "accepted": int(np.count_nonzero(accept >= level)),
                "histogram": list(score_histogram(probabilities.max(axis=1))),
                "masked": _changes(label.attribute, members, scores, masked)
                if certificate.modality is Modality.BOTH
                else {},
            }
        )
    return found


def _changes(
    attribute: str, members: Index, scores: ModelScores, masked: Mapping[str, ModelScores]
) -> dict[str, list[int]]:
    """Masked modality -> [products whose top value changes, products scored so]."""
    found = {}
    for name, without in masked.items():
        both: NDArray[Any] = np.intersect1d(members, without.index)
        if len(both):
            changed = scores.at(attribute, both).argmax(axis=1) != without.at(attribute, both).argmax(axis=1)
            found[name] = [int(np.count_nonzero(changed)), len(both)]
    return found
