"""Decision-level fusion: small networks over the class probabilities of classifiers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from catalog_enrichment.models.fusion.base import (
    EncoderOutputs,
    Fusion,
    FusionOutput,
    FusionShape,
    HeldOutTargets,
    cross_entropy,
    linear_heads,
    logits_of,
    majority,
    needed,
    probabilities,
    scored_alike,
)
from catalog_enrichment.models.spec import Head
from catalog_enrichment.records import Cardinality


class DecisionFusion(Fusion):
    """Decision-level fusion (Bi et al. 2020, section 3.3.2): small networks over class probabilities.

    A classifier per text vector and another for the picture are fitted separately. Then eight networks learn, each on
    seven eighths of the choosing fold, a label from all their class probabilities, keep the epoch with the best
    macro-F1 on the remaining eighth, and vote. An attribute with fewer products on the choosing fold than networks gets
    the mean of its classifiers' probabilities. Without a picture, or a description, the classifier for it gives its
    bias: the frequencies of the values.
    """

    kind = "decision"
    settled: torch.Tensor
    """(A,) bool: the attribute's networks were fitted, so that their vote is used."""

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Options:
        layers: int = 2
        hidden: int = 6
        """Width of the hidden layer of two-layer networks."""
        folds: int = 8
        epochs: int = 40
        learning_rate: float = 0.01
        batch_size: int = 64

        def __post_init__(self) -> None:
            positive = min(self.hidden, self.epochs, self.batch_size) >= 1 and self.learning_rate > 0
            if self.layers not in (1, 2) or self.folds < 2 or not positive:
                raise ValueError(f"layers must be 1 or 2, folds at least 2, the others positive: {self}")

    def __init__(self, shape: FusionShape, options: Options) -> None:
        super().__init__(shape, options)
        widths = [*shape.texts, shape.image]
        self.norms = nn.ModuleList(nn.LayerNorm(width) for width in widths)
        self.classifiers = nn.ModuleList(linear_heads(width, self.heads) for width in widths)
        self.policies = nn.ModuleList(
            nn.ModuleList(_policy(len(widths), head, options) for _ in range(options.folds)) for head in self.heads
        )
        self.policies.requires_grad_(False)  # fitted by choose_parameters() alone
        self.register_buffer("settled", torch.zeros(len(self.heads), dtype=torch.bool))

    def forward(self, encoded: EncoderOutputs) -> FusionOutput:
        experts = []
        for output, norm, classifiers in zip(
            [*encoded.texts, needed(encoded.image)], self.norms, self.classifiers, strict=True
        ):
            normalised = torch.where(output.present[:, None], norm(output.vector), 0.0)
            experts.append(scored_alike(classifiers, normalised))
        return FusionOutput(self._voted(tuple(experts)), experts=tuple(experts))

    def choose_parameters(
        self, held_out: FusionOutput, targets: Sequence[HeldOutTargets], seed: int
    ) -> Mapping[str, float]:
        f1_by_attribute = {}
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            for index, (head, target) in enumerate(zip(self.heads, targets, strict=True)):
                rows, policies = target.learnable, self.policies[index].children()
                if int(rows.sum()) < self.options.folds:
                    continue
                inputs, truth = _inputs(held_out.experts, index, head)[rows], target.truth[rows]
                order = torch.randperm(len(inputs))
                best = [self._learn(policy, head, (inputs, truth), order, k) for k, policy in enumerate(policies)]
                self.settled[index] = True
                f1_by_attribute[f"policy_f1/{index}"] = sum(best) / len(best)
        return f1_by_attribute

    def _voted(self, experts: tuple[tuple[torch.Tensor, ...], ...]) -> tuple[torch.Tensor, ...]:
        """Return the logits (B, V), per attribute, of the policies' vote, or of the experts' mean without policies."""
        scores = []
        for index, head in enumerate(self.heads):
            inputs = _inputs(experts, index, head)
            votes = torch.stack([probabilities(policy(inputs), head) for policy in self.policies[index].children()])
            mean = inputs.reshape(len(inputs), len(experts), len(head.labels)).mean(dim=1)
            voted = torch.where(self.settled[index], majority(votes, head.cardinality), mean)
            scores.append(logits_of(voted, head))
        return tuple(scores)

    def _learn(
        self,
        policy: nn.Module,
        head: Head,
        data: tuple[torch.Tensor, torch.Tensor],
        order: torch.Tensor,
        fold: int,
    ) -> float:
        """Fit a network to all products of ``order`` but the ``fold``-th of ``folds`` parts.

        Keep the epoch with the best macro-F1 on that part, and return this F1.
        """
        (inputs, truth), options = data, self.options
        fold_of_row = torch.arange(len(order)) % options.folds
        held_out, fitted = order[fold_of_row == fold], order[fold_of_row != fold]
        for layer in policy.modules():
            if isinstance(layer, nn.Linear):
                layer.reset_parameters()
        best, kept = -1.0, {name: value.clone() for name, value in policy.state_dict().items()}
        policy.requires_grad_(True)
        optimizer = torch.optim.Adam(policy.parameters(), lr=options.learning_rate)
        for _ in range(options.epochs):
            for batch in torch.split(fitted[torch.randperm(len(fitted))], options.batch_size):
                optimizer.zero_grad()
                cross_entropy(policy(inputs[batch]), truth[batch], head).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
            with torch.no_grad():
                macro_f1 = _macro_f1(policy(inputs[held_out]), truth[held_out], head)
            if macro_f1 > best:
                best, kept = macro_f1, {name: value.clone() for name, value in policy.state_dict().items()}
        policy.load_state_dict(kept)
        policy.requires_grad_(False)
        return best


def _policy(experts: int, head: Head, options: DecisionFusion.Options) -> nn.Module:
    values = len(head.labels)
    if options.layers == 1:
        return nn.Linear(experts * values, values)
    return nn.Sequential(nn.Linear(experts * values, options.hidden), nn.ReLU(), nn.Linear(options.hidden, values))


def _inputs(experts: Sequence[Sequence[torch.Tensor]], attribute: int, head: Head) -> torch.Tensor:
    """Return all class probabilities side by side, without gradient: (B, experts x V). ``attribute`` is an index."""
    return torch.cat([probabilities(expert[attribute].detach(), head) for expert in experts], dim=1)


def _macro_f1(logits: torch.Tensor, truth: torch.Tensor, head: Head) -> float:
    """Return the mean F1 over the labels that occur in ``truth`` or among the predicted values."""
    found = probabilities(logits, head)
    if head.cardinality is Cardinality.ONE:
        predicted = nn.functional.one_hot(found.argmax(dim=1), found.shape[1]).bool()
    else:
        predicted = found >= 0.5
    right = (predicted & (truth > 0.5)).sum(dim=0).double()
    either = (predicted.sum(dim=0) + (truth > 0.5).sum(dim=0)).double()
    return float((2 * right / either)[either > 0].mean()) if either.any() else 0.0
