"""The picture alone: a baseline."""

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


class ImageOnly(VectorFusion):
    """The heads get x_img; without a picture the scores are the heads' bias, the frequencies of the values."""

    uses_text = False

    def __init__(self, shape: FusionShape, options: Any) -> None:
        super().__init__(shape, options)
        self.classifiers = linear_heads(self.image_width, self.heads)

    def forward(self, encoded: EncoderOutputs) -> FusionOutput:
        return FusionOutput(scored_alike(self.classifiers, self.image_vector(encoded)))
