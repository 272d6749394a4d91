"""A recipe, top to bottom: adapt the encoders without labels, find wrong labels, fit the encoders one by one, fit the
whole, and let the validation fold choose what is left open."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from catalog_enrichment.errors import ConfigError
from catalog_enrichment.models.fusion import fusion_class
from catalog_enrichment.models.fusion.base import FusionOutput, probabilities
from catalog_enrichment.models.network import MultiModalNet
from catalog_enrichment.models.spec import AdaptSpec, FitSpec, FusionSpec, ModelSpec, Recipe
from catalog_enrichment.training import loop
from catalog_enrichment.training.destruction import Destruction
from catalog_enrichment.training.evaluation import attribute_metrics
from catalog_enrichment.training.examples import Examples
from catalog_enrichment.training.label_noise import flagged_pictures, judge
from catalog_enrichment.training.loop import FitInputs, Progress
from catalog_enrichment.training.objectives import Classification, Objective, targets_of
from catalog_enrichment.training.self_supervision import contrast
from catalog_enrichment.training.single_encoder import (
    new_network,
    single_encoder_examples,
    single_encoder_spec,
    spec_without_unused_encoders,
    unfrozen,
)
from catalog_enrichment.training.task import Task

Weights = dict[str, dict[str, torch.Tensor]]
"""Encoder (text, second_text, image) -> its state."""


@dataclass(frozen=True, slots=True)
class Fitted:
    network: MultiModalNet
    """With the weights of the best epoch, in eval mode, on the device it was fitted on."""
    history: list[dict[str, float]]
    """Per epoch of the last stage: epoch, train_loss, validation_loss, learning_rate, products_per_second."""
    chosen: dict[str, float] = field(default_factory=dict)
    """What the validation fold decided: kl_lambda, `ATTRIBUTE/alpha`; and how many noisy pictures were dropped."""
    search: list[dict[str, Any]] = field(default_factory=list)
    """One row per candidate."""


def fit(recipe: Recipe, task: Task, progress: Progress, checkpoints: Path | None = None) -> Fitted:
    """Fit ``recipe`` on the train fold; validation chooses the epoch, and lambda and alpha where there are any.

    Only products whose attribute is learnable enter that attribute's loss. Same seed, data, machine and number of
    threads: same weights, also when it was interrupted and goes on from ``checkpoints``.
    """
    stages = _Stages(recipe, task, progress, checkpoints)
    weights = stages.encoders()
    search = recipe.search.kl_lambda if fusion_class(recipe.model.fusion.kind).learns_modality_weights else ()
    candidates = search or (recipe.fit.kl_lambda,)
    best: tuple[float, Fitted] | None = None
    rows: list[dict[str, Any]] = []
    for kl_lambda in candidates:
        found = stages.whole(weights, kl_lambda)
        row = {"kl_lambda": kl_lambda, **_judged(found.network, task)}
        rows.append(row)
        if len(candidates) > 1:
            progress(f"{recipe.name}: kl_lambda {kl_lambda:g} reaches R@P95 {row['r_at_p95_micro']:.3f} on validation")
        if best is None or row["r_at_p95_micro"] + _TIE * row["f1_macro"] > best[0]:
            best = row["r_at_p95_micro"] + _TIE * row["f1_macro"], found
    assert best is not None
    if len(candidates) == 1:
        return best[1]
    return replace(best[1], search=rows)


def check_buildable(recipe: Recipe, task: Task) -> None:
    """Build every network that the recipe's stages will want, so that what cannot work fails before the first fit.

    Raises ConfigError.
    """
    try:
        _Stages(recipe, task, lambda _line: None, None).check_buildable()
    except ConfigError as problem:
        raise ConfigError(f"{recipe.name}: {problem}") from None


def set_threads(threads: int) -> None:
    """torch threads of this process; 0: all cores."""
    torch.set_num_threads(threads or os.cpu_count() or 1)


_TIE = 1e-3
"""Between equal R@P95, macro-F1 decides."""


@dataclass(slots=True)
class _Stages:
    recipe: Recipe
    task: Task
    progress: Progress
    checkpoints: Path | None
    chosen: dict[str, float] = field(default_factory=dict)
    hidden: NDArray[np.bool_] | None = None

    def check_buildable(self) -> None:
        recipe = self.recipe
        kind = fusion_class(recipe.model.fusion.kind)
        self._check_frozen()
        self._network(recipe.model, recipe.fit)
        if recipe.adapt is not None and kind.uses_text:
            self._adapting(recipe.adapt)
        if kind.uses_image:
            if recipe.noise is not None:
                self._network(judge(recipe.model, recipe.noise), recipe.noise.fit)
            for stage in ("image", "destruction.fit"):
                if stage in recipe.fits:
                    self._network(single_encoder_spec(recipe.model, "image"), recipe.fits[stage])
        if recipe.text is not None and kind.uses_text:
            for name in recipe.model.texts:
                self._network(single_encoder_spec(recipe.model, name), recipe.text, name=name)

    def encoders(self) -> Weights:
        """The encoders' weights before the whole is fitted; of an encoder without a stage of its own, none."""
        recipe, weights = self.recipe, Weights()
        kind = fusion_class(recipe.model.fusion.kind)
        if recipe.adapt is not None and kind.uses_text:
            weights |= self._adapted(recipe.adapt)
        if kind.uses_image:
            if recipe.noise is not None:
                self.hidden = flagged_pictures(recipe, self.task, self.progress, self.checkpoints)
                self.chosen["noisy_pictures"] = float(self.hidden.sum())
            if recipe.image is not None:
                weights |= self._alone("image", recipe.image, weights)
            if recipe.destruction is not None:
                weights |= self._alone("image", recipe.destruction.fit, weights, destroyed=True)
        if recipe.text is not None and kind.uses_text:
            for name in recipe.model.texts:
                weights |= self._alone(name, recipe.text, weights)
        return weights

    def whole(self, weights: Weights, kl_lambda: float) -> Fitted:
        """Fit the recipe's own network, over encoders that may have been fitted before."""
        spec, targets = self.recipe.fit, targets_of(self.task.labels)
        network = self._network(self.recipe.model, spec, weights)
        objective = Classification(targets, kl_lambda, spec.label_smoothing)
        inputs = self._fit_inputs(self.recipe.name, self.recipe.model, spec)
        history = loop.run(network, objective, spec, inputs, self.progress)
        chosen = self.chosen | _settle(network, self.task, spec.seed)
        if fusion_class(self.recipe.model.fusion.kind).learns_modality_weights:
            chosen["kl_lambda"] = kl_lambda
        return Fitted(network, history, chosen)

    def _adapted(self, spec: AdaptSpec) -> Weights:
        network, objective, crossing = *self._adapting(spec), spec.method == "convirt"
        inputs = self._fit_inputs(spec.method, self._adapted_model(spec), spec.fit)
        rows = self.task.unlabelled
        if crossing:
            rows = rows[inputs.examples.has_image[rows]]
        if spec.max_products:
            rows = np.sort(np.random.default_rng(spec.fit.seed).permutation(rows)[: spec.max_products])
        held = inputs.held_out[inputs.examples.has_image[inputs.held_out]] if crossing else inputs.held_out
        self.progress(f"{spec.method}: {len(rows)} of {len(self.task.examples.dataset)} products, labelled or not")
        loop.run(network, objective, spec.fit, replace(inputs, train=rows, held_out=held), self.progress)
        return _weights(network)

    def _adapting(self, spec: AdaptSpec) -> tuple[MultiModalNet, Objective]:
        network = self._network(unfrozen(self._adapted_model(spec)), spec.fit)
        return network, contrast(spec, network)

    def _adapted_model(self, spec: AdaptSpec) -> ModelSpec:
        """The encoders that are adapted; what joins them does not matter."""
        return replace(self.recipe.model, fusion=FusionSpec(kind="concat" if spec.method == "convirt" else "text_only"))

    def _alone(self, name: str, spec: FitSpec, weights: Weights, destroyed: bool = False) -> Weights:
        """Fit one encoder under linear heads of its own."""
        recipe, targets = self.recipe, targets_of(self.task.labels)
        model, examples = single_encoder_spec(recipe.model, name), single_encoder_examples(self.task.examples, name)
        own = "image" if name == "image" else "text"
        network = self._network(model, spec, {own: weights[name]} if name in weights else {}, name)
        objective: Objective = Classification(targets, label_smoothing=spec.label_smoothing)
        if destroyed:
            assert recipe.destruction is not None
            objective = Destruction(network, recipe.destruction, targets)
        inputs = self._fit_inputs(f"{name}{' destruction' * destroyed}", model, spec, examples)
        if name == "image":
            seen = inputs.examples.has_image & ~(self.hidden if self.hidden is not None else np.False_)
            train, held = (rows[seen[rows]] for rows in (inputs.train, inputs.held_out))
            inputs = replace(inputs, train=train, held_out=held)
        loop.run(network, objective, spec, inputs, self.progress)
        return {name: _weights(network)[own]}

    def _network(
        self, model: ModelSpec, spec: FitSpec, weights: Weights | None = None, name: str = ""
    ) -> MultiModalNet:
        """A network with what its encoders have learned already; ``name``: of its only text encoder."""
        network = new_network(model, spec, self.task, name)
        for part, encoder in network.encoders().items():
            if weights and part in weights:
                encoder.load_state_dict(weights[part])
        return network

    def _check_frozen(self) -> None:
        """An encoder from random weights that no stage fits would stay noise."""
        recipe, adapt = self.recipe, self.recipe.adapt
        kind = fusion_class(recipe.model.fusion.kind)
        learned = {"text"} if adapt else set()  # of two text encoders, the first is adapted
        if adapt and adapt.method == "convirt":
            learned.add("image")
        if recipe.image or recipe.destruction:
            learned.add("image")
        if recipe.text:
            learned |= set(recipe.model.texts)
        texts, image = recipe.model.texts if kind.uses_text else {}, recipe.model.image
        random = {name for name, text in texts.items() if text.frozen and (text.bert or text.random_weights)}
        if kind.uses_image and image.frozen and not image.weights:
            random.add("image")
        if idle := sorted(random - learned):
            raise ConfigError(
                f"model.{' and model.'.join(idle)}: frozen with random weights, and no stage fits it first: it would "
                "stay noise. Name weights, or add [text] or [image]"
            )

    def _fit_inputs(self, name: str, model: ModelSpec, spec: FitSpec, examples: Examples | None = None) -> FitInputs:
        return FitInputs(
            name=name,
            examples=(examples or self.task.examples).at(spec.picture_size),
            train=self.task.train,
            held_out=self.task.folds.validation,
            model=spec_without_unused_encoders(model),
            hidden=self.hidden,
            checkpoints=self.checkpoints,
        )


def _weights(network: MultiModalNet) -> Weights:
    return {
        name: {key: value.detach().clone() for key, value in encoder.state_dict().items()}
        for name, encoder in network.encoders().items()
    }


def _settle(network: MultiModalNet, task: Task, seed: int) -> dict[str, float]:
    """Let the fusion choose, on the validation fold, what it leaves open."""
    rows = task.folds.validation
    if not len(rows):
        return {}
    outputs = task.examples.outputs(network, rows)
    names = list(network.heads)
    held_out = FusionOutput(
        tuple(outputs.logits[name].clone() for name in names),
        experts=tuple(tuple(expert[name].clone() for name in names) for expert in outputs.experts),
    )
    targets = targets_of(task.labels)
    place = next(network.parameters()).device
    network.fusion.cpu()
    chosen = network.fusion.choose_on_validation(
        held_out, [targets[name].known(torch.from_numpy(rows)) for name in names], seed
    )
    network.fusion.to(place)
    return {f"{names[int(key.rpartition('/')[2])]}/{key.rpartition('/')[0]}": value for key, value in chosen.items()}


def _judged(network: MultiModalNet, task: Task) -> dict[str, float]:
    """R@P95 and macro-F1 on the validation fold, averaged over the attributes."""
    rows = task.folds.validation
    outputs = task.examples.outputs(network, rows)
    found = []
    for name, head in network.heads.items():
        label = task.labels[name]
        index = rows[label.labelled[rows]]
        scores = probabilities(outputs.logits[name], head).numpy()[label.labelled[rows]]
        found.append(attribute_metrics(scores, label, index))
    return {key: float(np.mean([row[key] for row in found])) for key in ("r_at_p95_micro", "f1_macro", "accuracy")}
