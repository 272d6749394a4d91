"""Text encoders of transformers, and their tokenizers; weights are random or from a folder, a package or the hub.

Nothing is downloaded unless the recipe gives a hub name. Shapes: B products, T tokens of a text, H text width.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import AutoModel, BertConfig

from catalog_enrichment.errors import ConfigError
from catalog_enrichment.inputs.text import TextTokenizer
from catalog_enrichment.models import e5_file
from catalog_enrichment.models.fusion.base import EncoderOutput
from catalog_enrichment.models.pretrained import (
    error_summary,
    load_pretrained,
    pretrained_config,
    pretrained_source,
)
from catalog_enrichment.models.spec import BertSize, Pooling, TextSpec

_CHECKED_TOKENS = 4
"""The tokens of the text that checks an encoder."""


def build_tokenizer(spec: TextSpec, texts: Iterable[str]) -> TextTokenizer:
    """Return the pretrained encoder's tokenizer; an encoder from scratch learns its tokenizer from clean ``texts``."""
    if spec.bert is not None:
        return TextTokenizer.train(texts, spec.bert.vocab_size)
    with pretrained_source(spec.name) as (name, local):
        if e5_file.is_e5(name):
            return TextTokenizer(e5_file.read_tokenizer(name))
        return TextTokenizer.from_pretrained(name, local)


def build_text_encoder(spec: TextSpec, vocab_size: int) -> TextEncoder:
    """Return the pretrained encoder that ``spec`` names, or an encoder from scratch for ``vocab_size`` tokens.

    Raises ConfigError for an encoder that cannot be loaded completely, has fewer tokens than its tokenizer, or whose
    output depends on padding.
    """
    if spec.bert is not None:
        return text_encoder_from_config(_bert_config(spec.bert, spec.max_length, vocab_size), spec)
    with pretrained_source(spec.name) as (name, local):
        if spec.random_weights:
            encoder = text_encoder_from_config(pretrained_config(name, local), spec)
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
    """Return an encoder with random weights from a transformers config.

    The weights are float32: a config may ask for the 16-bit floats that its weights were stored in, which are too
    imprecise for training.
    """
    return TextEncoder(AutoModel.from_config(config, dtype=torch.float32, trust_remote_code=False), spec)


@dataclass(frozen=True, slots=True)
class Tokens:
    """The tokens of a text of B products."""

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
    """A text encoder: token ids to a vector per product and a vector per token."""

    def __init__(self, model: Any, spec: TextSpec) -> None:
        super().__init__()
        self.config = model.config
        """The transformers config, from which the encoder is built without weights."""
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
        if spec.frozen_words:
            model.get_input_embeddings().requires_grad_(False)

    def forward(self, tokens: Tokens) -> EncoderOutput:
        # FlauBERT would embed the types as words, RoBERTa has a single type
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


def pool(states: torch.Tensor, mask: torch.Tensor, pooling: Pooling) -> torch.Tensor:
    """Pool token vectors (B, T, H) to text vectors (B, H); ``mask`` (B, T) is 1 at tokens and 0 at padding."""
    if pooling == "cls":
        return states[:, 0]
    weights = mask.unsqueeze(-1).to(states.dtype)  # (B, T, 1)
    total = (states * weights).sum(dim=1)
    return total if pooling == "sum" else total / weights.sum(dim=1).clamp(min=1)


def _check_padding_is_ignored(encoder: TextEncoder, name: str, known_tokens: int) -> None:
    """Raise ConfigError if the vector of a text changes with padding, as for ConvBERT and FNet.

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


def _longest(model: Any) -> int | None:
    """Return the largest number of tokens that an encoder can read, or None without a limit."""
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None:
            # in RoBERTa models, positions start after padding_idx
            return int(module.num_embeddings - module.padding_idx - 1)
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
