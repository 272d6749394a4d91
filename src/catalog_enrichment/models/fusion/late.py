"""Late fusion (Chen et al. 2021, section 3.3.1): two classifiers, and one weight between their probabilities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from catalog_enrichment.models.fusion.base import (
    EncoderOutputs,
    FusionOutput,
    FusionShape,
    HeldOutTargets,
    VectorFusion,
    cross_entropy,
    linear_heads,
    logits_of,
    needed,
    probabilities,
    scored_alike,
)

GRID = 101
"""Number of values of alpha that are tried: 0, 0.01, ..., 1."""


class Late(VectorFusion):
    """p = alpha p_txt + (1 - alpha) p_img, and p_txt without a picture (p_img without a text).

    Each classifier is fitted separately. Alpha is chosen per attribute on the choosing fold, by likelihood: it
    changes smoothly with every product, while macro-F1 is noisy on a fold of a few hundred.
    """

    alpha: torch.Tensor

    def __init__(self, shape: FusionShape, options: Any) -> None:
        super().__init__(shape, options)
        self.text_classifiers = linear_heads(self.text_width, self.heads)
        self.image_classifiers = linear_heads(self.image_width, self.heads)
        self.register_buffer("alpha", torch.full((len(self.heads),), 0.5))

    def forward(self, encoded: EncoderOutputs) -> FusionOutput:
        text_logits = scored_alike(self.text_classifiers, self.text_vector(encoded))
        image_logits = scored_alike(self.image_classifiers, self.image_vector(encoded))
        has_text = torch.stack([output.present for output in encoded.texts]).any(dim=0)
        has_image = needed(encoded.image).present
        # without its modality a classifier repeats the other one, so that alpha has no effect on the product
        text = _own_or_other(text_logits, image_logits, has_text | ~has_image)
        image = _own_or_other(image_logits, text_logits, has_image)
        scores = []
        for index, head in enumerate(self.heads):
            alpha = self.alpha[index]
            mixed = alpha * probabilities(text[index], head) + (1 - alpha) * probabilities(image[index], head)
            scores.append(logits_of(mixed, head))
        return FusionOutput(tuple(scores), experts=(text, image))

    def choose_parameters(
        self,
        held_out: FusionOutput,
        targets: Sequence[HeldOutTargets],
        seed: int,  # noqa: ARG002
    ) -> Mapping[str, float]:
        chosen = {}
        text, image = held_out.experts
        for index, (head, target) in enumerate(zip(self.heads, targets, strict=True)):
            rows = target.learnable & (text[index] != image[index]).any(dim=1)  # alpha has no effect on the others
            if not rows.any():
                continue
            p_txt, p_img = (probabilities(expert[index][rows], head) for expert in (text, image))
            losses = []
            for alpha in torch.linspace(0, 1, GRID):
                logits = logits_of(alpha * p_txt + (1 - alpha) * p_img, head)
                losses.append(cross_entropy(logits, target.truth[rows], head))
            self.alpha[index] = int(torch.stack(losses).argmin()) / (GRID - 1)
            chosen[f"alpha/{index}"] = float(self.alpha[index])
        return chosen


def _own_or_other(
    own: Sequence[torch.Tensor], other: Sequence[torch.Tensor], present: torch.Tensor
) -> tuple[torch.Tensor, ...]:
    """Per attribute (B, V): a classifier's own logits where its modality is ``present`` (B,), else the other
    classifier's, without gradient."""
    return tuple(
        torch.where(present[:, None], own_logits, other_logits.detach())
        for own_logits, other_logits in zip(own, other, strict=True)
    )
