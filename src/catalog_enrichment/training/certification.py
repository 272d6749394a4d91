"""From scores to certificates: one for every attribute and modality path, an abstention where nothing can be promised.

The text-only path abstains for now (PRECISION, certificate 5): products without a picture are another population, and
their own certificate needs their own labelled products.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalog_enrichment.config.schema import PrecisionConfig
from catalog_enrichment.precision.certificate import HISTOGRAM_BINS, Certificate
from catalog_enrichment.precision.certify import (
    CalibrationScores,
    CertificateBinding,
    CertificationScores,
    certify_attribute,
    select_pool,
)
from catalog_enrichment.records import Modality, stable_hash
from catalog_enrichment.training.dataset import Dataset, Labels
from catalog_enrichment.training.evaluation import ModelScores
from catalog_enrichment.training.folds import Index
from catalog_enrichment.training.task import Split

TEXT_ONLY_ABSTAINS = "the path without a picture is not certified in this release"
NOT_LEARNED_ABSTAINS = "too few labelled products to learn a value of it"


def label_set(split: Split) -> str:
    """Hash of which products certify. Not of what is said about them: an edited label does not make a fresh fold."""
    return stable_hash(sorted(split.dataset.ids[product] for product in split.folds.certification.tolist()))


def data_window(dataset: Dataset, index: Index) -> str:
    """First and last change of the products at ``index``, as an ISO interval; "unknown" where no time is known."""
    times = [time for product in index.tolist() if (time := dataset.updated_at[product]) is not None]
    return f"{min(times):%Y-%m-%d}/{max(times):%Y-%m-%d}" if times else "unknown"


def certify_all(
    split: Split, labels: Mapping[str, Labels], scores: ModelScores, rule: PrecisionConfig, issue: CertificateBinding
) -> list[Certificate]:
    """Two certificates per attribute, for both and text-only. ``labels`` hold every attribute asked for.

    ``scores``: of the calibration and certification folds and of the products to fill, for the attributes learned.
    """
    certificates = []
    for name, label in labels.items():
        if name in scores.probabilities:
            certificates.append(certify_one(split, label, scores, rule, issue))
        else:
            certificates.append(abstention(name, NOT_LEARNED_ABSTAINS, rule, issue))
        text_only = replace(issue, modality=Modality.TEXT_ONLY)
        certificates.append(abstention(name, TEXT_ONLY_ABSTAINS, rule, text_only))
    return certificates


def certify_one(
    split: Split, labels: Labels, scores: ModelScores, rule: PrecisionConfig, issue: CertificateBinding
) -> Certificate:
    """Choose the pool on the calibration fold, fix the grid on the products to fill, test on the certification fold.

    Only products with a usable picture count, and of the certification fold one per content group.
    """
    dataset = split.dataset
    usable = labels.labelled & dataset.has_image
    calibration = _among(split.folds.calibration, usable)
    certification = split.units(_among(split.folds.certification, usable))
    to_fill = _among(scores.index, labels.open & dataset.has_image)
    pool = select_pool(CalibrationScores(**_fold(split, labels, scores, calibration)), rule)
    fold = CertificationScores(
        **_fold(split, labels, scores, certification),
        categories=[dataset.categories[product] for product in certification],
        languages=[dataset.languages[product] for product in certification],
    )
    return certify_attribute(pool, fold, scores.at(labels.attribute, to_fill), rule, issue)


def abstention(attribute: str, why: str, rule: PrecisionConfig, issue: CertificateBinding) -> Certificate:
    """The certificate that allows nothing."""
    return Certificate(
        attribute=attribute,
        modality=issue.modality,
        values=(),
        threshold=None,
        why_abstains=why,
        accepted=0,
        wrong=0,
        lower_bound=0.0,
        target=rule.target,
        delta=rule.delta,
        use_count=issue.use_count,
        claim=f"Nothing is claimed: {attribute} is not written on the path {issue.modality.value}.",
        label_set_hash=issue.label_set_hash,
        data_window=issue.data_window,
        weights_hash=issue.weights_hash,
        numeric_path=issue.numeric_path,
        preprocessing_hash=issue.preprocessing_hash,
        issued_at=issue.issued_at,
        expires_at=issue.issued_at + timedelta(days=rule.valid_days),
        suggest_threshold=None,
        categories=(),
        languages=(),
        accept_rate=0.0,
        histogram=(0,) * HISTOGRAM_BINS,
        steps=(),
    )


def _fold(split: Split, labels: Labels, scores: ModelScores, index: Index) -> dict[str, Any]:
    return {
        "attribute": labels.attribute,
        "labels": labels.values,
        "cardinality": labels.cardinality,
        "probabilities": scores.at(labels.attribute, index),
        "truth": labels.truth[index],
        "groups": split.groups[index],
    }


def _among(index: Index, chosen: NDArray[np.bool_]) -> Index:
    return index[chosen[index]]
