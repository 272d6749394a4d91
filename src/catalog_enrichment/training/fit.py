"""The fit: Adam with warm-up and cosine, cross-entropy plus the KL term of De la Comble et al. 2022, early stopping.

Shapes: B products in a batch, V values of an attribute.
"""

from __future__ import annotations

import copy
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from catalog_enrichment.inputs.tokenizer import TextTokenizer
from catalog_enrichment.models.fusion import kl_to_uniform
from catalog_enrichment.models.network import Head, ModelOutputs, MultiModalNet, build_network, parameter_groups
from catalog_enrichment.models.spec import FitSpec, Recipe
from catalog_enrichment.records import Cardinality
from catalog_enrichment.training.dataset import Labels
from catalog_enrichment.training.examples import Examples
from catalog_enrichment.training.folds import Folds, Index

Progress = Callable[[str], None]
"""Gets one line of text per stage or epoch."""

GRADIENT_NORM = 1.0
"""Gradients are clipped to this norm: one odd batch of a young network must not undo the encoder."""
BUCKET = 16
"""Batches are cut from this many batches' worth of products sorted by length, so that padding costs little."""


@dataclass(frozen=True, slots=True)
class Fitted:
    network: MultiModalNet
    """With the weights of the best epoch, in eval mode, on the device it was fitted on."""
    history: list[dict[str, float]]
    """Per epoch: epoch, train_loss, validation_loss, learning_rate (the largest), products_per_second."""


@dataclass(frozen=True, slots=True)
class Target:
    """One attribute's labels as tensors over the whole data set."""

    cardinality: Cardinality
    truth: torch.Tensor  # (N, V) float
    learnable: torch.Tensor  # (N,) bool


def targets_of(labels: Mapping[str, Labels]) -> dict[str, Target]:
    return {
        name: Target(label.cardinality, torch.from_numpy(label.truth).float(), torch.from_numpy(label.learnable.copy()))
        for name, label in labels.items()
    }


def heads_of(labels: Mapping[str, Labels]) -> dict[str, Head]:
    """A head per attribute, its labels in the order of the truth's columns."""
    return {name: Head(label.cardinality, label.values) for name, label in labels.items()}


@dataclass(frozen=True, slots=True)
class Task:
    """What is to be learned from: the inputs, their tokenizer, the labels of every attribute, the folds."""

    examples: Examples
    tokenizer: TextTokenizer
    labels: Mapping[str, Labels]
    folds: Folds


def fit(recipe: Recipe, task: Task, progress: Progress) -> Fitted:
    """Fit ``recipe`` on the train fold; the epoch with the least validation loss wins.

    Only products whose attribute is learnable enter that attribute's loss. Same seed, data, machine and number of
    threads: same weights.
    """
    spec = recipe.fit
    torch.manual_seed(spec.seed)
    network = build_network(recipe.model, heads_of(task.labels), task.tokenizer).to(device())
    loop = _Loop(network, spec, task)
    best, best_loss, waited = copy.deepcopy(network.state_dict()), math.inf, 0
    history: list[dict[str, float]] = []
    for epoch in range(1, spec.epochs + 1):
        row = {"epoch": float(epoch), **loop.epoch(), "validation_loss": loop.loss_on(task.folds.validation)}
        history.append(row)
        progress(
            f"{recipe.name}: epoch {epoch}/{spec.epochs}, loss {row['train_loss']:.3f}, "
            f"validation {row['validation_loss']:.3f}, {row['products_per_second']:.0f} products/s"
        )
        if row["validation_loss"] < best_loss:
            best, best_loss, waited = copy.deepcopy(network.state_dict()), row["validation_loss"], 0
        else:
            waited += 1
        if spec.patience and waited >= spec.patience:
            progress(f"{recipe.name}: no better for {waited} epochs, stopped")
            break
    network.load_state_dict(best)
    return Fitted(network.eval(), history)


def device() -> str:
    """Where models are fitted and scored: the GPU, if there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def set_threads(threads: int) -> None:
    """torch threads of this process; 0: all cores."""
    torch.set_num_threads(threads or os.cpu_count() or 1)


def attribute_loss(logits: torch.Tensor, target: Target, index: torch.Tensor) -> torch.Tensor:
    """Mean over the learnable products of ``index`` of their negative log-likelihood; logits (B, V), index (B,).

    ONE: softmax cross-entropy. MANY: binary cross-entropies summed over the values (a product's label set is one
    observation, as a class is). Zero, with a gradient of zero, where no product is learnable.
    """
    chosen = target.learnable[index]
    if not chosen.any():
        return logits.sum() * 0.0
    truth = target.truth[index][chosen].to(logits.device)
    scores = logits[chosen.to(logits.device)]
    if target.cardinality is Cardinality.ONE:
        return functional.cross_entropy(scores, truth.argmax(dim=1))
    return functional.binary_cross_entropy_with_logits(scores, truth, reduction="none").sum(dim=1).mean()


def total_loss(
    outputs: ModelOutputs, targets: Mapping[str, Target], index: torch.Tensor, kl_lambda: float = 0.0
) -> torch.Tensor:
    """Eq. 4 of De la Comble et al. 2022, per attribute, summed over the attributes.

    The paper sums both terms over the products; here both are means over the batch, which keeps their ratio, and so
    the meaning of lambda, whatever the batch size. A product without a picture adds 0.
    """
    loss = torch.stack([attribute_loss(outputs.logits[name], target, index) for name, target in targets.items()]).sum()
    if kl_lambda and outputs.attention is not None:
        for attention in outputs.attention.values():
            loss = loss + kl_lambda * kl_to_uniform(attention).mean()
    return loss


def learning_rate_factor(step: int, steps: int, spec: FitSpec) -> float:
    """The factor on the configured learning rates at ``step`` of ``steps``: linear warm-up, then cosine to 0."""
    if spec.schedule == "constant":
        return 1.0
    warmup = max(1, round(spec.warmup_share * steps))
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1.0 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


class _Loop:
    """Optimizer, schedule and batches of one fit."""

    def __init__(self, network: MultiModalNet, spec: FitSpec, task: Task) -> None:
        self._network, self._spec, self._examples = network, spec, task.examples
        self._targets = targets_of(task.labels)
        learnable = np.any([label.learnable for label in task.labels.values()], axis=0)
        self._train = task.folds.train[learnable[task.folds.train]]
        self._random = np.random.default_rng(spec.seed)
        self._steps = spec.epochs * math.ceil(len(self._train) / spec.batch_size)
        self._optimizer = torch.optim.AdamW(parameter_groups(network, spec))
        self._schedule = torch.optim.lr_scheduler.LambdaLR(
            self._optimizer, lambda step: learning_rate_factor(step, self._steps, spec)
        )

    def epoch(self) -> dict[str, float]:
        """One pass over the train fold."""
        started, losses = time.perf_counter(), []
        self._network.train()
        rate = max(group["lr"] for group in self._optimizer.param_groups)
        for index in self._batches():
            hidden = self._hidden(index)
            inputs = self._examples.batch(index, hidden, self._random if self._spec.augment else None)
            outputs = self._network(inputs.to(self._device))
            loss = total_loss(outputs, self._targets, torch.from_numpy(index), self._spec.kl_lambda)
            self._optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(self._network.parameters(), GRADIENT_NORM)
            self._optimizer.step()
            self._schedule.step()
            losses.append(loss.detach() * len(index))
        seconds = time.perf_counter() - started
        return {
            "train_loss": float(torch.stack(losses).sum()) / len(self._train),
            "learning_rate": float(rate),
            "products_per_second": len(self._train) / seconds,
        }

    def loss_on(self, index: Index) -> float:
        """The loss without KL term, dropout and augmentation; over the whole fold, not averaged over batches."""
        outputs = self._examples.outputs(self._network, index)
        return float(total_loss(outputs, self._targets, torch.from_numpy(index)))

    @property
    def _device(self) -> torch.device:
        return next(self._network.parameters()).device

    def _hidden(self, index: Index) -> NDArray[np.bool_]:
        """(B,): whose picture is hidden in this step. A lone one is too: batch statistics need at least two."""
        hidden = self._random.random(len(index)) < self._spec.image_dropout
        alone = np.count_nonzero(self._examples.has_image[index] & ~hidden) == 1
        return np.asarray(hidden | alone)

    def _batches(self) -> Iterator[Index]:
        """Shuffled batches of neighbours in length, in shuffled order."""
        size = self._spec.batch_size
        order = self._random.permutation(self._train)
        batches: list[Any] = []
        for start in range(0, len(order), size * BUCKET):
            bucket = order[start : start + size * BUCKET]
            bucket = bucket[np.argsort(self._examples.lengths[bucket], kind="stable")]
            batches += [bucket[at : at + size] for at in range(0, len(bucket), size)]
        for position in self._random.permutation(len(batches)):
            yield batches[position]
