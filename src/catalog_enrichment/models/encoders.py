"""Text encoders by transformers, image encoders by timm: from random weights, a folder, a package or the hub.

Nothing is downloaded unless the recipe gives a hub name. Shapes: B products, T tokens of a text, M tokens of a
picture, H text width, D image width, S picture side.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn
from transformers import AutoConfig, AutoModel, BertConfig

from catalog_enrichment.errors import ConfigError
from catalog_enrichment.inputs.tokenizer import TextTokenizer
from catalog_enrichment.models.color_histogram import ColorHistogram
from catalog_enrichment.models.fusion.base import EncoderOutput
from catalog_enrichment.models.pretrained import UNUSABLE, source, told, with_weights
from catalog_enrichment.models.spec import BertSize, ImageSpec, Pooling, TextSpec

_TRIED = 4
"""Tokens of the text that an encoder is tried on."""


def build_tokenizer(spec: TextSpec, texts: Iterable[str]) -> TextTokenizer:
    """The pretrained encoder's own tokenizer, or one learned from ``texts`` (clean) for an encoder from scratch."""
    if spec.bert is not None:
        return TextTokenizer.train(texts, spec.bert.vocab_size)
    with source(spec.name) as (name, local):
        return TextTokenizer.from_pretrained(name, local)


def build_text_encoder(spec: TextSpec, vocab_size: int) -> TextEncoder:
    """The encoder that ``spec`` names, with its pretrained weights; or one from scratch for ``vocab_size`` tokens.

    Raises ConfigError for an encoder that cannot be loaded whole, knows fewer tokens than its tokenizer, or sees
    padding.
    """
    if spec.bert is not None:
        return text_encoder_from_config(_bert_config(spec.bert, spec.max_length, vocab_size), spec)
    with source(spec.name) as (name, local):
        if spec.random_weights:
            encoder = text_encoder_from_config(AutoConfig.from_pretrained(name, local_files_only=local), spec)
        else:
            encoder = TextEncoder(with_weights(name, local), spec)
    known = getattr(encoder.config, "vocab_size", None)
    if not known:
        raise ConfigError(f"model.text.name: {spec.name!r} is no text encoder: it has no vocab_size")
    if vocab_size > known:
        raise ConfigError(
            f"model.text.name: the tokenizer of {spec.name!r} has {vocab_size} tokens, its encoder {known}: they do "
            "not belong together"
        )
    _try_text(encoder, spec.name, known)
    return encoder


def text_encoder_from_config(config: Any, spec: TextSpec) -> TextEncoder:
    """An encoder with random weights from a transformers config. Always float32, whatever the config says: its
    weights may have been stored as half of that, and half is too little to learn with."""
    return TextEncoder(AutoModel.from_config(config, dtype=torch.float32), spec)


def build_image_encoder(spec: ImageSpec, pretrained: bool = True) -> ImageEncoder:
    """The timm model that ``spec`` names, tried on an empty picture.

    ``pretrained=False``, for weights that are loaded later, leaves them random and the model untried. Raises
    ConfigError for a name, weights or arguments that timm cannot use, and for pictures of a wrong size.
    """
    if not timm.is_model(spec.name):
        near = difflib.get_close_matches(spec.name.lower(), timm.list_models(), n=8, cutoff=0.5)
        raise ConfigError(
            f"timm has no image encoder {spec.name!r}, and the recipe's folder none of that name. Close to it: "
            f"{near or 'none'}"
        )
    weights = Path(spec.weights) if spec.weights and pretrained else None
    if weights is not None and not weights.is_file():
        raise ConfigError(f"model.image.weights: no such file: {weights.resolve()}")
    overlay = {"file": str(weights)} if weights else None
    try:
        model = timm.create_model(
            spec.name, pretrained=weights is not None, pretrained_cfg_overlay=overlay, num_classes=0, **spec.args
        )
        encoder = ImageEncoder(model.to(memory_format=torch.channels_last), spec)  # the layout convolutions like best
        if pretrained:
            _try_image(encoder, spec.size)
    except UNUSABLE as problem:
        given = f" and weights {spec.weights!r}" if weights else ""
        raise ConfigError(
            f"model.image: timm cannot make {spec.name!r} with args {spec.args}{given} read pictures of {spec.size} "
            f"pixels: {told(problem)}"
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
    """Token ids to one vector per product, and one per token."""

    def __init__(self, model: Any, spec: TextSpec) -> None:
        super().__init__()
        self.config = model.config
        """The transformers config, enough to build the encoder again."""
        if getattr(model.config, "is_encoder_decoder", False):
            model = model.get_encoder()  # T5's and BART's decoder has nothing to say here
        longest = _longest(model)
        if longest is not None and spec.max_length > longest:
            raise ConfigError(f"model.text.max_length is {spec.max_length}, but the encoder reads {longest} tokens")
        width = getattr(self.config, "hidden_size", None)
        if width is None:
            raise ConfigError(f"model.text.name: {self.config.model_type!r} is no text encoder: it has no hidden_size")
        if getattr(model, "pooler", None) is not None:
            model.pooler = nn.Identity()  # BERT's own layer over [CLS]: never used, so neither kept nor trained
        self.model = model
        self.pooling: Pooling = spec.pooling
        self.width: int = width
        self.reads_types = (getattr(self.config, "type_vocab_size", 0) or 0) > 1
        self.wants_cache = self.config.model_type == "flaubert" and self.config.pre_norm
        self.requires_grad_(not spec.frozen)

    def forward(self, tokens: Tokens) -> EncoderOutput:
        # FlauBERT would take types for words, RoBERTa's knows only one
        more: dict[str, Any] = {"token_type_ids": tokens.token_type_ids} if self.reads_types else {}
        if self.wants_cache:
            more["cache"] = _NoCache()
        states = self.model(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask, **more).last_hidden_state
        vector = pool(states, tokens.attention_mask, self.pooling)
        return EncoderOutput.of(vector, states, tokens.attention_mask, tokens.present)


class _NoCache:
    """Remembers nothing. The FlauBERTs that normalise first (small, large, base uncased) index the cache which
    transformers 5 makes for them, and that cache cannot be indexed."""

    def __getitem__(self, layer: int) -> None:
        return None

    def get_seq_length(self) -> int:
        return 0

    def update(self, keys: torch.Tensor, values: torch.Tensor, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
        del layer
        return keys, values


class ImageEncoder(nn.Module):
    """Pictures to one vector each, pooled by the timm model itself, and one per place in the picture.

    The first token stands for the whole picture: a transformer's [CLS] where it has one, else the mean over all
    places. The places follow, row by row; of a picture cut into regions, the regions.
    """

    def __init__(self, model: Any, spec: ImageSpec) -> None:
        super().__init__()
        patches = getattr(model, "patch_embed", None)
        fixed = getattr(patches, "img_size", None) if getattr(patches, "strict_img_size", True) else None
        side = spec.size // spec.regions
        if fixed is not None and tuple(fixed) != (side, side):
            raise ConfigError(
                f"model.image: {spec.name} sees {fixed[0]} pixels, not {side}. Set args.img_size = {side}"
            )
        self.model = model
        self.only_side: int | None = None if fixed is None else spec.size
        """The side of the only pictures it reads, pixels; None: it reads any."""
        self.regions = spec.regions
        self.place_width: int = model.num_features
        # not num_features alone: some models widen after it
        self.width: int = getattr(model, "head_hidden_size", None) or model.num_features
        self.token_width: int = self.width if spec.regions > 1 else self.place_width
        has_whole = getattr(model, "has_class_token", getattr(model, "cls_token", None) is not None)
        self.prefix: int = getattr(model, "num_prefix_tokens", int(has_whole))
        self.first_is_whole = self.prefix > 0 and has_whole
        self.palette = ColorHistogram(spec) if spec.palette else None
        self.width += spec.palette
        self.requires_grad_(not spec.frozen)

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Normalised pixels (B, 3, S, S) to image vectors (B, D) and tokens (B, M, D')."""
        if self.regions > 1:
            vectors = self.model(cut(pixels, self.regions)).unflatten(0, (len(pixels), self.regions**2))
            mean = vectors.mean(dim=1)  # eq. 2 of Tashu et al. 2022
            return self._with_palette(mean, pixels), torch.cat([mean.unsqueeze(1), vectors], dim=1)
        features = self.model.forward_features(pixels)
        vector = self._with_palette(self.model.forward_head(features), pixels)
        return vector, self._tokens(features)

    def _with_palette(self, vector: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
        return vector if self.palette is None else torch.cat([vector, self.palette(pixels)], dim=1)

    def _tokens(self, features: torch.Tensor) -> torch.Tensor:
        return as_tokens(features, self.place_width, self.prefix, self.first_is_whole)


def cut(pixels: torch.Tensor, regions: int) -> torch.Tensor:
    """(B, 3, S, S) to (B x regions^2, 3, S / regions, S / regions), row by row."""
    side = pixels.shape[-1] // regions
    patches = pixels.unfold(2, side, side).unfold(3, side, side)  # (B, 3, regions, regions, side, side)
    return patches.permute(0, 2, 3, 1, 4, 5).reshape(-1, pixels.shape[1], side, side)


def as_tokens(features: torch.Tensor, width: int, prefix: int, first_is_whole: bool) -> torch.Tensor:
    """What timm's forward_features gives to (B, 1 + places, D'): the whole picture, then its places, row by row.

    Of the ``prefix`` tokens of a transformer only [CLS] stays, if it is the first; registers stand for nothing.
    """
    if not isinstance(features, torch.Tensor):
        raise ValueError("it gives several maps of features, not one")
    if features.ndim == 4:  # (B, D', m, m), or channels last: (B, m, m, D')
        channels_last = features.shape[1] != width and features.shape[-1] == width
        places = features.flatten(1, 2) if channels_last else features.flatten(2).transpose(1, 2)
    else:
        places = features[:, prefix:]  # (B, M, D')
    whole = features[:, :1] if first_is_whole else places.mean(dim=1, keepdim=True)
    return torch.cat([whole, places], dim=1)


def feature_map(tokens: torch.Tensor) -> torch.Tensor:
    """The tokens (B, 1 + m * m, D') of any :class:`ImageEncoder` as a map (B, D', m, m): what stands where."""
    places = tokens[:, 1:].transpose(1, 2)
    side = round(places.shape[2] ** 0.5)
    return places.reshape(*places.shape[:2], side, side)


def pool(states: torch.Tensor, mask: torch.Tensor, pooling: Pooling) -> torch.Tensor:
    """Token vectors (B, L, H) to text vectors (B, H); ``mask`` (B, L) is 1 at tokens and 0 at padding."""
    if pooling == "cls":
        return states[:, 0]
    weights = mask.unsqueeze(-1).to(states.dtype)  # (B, L, 1)
    total = (states * weights).sum(dim=1)
    return total if pooling == "sum" else total / weights.sum(dim=1).clamp(min=1)


def _try_text(encoder: TextEncoder, name: str, known: int) -> None:
    """One text alone, then beside a longer one. Some encoders (ConvBERT, FNet) mix padding into the words, and a
    product's score must not depend on which products are scored with it."""
    ids = torch.arange(1, 1 + 2 * _TRIED).remainder(known).unsqueeze(0)
    seen, ones = [], torch.ones_like(ids)
    encoder.eval()
    try:
        for padding in (None, 0, known - 1):
            text, mask = ids[:, :_TRIED], ones[:, :_TRIED]
            if padding is not None:
                text = torch.cat([text, torch.full_like(text, padding)], dim=1)
                mask = torch.cat([mask, torch.zeros_like(mask)], dim=1)
            with torch.no_grad():
                seen.append(encoder(Tokens(text, mask, None, torch.ones(1, dtype=torch.bool))).vector)
    except Exception as problem:
        raise ConfigError(f"model.text.name: {name!r} is no text encoder: {told(problem)}") from None
    encoder.train()
    alone, *padded = seen
    if any(not torch.allclose(alone, other, rtol=1e-4, atol=1e-4) for other in padded):
        raise ConfigError(
            f"model.text.name: {name!r} lets padding change what it sees in a text, so that scores would depend on the "
            "batch. Take another encoder"
        )


def _try_image(encoder: ImageEncoder, side: int) -> None:
    """One forward pass: not every model of timm gives its features as the others do, or reads any size."""
    encoder.eval()
    with torch.no_grad():
        vector, tokens = encoder(torch.zeros(1, 3, side, side))
    encoder.train()
    found, expected = (tuple(vector.shape), tokens.shape[2]), ((1, encoder.width), encoder.token_width)
    if found != expected:
        raise ValueError(f"it gives vector and token width {found}, not {expected}")


def _longest(model: Any) -> int | None:
    """Tokens that an encoder can read; None: any number."""
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None:
            return int(module.num_embeddings - module.padding_idx - 1)  # RoBERTa and its kind number from there
    longest = getattr(model.config, "max_position_embeddings", None)
    return longest if longest and longest > 0 else None  # XLNet says -1


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
