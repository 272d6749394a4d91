"""Facts that a training records with a model version, beside certificates and metrics: the drift reference, what
another compute type changes, categories that seldom have an attribute, parameters and lineage."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from catalog_enrichment.config.schema import Config
from catalog_enrichment.dictionary import Attribute
from catalog_enrichment.models.compute_types import TOLERANCE, numbers_of
from catalog_enrichment.precision.certificate import Certificate
from catalog_enrichment.precision.certify import score_histogram
from catalog_enrichment.precision.drift import MASKED
from catalog_enrichment.precision.strata import first_level
from catalog_enrichment.precision.units import Bools, Floats, accept_scores, as_scores, writable_values
from catalog_enrichment.records import Modality, flatten_keys, stable_hash
from catalog_enrichment.training import product_labels
from catalog_enrichment.training.certification import data_window, label_set
from catalog_enrichment.training.dataset import Dataset
from catalog_enrichment.training.evaluation import ModelScores
from catalog_enrichment.training.folds import Index, near_duplicate_rate, where
from catalog_enrichment.training.labels import Labels
from catalog_enrichment.training.loop import ignored
from catalog_enrichment.training.members import Members
from catalog_enrichment.training.open_attributes import OpenAttributes
from catalog_enrichment.training.scoring import MaskedInput, SavedVersion, score
from catalog_enrichment.training.task import Split, settings_of

if TYPE_CHECKING:
    import pyarrow as pa

MASKED_PRODUCTS = 1000
"""Products with a picture that are scored with a modality masked, at most."""

FEWEST_PRODUCTS = 30
"""A category with fewer products of an attribute says nothing about how often it is given."""

LARGEST_SHARE = 0.05
"""Merchants seldom give the attribute where at most this share of the products has it."""


class ScoreMasked(Protocol):
    """Scores products without one modality."""

    def __call__(self, index: Index, *, masked: MaskedInput) -> ModelScores: ...


# --- drift reference ---------------------------------------------------------------------------------------------


def drift_references(
    version: SavedVersion, certificates: Sequence[Sequence[Certificate]], labels: Mapping[str, Labels], masking: bool
) -> list[dict[str, Any]]:
    """Return :func:`drift_reference` of every compute type; ``masking``: for a model of both modalities."""
    references = []
    for predictor, scores, issued in zip(version.predictors, version.scores, certificates, strict=True):
        score_masked = partial(score, predictor, version.dataset, progress=ignored) if masking else None
        references += drift_reference(version.dataset, labels, scores, issued, score_masked)
    return references


def drift_reference(
    dataset: Dataset,
    labels: Mapping[str, Labels],
    scores: ModelScores,
    certificates: Sequence[Certificate],
    score_masked: ScoreMasked | None,
) -> list[dict[str, Any]]:
    """Return an entry per certificate (drift.json): the scores that the version had when it was certified, with which
    every run compares its own.

    An entry is about the unlabelled products of the certificate's modality path, by language and first-level category.
    A sample of those with a picture is scored again with each modality masked (``score_masked``; None for a model of
    one modality). ``certificates``: those of the compute type of ``scores``.
    """
    masked = {} if score_masked is None else _masked_scores(dataset, labels, scores, score_masked)
    return [
        {
            "attribute": certificate.attribute,
            "modality": certificate.modality.value,
            "compute_type": certificate.compute_type,
            "strata": _strata(dataset, labels[certificate.attribute], scores, certificate, masked),
        }
        for certificate in certificates
        if certificate.attribute in scores.probabilities
    ]


def _masked_scores(
    dataset: Dataset, labels: Mapping[str, Labels], scores: ModelScores, score_masked: ScoreMasked
) -> dict[str, ModelScores]:
    """Return masked modality -> scores of the sampled products: unlabelled products with the smallest hashes."""
    unlabelled = np.any([label.unlabelled for label in labels.values()], axis=0)
    index = where(scores.index, unlabelled & dataset.has_image)
    order = np.argsort([stable_hash("masked", dataset.ids[product]) for product in index.tolist()], kind="stable")
    sample = np.sort(index[order[:MASKED_PRODUCTS]])
    return {name: score_masked(sample, masked=name) for name in MASKED}


def _strata(
    dataset: Dataset, label: Labels, scores: ModelScores, certificate: Certificate, masked: Mapping[str, ModelScores]
) -> list[dict[str, Any]]:
    index = where(scores.index, label.unlabelled & dataset.on_path(certificate.modality))
    names = [(dataset.languages[product], first_level(dataset.categories[product])) for product in index.tolist()]
    threshold = np.inf if certificate.threshold is None else certificate.threshold
    found = []
    for language, category in sorted(set(names)):
        members = index[[name == (language, category) for name in names]]
        probabilities = as_scores(scores.at(label.attribute, members))
        accept = accept_scores(probabilities, label.cardinality, _in_pool(label, certificate))
        both = certificate.modality is Modality.BOTH
        found.append(
            {
                "language": language,
                "category": category,
                "products": len(members),
                "accepted": int(np.count_nonzero(accept >= threshold)),
                "histogram": list(score_histogram(probabilities.max(axis=1))),
                "masked": _changes(dataset.dictionary[label.attribute], members, scores, masked) if both else {},
            }
        )
    return found


def _changes(
    attribute: Attribute, members: Index, scores: ModelScores, masked: Mapping[str, ModelScores]
) -> dict[str, list[int]]:
    """Return masked modality -> [products whose top value changes, products scored so], as a run compares them."""
    found = {}
    for name, without in masked.items():
        both = np.intersect1d(members, without.index)
        if len(both):
            pairs = zip(_top(attribute.name, scores, both), _top(attribute.name, without, both), strict=True)
            found[name] = [sum(not attribute.is_same(first, second) for first, second in pairs), len(both)]
    return found


def _top(attribute: str, scores: ModelScores, index: Index) -> list[str]:
    """Return the top value of each product at ``index``: the proposed one, or the column of a closed list."""
    if attribute in scores.proposed:
        proposed = scores.proposed[attribute]
        return [proposed[place] for place in np.searchsorted(scores.index, index).tolist()]
    return [str(column) for column in scores.at(attribute, index).argmax(axis=1).tolist()]


# --- compute types -----------------------------------------------------------------------------------------------


def compute_type_differences(
    scores: Sequence[ModelScores],
    certificates: Sequence[Sequence[Certificate]],
    labels: Mapping[str, Labels],
    dataset: Dataset,
) -> list[dict[str, Any]]:
    """Return a row per attribute and further compute type, against the first; ``scores``: of the same products by
    one model.

    ``max_difference``, ``mean_difference``: of a product's scores; ``tolerance``: the compute type's own;
    ``accepted_by_both``, ``_by_reference_only``, ``_by_path_only``: products whose values the certificates accept.
    """
    rows = []
    for other, issued in zip(scores[1:], certificates[1:], strict=True):
        for name, probabilities in scores[0].probabilities.items():
            differences = np.abs(other.probabilities[name] - probabilities).max(axis=1, initial=0.0)
            first, second = (
                _accepted(of_type, of_attribute, labels[name], dataset)
                for of_type, of_attribute in ((scores[0], certificates[0]), (other, issued))
            )
            rows.append(
                {
                    "attribute": name,
                    "path": issued[0].compute_type,
                    "reference": certificates[0][0].compute_type,
                    "products": len(differences),
                    "max_difference": float(differences.max(initial=0.0)),
                    "mean_difference": float(differences.mean()) if len(differences) else 0.0,
                    "tolerance": TOLERANCE[numbers_of(issued[0].compute_type)],
                    "accepted_by_both": int((first & second).sum()),
                    "accepted_by_reference_only": int((first & ~second).sum()),
                    "accepted_by_path_only": int((second & ~first).sum()),
                }
            )
    return rows


def compute_type_warnings(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a warning for each row of :func:`compute_type_differences` beyond the tolerance."""
    return [
        f"scores of {row['attribute']} in {row['path']} differ by up to {row['max_difference']:.2f} from those in "
        f"{row['reference']}, more than {row['tolerance']}: compare the certificates"
        for row in rows
        if row["max_difference"] > row["tolerance"]
    ]


def _accepted(scores: ModelScores, certificates: Sequence[Certificate], label: Labels, dataset: Dataset) -> Bools:
    """(n,): the products with a value at or above the threshold of their modality path's certificate."""
    accepted = np.zeros(len(scores.index), dtype=bool)
    for certificate in certificates:
        if certificate.attribute == label.attribute and certificate.threshold is not None:
            of_path = dataset.on_path(certificate.modality)[scores.index]
            probabilities, pool = scores.probabilities[label.attribute][of_path], _in_pool(label, certificate)
            written = writable_values(probabilities, label.cardinality, pool, certificate.threshold)
            accepted[of_path] = written.any(axis=1)
    return accepted


def _in_pool(label: Labels, certificate: Certificate) -> Bools:
    """(V,): the certificate covers the value."""
    return np.array([certificate.covers(value) for value in label.values], dtype=bool)


# --- categories that seldom have an attribute ------------------------------------------------------------------------


def seldom_given(dataset: Dataset, labels: Mapping[str, Labels], represented: Floats) -> list[dict[str, Any]]:
    """Return a row per attribute and category path in which merchants seldom give it: attribute, category, products,
    labelled, and ``categories``, the dictionary's list without all such categories. ``represented`` (N,): how many
    products of the catalog each product stands for.

    Products of such a category probably have no value. It belongs out of the attribute's `categories` in the
    dictionary: then nothing is predicted there, and its products do not count as unlabelled. An attribute that
    merchants seldom give anywhere has no row: nothing tells where it applies.
    """
    rows = []
    for name, label in labels.items():
        products = _counted(dataset, label.labelled | label.unlabelled, represented)
        labelled = _counted(dataset, label.labelled, represented)
        seldom = [
            category
            for category, count in products.items()
            if category and count >= FEWEST_PRODUCTS and labelled[category] <= LARGEST_SHARE * count
        ]
        if not (kept := _kept(set(products) - {"", *seldom}, seldom)):
            continue
        rows += [
            {
                "attribute": name,
                "category": category,
                "products": round(products[category]),
                "labelled": round(labelled[category]),
                "categories": kept,
            }
            for category in sorted(seldom, key=lambda category: -products[category])
        ]
    return rows


def _counted(dataset: Dataset, mask: Bools, represented: Floats) -> Counter[str]:
    """Count products by category path."""
    counts: Counter[str] = Counter()
    for product in np.flatnonzero(mask).tolist():
        counts[dataset.categories[product]] += represented[product]
    return counts


def _kept(categories: set[str], seldom: Sequence[str]) -> list[str]:
    """Return paths that cover the ``categories``, but none of ``seldom``: a first-level category where it has none."""
    mixed = {first_level(category) for category in seldom}
    return sorted({path if first_level(path) in mixed else first_level(path) for path in categories})


# --- parameters and lineage --------------------------------------------------------------------------------------


def params(config: Config, members: Members, extraction: OpenAttributes | None) -> dict[str, Any]:
    """Return the recipe, that of the extractor, [training] and [precision], as a flat mapping."""
    settings = {"training": asdict(settings_of(config)), "precision": asdict(config.precision)}
    return flatten_keys(members.params() | (extraction.params() if extraction else {}) | settings)


def labelled_products(dataset: Dataset, attributes: Sequence[str]) -> pa.Table:
    """Return the labelled products and their labels (:mod:`product_labels`)."""
    labels = (dataset.labels_of(product, attributes) for product in range(len(dataset)))
    return product_labels.record(dataset.ids, labels)


def lineage(split: Split, labels: Mapping[str, Labels], certificates: Sequence[Certificate]) -> dict[str, Any]:
    """Return counts and hashes of the training data."""
    dataset, folds, groups = split.dataset, split.folds, split.groups
    unlabelled = np.flatnonzero(folds.outside(len(dataset)))
    label_uses: Counter[str] = Counter()  # of products with a picture, on any compute type
    for certificate in certificates:
        if certificate.modality is Modality.BOTH:
            label_uses |= Counter({certificate.attribute: certificate.use_number})
    return {
        **dataset.counts,
        "with_image": int(dataset.has_image.sum()),
        "labelled_by_attribute": {name: int(label.labelled.sum()) for name, label in labels.items()},
        "learned_values": {name: len(label.values) for name, label in labels.items()},
        "folds": folds.sizes(),
        "kept_for_gold_samples": len(folds.kept),
        "fold_groups": {name: len(np.unique(groups[index])) for name, index in folds.items()},
        "content_groups": len(np.unique(groups)),
        "largest_group": int(np.bincount(groups).max()),
        "near_duplicate_rate_test": near_duplicate_rate(folds.test, folds.train, groups),
        "near_duplicate_rate_unlabelled": near_duplicate_rate(unlabelled, folds.train, groups),
        "data_window": data_window(dataset, folds.certification),
        "label_set_hash": label_set(dataset, folds.certification),
        "certification_round": split.certification_round.number,
        "certification_round_reason": split.certification_round.reason,
        "label_uses": dict(label_uses),
        "dictionary_hash": dataset.dictionary.hash(),
    }
