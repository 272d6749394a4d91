"""Training objectives: losses over a batch, some with weights of their own.

Shapes: B products in a batch, N products of the data set, V values of an attribute.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional

from catalog_enrichment.models.fusion.base import HeldOutTargets, kl_to_uniform
from catalog_enrichment.models.network import ModelInputs, ModelOutputs, MultiModalNet
from catalog_enrichment.records import Cardinality, stable_hash
from catalog_enrichment.training.examples import Examples
from catalog_enrichment.training.folds import Index
from catalog_enrichment.training.labels import Labels

HELD_OUT_BATCH = 128


class HeldOutLoss(NamedTuple):
    loss: float
    """The mean loss on held-out products, by which the best epoch is chosen."""
    by_attribute: Mapping[str, float] = MappingProxyType({})
    """The parts of a loss that is a sum over attributes."""


class Objective(nn.Module):
    """A loss. Its own weights, if it has any, are fitted together with the network's and then discarded."""

    def forward(self, network: MultiModalNet, inputs: ModelInputs, index: torch.Tensor) -> torch.Tensor:
        """Return the loss of a batch, a scalar. ``index`` (B,): the products' positions in the data set."""
        raise NotImplementedError

    def identity(self) -> str:
        """Return a hash of the settings and targets; part of the checkpoint's file name (:mod:`.loop`)."""
        return type(self).__name__

    def held_out(self, network: MultiModalNet, examples: Examples, index: Index) -> HeldOutLoss:
        """Return the loss on held-out products."""
        network.eval()
        self.eval()
        device = next(network.parameters()).device
        total = 0.0
        with torch.no_grad():
            for start in range(0, len(index), HELD_OUT_BATCH):
                rows = index[start : start + HELD_OUT_BATCH]
                inputs = examples.batch(rows).to(device)
                total += float(self(network, inputs, torch.from_numpy(rows))) * len(rows)
        return HeldOutLoss(total / max(len(index), 1))


@dataclass(frozen=True, slots=True)
class Target:
    """The labels of an attribute as tensors over the whole data set."""

    cardinality: Cardinality
    truth: torch.Tensor  # (N, V) float
    learnable: torch.Tensor  # (N,) bool
    refused: torch.Tensor | None = None  # (N, V) bool

    def known(self, index: torch.Tensor) -> HeldOutTargets:
        return HeldOutTargets(self.truth[index], self.learnable[index])


def targets_of(labels: Mapping[str, Labels]) -> dict[str, Target]:
    """Return the labels of every attribute as tensors."""
    return {
        name: Target(
            label.cardinality,
            torch.from_numpy(label.truth).float(),
            torch.from_numpy(label.learnable.copy()),
            None if label.refused is None else torch.from_numpy(label.refused),
        )
        for name, label in labels.items()
    }


class Classification(Objective):
    """Cross-entropy of every attribute, plus the KL term against modality collapse.

    With decision fusion every classifier that is fused has its own cross-entropy.
    """

    def __init__(self, targets: Mapping[str, Target], kl_lambda: float = 0.0, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self._targets, self._kl_lambda, self._smoothing = dict(targets), kl_lambda, label_smoothing

    def identity(self) -> str:
        labels = {name: hashlib.sha256(_bytes(target)).hexdigest() for name, target in self._targets.items()}
        return stable_hash("classification", self._kl_lambda, self._smoothing, labels)

    def forward(self, network: MultiModalNet, inputs: ModelInputs, index: torch.Tensor) -> torch.Tensor:
        return total_loss(network(inputs), self._targets, index, self._kl_lambda, self._smoothing)

    def held_out(self, network: MultiModalNet, examples: Examples, index: Index) -> HeldOutLoss:
        """Return the loss without KL term, label smoothing, dropout and augmentation, over all products at once."""
        outputs, rows = examples.outputs(network, index), torch.from_numpy(index)
        parts = {name: float(total_loss(outputs, {name: target}, rows)) for name, target in self._targets.items()}
        return HeldOutLoss(float(total_loss(outputs, self._targets, rows)), parts)


def _bytes(target: Target) -> bytes:
    refused = b"" if target.refused is None else target.refused.numpy().tobytes()
    return bytes(target.truth.numpy().tobytes()) + refused


def total_loss(
    outputs: ModelOutputs,
    targets: Mapping[str, Target],
    index: torch.Tensor,
    kl_lambda: float = 0.0,
    label_smoothing: float = 0.0,
) -> torch.Tensor:
    """Return the loss of eq. 4 of De la Comble et al. 2022, summed over the attributes.

    The paper sums both terms over the products. Here both are means over the batch: their ratio, and so the effect of
    lambda, does not depend on the batch size. The KL term of a product without a picture is 0.
    """
    outputs_with_loss = outputs.experts or (outputs.logits,)
    losses = [
        attribute_loss(logits[name], target, index, label_smoothing)
        for logits in outputs_with_loss
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
    """Return the mean negative log-likelihood of the learnable products at ``index``, and of those with refused values;
    logits (B, V), index (B,).

    ONE: softmax cross-entropy. MANY: binary cross-entropies, summed over the values, because a product's label set is
    one observation. 0, with gradient 0, if there is no such product.
    """
    learnable = target.learnable[index]
    refused = _refused(logits, target, index, ~learnable)
    if not learnable.any():
        return refused.mean() if len(refused) else logits.sum() * 0.0
    truth = target.truth[index][learnable].to(logits.device)
    scores = logits[learnable.to(logits.device)].float()
    if target.cardinality is Cardinality.ONE:
        known = functional.cross_entropy(scores, truth.argmax(dim=1), label_smoothing=label_smoothing)
    else:
        smooth = truth * (1 - label_smoothing) + 0.5 * label_smoothing
        known = functional.binary_cross_entropy_with_logits(scores, smooth, reduction="none").sum(dim=1).mean()
    if not len(refused):
        return known
    return (known * len(scores) + refused.sum()) / (len(scores) + len(refused))


def _refused(logits: torch.Tensor, target: Target, index: torch.Tensor, among: torch.Tensor) -> torch.Tensor:
    """(R,) negative log-likelihood of the answers about the R products of ``among`` (B,) that have refused values: the
    right value is not among these (ONE: minus the log of the sum of the other probabilities; MANY: binary
    cross-entropies of the refused values alone)."""
    if target.refused is None:
        return logits.new_zeros(0)
    wrong = target.refused[index]
    rows = among & wrong.any(dim=1)
    if target.cardinality is Cardinality.ONE:
        rows &= ~wrong.all(dim=1)  # no learned value is left: the right value is not learned
    wrong, scores = wrong[rows].to(logits.device), logits[rows.to(logits.device)].float()
    if target.cardinality is Cardinality.ONE:
        others = torch.logsumexp(scores.masked_fill(wrong, -torch.inf), dim=1)
        return torch.logsumexp(scores, dim=1) - others
    no = functional.binary_cross_entropy_with_logits(scores, torch.zeros_like(scores), reduction="none")
    return (no * wrong).sum(dim=1)
