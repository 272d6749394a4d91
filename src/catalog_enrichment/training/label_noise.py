"""Confident learning: pictures whose label is probably wrong are left out of training (Bi et al. 2020, section 3.2.1;
Northcutt et al., "Confident Learning: Estimating Uncertainty in Dataset Labels", JAIR 2021).

Shapes: N products of the data set, n of them checked, V values of an attribute.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalog_enrichment.models.fusion.base import probabilities
from catalog_enrichment.models.spec import ModelSpec, NoiseSpec, Recipe
from catalog_enrichment.precision.units import Bools
from catalog_enrichment.records import Cardinality
from catalog_enrichment.training import loop
from catalog_enrichment.training.examples import single_encoder_spec
from catalog_enrichment.training.folds import Index, stratified_parts
from catalog_enrichment.training.labels import Labels
from catalog_enrichment.training.loop import FitInputs, Progress
from catalog_enrichment.training.objectives import Classification, targets_of
from catalog_enrichment.training.task import Task


def flagged_pictures(recipe: Recipe, task: Task, progress: Progress, checkpoints: Path | None = None) -> Bools:
    """(N,): the train fold's products whose picture is masked in the fit, because a label is probably wrong.

    The train fold is divided into parts, and each part is predicted by an image-only model fitted to the others. Of the
    labels that cleanlab flags in an attribute, the ``recipe.noise.share`` with the lowest self-confidence count (the
    paper drops 2,120 of 76,424 products, its "top 10% noisy samples": a tenth of the flagged, not of all). A picture is
    masked if a label of any attribute counts.
    """
    assert recipe.noise is not None
    examples = task.examples
    flagged = np.zeros(len(examples.has_image), dtype=bool)
    rows = task.train[examples.has_image[task.train]]
    part_count = min(recipe.noise.folds, len(np.unique(task.groups[rows])))
    if part_count < 2:
        progress(f"noise: {len(rows)} pictures are too few to find wrong labels")
        return flagged
    scores = _out_of_sample_scores(recipe, recipe.noise, task, rows, part_count, progress, checkpoints)
    flagged_labels = 0
    for name, label in task.labels.items():
        learnable = label.learnable[rows]
        ranked = suspect_labels(label, rows[learnable], scores[name][learnable])
        flagged[ranked[: round(recipe.noise.share * len(ranked))]] = True
        flagged_labels += len(ranked)
    progress(f"noise: {len(rows)} pictures, {flagged_labels} labels flagged, {flagged.sum()} pictures dropped")
    return flagged


def noise_model_spec(model: ModelSpec, spec: NoiseSpec) -> ModelSpec:
    """Return the image-only model whose predictions are compared with the labels."""
    image_only = single_encoder_spec(model, "image")
    if not spec.encoder:
        return image_only
    other = replace(image_only.image, name=spec.encoder, weights=spec.weights, args={}, frozen_stages=0)
    return replace(image_only, image=other)


def suspect_labels(label: Labels, rows: Index, probability: NDArray[np.floating]) -> Index:
    """Return the products of ``rows`` (n,) whose label cleanlab flags, least self-confident first. ``probability``
    (n, V): of each value, from models that were not fitted to these products.

    Values that all or none of the products have are not checked.
    """
    from cleanlab.filter import find_label_issues
    from cleanlab.multilabel_classification import filter as multilabel

    truth = label.truth[rows]
    varied = truth.any(axis=0) & ~truth.all(axis=0)
    if not varied.any():
        return rows[:0]
    if label.cardinality is Cardinality.ONE:
        return rows[_issues(find_label_issues, truth.argmax(axis=1), probability)]
    truth, probability = truth[:, varied], probability[:, varied]
    if varied.sum() == 1:  # cleanlab rejects multi-label problems with a single label: use the classes no and yes
        no_and_yes = np.hstack([1 - probability, probability])
        return rows[_issues(find_label_issues, truth[:, 0].astype(np.int64), no_and_yes)]
    values_of_products = [np.flatnonzero(values).tolist() for values in truth]
    return rows[_issues(multilabel.find_label_issues, values_of_products, probability)]


def _issues(
    find: Callable[..., Any], labels: NDArray[np.int64] | list[list[int]], probability: NDArray[np.floating]
) -> NDArray[np.int64]:
    """Return the positions that cleanlab's function ``find`` flags, least self-confident first."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # cleanlab warns about values with a single product
        issues = find(labels, probability, return_indices_ranked_by="self_confidence", n_jobs=1)
    return np.asarray(issues, dtype=np.int64)


def _out_of_sample_scores(
    recipe: Recipe,
    spec: NoiseSpec,
    task: Task,
    rows: Index,
    part_count: int,
    progress: Progress,
    checkpoints: Path | None,
) -> dict[str, NDArray[np.float64]]:
    """Return attribute -> (n, V): the probabilities by the model that was not fitted to the product's part."""
    model, has_image = noise_model_spec(recipe.model, spec), task.examples.has_image
    objective = Classification(targets_of(task.labels), label_smoothing=spec.fit.label_smoothing)
    examples = task.examples.of_encoder("image").with_picture_size(spec.fit.picture_size)
    truth = np.concatenate([label.truth for label in task.labels.values()], axis=1)
    scores = {name: np.zeros((len(rows), len(label.values))) for name, label in task.labels.items()}
    for number, part in enumerate(stratified_parts(rows, task.groups, truth, part_count, spec.fit.seed), start=1):
        inputs = FitInputs(
            name=f"noise {number} of {part_count}",
            examples=examples,
            train=np.setdiff1d(rows, part),
            held_out=task.folds.choosing[has_image[task.folds.choosing]],
            model=model,
            checkpoints=checkpoints,
        )
        network = task.new_network(model, spec.fit)
        loop.run(network, objective, spec.fit, inputs, progress)
        outputs = examples.outputs(network, part)
        for name, head in network.heads.items():
            scores[name][np.searchsorted(rows, part)] = probabilities(outputs.logits[name], head).numpy()
    return scores
