"""The test fold: what a version's certificates would write there (recorded with the version, for the promotion gate),
and its worst mistakes, as a person can judge them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from io import BytesIO
from typing import Any

import numpy as np

from catalog_enrichment.dictionary import Attribute
from catalog_enrichment.precision.certificate import Certificate, CertificateBasis
from catalog_enrichment.precision.certified_recall import HeldOutDecision
from catalog_enrichment.precision.classification_metrics import predictions
from catalog_enrichment.precision.units import Bools, writable_values
from catalog_enrichment.records import Modality
from catalog_enrichment.training.dataset import Dataset
from catalog_enrichment.training.evaluation import ModelScores
from catalog_enrichment.training.folds import Index
from catalog_enrichment.training.labels import Labels
from catalog_enrichment.training.task import Split

TITLE = 300
"""Characters that are kept of a title."""


def held_out_decisions(
    split: Split, labels: Mapping[str, Labels], scores: ModelScores, certificates: Sequence[Certificate]
) -> list[HeldOutDecision]:
    """Return a row per attribute that the model scores and labelled product of the test fold on a modality path.

    The certificate of a product's path decides what is written. The true values are all of the merchant's, learned or
    not. The products of gold samples that did not certify are test products too: their true values are people's
    answers, none where the product has no value, so that the promotion gate sees what is written to such products.
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
                pool = np.array([certificate.covers(value) for value in label.values], dtype=bool)
                of_path = scores.at(name, index[covered])
                written[covered] = writable_values(of_path, label.cardinality, pool, certificate.threshold)
        rows += decisions_of(split, label, index, written)
    return rows


def decisions_of(split: Split, label: Labels, index: Index, written: Bools) -> list[HeldOutDecision]:
    """Return a row per product at ``index`` for one attribute; ``written`` (n, V): the learned values that are written
    to it."""
    dataset, paths, decisions = split.dataset, _paths(split.dataset), []
    for product, row in zip(index.tolist(), written, strict=True):
        true = dataset.merchant[product].get(label.attribute) or dataset.gold[product].get(label.attribute, ())
        values = [label.value(product, column) for column in np.flatnonzero(row).tolist()]
        decisions.append(
            HeldOutDecision(
                product_id=dataset.ids[product],
                group=int(split.groups[product]),
                attribute=label.attribute,
                true_values=tuple(_as_written(each, values, dataset.dictionary[label.attribute]) for each in true),
                written_values=tuple(values),
                modality=paths[product],
            )
        )
    return decisions


def _as_written(true: str, written: Sequence[str], attribute: Attribute) -> str:
    """Return a true value as it is written, where a written value is the same: 50.8 cm for 51 cm."""
    return next((value for value in written if attribute.is_same(value, true)), true) if attribute.is_open else true


def _gold(split: Split, label: Labels, scores: ModelScores, certificates: Sequence[Certificate]) -> Index:
    """Return the products of gold samples whose content group neither trained nor chose, on the paths whose certificate
    does not rest on them."""
    if label.gold is None:
        return np.empty(0, dtype=np.int64)
    known = np.concatenate([split.folds.train, split.folds.choosing])
    usable = label.gold & ~np.isin(split.groups, split.groups[known])
    on_a_path = np.zeros(len(usable), dtype=bool)
    certified = {
        certificate.modality
        for certificate in certificates
        if certificate.attribute == label.attribute and certificate.basis is CertificateBasis.GOLD_SAMPLE
    }
    for modality in set(Modality) - certified:
        on_a_path |= split.dataset.on_path(modality)
    return scores.index[(usable & on_a_path)[scores.index]]


def _covered(dataset: Dataset, index: Index, certificate: Certificate) -> Bools:
    """(n,): the products of ``index`` to which the certificate may write, the day it was issued."""
    paths = _paths(dataset)
    reasons = [
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
    return np.array([reason is None for reason in reasons], dtype=bool)


def _paths(dataset: Dataset) -> list[Modality]:
    """(N,): the modality path by which each product is scored."""
    return [Modality.BOTH if picture is not None else Modality.TEXT_ONLY for picture in dataset.pictures]


def mistakes(
    split: Split,
    labels: Mapping[str, Labels],
    scores: ModelScores,
    decisions: Sequence[HeldOutDecision],
    most: int,
) -> list[dict[str, Any]]:
    """Return at most ``most`` rows per attribute, a product each: those that would be written first, then by score.

    ``decisions``: what the certificates would write to the test fold's products; those of gold samples among them are
    left out. The row has the wrong value with the highest score (`predicted`), the merchant's values (`true`), the
    score, the modality path, the weight on the text (`attention`, None if the fusion has none) and whether the value
    would be `written`.
    """
    position = {split.dataset.ids[product]: product for product in split.folds.test.tolist()}
    in_fold = [decision for decision in decisions if decision.product_id in position]
    rows: list[dict[str, Any]] = []
    for name in dict.fromkeys(decision.attribute for decision in in_fold):
        of_attribute = [decision for decision in in_fold if decision.attribute == name]
        index = [position[decision.product_id] for decision in of_attribute]
        wrong = _wrong(split.dataset, labels[name], scores, of_attribute, index)
        rows += sorted(wrong, key=lambda row: (not row["written"], -row["score"], row["product_id"]))[:most]
    return rows


def _wrong(
    dataset: Dataset, labels: Labels, scores: ModelScores, decisions: Sequence[HeldOutDecision], index: Sequence[int]
) -> Iterable[dict[str, Any]]:
    """Yield a row for every product at ``index`` with a wrong value; ``decisions``: of the same products."""
    order = np.argsort(index)  # ModelScores.at takes positions in ascending order
    ascending = np.asarray(index, dtype=np.int64)[order]
    probabilities = scores.at(labels.attribute, ascending)
    weights = scores.weights(labels.attribute, ascending)
    predicted = predictions(probabilities, labels.cardinality)
    for row, product in enumerate(ascending.tolist()):
        decision = decisions[int(order[row])]
        values = [labels.value(product, column) for column in range(len(labels.values))]
        written = np.array([value in decision.written_values for value in values], dtype=bool)
        wrong = (predicted[row] | written) & ~labels.truth[product]
        if not wrong.any():
            continue
        shown = wrong & written if (wrong & written).any() else wrong
        column = int(np.where(shown, probabilities[row], -np.inf).argmax())
        weight = None if weights is None or not np.isfinite(weights[row]) else float(weights[row])
        yield {
            "attribute": labels.attribute,
            "product_id": decision.product_id,
            "title": dataset.titles[product][:TITLE],
            "true": list(decision.true_values),
            "predicted": values[column],
            "score": float(probabilities[row, column]),
            "modality": decision.modality.value if decision.modality else "",
            "attention": weight,
            "written": bool(written[column]),
        }


def pictures_of(dataset: Dataset, product_ids: Iterable[str]) -> dict[str, bytes]:
    """Return product id -> its picture as the model saw it, as JPEG; products without a usable picture are left
    out."""
    from PIL import Image

    wanted, pictures = set(product_ids if len(dataset.pixels) else ()), {}
    for product, name in enumerate(dataset.ids):
        if name in wanted and dataset.pictures[product] is not None:
            encoded = BytesIO()
            Image.fromarray(np.asarray(dataset.pixels[product])).save(encoded, "JPEG", quality=85)
            pictures[name] = encoded.getvalue()
    return pictures
