"""Certificates from scores: one for every attribute and modality path, an abstention where no threshold is certified.

The text-only path always abstains (PRECISION, certificate 5): products without a picture are another population, and
their certificate would need labelled products of their own.
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
    """Hash of the certification fold's product ids. Labels are not included: an edited one makes no new label set."""
    return stable_hash(sorted(split.dataset.ids[product] for product in split.folds.certification.tolist()))


def data_window(dataset: Dataset, index: Index) -> str:
    """First and last `updated_at` date of the products at ``index``, as an ISO interval; "unknown" if none has one."""
    times = [time for product in index.tolist() if (time := dataset.updated_at[product]) is not None]
    return f"{min(times):%Y-%m-%d}/{max(times):%Y-%m-%d}" if times else "unknown"


def certify_all(
    split: Split,
    labels: Mapping[str, Labels],
    scores: ModelScores,
    rule: PrecisionConfig,
    bindings: Mapping[str, CertificateBinding],
) -> list[Certificate]:
    """Two certificates per attribute, for the paths both and text-only. ``labels``: of every attribute to learn.

    ``scores``: of the calibration and certification folds and of the unfilled products, for the attributes learned.
    ``bindings``: by attribute.
    """
    certificates = []
    for name, label in labels.items():
        binding = bindings[name]
        if name in scores.probabilities:
            certificates.append(certify_one(split, label, scores, rule, binding))
        else:
            certificates.append(abstention(name, NOT_LEARNED_ABSTAINS, rule, binding))
        text_only = replace(binding, modality=Modality.TEXT_ONLY)
        certificates.append(abstention(name, TEXT_ONLY_ABSTAINS, rule, text_only))
    return certificates


def certify_one(
    split: Split, labels: Labels, scores: ModelScores, rule: PrecisionConfig, binding: CertificateBinding
) -> Certificate:
    """Choose the pool on the calibration fold and the threshold grid on the unfilled products, and test the thresholds
    on the certification fold.

    Only products with a usable picture count; of the certification fold, one per content group.
    """
    dataset = split.dataset
    usable = labels.labelled & dataset.has_image
    calibration = _where(split.folds.calibration, usable)
    certification = split.units(_where(split.folds.certification, usable))
    unfilled = _where(scores.index, labels.unfilled & dataset.has_image)
    pool = select_pool(CalibrationScores(**_scored_labels(split, labels, scores, calibration)), rule)
    certification_scores = CertificationScores(
        **_scored_labels(split, labels, scores, certification),
        categories=[dataset.categories[product] for product in certification],
        languages=[dataset.languages[product] for product in certification],
    )
    return certify_attribute(pool, certification_scores, scores.at(labels.attribute, unfilled), rule, binding)


def abstention(attribute: str, why: str, rule: PrecisionConfig, binding: CertificateBinding) -> Certificate:
    """A certificate that writes nothing, for the reason ``why``."""
    return Certificate(
        attribute=attribute,
        modality=binding.modality,
        values=(),
        threshold=None,
        why_abstains=why,
        accepted=0,
        wrong=0,
        lower_bound=0.0,
        target=rule.target,
        delta=rule.delta,
        use_count=binding.use_count,
        claim=f"Nothing is claimed: {attribute} is not written on the path {binding.modality.value}.",
        label_set_hash=binding.label_set_hash,
        data_window=binding.data_window,
        weights_hash=binding.weights_hash,
        numeric_path=binding.numeric_path,
        preprocessing_hash=binding.preprocessing_hash,
        issued_at=binding.issued_at,
        expires_at=binding.issued_at + timedelta(days=rule.valid_days),
        suggest_threshold=None,
        categories=(),
        languages=(),
        accept_rate=0.0,
        histogram=(0,) * HISTOGRAM_BINS,
        steps=(),
    )


def _scored_labels(split: Split, labels: Labels, scores: ModelScores, index: Index) -> dict[str, Any]:
    return {
        "attribute": labels.attribute,
        "labels": labels.values,
        "cardinality": labels.cardinality,
        "probabilities": scores.at(labels.attribute, index),
        "truth": labels.truth[index],
        "groups": split.groups[index],
    }


def _where(index: Index, mask: NDArray[np.bool_]) -> Index:
    """The products of ``index`` for which ``mask`` (N,) is true."""
    return index[mask[index]]
