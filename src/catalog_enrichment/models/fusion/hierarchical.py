"""Hierarchical fusion: parts are joined level by level."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from catalog_enrichment.models.fusion.base import (
    EncoderOutputs,
    Fusion,
    FusionOutput,
    FusionShape,
    linear_heads,
    needed,
    same_width,
    scored_alike,
)

Join = Literal["add", "concat", "average"]


class Hierarchical(Fusion):
    """Hierarchical fusion (Tashu et al. 2022, section III), with a three-layer network on top.

    It joins title with description, encoder with encoder, and text with picture, each by adding, concatenating or
    averaging. A missing text or picture is 0 in a sum or a concatenation, and is left out of an average.
    """

    kind = "hierarchical"

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Options:
        fields: Join = "average"
        """Title with description."""
        texts: Join = "average"
        """First with second text encoder."""
        modalities: Join = "average"
        """Text with picture."""
        hidden: int = 256
        """Width of the two hidden layers."""

        def __post_init__(self) -> None:
            if self.hidden < 1:
                raise ValueError(f"hidden must be positive, not {self.hidden}")

    def __init__(self, shape: FusionShape, options: Options) -> None:
        super().__init__(shape, options)
        self.fields = shape.fields
        encoders = [shape.texts[start : start + shape.fields] for start in range(0, len(shape.texts), shape.fields)]
        text = joined_width([joined_width(widths, options.fields) for widths in encoders], options.texts)
        self.projection = Projection(text)
        width = joined_width([text, text], options.modalities)
        self.hidden = nn.Sequential(
            nn.Linear(width, options.hidden), nn.ReLU(), nn.Linear(options.hidden, options.hidden), nn.ReLU()
        )
        self.classifiers = linear_heads(options.hidden, self.heads)

    def forward(self, encoded: EncoderOutputs) -> FusionOutput:
        image, parts = needed(encoded.image), []
        for start in range(0, len(encoded.texts), self.fields):
            group = encoded.texts[start : start + self.fields]
            present = [output.present for output in group]
            vector = join([output.vector for output in group], present, self.options.fields)
            parts.append((vector, torch.stack(present).any(dim=0)))
        text = join([vector for vector, _ in parts], [present for _, present in parts], self.options.texts)
        has_text = torch.stack([present for _, present in parts]).any(dim=0)
        projected = torch.where(image.present[:, None], self.projection(image.vector), 0.0)
        top = join([text, projected], [has_text, image.present], self.options.modalities)
        return FusionOutput(scored_alike(self.classifiers, self.hidden(top)))


class Projection(nn.Module):
    """The step from an image vector (B, D) to the text's width (B, H): 1-D convolution along it, then max-pooling."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(1, 1, kernel_size=3, padding=1)
        self.pool = nn.AdaptiveMaxPool1d(width)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        projected: torch.Tensor = self.pool(self.convolution(image.unsqueeze(1))).squeeze(1)
        return projected


def joined_width(widths: Sequence[int], how: Join) -> int:
    return sum(widths) if how == "concat" else same_width(widths, f"hierarchical fusion by {how}")


def join(vectors: Sequence[torch.Tensor], present: Sequence[torch.Tensor], how: Join) -> torch.Tensor:
    """Join vectors (B, W), each 0 where not ``present`` (B,), into a vector (Tashu et al. 2022, section III-C)."""
    if how == "concat":
        return torch.cat(list(vectors), dim=1)
    total = torch.stack(list(vectors)).sum(dim=0)
    if how == "add":
        return total
    return total / torch.stack(list(present)).sum(dim=0).clamp(min=1).unsqueeze(1)
