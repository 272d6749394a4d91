"""The inputs, outputs and base classes of the fusions, and the functions that several of them use.

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
"""Distance that an attention weight keeps from 0 and 1, so that its logarithm has a finite gradient."""


@dataclass(frozen=True, slots=True)
class EncoderOutput:
    """The output of an encoder for a text, or the picture, of B products."""

    vector: torch.Tensor
    """(B, H) or (B, D); 0 where the product has no such text or picture."""
    tokens: torch.Tensor
    """(B, T, H) or (B, M, D); the first represents the whole text or picture, as [CLS] does."""
    mask: torch.Tensor
    """(B, T) or (B, M) bool: tokens, not padding; all false where the product has no such text or picture."""
    present: torch.Tensor
    """(B,) bool."""

    @classmethod
    def of(cls, vector: torch.Tensor, tokens: torch.Tensor, mask: torch.Tensor, present: torch.Tensor) -> EncoderOutput:
        """Return the output with vector, tokens and mask set to 0 where the product is not ``present``."""
        return cls(
            torch.where(present[:, None], vector, torch.zeros_like(vector)),
            torch.where(present[:, None, None], tokens, torch.zeros_like(tokens)),
            mask.bool() & present[:, None],
            present,
        )

    def to(self, device: torch.device | str) -> EncoderOutput:
        return EncoderOutput(*(part.to(device) for part in (self.vector, self.tokens, self.mask, self.present)))


@dataclass(frozen=True, slots=True)
class EncoderOutputs:
    """The outputs of the encoders that the fusion uses; an empty tuple and None for the others."""

    texts: tuple[EncoderOutput, ...] = ()
    """Encoder by encoder; title before description where an encoder reads them apart."""
    image: EncoderOutput | None = None

    def vectors(self) -> torch.Tensor:
        """Return all vectors side by side, the texts' first: (B, sum of the widths)."""
        outputs = self.texts if self.image is None else (*self.texts, self.image)
        return torch.cat([output.vector for output in outputs], dim=1)


@dataclass(frozen=True, slots=True)
class FusionShape:
    """The widths of a fusion's inputs, and its heads."""

    texts: tuple[int, ...]
    """Width of each text vector, in the order of :attr:`EncoderOutputs.texts`."""
    fields: int
    """Texts of a product that each text encoder reads: 1, or 2 where title and description are apart."""
    image: int
    heads: tuple[Head, ...]
    """The head of each attribute."""


@dataclass(frozen=True, slots=True)
class FusionOutput:
    logits: tuple[torch.Tensor, ...]
    """Per attribute (B, V), for softmax (one value) or sigmoid (many values)."""
    attention: torch.Tensor | None = None
    """(B, A), the weight on the text: exactly 1 where there is no picture and below 1 elsewhere; None if the fusion
    has no such weight."""
    experts: tuple[tuple[torch.Tensor, ...], ...] = ()
    """Per expert and attribute (B, V) logits, of decision-level fusions. The loss is then theirs."""


@dataclass(frozen=True, slots=True)
class HeldOutTargets:
    """The labels of n products for an attribute."""

    truth: torch.Tensor
    """(n, V) float."""
    learnable: torch.Tensor
    """(n,) bool: the product has a label that can be learned."""


class Fusion(nn.Module):
    """The base class: the encoders that are needed, and the step from their outputs to logits."""

    kind: ClassVar[str]
    """The fusion's name in a recipe; written as `kind = "name"`, because :func:`fusion_files` reads the source."""
    uses_text: ClassVar[bool] = True
    uses_image: ClassVar[bool] = True
    learns_modality_weights: ClassVar[bool] = False
    """The fusion returns attention weights, which the KL term pulls towards 1/2."""
    uses_tokens: ClassVar[bool] = False
    """The fusion uses the tokens of the picture or of the texts, not only a vector of each."""

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Options:
        """The keys of `model.fusion.options` in a recipe."""

    def __init__(self, shape: FusionShape, options: Any) -> None:
        super().__init__()
        self.heads, self.options = shape.heads, options

    def forward(self, encoded: EncoderOutputs) -> FusionOutput:
        raise NotImplementedError

    def choose_parameters(
        self, held_out: FusionOutput, targets: Sequence[HeldOutTargets], seed: int
    ) -> Mapping[str, float]:
        """Choose the parameters that the fit does not learn, on the choosing fold, after the fit.

        ``held_out`` is this fusion's output for the fold, ``targets`` are the labels by attribute. Returns the choice
        by name, for the log; most fusions choose nothing.
        """
        del held_out, targets, seed
        return {}


class VectorFusion(Fusion):
    """The base of fusions of vectors: LayerNorm on each modality (De la Comble et al. 2022, section 4.1), then a
    linear head per attribute.

    Unimodal models are normalised too, unlike in the paper, because a sum over tokens grows with the text's length.
    """

    def __init__(self, shape: FusionShape, options: Any) -> None:
        super().__init__(shape, options)
        self.text_width = sum(shape.texts) if self.uses_text else 0
        self.image_width = shape.image if self.uses_image else 0
        self.joined_width = self.text_width + self.image_width
        if self.uses_text:
            self.text_norm = nn.LayerNorm(self.text_width)
        if self.uses_image:
            self.image_norm = nn.LayerNorm(self.image_width)

    def text_vector(self, encoded: EncoderOutputs) -> torch.Tensor:
        """Return all text vectors, concatenated and normalised: (B, H)."""
        normalised: torch.Tensor = self.text_norm(torch.cat([output.vector for output in encoded.texts], dim=1))
        return normalised

    def image_vector(self, encoded: EncoderOutputs) -> torch.Tensor:
        """Return the normalised image vector (B, D), 0 without a picture: LayerNorm's output for 0 is its bias."""
        image = needed(encoded.image)
        normalised: torch.Tensor = self.image_norm(image.vector)
        return torch.where(image.present[:, None], normalised, torch.zeros_like(normalised))

    def joined_vector(self, encoded: EncoderOutputs) -> torch.Tensor:
        """Return the vectors of the modalities that the fusion uses, side by side: (B, H + D) for both."""
        text = [self.text_vector(encoded)] if self.uses_text else []
        image = [self.image_vector(encoded)] if self.uses_image else []
        return torch.cat(text + image, dim=1)


def needed(image: EncoderOutput | None) -> EncoderOutput:
    """Return ``image``. Raises ValueError for None."""
    if image is None:
        raise ValueError("this fusion needs an image encoder's output, not None")
    return image


def linear_heads(width: int, heads: Sequence[Head]) -> nn.ModuleList:
    """Return a linear classifier (F to V) per attribute, in the order of the heads.

    It is a list because a ModuleDict refuses attribute names such as "type" or "net.weight".
    """
    return nn.ModuleList(nn.Linear(width, len(head.labels)) for head in heads)


def scored_alike(classifiers: nn.Module, features: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Return logits (B, V) per attribute, where every head gets the same ``features`` (B, F)."""
    return tuple(classifier(features) for classifier in classifiers.children())


def probabilities(logits: torch.Tensor, head: Head) -> torch.Tensor:
    """Return the probabilities (B, V) in float32, whatever the number type of ``logits``."""
    return logits.float().softmax(dim=1) if head.cardinality is Cardinality.ONE else logits.float().sigmoid()


def logits_of(probability: torch.Tensor, head: Head) -> torch.Tensor:
    """Return the inverse of :func:`probabilities`, finite for 0 and 1."""
    if head.cardinality is Cardinality.ONE:
        return probability.clamp(min=SATURATION**2).log()
    return torch.logit(probability, eps=SATURATION)


def cross_entropy(logits: torch.Tensor, truth: torch.Tensor, head: Head) -> torch.Tensor:
    """Return the mean cross-entropy of ``truth`` (n, V) float under ``logits`` (n, V), a scalar."""
    if head.cardinality is Cardinality.ONE:
        return functional.cross_entropy(logits, truth.argmax(dim=1))
    return functional.binary_cross_entropy_with_logits(logits, truth)


def majority(votes: torch.Tensor, cardinality: Cardinality) -> torch.Tensor:
    """Return the vote of K classifiers (Bi et al. 2020, section 3.4); ``votes`` (K, B, V) are their probabilities.

    The result is (B, V): (votes for the value + mean probability) / (K + 1). More votes always rank higher, equal votes
    rank by mean probability. It sums to 1 over V for single-valued attributes.
    """
    if cardinality is Cardinality.ONE:
        counted = torch.zeros_like(votes).scatter(2, votes.argmax(dim=2, keepdim=True), 1.0)
    else:
        counted = (votes >= 0.5).to(votes.dtype)
    return (counted.sum(dim=0) + votes.mean(dim=0)) / (len(votes) + 1)


def kl_to_uniform(attention: torch.Tensor) -> torch.Tensor:
    """Return KL(p || 1/2) per element: p log p + (1 - p) log(1 - p) + log 2 (De la Comble et al. 2022, eq. 5).

    It is 0 where p is exactly 1, for products without a picture (see :class:`FusionOutput`). ``attention`` has any
    shape; value and gradient are finite everywhere.
    """
    p = attention.clamp(SATURATION, 1 - SATURATION)
    divergence = torch.xlogy(p, p) + torch.xlogy(1 - p, 1 - p) + math.log(2)
    return torch.where(attention < 1, divergence, torch.zeros_like(divergence))


def same_width(widths: Sequence[int], why: str) -> int:
    """Return the common width. Raises ConfigError where the widths differ; ``why`` starts the message."""
    if len(set(widths)) != 1:
        raise ConfigError(f"{why} needs vectors of equal width, not {list(widths)}: choose encoders of the same width")
    return widths[0]
