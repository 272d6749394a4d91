"""The text alone: a baseline, and the deployed model of Chen et al. 2022."""

from __future__ import annotations

from typing import Any

from catalog_enrichment.models.fusion.base import (
    EncoderOutputs,
    FusionOutput,
    FusionShape,
    VectorFusion,
    linear_heads,
    scored_alike,
)


class TextOnly(VectorFusion):
    """The heads get x_txt."""

    uses_image = False

    def __init__(self, shape: FusionShape, options: Any) -> None:
        super().__init__(shape, options)
        self.classifiers = linear_heads(self.text_width, self.heads)

    def forward(self, encoded: EncoderOutputs) -> FusionOutput:
        return FusionOutput(scored_alike(self.classifiers, self.text_vector(encoded)))
