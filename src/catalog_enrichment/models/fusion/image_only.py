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
    """The heads see x_img; without a picture only their bias, the values' frequencies, speaks."""

    uses_text = False

    def __init__(self, sizes: FusionShape, options: Any) -> None:
        super().__init__(sizes, options)
        self.classifiers = linear_heads(self.image_width, self.heads)

    def forward(self, views: EncoderOutputs) -> FusionOutput:
        return FusionOutput(scored_alike(self.classifiers, self.image_vector(views)))
