"""Confident learning: pictures whose label the other pictures contradict are not learned from (Bi et al. 2020, section
3.2.1; Northcutt et al., "Confident Learning: Estimating Uncertainty in Dataset Labels", JAIR 2021).

Shapes: N products of the data set, n of them judged, V values of an attribute.
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from catalog_enrichment.models.fusion.base import probabilities
from catalog_enrichment.models.network import MultiModalNet
from catalog_enrichment.models.spec import ModelSpec, NoiseSpec, Recipe
from catalog_enrichment.records import Cardinality
from catalog_enrichment.training import loop
from catalog_enrichment.training.dataset import Labels
from catalog_enrichment.training.folds import Index, stratified_parts
from catalog_enrichment.training.loop import FitInputs, Progress
from catalog_enrichment.training.objectives import Classification, targets_of
from catalog_enrichment.training.single_encoder import (
    new_network,
    single_encoder_examples,
    single_encoder_spec,
    spec_without_unused_encoders,
)

if TYPE_CHECKING:
    from catalog_enrichment.training.task import Task


def flagged_pictures(
    recipe: Recipe, task: Task, progress: Progress, checkpoints: Path | None = None
) -> NDArray[np.bool_]:
    """(N,): the train fold's products whose picture is to be hidden, for a label of theirs is probably wrong.

    Image-only models judge the folds of the train fold that they did not see; of what cleanlab flags in an attribute,
    the least self-confident ``recipe.noise.share`` counts (of 76,424 products the paper drops 2,120, its "top 10%
    noisy samples": a tenth of the flagged, not of all). Another value of the product may be right, but there is only
    one picture: it is hidden if any attribute says so.
    """
    assert recipe.noise is not None
    examples = task.examples
    found = np.zeros(len(examples.has_image), dtype=bool)
    rows = task.train[examples.has_image[task.train]]
    folds = min(recipe.noise.folds, len(np.unique(task.groups[rows])))
    if folds < 2:
        progress(f"noise: {len(rows)} pictures are too few to judge each other")
        return found
    scores = _out_of_fold(recipe, recipe.noise, task, rows, folds, progress, checkpoints)
    flagged = 0
    for name, label in task.labels.items():
        known = label.learnable[rows]
        ranked = suspects(label, rows[known], scores[name][known])
        found[ranked[: round(recipe.noise.share * len(ranked))]] = True
        flagged += len(ranked)
    progress(f"noise: {len(rows)} pictures, {flagged} labels flagged, {found.sum()} pictures dropped")
    return found


def judge(model: ModelSpec, spec: NoiseSpec) -> ModelSpec:
    """The image-only model that judges labels."""
    own = single_encoder_spec(model, "image")
    if not spec.encoder:
        return own
    return replace(own, image=replace(own.image, name=spec.encoder, weights=spec.weights, args={}))


def suspects(label: Labels, rows: Index, probability: NDArray[np.floating]) -> Index:
    """Those of ``rows`` (n,) whose label is flagged by what a model that never saw them gives for each value (n, V):
    the least likely to be right first.

    A value that all or none of them have cannot be mistaken for another and is not looked at.
    """
    truth = label.truth[rows]
    varied = truth.any(axis=0) & ~truth.all(axis=0)
    if not varied.any():
        return rows[:0]
    if label.cardinality is Cardinality.ONE:
        return rows[_single(truth.argmax(axis=1), probability)]
    truth, probability = truth[:, varied], probability[:, varied]
    if varied.sum() == 1:  # cleanlab takes no multi-label problem of one label: yes and no are two classes
        return rows[_single(truth[:, 0].astype(np.int64), np.hstack([1 - probability, probability]))]
    return rows[_multiple([np.flatnonzero(values).tolist() for values in truth], probability)]


def _single(classes: NDArray[np.int64], probability: NDArray[np.floating]) -> NDArray[np.int64]:
    from cleanlab.filter import find_label_issues

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a value with one product is not flagged, and says so
        found = find_label_issues(classes, probability, return_indices_ranked_by="self_confidence", n_jobs=1)
    return np.asarray(found, dtype=np.int64)


def _multiple(values: list[list[int]], probability: NDArray[np.floating]) -> NDArray[np.int64]:
    from cleanlab.multilabel_classification.filter import find_label_issues

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        found = find_label_issues(values, probability, return_indices_ranked_by="self_confidence", n_jobs=1)
    return np.asarray(found, dtype=np.int64)


def _out_of_fold(
    recipe: Recipe,
    spec: NoiseSpec,
    task: Task,
    rows: Index,
    folds: int,
    progress: Progress,
    checkpoints: Path | None,
) -> dict[str, NDArray[np.float64]]:
    """Per attribute (n, V): what the model that did not see the product's fold gives for its picture."""
    truth = np.concatenate([label.truth for label in task.labels.values()], axis=1)
    scores = {name: np.zeros((len(rows), len(label.values))) for name, label in task.labels.items()}
    validation = task.folds.validation[task.examples.has_image[task.folds.validation]]
    for number, part in enumerate(stratified_parts(rows, task.groups, truth, folds, spec.fit.seed), start=1):
        inputs = FitInputs(
            name=f"noise {number} of {folds}",
            examples=single_encoder_examples(task.examples, "image").at(spec.fit.picture_size),
            train=np.setdiff1d(rows, part),
            held_out=validation,
            model=spec_without_unused_encoders(judge(recipe.model, spec)),
            checkpoints=checkpoints,
        )
        network = _fitted(recipe, spec, task, inputs, progress)
        outputs = inputs.examples.outputs(network, part)
        for name, head in network.heads.items():
            scores[name][np.searchsorted(rows, part)] = probabilities(outputs.logits[name], head).numpy()
    return scores


def _fitted(recipe: Recipe, spec: NoiseSpec, task: Task, inputs: FitInputs, progress: Progress) -> MultiModalNet:
    network = new_network(judge(recipe.model, spec), spec.fit, task)
    objective = Classification(targets_of(task.labels), label_smoothing=spec.fit.label_smoothing)
    loop.run(network, objective, spec.fit, inputs, progress)
    return network
