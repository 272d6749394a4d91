"""Scores for evaluation and certification, by the predictor that the batch uses (I8)."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Literal, TypeVar

import numpy as np

from catalog_enrichment.inputs.product_batch import ProductBatch
from catalog_enrichment.models.ensemble import Scorer
from catalog_enrichment.precision.calibration import fit_temperature
from catalog_enrichment.training.dataset import Dataset
from catalog_enrichment.training.evaluation import ModelScores
from catalog_enrichment.training.fit import Fitted
from catalog_enrichment.training.folds import Index
from catalog_enrichment.training.loop import Progress
from catalog_enrichment.training.task import Task

MaskedInput = Literal["nothing", "image", "text"]

_SCORED_AT_ONCE = 128
_SAY_EVERY_SECONDS = 10.0

T = TypeVar("T")


def temperatures(fitted: Fitted, task: Task) -> dict[str, float]:
    """One temperature per attribute, from the calibration fold's labelled products with a picture."""
    index = task.folds.calibration[task.examples.has_image[task.folds.calibration]]
    found = dict.fromkeys(task.labels, 1.0)
    if not len(index):
        return found
    for name, logits in task.examples.outputs(fitted.network, index).logits.items():
        label = task.labels[name]
        chosen = label.labelled[index]
        found[name] = fit_temperature(logits.numpy()[chosen], label.truth[index][chosen], label.cardinality)
    return found


def score(
    predictor: Scorer, dataset: Dataset, index: Index, progress: Progress, hidden: MaskedInput = "nothing"
) -> ModelScores:
    """Scores of the products at ``index``, one of their inputs ``hidden`` from the model."""
    starts = range(0, len(index), _SCORED_AT_ONCE)
    parts = []
    for start in with_progress(starts, progress, _SCORED_AT_ONCE, "scored"):
        rows = index[start : start + _SCORED_AT_ONCE].tolist()
        see_text, see_image = hidden != "text", hidden != "image"
        parts.append(
            predictor.predict(
                ProductBatch(
                    [dataset.titles[row] if see_text else "" for row in rows],
                    [dataset.descriptions[row] if see_text else "" for row in rows],
                    [dataset.pixels[row] if see_image and dataset.pictures[row] else None for row in rows],
                )
            )
        )
    widths = {name: len(head.labels) for name, head in predictor.heads.items()}
    return ModelScores(
        index,
        {
            name: np.concatenate([np.empty((0, v)), *(p.probabilities[name] for p in parts)])
            for name, v in widths.items()
        },
        {name: np.concatenate([np.empty(0), *(part.attention[name] for part in parts)]) for name in widths},
    )


def with_progress(items: Iterable[T], say: Progress, each: int, verb: str) -> Iterator[T]:
    """The items, with a line every ten seconds: how many products, at what rate. ``each``: products per item."""
    started = said = time.perf_counter()
    for number, item in enumerate(items):
        now = time.perf_counter()
        if now - said > _SAY_EVERY_SECONDS:
            say(f"{number * each:,} products {verb}, {number * each / (now - started):,.0f} products/s")
            said = now
        yield item
