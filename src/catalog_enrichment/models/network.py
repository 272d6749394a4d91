"""The network: encoders, and a fusion with a head per attribute.

Shapes: B products, T tokens of a text, M tokens of a picture, S picture side, V values of an attribute.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from catalog_enrichment.errors import ConfigError
from catalog_enrichment.inputs.text import TextTokenizer
from catalog_enrichment.models.fusion import build_fusion, fusion_class
from catalog_enrichment.models.fusion.base import EncoderOutput, EncoderOutputs, Fusion, FusionOutput, FusionShape
from catalog_enrichment.models.image_encoders import ImageEncoder, build_image_encoder
from catalog_enrichment.models.spec import FitSpec, Head, ModelSpec
from catalog_enrichment.models.text_encoders import TextEncoder, Tokens, build_text_encoder


@dataclass(frozen=True, slots=True)
class ModelInputs:
    """A batch, ready for the network."""

    texts: dict[str, tuple[Tokens | EncoderOutput, ...]]
    """Text encoder -> its texts: a single text, or title and description; or a frozen encoder's output for them."""
    pixels: torch.Tensor
    """(B, 3, S, S) float32, normalised; any finite value where there is no picture"""
    has_image: torch.Tensor
    """(B,) bool"""
    image: EncoderOutput | None = None
    """A frozen image encoder's output for the pictures; `pixels` are then not read."""

    def __len__(self) -> int:
        return len(self.has_image)

    def to(self, device: torch.device | str) -> ModelInputs:
        texts = {name: tuple(tokens.to(device) for tokens in read) for name, read in self.texts.items()}
        image = None if self.image is None else self.image.to(device)
        return ModelInputs(texts, self.pixels.to(device), self.has_image.to(device), image)


@dataclass(frozen=True, slots=True)
class ModelOutputs:
    logits: dict[str, torch.Tensor]
    """Attribute -> (B, V)"""
    attention: dict[str, torch.Tensor] | None
    """Attribute -> (B,), the weight on the text, 1 without a picture; None if the fusion has no such weight."""
    experts: tuple[dict[str, torch.Tensor], ...] = ()
    """The logits (B, V) by attribute of each classifier of a decision-level fusion. The loss is of these logits."""
    encoded: EncoderOutputs | None = None
    """The inputs of the fusion; None for outputs that no network computed."""


class MultiModalNet(nn.Module):
    def __init__(
        self, texts: Mapping[str, TextEncoder], image: ImageEncoder | None, fusion: Fusion, heads: Mapping[str, Head]
    ) -> None:
        """``texts`` is empty or ``image`` None where ``fusion`` does not use it; the fusion is built for ``heads``."""
        super().__init__()
        self.heads = dict(heads)
        self.texts = nn.ModuleDict(texts)
        self.image = image
        self.fusion = fusion

    def forward(self, inputs: ModelInputs) -> ModelOutputs:
        encoded = self.encode(inputs)
        fused: FusionOutput = self.fusion(encoded)
        attention = None
        if fused.attention is not None:
            attention = {name: fused.attention[:, index] for index, name in enumerate(self.heads)}
        experts = tuple(self._by_attribute(expert) for expert in fused.experts)
        return ModelOutputs(self._by_attribute(fused.logits), attention, experts, encoded)

    def encode(self, inputs: ModelInputs) -> EncoderOutputs:
        """Return the encoders' outputs, the inputs of the fusion."""
        texts = tuple(output for name in self.texts for output in self.encoded(name, inputs))
        return EncoderOutputs(texts, None if self.image is None else self._encoded_image(self.image, inputs))

    def encoded(self, name: str, inputs: ModelInputs) -> tuple[EncoderOutput, ...]:
        """Return the outputs of the encoder ``name`` for the texts that it reads, or for the picture."""
        if name == "image":
            assert self.image is not None
            return (self._encoded_image(self.image, inputs),)
        encoder = self.text_encoders()[name]
        return tuple(_encoded_text(encoder, tokens) for tokens in inputs.texts[name])

    def train(self, mode: bool = True) -> MultiModalNet:
        """Do as nn.Module.train, but leave frozen encoders in eval mode: no dropout, no update of batch statistics."""
        super().train(mode)
        for encoder in self.encoders().values():
            if not any(weight.requires_grad for weight in encoder.parameters()):
                encoder.eval()
        return self

    def text_encoders(self) -> dict[str, TextEncoder]:
        return {name: encoder for name, encoder in self.texts.items() if isinstance(encoder, TextEncoder)}

    def encoders(self) -> dict[str, nn.Module]:
        """Return the encoders that the fusion uses, by name: text, second_text, image."""
        return dict(self.texts.items()) | ({} if self.image is None else {"image": self.image})

    def _by_attribute(self, scores: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
        return dict(zip(self.heads, scores, strict=True))

    def _encoded_image(self, encoder: ImageEncoder, inputs: ModelInputs) -> EncoderOutput:
        """Encode the rows with a picture: blank pictures cost time and, in training, bias the batch statistics."""
        if inputs.image is not None:
            return inputs.image
        rows = inputs.has_image.nonzero().squeeze(1)
        if not len(rows):
            vector = inputs.pixels.new_zeros((len(inputs), encoder.width))
            tokens = inputs.pixels.new_zeros((len(inputs), 1, encoder.token_width))
        else:
            vector, tokens = encoder(inputs.pixels if len(rows) == len(inputs) else inputs.pixels[rows])
        if 0 < len(rows) < len(inputs):
            vector, tokens = (
                output.new_zeros((len(inputs), *output.shape[1:])).index_copy(0, rows, output)
                for output in (vector, tokens)
            )
        mask = inputs.has_image[:, None].expand(tokens.shape[:2])
        return EncoderOutput(vector, tokens, mask, inputs.has_image)


def build_network(spec: ModelSpec, heads: Mapping[str, Head], tokenizers: Mapping[str, TextTokenizer]) -> MultiModalNet:
    """Return a network to fit: pretrained weights for the encoders where the spec names some, random weights elsewhere.

    Raises ConfigError for an encoder or weights that do not exist.
    """
    kind = fusion_class(spec.fusion.kind)
    texts = spec.texts.items() if kind.uses_text else ()
    image = build_image_encoder(spec.image) if kind.uses_image else None
    return assemble(spec, heads, {name: build_text_encoder(text, len(tokenizers[name])) for name, text in texts}, image)


def assemble(
    spec: ModelSpec, heads: Mapping[str, Head], texts: Mapping[str, TextEncoder], image: ImageEncoder | None
) -> MultiModalNet:
    """Return the network with these encoders: ``texts`` empty or ``image`` None where the spec's fusion uses none."""
    kind = fusion_class(spec.fusion.kind)
    fields = {spec.texts[name].texts_read for name in texts} or {1}
    if len(fields) > 1:
        raise ConfigError(
            "model.second_text.fields: both text encoders read title and description apart, or neither, not "
            f"{[spec.texts[name].fields for name in texts]}"
        )
    shape = FusionShape(
        texts=tuple(encoder.width for name, encoder in texts.items() for _ in range(spec.texts[name].texts_read)),
        fields=fields.pop(),
        image=(image.token_width if kind.uses_tokens else image.width) if image else 0,
        heads=tuple(heads.values()),
    )
    return MultiModalNet(texts, image, build_fusion(spec.fusion, shape), heads)


def _encoded_text(encoder: TextEncoder, tokens: Tokens | EncoderOutput) -> EncoderOutput:
    if isinstance(tokens, EncoderOutput):
        return tokens
    if len(tokens.present):
        output: EncoderOutput = encoder(tokens)
        return output
    empty = torch.zeros((0, encoder.width), device=tokens.present.device)  # transformers cannot reshape an empty batch
    return EncoderOutput(empty, empty[:, None], empty[:, :1].bool(), tokens.present)


def parameter_groups(net: MultiModalNet, fit: FitSpec) -> list[dict[str, Any]]:
    """Return parameter groups for an optimizer, with the learning rates of text encoders, image encoder and the rest.

    Frozen weights are left out. Biases and normalisation (fewer than two dimensions) have no weight decay.
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
        owner = {"texts": "text", "image": "image"}.get(name.partition(".")[0], "rest")
        if part == owner:
            yield weight
