"""The gated multimodal unit of Arevalo et al. 2017, "Gated Multimodal Units for Information Fusion", section 3.1.

h_t = tanh(W_t x_t), h_v = tanh(W_v x_v), z = sigmoid(W_z [x_t, x_v]), h = z h_t + (1 - z) h_v, and a linear head per
attribute on h. Without a picture h is h_t.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from catalog_enrichment.models.fusion.base import (
    EncoderOutputs,
    FusionOutput,
    FusionShape,
    VectorFusion,
    linear_heads,
    needed,
    scored_alike,
)


class GatedMultimodalUnit(VectorFusion):
    """A gate per unit of the joint vector, learned with the heads."""

    kind = "gated_multimodal_unit"

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Options:
        width: int = 128
        """Width of the joint vector."""

        def __post_init__(self) -> None:
            if self.width < 1:
                raise ValueError(f"width must be positive, not {self.width}")

    def __init__(self, shape: FusionShape, options: Options) -> None:
        super().__init__(shape, options)
        self.text_layer = nn.Linear(self.text_width, options.width)
        self.image_layer = nn.Linear(self.image_width, options.width)
        self.gate = nn.Linear(self.text_width + self.image_width, options.width)
        self.classifiers = linear_heads(options.width, self.heads)

    def forward(self, encoded: EncoderOutputs) -> FusionOutput:
        x_txt, x_img = self.text_vector(encoded), self.image_vector(encoded)  # (B, H), (B, D)
        text, image = torch.tanh(self.text_layer(x_txt)), torch.tanh(self.image_layer(x_img))  # (B, width)
        gate = torch.sigmoid(self.gate(torch.cat([x_txt, x_img], dim=1)))  # (B, width)
        has_image = needed(encoded.image).present[:, None]  # (B, 1)
        joint = torch.where(has_image, gate * text + (1 - gate) * image, text)
        return FusionOutput(scored_alike(self.classifiers, joint))
