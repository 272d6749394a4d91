"""Late fusion (Chen et al. 2021, section 3.3.1): two classifiers, and one weight between their probabilities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from catalog_enrichment.models.fusion.base import (
    Fused,
    Known,
    Sizes,
    VectorFusion,
    Views,
    cross_entropy,
    linear_heads,
    logits_of,
    needed,
    probabilities,
    scored_alike,
)

GRID = 101
"""Values of alpha that are tried: 0, 0.01, ..., 1."""


class Late(VectorFusion):
    """p = alpha p_txt + (1 - alpha) p_img, and p_txt without a picture (p_img without a text).

    Each classifier learns by itself. Alpha is chosen per attribute on a held-out fold, by likelihood: it moves
    smoothly with every product, where macro-F1 jumps on a fold of few hundred.
    """

    alpha: torch.Tensor

    def __init__(self, sizes: Sizes, options: Any) -> None:
        super().__init__(sizes, options)
        self.text_classifiers = linear_heads(self.text_width, self.heads)
        self.image_classifiers = linear_heads(self.image_width, self.heads)
        self.register_buffer("alpha", torch.full((len(self.heads),), 0.5))

    def forward(self, views: Views) -> Fused:
        reads = scored_alike(self.text_classifiers, self.text_vector(views))
        looks = scored_alike(self.image_classifiers, self.image_vector(views))
        has_text = torch.stack([view.present for view in views.texts]).any(dim=0)
        has_image = needed(views.image).present
        # who has nothing to go by repeats the other: alpha then changes nothing, neither here nor in settle()
        text = _or_else(reads, looks, has_text | ~has_image)
        image = _or_else(looks, reads, has_image)
        scores = []
        for place, head in enumerate(self.heads):
            alpha = self.alpha[place]
            mixed = alpha * probabilities(text[place], head) + (1 - alpha) * probabilities(image[place], head)
            scores.append(logits_of(mixed, head))
        return Fused(tuple(scores), experts=(text, image))

    def settle(self, held_out: Fused, known: Sequence[Known], seed: int) -> Mapping[str, float]:  # noqa: ARG002
        chosen = {}
        text, image = held_out.experts
        for place, (head, fact) in enumerate(zip(self.heads, known, strict=True)):
            rows = fact.learnable & (text[place] != image[place]).any(dim=1)  # the others have no say about alpha
            if not rows.any():
                continue
            p_txt, p_img = (probabilities(expert[place][rows], head) for expert in (text, image))
            losses = []
            for alpha in torch.linspace(0, 1, GRID):
                logits = logits_of(alpha * p_txt + (1 - alpha) * p_img, head)
                losses.append(cross_entropy(logits, fact.truth[rows], head))
            self.alpha[place] = int(torch.stack(losses).argmin()) / (GRID - 1)
            chosen[f"alpha/{place}"] = float(self.alpha[place])
        return chosen


def _or_else(
    own: Sequence[torch.Tensor], other: Sequence[torch.Tensor], sees: torch.Tensor
) -> tuple[torch.Tensor, ...]:
    """Per attribute (B, V): a classifier's own logits where it ``sees`` (B,) something, else the other's. It learns
    nothing there."""
    return tuple(torch.where(sees[:, None], mine, its.detach()) for mine, its in zip(own, other, strict=True))
