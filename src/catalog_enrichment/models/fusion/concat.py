"""Heads over the vectors of text and picture side by side, or over either alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

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
    """Text and image vector side by side: the baseline merger of De la Comble et al. 2022.

    With a hidden layer it is the shallow fusion of Chen et al. 2021, section 3.3.2: a multi-layer perceptron over the
    two [CLS] vectors (pooling = "cls"). Both use the LayerNorm of the former.
    """

    kind = "concat"

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Options:
        hidden: int = 0
        """Width of the hidden layer; 0: none."""

        def __post_init__(self) -> None:
            if self.hidden < 0:
                raise ValueError(f"hidden must not be negative, not {self.hidden}")

    def __init__(self, shape: FusionShape, options: Options) -> None:
        super().__init__(shape, options)
        width = self.joined_width
        self.hidden = nn.Sequential(nn.Linear(width, options.hidden), nn.ReLU()) if options.hidden else nn.Identity()
        self.classifiers = linear_heads(options.hidden or width, self.heads)

    def forward(self, encoded: EncoderOutputs) -> FusionOutput:
        return FusionOutput(scored_alike(self.classifiers, self.hidden(self.joined_vector(encoded))))


class OneModality(VectorFusion):
    """The base of the baselines that use the text or the picture."""

    def __init__(self, shape: FusionShape, options: Any) -> None:
        super().__init__(shape, options)
        self.classifiers = linear_heads(self.joined_width, self.heads)

    def forward(self, encoded: EncoderOutputs) -> FusionOutput:
        return FusionOutput(scored_alike(self.classifiers, self.joined_vector(encoded)))


class TextOnly(OneModality):
    """The text alone: a baseline, and the deployed model of Chen et al. 2022."""

    kind = "text_only"
    uses_image = False


class ImageOnly(OneModality):
    """The picture alone: a baseline.

    Without a picture the scores are the heads' bias, the frequencies of the values.
    """

    kind = "image_only"
    uses_text = False
