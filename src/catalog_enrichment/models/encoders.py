"""Text encoders of transformers, image encoders of timm; weights are random or from a folder, a package or the hub.

Nothing is downloaded unless the recipe gives a hub name. Shapes: B products, T tokens of a text, M tokens of a
picture, H text width, D image width, S picture side.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import timm
import torch
from timm.models import group_parameters
from torch import nn
from transformers import AutoConfig, AutoModel, BertConfig

from catalog_enrichment.errors import ConfigError
from catalog_enrichment.inputs.tokenizer import TextTokenizer
from catalog_enrichment.models.color_histogram import ColorHistogram
from catalog_enrichment.models.fusion.base import EncoderOutput
from catalog_enrichment.models.pretrained import (
    UNUSABLE,
    error_summary,
    is_package,
    load_pretrained,
    pretrained_source,
)
from catalog_enrichment.models.pretrained_images import load_from_package, weights_file
from catalog_enrichment.models.spec import BertSize, ImageSpec, Pooling, TextSpec

_CHECKED_TOKENS = 4
"""Tokens of the text that checks an encoder."""


def build_tokenizer(spec: TextSpec, texts: Iterable[str]) -> TextTokenizer:
    """The pretrained encoder's tokenizer; for an encoder from scratch one learned from ``texts`` (clean)."""
    if spec.bert is not None:
        return TextTokenizer.train(texts, spec.bert.vocab_size)
    with pretrained_source(spec.name) as (name, local):
        return TextTokenizer.from_pretrained(name, local)


def build_text_encoder(spec: TextSpec, vocab_size: int) -> TextEncoder:
    """The pretrained encoder that ``spec`` names, or one from scratch for ``vocab_size`` tokens.

    Raises ConfigError for an encoder that cannot be loaded completely, has fewer tokens than its tokenizer, or whose
    output depends on padding.
    """
    if spec.bert is not None:
        return text_encoder_from_config(_bert_config(spec.bert, spec.max_length, vocab_size), spec)
    with pretrained_source(spec.name) as (name, local):
        if spec.random_weights:
            encoder = text_encoder_from_config(AutoConfig.from_pretrained(name, local_files_only=local), spec)
        else:
            encoder = TextEncoder(load_pretrained(name, local), spec)
    known_tokens = getattr(encoder.config, "vocab_size", None)
    if not known_tokens:
        raise ConfigError(f"model.text.name: {spec.name!r} is no text encoder: it has no vocab_size")
    if vocab_size > known_tokens:
        raise ConfigError(
            f"model.text.name: the tokenizer of {spec.name!r} has {vocab_size} tokens, its encoder "
            f"{known_tokens}: they do not belong together"
        )
    _check_padding_is_ignored(encoder, spec.name, known_tokens)
    return encoder


def text_encoder_from_config(config: Any, spec: TextSpec) -> TextEncoder:
    """An encoder with random weights from a transformers config.

    Always float32: a config may ask for the 16-bit floats that its weights were stored in, too imprecise for training.
    """
    return TextEncoder(AutoModel.from_config(config, dtype=torch.float32), spec)


def build_image_encoder(spec: ImageSpec, pretrained: bool = True) -> ImageEncoder:
    """The timm model that ``spec`` names, checked on a blank picture.

    ``pretrained=False``, for weights that are loaded later to score with, leaves them random, freezes no stage and
    skips the check. Raises ConfigError for a name, weights or arguments that timm cannot use, and for pictures of a
    wrong size.
    """
    if not timm.is_model(spec.name):
        similar = difflib.get_close_matches(spec.name.lower(), timm.list_models(), n=8, cutoff=0.5)
        raise ConfigError(
            f"timm has no image encoder {spec.name!r}, and the recipe's folder has no such folder. Similar names: "
            f"{similar or 'none'}"
        )
    weights = weights_file(spec.weights) if spec.weights and pretrained else None
    of_package = weights is not None and is_package(spec.weights)
    overlay = {"file": str(weights)} if weights and not of_package else None
    try:
        model = timm.create_model(
            spec.name, pretrained=overlay is not None, pretrained_cfg_overlay=overlay, num_classes=0, **spec.args
        )
        if of_package:
            load_from_package(model, spec.weights)
        encoder = ImageEncoder(model.to(memory_format=torch.channels_last), spec)  # the fastest layout for convolutions
        if pretrained:
            for weight in _weights_of_stages(model, spec):
                weight.requires_grad_(False)
            _check_output_widths(encoder, spec.size)
    except UNUSABLE as problem:
        with_file = f" and weights {spec.weights!r}" if weights else ""
        raise ConfigError(
            f"model.image: timm cannot make {spec.name!r} with args {spec.args}{with_file} read pictures of "
            f"{spec.size} pixels: {error_summary(problem)}"
        ) from None
    return encoder


@dataclass(frozen=True, slots=True)
class Tokens:
    """One text of B products."""

    input_ids: torch.Tensor
    """(B, T) int64"""
    attention_mask: torch.Tensor
    """(B, T) int64, 1 at tokens"""
    token_type_ids: torch.Tensor | None
    """(B, T) int64, 1 at the description of a pair; None if the encoder has none"""
    present: torch.Tensor
    """(B,) bool: the product has this text"""

    def to(self, device: torch.device | str) -> Tokens:
        types = None if self.token_type_ids is None else self.token_type_ids.to(device)
        return Tokens(self.input_ids.to(device), self.attention_mask.to(device), types, self.present.to(device))


class TextEncoder(nn.Module):
    """Token ids to a vector per product and a vector per token."""

    def __init__(self, model: Any, spec: TextSpec) -> None:
        super().__init__()
        self.config = model.config
        """The transformers config, sufficient to build the encoder without weights."""
        if getattr(model.config, "is_encoder_decoder", False):
            model = model.get_encoder()  # only the encoder of T5 or BART is used
        longest = _longest(model)
        if longest is not None and spec.max_length > longest:
            raise ConfigError(f"model.text.max_length is {spec.max_length}, but the encoder reads {longest} tokens")
        width = getattr(self.config, "hidden_size", None)
        if width is None:
            raise ConfigError(f"model.text.name: {self.config.model_type!r} is no text encoder: it has no hidden_size")
        if getattr(model, "pooler", None) is not None:
            model.pooler = nn.Identity()  # BERT's layer over [CLS] is not used, so neither stored nor trained
        self.model = model
        self.pooling: Pooling = spec.pooling
        self.width: int = width
        self.reads_types = (getattr(self.config, "type_vocab_size", 0) or 0) > 1
        self.needs_cache = self.config.model_type == "flaubert" and self.config.pre_norm
        self.requires_grad_(not spec.frozen)

    def forward(self, tokens: Tokens) -> EncoderOutput:
        # FlauBERT would embed the types as words, RoBERTa has one type only
        more: dict[str, Any] = {"token_type_ids": tokens.token_type_ids} if self.reads_types else {}
        if self.needs_cache:
            more["cache"] = _NoCache()
        states = self.model(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask, **more).last_hidden_state
        vector = pool(states, tokens.attention_mask, self.pooling)
        return EncoderOutput.of(vector, states, tokens.attention_mask, tokens.present)


class _NoCache:
    """A cache that stores nothing. The pre-norm FlauBERTs (small, large, base uncased) index the cache that
    transformers 5 creates, which does not support indexing."""

    def __getitem__(self, layer: int) -> None:
        return None

    def get_seq_length(self) -> int:
        return 0

    def update(self, keys: torch.Tensor, values: torch.Tensor, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
        del layer
        return keys, values


class ImageEncoder(nn.Module):
    """Pictures to one vector each, pooled by the timm model, and tokens.

    The first token represents the whole picture: a transformer's [CLS] where it has one, else the mean over all
    positions. The tokens of the positions follow, row by row; for a picture split into regions, one per region.
    """

    def __init__(self, model: Any, spec: ImageSpec) -> None:
        super().__init__()
        patches = getattr(model, "patch_embed", None)
        fixed = getattr(patches, "img_size", None) if getattr(patches, "strict_img_size", True) else None
        side = spec.size // spec.regions
        if fixed is not None and tuple(fixed) != (side, side):
            raise ConfigError(
                f"model.image: {spec.name} reads pictures of {fixed[0]} pixels, not {side}. Set args.img_size = {side}"
            )
        self.model = model
        self.only_side: int | None = None if fixed is None else spec.size
        """Side of the pictures it reads, pixels; None: any side."""
        self.regions = spec.regions
        self.feature_width: int = model.num_features
        # some models widen after num_features
        self.width: int = getattr(model, "head_hidden_size", None) or model.num_features
        self.token_width: int = self.width if spec.regions > 1 else self.feature_width
        has_whole = getattr(model, "has_class_token", getattr(model, "cls_token", None) is not None)
        self.prefix: int = getattr(model, "num_prefix_tokens", int(has_whole))
        self.first_is_whole = self.prefix > 0 and has_whole
        self.palette = ColorHistogram(spec) if spec.palette else None
        self.width += spec.palette
        self.requires_grad_(not spec.frozen)
        self._keeps_statistics = spec.frozen_stages > 0

    def train(self, mode: bool = True) -> ImageEncoder:
        """As nn.Module.train; with frozen stages the batch statistics stay as they are."""
        super().train(mode)
        if self._keeps_statistics:
            for module in self.model.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Normalised pixels (B, 3, S, S) to image vectors (B, D) and tokens (B, M, D')."""
        if self.regions > 1:
            vectors = self.model(split_into_regions(pixels, self.regions)).unflatten(0, (len(pixels), self.regions**2))
            mean = vectors.mean(dim=1)  # eq. 2 of Tashu et al. 2022
            return self._with_palette(mean, pixels), torch.cat([mean.unsqueeze(1), vectors], dim=1)
        features = self.model.forward_features(pixels)
        vector = self._with_palette(self.model.forward_head(features), pixels)
        return vector, self._tokens(features)

    def _with_palette(self, vector: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
        return vector if self.palette is None else torch.cat([vector, self.palette(pixels)], dim=1)

    def _tokens(self, features: torch.Tensor) -> torch.Tensor:
        return as_tokens(features, self.feature_width, self.prefix, self.first_is_whole)


def _weights_of_stages(model: Any, spec: ImageSpec) -> list[nn.Parameter]:
    """The weights of the first ``spec.frozen_stages`` stages. Raises ConfigError if the model has no more than that, or
    timm does not know its stages."""
    if not spec.frozen_stages:
        return []
    if not hasattr(model, "group_matcher"):
        raise ConfigError(f"model.image.frozen_stages: timm does not know the stages of {spec.name}. Set it to 0")
    stages = group_parameters(model, model.group_matcher(coarse=True))
    if spec.frozen_stages >= len(stages):
        raise ConfigError(
            f"model.image.frozen_stages: {spec.name} has {len(stages)} stages, so at most {len(stages) - 1} can be "
            f"frozen, not {spec.frozen_stages}. To freeze all of it: model.image.frozen"
        )
    return [model.get_parameter(name) for stage in sorted(stages)[: spec.frozen_stages] for name in stages[stage]]


def split_into_regions(pixels: torch.Tensor, regions: int) -> torch.Tensor:
    """(B, 3, S, S) to (B x regions^2, 3, S / regions, S / regions), row by row."""
    side = pixels.shape[-1] // regions
    patches = pixels.unfold(2, side, side).unfold(3, side, side)  # (B, 3, regions, regions, side, side)
    return patches.permute(0, 2, 3, 1, 4, 5).reshape(-1, pixels.shape[1], side, side)


def as_tokens(features: torch.Tensor, width: int, prefix: int, first_is_whole: bool) -> torch.Tensor:
    """Output of timm's forward_features to (B, 1 + positions, D'): the whole picture, then its positions, row by row.

    Of the ``prefix`` tokens of a transformer only [CLS] is kept, if it is the first; register tokens are dropped.
    """
    if not isinstance(features, torch.Tensor):
        raise ValueError("it returns several feature maps, not one")
    if features.ndim == 4:  # (B, D', m, m), or channels last: (B, m, m, D')
        channels_last = features.shape[1] != width and features.shape[-1] == width
        positions = features.flatten(1, 2) if channels_last else features.flatten(2).transpose(1, 2)
    else:
        positions = features[:, prefix:]  # (B, M, D')
    whole = features[:, :1] if first_is_whole else positions.mean(dim=1, keepdim=True)
    return torch.cat([whole, positions], dim=1)


def feature_map(tokens: torch.Tensor) -> torch.Tensor:
    """The tokens (B, 1 + m * m, D') of any :class:`ImageEncoder` as a feature map (B, D', m, m)."""
    positions = tokens[:, 1:].transpose(1, 2)
    side = round(positions.shape[2] ** 0.5)
    return positions.reshape(*positions.shape[:2], side, side)


def pool(states: torch.Tensor, mask: torch.Tensor, pooling: Pooling) -> torch.Tensor:
    """Token vectors (B, L, H) to text vectors (B, H); ``mask`` (B, L) is 1 at tokens and 0 at padding."""
    if pooling == "cls":
        return states[:, 0]
    weights = mask.unsqueeze(-1).to(states.dtype)  # (B, L, 1)
    total = (states * weights).sum(dim=1)
    return total if pooling == "sum" else total / weights.sum(dim=1).clamp(min=1)


def _check_padding_is_ignored(encoder: TextEncoder, name: str, known_tokens: int) -> None:
    """Raises ConfigError if the vector of a text changes with padding, as for ConvBERT and FNet.

    A product's score must not depend on the other products of its batch.
    """
    ids = torch.arange(1, 1 + 2 * _CHECKED_TOKENS).remainder(known_tokens).unsqueeze(0)
    vectors, ones = [], torch.ones_like(ids)
    encoder.eval()
    try:
        for padding in (None, 0, known_tokens - 1):
            text, mask = ids[:, :_CHECKED_TOKENS], ones[:, :_CHECKED_TOKENS]
            if padding is not None:
                text = torch.cat([text, torch.full_like(text, padding)], dim=1)
                mask = torch.cat([mask, torch.zeros_like(mask)], dim=1)
            with torch.no_grad():
                vectors.append(encoder(Tokens(text, mask, None, torch.ones(1, dtype=torch.bool))).vector)
    except Exception as problem:
        raise ConfigError(f"model.text.name: {name!r} is no text encoder: {error_summary(problem)}") from None
    encoder.train()
    unpadded, *padded = vectors
    if any(not torch.allclose(unpadded, other, rtol=1e-4, atol=1e-4) for other in padded):
        raise ConfigError(
            f"model.text.name: {name!r} lets padding change a text's vector, so that scores would depend on the batch. "
            "Choose another encoder"
        )


def _check_output_widths(encoder: ImageEncoder, side: int) -> None:
    """Raises ValueError if the output of one forward pass does not have the encoder's widths."""
    encoder.eval()
    with torch.no_grad():
        vector, tokens = encoder(torch.zeros(1, 3, side, side))
    encoder.train()
    shapes, expected = (tuple(vector.shape), tokens.shape[2]), ((1, encoder.width), encoder.token_width)
    if shapes != expected:
        raise ValueError(f"it returns vector shape and token width {shapes}, not {expected}")


def _longest(model: Any) -> int | None:
    """Largest number of tokens that an encoder can read; None: no limit."""
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None:
            return int(
                module.num_embeddings - module.padding_idx - 1
            )  # positions start after padding_idx in RoBERTa models
    longest = getattr(model.config, "max_position_embeddings", None)
    return longest if longest and longest > 0 else None  # -1 in XLNet


def _bert_config(size: BertSize, max_length: int, vocab_size: int) -> Any:
    return BertConfig(
        vocab_size=vocab_size,
        hidden_size=size.hidden,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        intermediate_size=size.intermediate,
        hidden_dropout_prob=size.dropout,
        attention_probs_dropout_prob=size.dropout,
        max_position_embeddings=max_length,
    )
