"""What a version's certificates would write on its test fold: recorded with the version, for the promotion gate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from catalog_enrichment.precision.certificate import Certificate, CertificateBasis
from catalog_enrichment.precision.classification_metrics import Bools
from catalog_enrichment.precision.paired_recall import HeldOutDecision
from catalog_enrichment.precision.units import writable_values
from catalog_enrichment.records import Modality
from catalog_enrichment.training.dataset import Dataset, Labels
from catalog_enrichment.training.evaluation import ModelScores
from catalog_enrichment.training.folds import Index
from catalog_enrichment.training.task import Split


def held_out_decisions(
    split: Split, labels: Mapping[str, Labels], scores: ModelScores, certificates: Sequence[Certificate]
) -> list[HeldOutDecision]:
    """Return a row per attribute that the model scores and labelled product of the test fold on a modality path.

    Each product by the certificate of its path. Its true values are all of the merchant's, learned or not. The products
    of gold samples that did not certify are test products too: their true values are people's answers, none where the
    product has no value, so that the promotion gate sees what is written to such products.
    """
    dataset = split.dataset
    on_a_path = np.any([dataset.on_path(modality) for modality in Modality], axis=0)
    rows: list[HeldOutDecision] = []
    for name in scores.probabilities:
        label = labels[name]
        index = split.folds.test[(label.labelled & on_a_path)[split.folds.test]]
        index = np.sort(np.concatenate([index, _gold(split, label, scores, certificates)]))
        written = np.zeros((len(index), len(label.values)), dtype=bool)
        for certificate in certificates:
            if certificate.attribute == name and certificate.threshold is not None:
                covered = _covered(dataset, index, certificate)
                pool = np.array([value in certificate.pool for value in label.values], dtype=bool)
                of_path = scores.at(name, index[covered])
                written[covered] = writable_values(of_path, label.cardinality, pool, certificate.threshold)
        rows += decisions_of(split, label, index, written)
    return rows


def decisions_of(split: Split, label: Labels, index: Index, written: Bools) -> list[HeldOutDecision]:
    """A row per product at ``index`` of one attribute; ``written`` (n, V): which learned values are written to it."""
    paths = _paths(split.dataset)
    return [
        HeldOutDecision(
            product_id=split.dataset.ids[product],
            group=int(split.groups[product]),
            attribute=label.attribute,
            true_values=_true_values(split.dataset, product, label.attribute),
            written_values=tuple(label.values[column] for column in np.flatnonzero(row)),
            modality=paths[product],
        )
        for product, row in zip(index.tolist(), written, strict=True)
    ]


def _true_values(dataset: Dataset, product: int, attribute: str) -> tuple[str, ...]:
    """Return the merchant's values, or people's answers in a gold sample."""
    given = dataset.merchant[product].get(attribute)
    return tuple(given or dataset.gold[product].get(attribute, ()))


def _gold(split: Split, label: Labels, scores: ModelScores, certificates: Sequence[Certificate]) -> Index:
    """Return the products of gold samples whose content group neither trained nor chose, on the paths whose certificate
    does not rest on them."""
    if label.gold is None:
        return np.empty(0, dtype=np.int64)
    known = np.concatenate([split.folds.train, split.folds.choosing])
    usable = label.gold & ~np.isin(split.groups, split.groups[known])
    on_a_path = np.zeros(len(usable), dtype=bool)
    certified = {
        one.modality
        for one in certificates
        if one.attribute == label.attribute and one.basis is CertificateBasis.GOLD_SAMPLE
    }
    for modality in set(Modality) - certified:
        on_a_path |= split.dataset.on_path(modality)
    return scores.index[(usable & on_a_path)[scores.index]]


def _covered(dataset: Dataset, index: Index, certificate: Certificate) -> Bools:
    """(n,): the products of ``index`` to which the certificate may write, the day it was issued."""
    paths = _paths(dataset)
    problems = [
        certificate.rejection_reason(
            scored_by=certificate.scored_by,
            standard=certificate.standard,
            modality=paths[product],
            now=certificate.issued_at,
            category=dataset.categories[product],
            language=dataset.languages[product],
        )
        for product in index.tolist()
    ]
    return np.array([problem is None for problem in problems], dtype=bool)


def _paths(dataset: Dataset) -> list[Modality]:
    """(N,): the modality path by which each product is scored."""
    return [Modality.BOTH if picture is not None else Modality.TEXT_ONLY for picture in dataset.pictures]
