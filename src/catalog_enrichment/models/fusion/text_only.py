"""The text alone: a baseline, and the deployed model of Chen et al. 2022."""

from __future__ import annotations

from typing import Any

from catalog_enrichment.models.fusion.base import Fused, Sizes, VectorFusion, Views, linear_heads, scored_alike


class TextOnly(VectorFusion):
    """The heads see x_txt."""

    uses_image = False

    def __init__(self, sizes: Sizes, options: Any) -> None:
        super().__init__(sizes, options)
        self.classifiers = linear_heads(self.text_width, self.heads)

    def forward(self, views: Views) -> Fused:
        return Fused(scored_alike(self.classifiers, self.text_vector(views)))
