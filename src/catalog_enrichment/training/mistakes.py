"""The worst mistakes on the test fold, as a person can judge them: title, picture, true and predicted values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from io import BytesIO
from typing import Any

import numpy as np

from catalog_enrichment.precision.classification_metrics import predictions
from catalog_enrichment.precision.paired_recall import HeldOutDecision
from catalog_enrichment.training.dataset import Dataset, Labels
from catalog_enrichment.training.evaluation import ModelScores
from catalog_enrichment.training.task import Split

TITLE = 300
"""Characters that are kept of a title."""


def mistakes(
    split: Split,
    labels: Mapping[str, Labels],
    scores: ModelScores,
    decisions: Sequence[HeldOutDecision],
    most: int,
) -> list[dict[str, Any]]:
    """At most ``most`` rows per attribute, a product each: those that would be written first, then by score.

    ``decisions``: what the certificates would write to the test fold's products; those of gold samples among them are
    left out. The row has the wrong value with the
    highest score (`said`), the merchant's values (`true`), the score, the modality path, the weight on the text
    (`attention`, None if the fusion has none) and whether the value would be `written`.
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
    """A row for every product at ``index`` with a wrong value; ``decisions``: of the same products."""
    order = np.argsort(index)  # ModelScores.at takes positions in ascending order
    ascending = np.asarray(index, dtype=np.int64)[order]
    probabilities = scores.at(labels.attribute, ascending)
    weights = scores.weights(labels.attribute, ascending)
    said = predictions(probabilities, labels.cardinality)
    for row, product in enumerate(ascending.tolist()):
        decision = decisions[int(order[row])]
        written = np.array([value in decision.written_values for value in labels.values], dtype=bool)
        wrong = (said[row] | written) & ~labels.truth[product]
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
            "said": labels.values[column],
            "score": float(probabilities[row, column]),
            "modality": decision.modality.value if decision.modality else "",
            "attention": weight,
            "written": bool(written[column]),
        }


def pictures_of(dataset: Dataset, product_ids: Iterable[str]) -> dict[str, bytes]:
    """Product id -> its picture as the model saw it, as JPEG; products without a usable picture are left out."""
    wanted = set(product_ids)
    return {
        name: _jpeg(dataset.pixels[product])
        for product, name in enumerate(dataset.ids)
        if name in wanted and dataset.pictures[product] is not None
    }


def _jpeg(pixels: Any) -> bytes:
    """``pixels``: (S, S, 3) RGB."""
    from PIL import Image

    encoded = BytesIO()
    Image.fromarray(np.asarray(pixels)).save(encoded, "JPEG", quality=85)
    return encoded.getvalue()
