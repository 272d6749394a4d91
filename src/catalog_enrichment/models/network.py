"""The network of De la Comble et al. 2022: two encoders, a fusion, a linear head per attribute, one forward pass.

Shapes: B products, L tokens, S picture side, H text width, D image width, A attributes, F fused width, V values of
an attribute.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from catalog_enrichment.inputs.tokenizer import TextTokenizer
from catalog_enrichment.models.encoders import ImageEncoder, TextEncoder, build_image_encoder, build_text_encoder
from catalog_enrichment.models.fusion import Fusion, Widths, fusion_class
from catalog_enrichment.models.spec import FitSpec, ModelSpec
from catalog_enrichment.records import Cardinality


@dataclass(frozen=True, slots=True)
class Head:
    """What one attribute's head answers: its labels, in the order of the logits."""

    cardinality: Cardinality
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ModelInputs:
    """One batch, ready for the network."""

    input_ids: torch.Tensor
    """(B, L) int64"""
    attention_mask: torch.Tensor
    """(B, L) int64, 1 at tokens"""
    token_type_ids: torch.Tensor | None
    """(B, L) int64, 1 at the description; None if the encoder has none"""
    pixels: torch.Tensor
    """(B, 3, S, S) float32, normalised; any finite value where there is no picture"""
    has_image: torch.Tensor
    """(B,) bool"""

    def __len__(self) -> int:
        return len(self.input_ids)

    def to(self, device: torch.device | str) -> ModelInputs:
        return ModelInputs(
            self.input_ids.to(device),
            self.attention_mask.to(device),
            None if self.token_type_ids is None else self.token_type_ids.to(device),
            self.pixels.to(device),
            self.has_image.to(device),
        )


@dataclass(frozen=True, slots=True)
class ModelOutputs:
    logits: dict[str, torch.Tensor]
    """Attribute -> (B, V)"""
    attention: dict[str, torch.Tensor] | None
    """Attribute -> (B,), the weight on the text, 1 without a picture; None if the fusion weighs nothing."""


class MultiModalNet(nn.Module):
    def __init__(
        self, text: TextEncoder | None, image: ImageEncoder | None, fusion: Fusion, heads: Mapping[str, Head]
    ) -> None:
        """``text`` or ``image`` is None where ``fusion`` does not use it; the fusion is built for ``len(heads)``."""
        super().__init__()
        self.heads = dict(heads)
        self.text = text
        self.image = image
        self.fusion = fusion
        # a list, in the order of `heads`: a ModuleDict refuses attribute names such as "type" or "net.weight"
        self.classifiers = nn.ModuleList(nn.Linear(fusion.width, len(head.labels)) for head in heads.values())

    def forward(self, inputs: ModelInputs) -> ModelOutputs:
        fused = self.fusion(self._text_vectors(inputs), self._image_vectors(inputs), inputs.has_image)
        logits = {
            name: classifier(fused.features[:, position])
            for position, (name, classifier) in enumerate(zip(self.heads, self.classifiers, strict=True))
        }
        if fused.attention is None:
            return ModelOutputs(logits, None)
        return ModelOutputs(logits, {name: fused.attention[:, position] for position, name in enumerate(self.heads)})

    def train(self, mode: bool = True) -> MultiModalNet:
        """As always, but a frozen encoder stays in eval mode: its statistics and its dropout are frozen too."""
        super().train(mode)
        for encoder in (self.text, self.image):
            if encoder is not None and not any(weight.requires_grad for weight in encoder.parameters()):
                encoder.eval()
        return self

    def _text_vectors(self, inputs: ModelInputs) -> torch.Tensor:
        """(B, H), or (B, 0) for a fusion that does not use the text."""
        if self.text is None or not len(inputs):  # transformers cannot reshape an empty batch
            return inputs.pixels.new_zeros((len(inputs), self.text.width if self.text else 0))
        vectors: torch.Tensor = self.text(inputs.input_ids, inputs.attention_mask, inputs.token_type_ids)
        return vectors

    def _image_vectors(self, inputs: ModelInputs) -> torch.Tensor:
        """(B, D), or (B, 0) for a fusion that does not use pictures. Only rows with a picture go through the encoder:
        blank ones would cost time and, in training, bend the batch statistics."""
        if self.image is None:
            return inputs.pixels.new_zeros((len(inputs), 0))
        rows = inputs.has_image.nonzero().squeeze(1)
        if not len(rows):
            return inputs.pixels.new_zeros((len(inputs), self.image.width))
        if len(rows) == len(inputs):
            vectors: torch.Tensor = self.image(inputs.pixels)
            return vectors
        seen = self.image(inputs.pixels[rows])
        return torch.zeros((len(inputs), self.image.width), dtype=seen.dtype, device=seen.device).index_copy(
            0, rows, seen
        )


def build_network(spec: ModelSpec, heads: Mapping[str, Head], tokenizer: TextTokenizer) -> MultiModalNet:
    """A network to fit: encoders with their pretrained weights where the spec names some, all else random.

    Raises ConfigError for an encoder or weights that are not there.
    """
    kind = fusion_class(spec.fusion)
    text = build_text_encoder(spec.text, len(tokenizer)) if kind.uses_text else None
    image = build_image_encoder(spec.image) if kind.uses_image else None
    return assemble(spec, heads, text, image)


def assemble(
    spec: ModelSpec, heads: Mapping[str, Head], text: TextEncoder | None, image: ImageEncoder | None
) -> MultiModalNet:
    """The network over encoders that exist; None where the spec's fusion uses none."""
    widths = Widths(text.width if text else 0, image.width if image else 0, len(heads))
    return MultiModalNet(text, image, fusion_class(spec.fusion)(widths), heads)


def parameter_groups(net: MultiModalNet, fit: FitSpec) -> list[dict[str, Any]]:
    """Groups for an optimizer: a learning rate each for text encoder, image encoder and the rest.

    Frozen weights are in none. Biases and normalisation (fewer than two dimensions) are not decayed.
    """
    rates = {"text": fit.text_learning_rate, "image": fit.image_learning_rate, "rest": fit.learning_rate}
    groups = []
    for part, rate in rates.items():
        weights = [weight for weight in _parameters(net, part) if weight.requires_grad]
        for decay, members in (
            (fit.weight_decay, [weight for weight in weights if weight.ndim > 1]),
            (0.0, [weight for weight in weights if weight.ndim <= 1]),
        ):
            if members:
                groups.append({"name": part, "params": members, "lr": rate, "weight_decay": decay})
    return groups


def _parameters(net: MultiModalNet, part: str) -> Iterator[nn.Parameter]:
    for name, weight in net.named_parameters():
        owner = name.partition(".")[0]
        if part == (owner if owner in ("text", "image") else "rest"):
            yield weight
