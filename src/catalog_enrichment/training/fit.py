"""Fitting a recipe, in this order: adapt the encoders without labels, find wrong labels, fit single encoders, fit the
whole model, and choose lambda and the fusion's parameters on the choosing fold."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from catalog_enrichment.errors import ConfigError
from catalog_enrichment.models.fusion import fusion_class
from catalog_enrichment.models.fusion.base import FusionOutput, probabilities
from catalog_enrichment.models.network import MultiModalNet
from catalog_enrichment.models.spec import AdaptSpec, FitSpec, FusionSpec, ModelSpec, Recipe
from catalog_enrichment.precision.units import Bools
from catalog_enrichment.training import loop
from catalog_enrichment.training.encoder_objectives import Destruction, contrast
from catalog_enrichment.training.evaluation import attribute_metrics
from catalog_enrichment.training.examples import Examples, single_encoder_spec, unfrozen
from catalog_enrichment.training.label_noise import flagged_pictures, noise_model_spec
from catalog_enrichment.training.loop import FitInputs, OnEpoch, Progress, ignored
from catalog_enrichment.training.objectives import Classification, Objective, targets_of
from catalog_enrichment.training.task import Task

Weights = dict[str, dict[str, torch.Tensor]]
"""Encoder (text, second_text, image) -> its state dict."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """A fitted model, and how it was fitted."""

    network: MultiModalNet
    """With the weights of the best epoch, in eval mode, on the device it was fitted on."""
    history: list[dict[str, float]]
    """A row per epoch of the whole model's fit (:func:`loop.run`)."""
    chosen: dict[str, float] = field(default_factory=dict)
    """Chosen on the choosing fold: kl_lambda, `ATTRIBUTE/alpha`. noisy_pictures: how many were masked."""
    search: list[dict[str, Any]] = field(default_factory=list)
    """A row per candidate for lambda, with its metrics on the choosing fold; empty for a single candidate."""
    stages: list[dict[str, Any]] = field(default_factory=list)
    """The rows of ``history`` after those of every encoder's fit before it, each with `stage`, the name of its fit."""


def fit(
    recipe: Recipe, task: Task, progress: Progress, checkpoints: Path | None = None, on_epoch: OnEpoch = ignored
) -> Fitted:
    """Fit ``recipe`` on the train fold. The choosing fold gives the epoch, and lambda and alpha where there are any.

    Only products with a learned value of an attribute are in that attribute's loss. The weights depend only on seed,
    data, machine and number of threads; continuing from ``checkpoints`` gives the same weights.
    """
    fitter = _RecipeFitter(recipe, task, progress, checkpoints, on_epoch)
    weights = fitter.fit_encoders()
    search = recipe.search.kl_lambda if fusion_class(recipe.model.fusion.kind).learns_modality_weights else ()
    candidates = search or (recipe.fit.kl_lambda,)
    best: tuple[float, Fitted] | None = None
    rows: list[dict[str, Any]] = []
    for number, kl_lambda in enumerate(candidates, start=1):
        if len(candidates) > 1:
            progress(f"{recipe.name}: kl_lambda {kl_lambda:g}, candidate {number} of {len(candidates)}")
        fitted = fitter.fit_model(weights, kl_lambda)
        row = {"kl_lambda": kl_lambda, **_choosing_metrics(fitted.network, task)}
        rows.append(row)
        if len(candidates) > 1:
            progress(
                f"{recipe.name}: kl_lambda {kl_lambda:g} reaches R@P95 {row['r_at_p95_micro']:.3f} on the choosing fold"
            )
        value = row["r_at_p95_micro"] + _F1_WEIGHT * row["f1_macro"]
        if best is None or value > best[0]:
            best = value, fitted
    assert best is not None
    if len(candidates) == 1:
        return best[1]
    return replace(best[1], search=rows)


def check_buildable(recipe: Recipe, task: Task) -> None:
    """Build the network of every stage, so that an unusable recipe raises ConfigError before the first fit."""
    try:
        _RecipeFitter(recipe, task, lambda _line: None, None).check_buildable()
    except ConfigError as problem:
        raise ConfigError(f"{recipe.name}: {problem}") from None


def set_threads(threads: int) -> None:
    """Set the number of torch threads of this process; 0: all cores."""
    torch.set_num_threads(threads or os.cpu_count() or 1)


_F1_WEIGHT = 1e-3
"""Weight of macro-F1 beside R@P95 in the choice of lambda: it decides between equal R@P95."""


@dataclass(slots=True)
class _RecipeFitter:
    """The stages of fitting one recipe."""

    recipe: Recipe
    task: Task
    progress: Progress
    checkpoints: Path | None
    on_epoch: OnEpoch = ignored
    chosen: dict[str, float] = field(default_factory=dict)
    epochs: list[dict[str, Any]] = field(default_factory=list)
    """Rows of the encoders' fits; see :class:`Fitted`."""
    masked_images: Bools | None = None
    """(N,): pictures whose label is probably wrong; set by :meth:`fit_encoders`."""
    _encoded: Examples | None = None
    """The examples of :meth:`fit_model`; every candidate for lambda begins with the same encoders."""

    def check_buildable(self) -> None:
        """Build the network of every stage. Raises ConfigError."""
        recipe = self.recipe
        kind = fusion_class(recipe.model.fusion.kind)
        self._check_frozen()
        self._network(recipe.model, recipe.fit)
        if recipe.adapt is not None and kind.uses_text:
            self._adaptation(recipe.adapt)
        if kind.uses_image:
            if recipe.noise is not None:
                self._network(noise_model_spec(recipe.model, recipe.noise), recipe.noise.fit)
            for stage in ("image", "destruction.fit"):
                if stage in recipe.fits:
                    self._network(single_encoder_spec(recipe.model, "image"), recipe.fits[stage])
        if recipe.text is not None and kind.uses_text:
            for name in recipe.model.texts:
                self._network(single_encoder_spec(recipe.model, name), recipe.text, name=name)

    def fit_encoders(self) -> Weights:
        """Run the stages before the whole model; returns the weights of the encoders that have a stage."""
        recipe, weights = self.recipe, Weights()
        kind = fusion_class(recipe.model.fusion.kind)
        if recipe.adapt is not None and kind.uses_text:
            weights |= self._adapt_encoders(recipe.adapt)
        if kind.uses_image:
            if recipe.noise is not None:
                self.masked_images = flagged_pictures(recipe, self.task, self.progress, self.checkpoints)
                self.chosen["noisy_pictures"] = float(self.masked_images.sum())
            if recipe.image is not None:
                weights |= self._fit_encoder("image", recipe.image, weights)
            if recipe.destruction is not None:
                weights |= self._fit_encoder("image", recipe.destruction.fit, weights, destruction=True)
        if recipe.text is not None and kind.uses_text:
            for name in recipe.model.texts:
                weights |= self._fit_encoder(name, recipe.text, weights)
        return weights

    def fit_model(self, weights: Weights, kl_lambda: float) -> Fitted:
        """Fit the whole model, starting from the ``weights`` of encoders that were fitted before."""
        spec, targets = self.recipe.fit, targets_of(self.task.labels)
        network = self._network(self.recipe.model, spec, weights)
        objective = Classification(targets, kl_lambda, spec.label_smoothing)
        inputs = self._fit_inputs(self.recipe.name, self.recipe.model, spec, self.task.examples)
        inputs = replace(inputs, examples=self._with_frozen_outputs(network, inputs))
        history = loop.run(network, objective, spec, inputs, self.progress)
        stages = [*self.epochs, *_named(inputs.name, history)]
        chosen = self.chosen | _choose_fusion_parameters(network, self.task, spec.seed)
        if fusion_class(self.recipe.model.fusion.kind).learns_modality_weights:
            chosen["kl_lambda"] = kl_lambda
        return Fitted(network, history, chosen, stages=stages)

    def _with_frozen_outputs(self, network: MultiModalNet, inputs: FitInputs) -> Examples:
        """Return the examples of ``inputs``, with the outputs of encoders that the fit leaves as they are."""
        if self._encoded is None:
            rows = np.union1d(inputs.train, inputs.held_out)
            self._encoded = inputs.examples.with_frozen_outputs(network, rows, not self.recipe.fit.augment)
        return self._encoded

    def _adapt_encoders(self, spec: AdaptSpec) -> Weights:
        """Fit the encoders by self-supervision; ConVIRT uses only products with a picture."""
        network, objective = self._adaptation(spec)
        inputs = self._fit_inputs(spec.method, self._adapted_model(spec), spec.fit, self.task.examples)
        rows, held_out, has_image = self.task.self_supervised, inputs.held_out, inputs.examples.has_image
        if spec.method == "convirt":
            rows, held_out = rows[has_image[rows]], held_out[has_image[held_out]]
        if spec.max_products:
            rows = np.sort(np.random.default_rng(spec.fit.seed).permutation(rows)[: spec.max_products])
        self.progress(
            f"{spec.method}: {len(rows)} of {len(self.task.examples.dataset)} products, with or without labels"
        )
        inputs = replace(inputs, train=rows, held_out=held_out)
        self.epochs += _named(inputs.name, loop.run(network, objective, spec.fit, inputs, self.progress))
        return _weights(network)

    def _adaptation(self, spec: AdaptSpec) -> tuple[MultiModalNet, Objective]:
        """Return the network and objective of the self-supervised stage."""
        network = self._network(unfrozen(self._adapted_model(spec)), spec.fit)
        return network, contrast(spec, network)

    def _adapted_model(self, spec: AdaptSpec) -> ModelSpec:
        """Return a model with the encoders that are adapted; its fusion is not used."""
        return replace(self.recipe.model, fusion=FusionSpec(kind="concat" if spec.method == "convirt" else "text_only"))

    def _fit_encoder(self, name: str, spec: FitSpec, weights: Weights, destruction: bool = False) -> Weights:
        """Fit one encoder with linear heads, starting from its ``weights``, if there are any."""
        recipe, targets = self.recipe, targets_of(self.task.labels)
        model, examples = single_encoder_spec(recipe.model, name), self.task.examples.of_encoder(name)
        part = "image" if name == "image" else "text"
        network = self._network(model, spec, {part: weights[name]} if name in weights else {}, name)
        objective: Objective = Classification(targets, label_smoothing=spec.label_smoothing)
        if destruction:
            assert recipe.destruction is not None
            objective = Destruction(network, recipe.destruction, targets)
        inputs = self._fit_inputs(f"{name}{' destruction' * destruction}", model, spec, examples)
        if name == "image":
            visible = examples.has_image if self.masked_images is None else examples.has_image & ~self.masked_images
            train, held_out = (rows[visible[rows]] for rows in (inputs.train, inputs.held_out))
            inputs = replace(inputs, train=train, held_out=held_out)
        self.epochs += _named(inputs.name, loop.run(network, objective, spec, inputs, self.progress))
        return {name: _weights(network)[part]}

    def _network(
        self, model: ModelSpec, spec: FitSpec, weights: Weights | None = None, name: str = ""
    ) -> MultiModalNet:
        """Build a network whose encoders start from ``weights``; ``name`` as in :meth:`Task.new_network`."""
        network = self.task.new_network(model, spec, name)
        for part, encoder in network.encoders().items():
            if weights and part in weights:
                encoder.load_state_dict(weights[part])
        return network

    def _check_frozen(self) -> None:
        """Raise ConfigError for an encoder, or stages of it, that would stay at random weights."""
        recipe, adapt = self.recipe, self.recipe.adapt
        kind = fusion_class(recipe.model.fusion.kind)
        fitted = {"text"} if adapt else set()  # of two text encoders, only the first is adapted
        if adapt and adapt.method == "convirt":
            fitted.add("image")
        if recipe.image or recipe.destruction:
            fitted.add("image")
        if recipe.text:
            fitted |= set(recipe.model.texts)
        texts, image = recipe.model.texts if kind.uses_text else {}, recipe.model.image
        random = {name for name, text in texts.items() if text.frozen and (text.bert or text.random_weights)}
        if kind.uses_image and image.frozen and (image.palette or not image.weights):
            random.add("image")
        if kind.uses_image and image.frozen_stages and not image.weights:
            raise ConfigError(
                "model.image.frozen_stages: the first stages have random weights, and no stage would fit them. Name "
                "pretrained weights (model.image.weights), or set it to 0"
            )
        if never_fitted := sorted(random - fitted):
            raise ConfigError(
                f"model.{' and model.'.join(never_fitted)}: frozen with random weights, and no stage fits it before. "
                "Name pretrained weights, or add a stage [text] or [image]"
            )

    def _fit_inputs(self, name: str, model: ModelSpec, spec: FitSpec, examples: Examples) -> FitInputs:
        return FitInputs(
            name=name,
            examples=examples.with_picture_size(spec.picture_size),
            train=self.task.train,
            held_out=self.task.folds.choosing,
            model=model,
            masked_images=self.masked_images,
            checkpoints=self.checkpoints,
            on_epoch=self.on_epoch,
        )


def _named(stage: str, history: Sequence[Mapping[str, float]]) -> list[dict[str, Any]]:
    return [{"stage": stage, **row} for row in history]


def _weights(network: MultiModalNet) -> Weights:
    """Copy the encoders' weights."""
    return {
        name: {key: value.detach().clone() for key, value in encoder.state_dict().items()}
        for name, encoder in network.encoders().items()
    }


def _choose_fusion_parameters(network: MultiModalNet, task: Task, seed: int) -> dict[str, float]:
    """Choose the fusion's free parameters (late fusion's alpha) on the choosing fold; `ATTRIBUTE/NAME` -> value."""
    rows = task.folds.choosing
    if not len(rows):
        return {}
    outputs = task.examples.outputs(network, rows)
    names = list(network.heads)
    held_out_outputs = FusionOutput(
        tuple(outputs.logits[name].clone() for name in names),
        experts=tuple(tuple(expert[name].clone() for name in names) for expert in outputs.experts),
    )
    targets = targets_of(task.labels)
    device = next(network.parameters()).device
    network.fusion.cpu()
    held_out_targets = [targets[name].known(torch.from_numpy(rows)) for name in names]
    chosen = network.fusion.choose_parameters(held_out_outputs, held_out_targets, seed)
    network.fusion.to(device)
    return {f"{names[int(key.rpartition('/')[2])]}/{key.rpartition('/')[0]}": value for key, value in chosen.items()}


def _choosing_metrics(network: MultiModalNet, task: Task) -> dict[str, float]:
    """Return R@P95, macro-F1 and accuracy on the choosing fold, averaged over the attributes."""
    rows = task.folds.choosing
    outputs = task.examples.outputs(network, rows)
    metrics = []
    for name, head in network.heads.items():
        label = task.labels[name]
        index = rows[label.labelled[rows]]
        scores = probabilities(outputs.logits[name], head).numpy()[label.labelled[rows]]
        metrics.append(attribute_metrics(scores, label, index))
    return {key: float(np.mean([row[key] for row in metrics])) for key in ("r_at_p95_micro", "f1_macro", "accuracy")}
