"""The merger of De la Comble et al. 2022, section 4.1: how much the text counts is decided per product."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from catalog_enrichment.models.fusion.base import (
    SATURATION,
    EncoderOutputs,
    FusionOutput,
    FusionShape,
    VectorFusion,
    linear_heads,
    needed,
)


class ModalityAttention(VectorFusion):
    """p = sigmoid(W [x_txt, x_img] + b); the head sees [p x_txt, (1 - p) x_img] (eq. 2 and 3).

    Every attribute has a p of its own: material may be read where colour has to be seen.
    """

    learns_modality_weights = True

    def __init__(self, sizes: FusionShape, options: Any) -> None:
        super().__init__(sizes, options)
        self.importance = nn.Linear(self.text_width + self.image_width, len(self.heads))
        self.classifiers = linear_heads(self.text_width + self.image_width, self.heads)

    def forward(self, views: EncoderOutputs) -> FusionOutput:
        x_txt, x_img = self.text_vector(views), self.image_vector(views)
        logits = self.importance(torch.cat([x_txt, x_img], dim=1)).float()
        # p stays off 0 and 1, in float32 also under autocast: the KL's gradient is finite, and 1 means "no picture"
        p = torch.sigmoid(logits).clamp(SATURATION, 1 - SATURATION)
        p = torch.where(needed(views.image).present[:, None], p, torch.ones_like(p))  # (B, A)
        scores = [
            classifier(torch.cat([p[:, [place]] * x_txt, (1 - p[:, [place]]) * x_img], dim=1))
            for place, classifier in enumerate(self.classifiers)
        ]
        return FusionOutput(tuple(scores), p)
