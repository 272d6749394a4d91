"""Late fusion: a classifier for the text and another for the picture, and a weight between their probabilities."""

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
"""The number of values of alpha that are tried: 0, 0.01, ..., 1."""


class Late(VectorFusion):
    """Late fusion (Chen et al. 2021, section 3.3.1): two classifiers, and a weight between their probabilities.

    p = alpha p_txt + (1 - alpha) p_img, and p_txt without a picture (p_img without a text). Each classifier is fitted
    separately. Alpha is chosen per attribute on the choosing fold, by likelihood: it changes smoothly with every
    product, while macro-F1 is noisy on a fold of a few hundred.
    """

    kind = "late"
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
        # without its modality a classifier repeats the other classifier, so that alpha has no effect on the product
        text = _own_or_other(text_logits, image_logits, has_text | ~has_image)
        image = _own_or_other(image_logits, text_logits, has_image)
        scores = tuple(
            logits_of(_mixed(probabilities(text[index], head), probabilities(image[index], head), alpha), head)
            for index, (head, alpha) in enumerate(zip(self.heads, self.alpha, strict=True))
        )
        return FusionOutput(scores, experts=(text, image))

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
                logits = logits_of(_mixed(p_txt, p_img, alpha), head)
                losses.append(cross_entropy(logits, target.truth[rows], head))
            self.alpha[index] = int(torch.stack(losses).argmin()) / (GRID - 1)
            chosen[f"alpha/{index}"] = float(self.alpha[index])
        return chosen


def _mixed(p_txt: torch.Tensor, p_img: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
    return alpha * p_txt + (1 - alpha) * p_img


def _own_or_other(
    own: Sequence[torch.Tensor], other: Sequence[torch.Tensor], present: torch.Tensor
) -> tuple[torch.Tensor, ...]:
    """Return a classifier's own logits where its modality is ``present`` (B,), else the other classifier's, without
    gradient: (B, V) per attribute."""
    return tuple(
        torch.where(present[:, None], own_logits, other_logits.detach())
        for own_logits, other_logits in zip(own, other, strict=True)
    )
