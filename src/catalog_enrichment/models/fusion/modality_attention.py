"""The modality-attention merger of De la Comble et al. 2022, section 4.1: a weight on the text per product."""

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
    """p = sigmoid(W [x_txt, x_img] + b); the head gets [p x_txt, (1 - p) x_img] (eq. 2 and 3).

    Every attribute has its own p: material may depend on the text where colour depends on the picture.
    """

    learns_modality_weights = True

    def __init__(self, shape: FusionShape, options: Any) -> None:
        super().__init__(shape, options)
        self.importance = nn.Linear(self.text_width + self.image_width, len(self.heads))
        self.classifiers = linear_heads(self.text_width + self.image_width, self.heads)

    def forward(self, encoded: EncoderOutputs) -> FusionOutput:
        x_txt, x_img = self.text_vector(encoded), self.image_vector(encoded)
        logits = self.importance(torch.cat([x_txt, x_img], dim=1)).float()
        # clamped in float32, also under autocast: the KL term's gradient is finite, and exactly 1 means "no picture"
        p = torch.sigmoid(logits).clamp(SATURATION, 1 - SATURATION)
        p = torch.where(needed(encoded.image).present[:, None], p, torch.ones_like(p))  # (B, A)
        scores = [
            classifier(torch.cat([p[:, [index]] * x_txt, (1 - p[:, [index]]) * x_img], dim=1))
            for index, classifier in enumerate(self.classifiers)
        ]
        return FusionOutput(tuple(scores), p)
