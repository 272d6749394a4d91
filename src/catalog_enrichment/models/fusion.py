"""From a text vector and an image vector to what each attribute's head sees.

Shapes: B products, H text width, D image width, A attributes, F width of a head's input.

A fusion is one class with one ``forward``; it says which encoders it uses, and only those are built and run. A
product without a picture is the fusion's own business: its image vector is 0, whatever was in it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from catalog_enrichment.errors import ConfigError
from catalog_enrichment.models.spec import FusionSpec

_SATURATION = 1e-6


@dataclass(frozen=True, slots=True)
class Widths:
    """What a fusion is built for."""

    text: int
    image: int
    attributes: int


@dataclass(frozen=True, slots=True)
class Fused:
    features: torch.Tensor
    """(B, A, F)"""
    attention: torch.Tensor | None = None
    """(B, A), the weight on the text, exactly 1 where there is no picture and below 1 elsewhere; None if the fusion
    weighs nothing."""


class Fusion(nn.Module):
    """Base: LayerNorm on what is used (De la Comble et al. 2022, section 4.1), image vector 0 without a picture.

    The unimodal baselines are normalised too, beyond the paper: a sum over tokens grows with the text's length.
    """

    uses_text: ClassVar[bool] = True
    uses_image: ClassVar[bool] = True

    def __init__(self, widths: Widths) -> None:
        super().__init__()
        self.attributes = widths.attributes
        self.width = widths.text * self.uses_text + widths.image * self.uses_image  # F
        if self.uses_text:
            self.text_norm = nn.LayerNorm(widths.text)
        if self.uses_image:
            self.image_norm = nn.LayerNorm(widths.image)

    def forward(self, text: torch.Tensor, image: torch.Tensor, has_image: torch.Tensor) -> Fused:
        """Text (B, H) and image (B, D) vectors, of width 0 where not used; ``has_image`` (B,) bool."""
        raise NotImplementedError

    def normalised_image(self, image: torch.Tensor, has_image: torch.Tensor) -> torch.Tensor:
        """(B, D): normalised, and only then 0 where there is no picture, for LayerNorm(0) is its bias."""
        normalised: torch.Tensor = self.image_norm(image)
        return torch.where(has_image.unsqueeze(1), normalised, torch.zeros_like(normalised))

    def shared(self, features: torch.Tensor) -> torch.Tensor:
        """(B, F) to (B, A, F): every attribute sees the same."""
        return features.unsqueeze(1).expand(-1, self.attributes, -1)


class ModalityAttention(Fusion):
    """p = sigmoid(W [x_txt, x_img] + b); the head sees [p x_txt, (1 - p) x_img] (eq. 2 and 3).

    Every attribute has a p of its own: material may be read where colour has to be seen.
    """

    def __init__(self, widths: Widths) -> None:
        super().__init__(widths)
        self.importance = nn.Linear(self.width, widths.attributes)

    def forward(self, text: torch.Tensor, image: torch.Tensor, has_image: torch.Tensor) -> Fused:
        x_txt, x_img = self.text_norm(text), self.normalised_image(image, has_image)
        logits = self.importance(torch.cat([x_txt, x_img], dim=1)).float()
        # p stays off 0 and 1, in float32 also under autocast: the KL's gradient is finite, and 1 means "no picture"
        p = torch.sigmoid(logits).clamp(_SATURATION, 1 - _SATURATION)
        p = torch.where(has_image.unsqueeze(1), p, torch.ones_like(p))  # (B, A)
        weighted = [p.unsqueeze(2) * x_txt.unsqueeze(1), (1 - p).unsqueeze(2) * x_img.unsqueeze(1)]
        return Fused(torch.cat(weighted, dim=2), p)


class Concat(Fusion):
    """The head sees [x_txt, x_img]: the paper's baseline merger."""

    def forward(self, text: torch.Tensor, image: torch.Tensor, has_image: torch.Tensor) -> Fused:
        return Fused(self.shared(torch.cat([self.text_norm(text), self.normalised_image(image, has_image)], dim=1)))


class TextOnly(Fusion):
    """The head sees x_txt."""

    uses_image = False

    def forward(self, text: torch.Tensor, image: torch.Tensor, has_image: torch.Tensor) -> Fused:  # noqa: ARG002
        return Fused(self.shared(self.text_norm(text)))


class ImageOnly(Fusion):
    """The head sees x_img; without a picture only its bias, the values' frequencies, speaks."""

    uses_text = False

    def forward(self, text: torch.Tensor, image: torch.Tensor, has_image: torch.Tensor) -> Fused:  # noqa: ARG002
        return Fused(self.shared(self.normalised_image(image, has_image)))


FUSIONS: dict[str, type[Fusion]] = {
    "modality_attention": ModalityAttention,
    "concat": Concat,
    "text_only": TextOnly,
    "image_only": ImageOnly,
}
"""Every fusion by its name in a recipe (:data:`catalog_enrichment.models.spec.FusionKind`)."""


def fusion_class(spec: FusionSpec) -> type[Fusion]:
    """The class of the fusion that ``spec`` names. Raises ConfigError for a name that is none."""
    if spec.kind not in FUSIONS:
        raise ConfigError(f"model.fusion.kind: no fusion {spec.kind!r}; there are {sorted(FUSIONS)}")
    return FUSIONS[spec.kind]


def kl_to_uniform(attention: torch.Tensor) -> torch.Tensor:
    """KL(p || 1/2) per element: p log p + (1 - p) log(1 - p) + log 2 (De la Comble et al. 2022, eq. 5).

    0 where p is exactly 1: a product without a picture, which has no choice to be regularised (see :class:`Fused`).
    Any shape; value and gradient are finite everywhere.
    """
    p = attention.clamp(_SATURATION, 1 - _SATURATION)
    divergence = torch.xlogy(p, p) + torch.xlogy(1 - p, 1 - p) + math.log(2)
    return torch.where(attention < 1, divergence, torch.zeros_like(divergence))
