"""What a network is fitted to: an objective is a loss over a batch, with whatever weights of its own it needs.

Shapes: B products in a batch, N products of the data set, V values of an attribute.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from catalog_enrichment.models.fusion.base import ValidationTargets, kl_to_uniform
from catalog_enrichment.models.network import ModelInputs, ModelOutputs, MultiModalNet
from catalog_enrichment.records import Cardinality, stable_hash
from catalog_enrichment.training.dataset import Labels
from catalog_enrichment.training.examples import Examples
from catalog_enrichment.training.folds import Index

HELD_OUT_BATCH = 128


class Objective(nn.Module):
    """Its own weights, if it has any, are fitted with the network's and then thrown away."""

    def forward(self, network: MultiModalNet, inputs: ModelInputs, index: torch.Tensor) -> torch.Tensor:
        """The loss of a batch, to be minimised: a scalar. ``index`` (B,): the products' positions in the data set."""
        raise NotImplementedError

    def identity(self) -> str:
        """Of what it asks for, beside the products: two fits with different identities are different fits."""
        return type(self).__name__

    def held_out(self, network: MultiModalNet, examples: Examples, index: Index) -> float:
        """The loss on products that are not learned from; decides which epoch is kept."""
        network.eval()
        self.eval()
        device = next(network.parameters()).device
        total = 0.0
        with torch.no_grad():
            for start in range(0, len(index), HELD_OUT_BATCH):
                rows = index[start : start + HELD_OUT_BATCH]
                inputs = examples.batch(rows).to(device)
                total += float(self(network, inputs, torch.from_numpy(rows))) * len(rows)
        return total / max(len(index), 1)


@dataclass(frozen=True, slots=True)
class Target:
    """One attribute's labels as tensors over the whole data set."""

    cardinality: Cardinality
    truth: torch.Tensor  # (N, V) float
    learnable: torch.Tensor  # (N,) bool

    def known(self, index: torch.Tensor) -> ValidationTargets:
        return ValidationTargets(self.truth[index], self.learnable[index])


def targets_of(labels: Mapping[str, Labels]) -> dict[str, Target]:
    return {
        name: Target(label.cardinality, torch.from_numpy(label.truth).float(), torch.from_numpy(label.learnable.copy()))
        for name, label in labels.items()
    }


class Classification(Objective):
    """Cross-entropy of every attribute, plus the KL term against modality collapse.

    Of a fusion of decisions the classifiers are what learns: each has a cross-entropy of its own.
    """

    def __init__(self, targets: Mapping[str, Target], kl_lambda: float = 0.0, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self._targets, self._kl_lambda, self._smoothing = dict(targets), kl_lambda, label_smoothing

    def identity(self) -> str:
        labels = {
            name: hashlib.sha256(target.truth.numpy().tobytes()).hexdigest() for name, target in self._targets.items()
        }
        return stable_hash("classification", self._kl_lambda, self._smoothing, labels)

    def forward(self, network: MultiModalNet, inputs: ModelInputs, index: torch.Tensor) -> torch.Tensor:
        return total_loss(network(inputs), self._targets, index, self._kl_lambda, self._smoothing)

    def held_out(self, network: MultiModalNet, examples: Examples, index: Index) -> float:
        """Without KL term, smoothing, dropout and augmentation; over the whole fold, not averaged over batches."""
        return float(total_loss(examples.outputs(network, index), self._targets, torch.from_numpy(index)))


def total_loss(
    outputs: ModelOutputs,
    targets: Mapping[str, Target],
    index: torch.Tensor,
    kl_lambda: float = 0.0,
    label_smoothing: float = 0.0,
) -> torch.Tensor:
    """Eq. 4 of De la Comble et al. 2022, per attribute, summed over the attributes.

    The paper sums both terms over the products; here both are means over the batch, which keeps their ratio, and so
    the meaning of lambda, whatever the batch size. A product without a picture adds 0.
    """
    judged = outputs.experts or (outputs.logits,)
    losses = [
        attribute_loss(logits[name], target, index, label_smoothing)
        for logits in judged
        for name, target in targets.items()
    ]
    loss = torch.stack(losses).sum()
    if kl_lambda and outputs.attention is not None:
        for attention in outputs.attention.values():
            loss = loss + kl_lambda * kl_to_uniform(attention).mean()
    return loss


def attribute_loss(
    logits: torch.Tensor, target: Target, index: torch.Tensor, label_smoothing: float = 0.0
) -> torch.Tensor:
    """Mean over the learnable products of ``index`` of their negative log-likelihood; logits (B, V), index (B,).

    ONE: softmax cross-entropy. MANY: binary cross-entropies summed over the values (a product's label set is one
    observation, as a class is). Zero, with a gradient of zero, where no product is learnable.
    """
    chosen = target.learnable[index]
    if not chosen.any():
        return logits.sum() * 0.0
    truth = target.truth[index][chosen].to(logits.device)
    scores = logits[chosen.to(logits.device)].float()
    if target.cardinality is Cardinality.ONE:
        return functional.cross_entropy(scores, truth.argmax(dim=1), label_smoothing=label_smoothing)
    smooth = truth * (1 - label_smoothing) + 0.5 * label_smoothing
    return functional.binary_cross_entropy_with_logits(scores, smooth, reduction="none").sum(dim=1).mean()
