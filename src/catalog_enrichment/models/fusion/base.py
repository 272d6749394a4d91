"""What every fusion gets and gives.

Shapes: B products, T tokens of a text, M tokens of a picture, H text width, D image width, A attributes, V values of
an attribute, F width of a head's input.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional

from catalog_enrichment.errors import ConfigError
from catalog_enrichment.models.spec import Head
from catalog_enrichment.records import Cardinality

SATURATION = 1e-6
"""A probability that is a weight stays this far from 0 and 1, so that its logarithm has a finite gradient."""


@dataclass(frozen=True, slots=True)
class EncoderOutput:
    """What one encoder saw of one text, or of the picture, of B products."""

    vector: torch.Tensor
    """(B, H) or (B, D); 0 where the product has no such text or picture."""
    tokens: torch.Tensor
    """(B, T, H) or (B, M, D); the first stands for the whole, as [CLS] does."""
    mask: torch.Tensor
    """(B, T) or (B, M) bool: tokens, not padding; nowhere true where the product has no such text or picture."""
    present: torch.Tensor
    """(B,) bool."""

    @classmethod
    def of(cls, vector: torch.Tensor, tokens: torch.Tensor, mask: torch.Tensor, present: torch.Tensor) -> EncoderOutput:
        """A view with nothing left of the products that have no such text or picture."""
        return cls(
            torch.where(present[:, None], vector, torch.zeros_like(vector)),
            torch.where(present[:, None, None], tokens, torch.zeros_like(tokens)),
            mask.bool() & present[:, None],
            present,
        )


@dataclass(frozen=True, slots=True)
class EncoderOutputs:
    """Only those that the fusion uses; the others are an empty tuple and None."""

    texts: tuple[EncoderOutput, ...] = ()
    """Encoder by encoder, and of each the title before the description where it reads them apart."""
    image: EncoderOutput | None = None


@dataclass(frozen=True, slots=True)
class FusionShape:
    """What a fusion is built for."""

    texts: tuple[int, ...]
    """Width of each view of the text, in the order of :attr:`EncoderOutputs.texts`."""
    fields: int
    """Texts of a product that each text encoder reads: 1, or 2 where title and description are apart."""
    image: int
    heads: tuple[Head, ...]
    """One per attribute."""


@dataclass(frozen=True, slots=True)
class FusionOutput:
    logits: tuple[torch.Tensor, ...]
    """Per attribute (B, V): what softmax (one value) or sigmoid (many) turns into probabilities."""
    attention: torch.Tensor | None = None
    """(B, A), the weight on the text: exactly 1 where there is no picture and below 1 elsewhere; None if the fusion
    weighs nothing."""
    experts: tuple[tuple[torch.Tensor, ...], ...] = ()
    """Per expert and attribute (B, V) logits, of a fusion of decisions. The experts then are what is fitted."""


@dataclass(frozen=True, slots=True)
class ValidationTargets:
    """What is known of some products about one attribute."""

    truth: torch.Tensor
    """(n, V) float."""
    learnable: torch.Tensor
    """(n,) bool."""


class Fusion(nn.Module):
    """Base of all: which encoders are built and run, and what comes of what they saw."""

    uses_text: ClassVar[bool] = True
    uses_image: ClassVar[bool] = True
    learns_modality_weights: ClassVar[bool] = False
    """Gives an attention, which the KL term can pull towards one half."""
    uses_tokens: ClassVar[bool] = False
    """Looks at the picture's tokens, which some image encoders make of another width than its vector."""

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Options:
        """What a recipe may set in `model.fusion.options`."""

    def __init__(self, sizes: FusionShape, options: Any) -> None:
        super().__init__()
        self.heads, self.options = sizes.heads, options

    def forward(self, views: EncoderOutputs) -> FusionOutput:
        raise NotImplementedError

    def choose_on_validation(
        self, held_out: FusionOutput, targets: Sequence[ValidationTargets], seed: int
    ) -> Mapping[str, float]:
        """Choose what the fit leaves open, on the validation fold: ``held_out`` is what this fusion gave for it.

        Returns what was chosen, for the log. Called once, after the fit; most fusions have nothing to choose.
        """
        del held_out, targets, seed
        return {}


class VectorFusion(Fusion):
    """Base of those that join vectors: LayerNorm on each modality (De la Comble et al. 2022, section 4.1), then a
    linear head per attribute.

    The unimodal ones are normalised too, beyond the paper: a sum over tokens grows with the text's length.
    """

    def __init__(self, sizes: FusionShape, options: Any) -> None:
        super().__init__(sizes, options)
        self.text_width = sum(sizes.texts) if self.uses_text else 0
        self.image_width = sizes.image if self.uses_image else 0
        if self.uses_text:
            self.text_norm = nn.LayerNorm(self.text_width)
        if self.uses_image:
            self.image_norm = nn.LayerNorm(self.image_width)

    def text_vector(self, views: EncoderOutputs) -> torch.Tensor:
        """(B, H): all texts side by side, normalised."""
        normalised: torch.Tensor = self.text_norm(torch.cat([view.vector for view in views.texts], dim=1))
        return normalised

    def image_vector(self, views: EncoderOutputs) -> torch.Tensor:
        """(B, D): normalised, and only then 0 where there is no picture, for LayerNorm(0) is its bias."""
        image = needed(views.image)
        normalised: torch.Tensor = self.image_norm(image.vector)
        return torch.where(image.present[:, None], normalised, torch.zeros_like(normalised))


def needed(image: EncoderOutput | None) -> EncoderOutput:
    if image is None:
        raise ValueError("this fusion uses pictures, and was given none to look at")
    return image


def linear_heads(width: int, heads: Sequence[Head]) -> nn.ModuleList:
    """A linear classifier (F to V) per attribute.

    A list, in the order of the heads: a ModuleDict refuses attribute names such as "type" or "net.weight".
    """
    return nn.ModuleList(nn.Linear(width, len(head.labels)) for head in heads)


def scored_alike(classifiers: nn.ModuleList, features: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Per attribute (B, V): every head sees the same (B, F)."""
    return tuple(classifier(features) for classifier in classifiers)


def probabilities(logits: torch.Tensor, head: Head) -> torch.Tensor:
    """(B, V) in float32, whatever the forward pass ran in."""
    return logits.float().softmax(dim=1) if head.cardinality is Cardinality.ONE else logits.float().sigmoid()


def logits_of(probability: torch.Tensor, head: Head) -> torch.Tensor:
    """The inverse of :func:`probabilities`, finite for 0 and 1."""
    if head.cardinality is Cardinality.ONE:
        return probability.clamp(min=SATURATION**2).log()
    return torch.logit(probability, eps=SATURATION)


def cross_entropy(logits: torch.Tensor, truth: torch.Tensor, head: Head) -> torch.Tensor:
    """The mean surprise of ``truth`` (n, V) float at ``logits`` (n, V): a scalar."""
    if head.cardinality is Cardinality.ONE:
        return functional.cross_entropy(logits, truth.argmax(dim=1))
    return functional.binary_cross_entropy_with_logits(logits, truth)


def kl_to_uniform(attention: torch.Tensor) -> torch.Tensor:
    """KL(p || 1/2) per element: p log p + (1 - p) log(1 - p) + log 2 (De la Comble et al. 2022, eq. 5).

    0 where p is exactly 1, for products without a picture (see :class:`FusionOutput`).
    Any shape; value and gradient are finite everywhere.
    """
    p = attention.clamp(SATURATION, 1 - SATURATION)
    divergence = torch.xlogy(p, p) + torch.xlogy(1 - p, 1 - p) + math.log(2)
    return torch.where(attention < 1, divergence, torch.zeros_like(divergence))


def same_width(widths: Sequence[int], why: str) -> int:
    """The one width of all. Raises ConfigError."""
    if len(set(widths)) != 1:
        raise ConfigError(f"{why} needs vectors of one width, not {list(widths)}: take encoders of one width")
    return widths[0]
