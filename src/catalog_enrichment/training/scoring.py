"""Scores for evaluation and certification, from the predictor that enrichment uses too (I8)."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Literal, TypeVar

import numpy as np

from catalog_enrichment.inputs.product_batch import ProductBatch
from catalog_enrichment.models import compute_types, has_value
from catalog_enrichment.models.ensemble import Scorer
from catalog_enrichment.precision.calibration import fit_temperature
from catalog_enrichment.precision.classification_metrics import Bools
from catalog_enrichment.training.dataset import Dataset
from catalog_enrichment.training.evaluation import ModelScores
from catalog_enrichment.training.fit import Fitted
from catalog_enrichment.training.folds import Index
from catalog_enrichment.training.loop import Progress
from catalog_enrichment.training.task import Task

MaskedInput = Literal["nothing", "image", "text"]
"""The input that is withheld from the model."""

_TOKENIZER_BATCH = 4096
_PROGRESS_SECONDS = 10.0

T = TypeVar("T")


def temperatures(fitted: Fitted, task: Task) -> dict[str, float]:
    """Attribute -> temperature, fitted to the choosing fold's labelled products with a picture; 1 without any."""
    index = task.folds.choosing[task.examples.has_image[task.folds.choosing]]
    temperature_by_attribute = dict.fromkeys(task.labels, 1.0)
    if not len(index):
        return temperature_by_attribute
    for name, logits in task.examples.outputs(fitted.network, index).logits.items():
        label = task.labels[name]
        labelled = label.labelled[index]
        temperature_by_attribute[name] = fit_temperature(
            logits.numpy()[labelled], label.truth[index][labelled], label.cardinality
        )
    return temperature_by_attribute


def score(
    predictor: Scorer, dataset: Dataset, index: Index, progress: Progress, masked: MaskedInput = "nothing"
) -> ModelScores:
    """Scores of the products at ``index``, with the input ``masked`` withheld from the model.

    Products with texts of like length are scored together, as enrichment does: little is spent on padding.
    """
    order = _by_length(predictor, dataset, index)
    size = compute_types.ROWS[compute_types.device_of(predictor.compute_type)]
    starts = range(0, len(order), size)
    scores = []
    for start in with_progress(starts, progress, size, "scored"):
        rows = index[order[start : start + size]].tolist()
        with_text, with_image = masked != "text", masked != "image"
        scores.append(
            predictor.predict(
                ProductBatch(
                    [dataset.titles[row] if with_text else "" for row in rows],
                    [dataset.descriptions[row] if with_text else "" for row in rows],
                    [dataset.pixels[row] if with_image and dataset.pictures[row] else None for row in rows],
                )
            )
        )
    as_given = np.argsort(order, kind="stable")
    widths = {name: len(head.labels) for name, head in predictor.heads.items()}
    return ModelScores(
        index,
        {
            name: np.concatenate([np.empty((0, width)), *(part.probabilities[name] for part in scores)])[as_given]
            for name, width in widths.items()
        },
        {name: np.concatenate([np.empty(0), *(part.attention[name] for part in scores)])[as_given] for name in widths},
        np.concatenate([part.vectors for part in scores])[as_given] if scores else np.empty((0, 0), dtype=np.float32),
    )


def with_has_value(scores: ModelScores, heads: has_value.Heads, has_image: Bools) -> ModelScores:
    """``scores`` with the has-value ``heads`` of the model version, as :class:`ensemble.HasValueScorer` gives them;
    ``has_image`` (N,)."""
    pictured = has_image[scores.index]
    probabilities = {
        name: values * has_value.factors(heads, name, scores.vectors, pictured)[:, None]
        for name, values in scores.probabilities.items()
    }
    return replace(scores, probabilities=probabilities)


def _by_length(predictor: Scorer, dataset: Dataset, index: Index) -> Index:
    """Positions in ``index``, shortest texts first."""
    lengths = [np.empty(0, dtype=np.int64)]
    for start in range(0, len(index), _TOKENIZER_BATCH):
        rows = index[start : start + _TOKENIZER_BATCH].tolist()
        texts = ([texts[row] for row in rows] for texts in (dataset.titles, dataset.descriptions))
        lengths.append(predictor.text_lengths(*texts))
    return np.asarray(np.argsort(np.concatenate(lengths), kind="stable"))


def with_progress(items: Iterable[T], progress: Progress, products_per_item: int, verb: str) -> Iterator[T]:
    """Yields the items; every ten seconds a progress line gives the number of products done and the rate."""
    started = reported = time.perf_counter()
    for number, item in enumerate(items):
        now = time.perf_counter()
        if now - reported > _PROGRESS_SECONDS:
            products = number * products_per_item
            progress(f"{products:,} products {verb}, {products / (now - started):,.0f} products/s")
            reported = now
        yield item
