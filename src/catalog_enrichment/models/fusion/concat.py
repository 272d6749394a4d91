"""Concatenation of text and image vector: the baseline merger of De la Comble et al. 2022, and the shallow fusion of
Chen et al. 2021, section 3.3.2: a multi-layer perceptron over the two [CLS] vectors (pooling = "cls"). Both use the
LayerNorm of the former."""

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
    scored_alike,
)


class Concat(VectorFusion):
    """The heads get [x_txt, x_img], through a hidden layer if ``hidden`` > 0."""

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Options:
        hidden: int = 0
        """Width of the hidden layer; 0: none."""

        def __post_init__(self) -> None:
            if self.hidden < 0:
                raise ValueError(f"hidden must not be negative, not {self.hidden}")

    def __init__(self, shape: FusionShape, options: Options) -> None:
        super().__init__(shape, options)
        width = self.text_width + self.image_width
        self.hidden = nn.Sequential(nn.Linear(width, options.hidden), nn.ReLU()) if options.hidden else nn.Identity()
        self.classifiers = linear_heads(options.hidden or width, self.heads)

    def forward(self, encoded: EncoderOutputs) -> FusionOutput:
        joined = torch.cat([self.text_vector(encoded), self.image_vector(encoded)], dim=1)
        return FusionOutput(scored_alike(self.classifiers, self.hidden(joined)))
