"""Decision-level fusion (Bi et al. 2020, section 3.3.2): a small network over the class probabilities of classifiers.

One classifier per view of the text and one for the picture learn by themselves. Then eight networks learn, each on
seven eighths of the validation fold, what to make of all their class probabilities, keep the epoch that is best by
macro-F1 on the eighth they did not see, and vote.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from catalog_enrichment.classification_metrics import f1, predictions
from catalog_enrichment.models.fusion.base import (
    Fused,
    Fusion,
    Known,
    Sizes,
    Views,
    cross_entropy,
    linear_heads,
    logits_of,
    needed,
    probabilities,
    scored_alike,
)
from catalog_enrichment.models.spec import Head
from catalog_enrichment.models.vote import majority


class Decision(Fusion):
    """A product without a picture, or a description, is judged there by its classifier's bias: the frequencies.

    The classifiers see normalised vectors, as those of the other fusions do. An attribute that too few validation
    products have, fewer than there are networks, gets the mean of its classifiers' probabilities.
    """

    settled: torch.Tensor

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

    def __init__(self, sizes: Sizes, options: Options) -> None:
        super().__init__(sizes, options)
        widths = [*sizes.texts, sizes.image]
        self.norms = nn.ModuleList(nn.LayerNorm(width) for width in widths)
        self.classifiers = nn.ModuleList(linear_heads(width, self.heads) for width in widths)
        self.policies = nn.ModuleList(
            nn.ModuleList(_policy(len(widths), head, options) for _ in range(options.folds)) for head in self.heads
        )
        self.policies.requires_grad_(False)  # they learn in settle(), from products that the classifiers never saw
        self.register_buffer("settled", torch.zeros(len(self.heads), dtype=torch.bool))

    def forward(self, views: Views) -> Fused:
        experts = []
        for view, norm, classifiers in zip(
            [*views.texts, needed(views.image)], self.norms, self.classifiers, strict=True
        ):
            normalised = torch.where(view.present[:, None], norm(view.vector), 0.0)
            experts.append(scored_alike(_list(classifiers), normalised))
        return Fused(self._voted(tuple(experts)), experts=tuple(experts))

    def settle(self, held_out: Fused, known: Sequence[Known], seed: int) -> Mapping[str, float]:
        reached = {}
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            for place, (head, fact) in enumerate(zip(self.heads, known, strict=True)):
                rows, policies = fact.learnable, _list(self.policies[place])
                if int(rows.sum()) < self.options.folds:
                    continue
                inputs, truth = _inputs(held_out.experts, place, head)[rows], fact.truth[rows]
                order = torch.randperm(len(inputs))
                best = [self._learn(policy, head, (inputs, truth), order, k) for k, policy in enumerate(policies)]
                self.settled[place] = True
                reached[f"policy_f1/{place}"] = sum(best) / len(best)
        return reached

    def _voted(self, experts: tuple[tuple[torch.Tensor, ...], ...]) -> tuple[torch.Tensor, ...]:
        scores = []
        for place, head in enumerate(self.heads):
            inputs = _inputs(experts, place, head)
            votes = torch.stack([probabilities(policy(inputs), head) for policy in _list(self.policies[place])])
            mean = inputs.reshape(len(inputs), len(experts), len(head.labels)).mean(dim=1)
            voted = torch.where(self.settled[place], majority(votes, head.cardinality), mean)
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
        """Fit one network to all but every ``folds``-th product of ``order``; returns its best macro-F1 on those."""
        (inputs, truth), options = data, self.options
        place = torch.arange(len(order))
        held, seen = order[place % options.folds == fold], order[place % options.folds != fold]
        for layer in policy.modules():
            if isinstance(layer, nn.Linear):
                layer.reset_parameters()
        best, kept = -1.0, {name: value.clone() for name, value in policy.state_dict().items()}
        policy.requires_grad_(True)
        optimizer = torch.optim.Adam(policy.parameters(), lr=options.learning_rate)
        for _ in range(options.epochs):
            for batch in torch.split(seen[torch.randperm(len(seen))], options.batch_size):
                optimizer.zero_grad()
                cross_entropy(policy(inputs[batch]), truth[batch], head).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
            with torch.no_grad():
                reached = _macro_f1(policy(inputs[held]), truth[held], head)
            if reached > best:
                best, kept = reached, {name: value.clone() for name, value in policy.state_dict().items()}
        policy.load_state_dict(kept)
        policy.requires_grad_(False)
        return best


def _list(module: nn.Module) -> nn.ModuleList:
    """A list within a list, for the type checker."""
    assert isinstance(module, nn.ModuleList)
    return module


def _policy(experts: int, head: Head, options: Decision.Options) -> nn.Module:
    values = len(head.labels)
    if options.layers == 1:
        return nn.Linear(experts * values, values)
    return nn.Sequential(nn.Linear(experts * values, options.hidden), nn.ReLU(), nn.Linear(options.hidden, values))


def _inputs(experts: Sequence[Sequence[torch.Tensor]], place: int, head: Head) -> torch.Tensor:
    """(B, experts x V): all class probabilities side by side. No gradient goes back into the classifiers."""
    return torch.cat([probabilities(expert[place].detach(), head) for expert in experts], dim=1)


def _macro_f1(logits: torch.Tensor, truth: torch.Tensor, head: Head) -> float:
    predicted = predictions(probabilities(logits, head).numpy(), head.cardinality)
    return f1(predicted, truth.numpy() > 0.5).macro
