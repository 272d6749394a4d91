"""The recipe of an extractor (TOML) as frozen dataclasses. Imports no torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from catalog_enrichment import resources
from catalog_enrichment.config import strict
from catalog_enrichment.models import recipe_files
from catalog_enrichment.models.spec import TextSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class CandidateSpec:
    """Which places of a text can be a value."""

    most_words: int = 7
    """Words of a text value, at most."""
    read_words: int = 200
    """Words that are read of a title, and of a description."""
    kept: int = 20
    """Candidates per product and attribute that the encoder judges: the best by their features."""

    def __post_init__(self) -> None:
        strict.check_ranges("candidates", self, most_words=(1, 12), read_words=(1, 2000), kept=(2, 100))


@dataclass(frozen=True, kw_only=True, slots=True)
class ExtractionFit:
    """How the extractor is fitted to the values that merchants gave (distant supervision)."""

    epochs: int = 3
    """Most passes over the labelled products of the train fold."""
    min_steps: int = 300
    """Steps of the optimizer to reach by more passes where there are few products; at most four times `epochs`."""
    batch_size: int = 32
    """Products per step."""
    text_learning_rate: float = 1e-4
    """The learning rate of the text encoder."""
    learning_rate: float = 2e-3
    """The learning rate of all other weights."""
    weight_decay: float = 0.01
    """Not applied to biases and normalisation."""
    warmup_share: float = 0.1
    """Share of the steps in which the learning rates rise from 0; then they fall to 0 like a cosine."""
    gradient_norm: float = 1.0
    """Gradients are clipped to this norm."""
    unknown_share: float = 0.3
    """Share of the training products whose candidates are taken for values that no merchant gave before, so that new
    values can be found."""
    patience: int = 2
    """Stop after this many epochs without a better validation loss; 0: never."""
    precision: Literal["fp32", "bf16", "auto"] = "fp32"
    """Number type of the encoder's forward pass in training (weights and optimizer stay fp32). auto: bf16 where the
    processor or GPU multiplies it, so that machines may give different weights."""
    seed: int = 0
    """Seed of initial weights and batches."""

    def __post_init__(self) -> None:
        strict.check_ranges(
            "fit",
            self,
            epochs=(1, 1000),
            batch_size=(1, 10_000),
            warmup_share=(0, 1),
            unknown_share=(0, 1),
            weight_decay=(0, 10),
            min_steps=(0, 1_000_000),
            patience=(0, 1000),
        )
        if min(self.text_learning_rate, self.learning_rate, self.gradient_norm) <= 0:
            raise ValueError("learning rates and gradient_norm must be positive")

    def passes(self, products: int) -> int:
        """Return the epochs of a fit on ``products`` products."""
        steps = max(-(-products // self.batch_size), 1)
        return max(self.epochs, min(-(-self.min_steps // steps), 4 * self.epochs))


@dataclass(frozen=True, kw_only=True, slots=True)
class ExtractionRecipe:
    """An extractor and its fit."""

    name: str
    text: TextSpec
    """The text encoder; it reads title and description as a pair."""
    candidates: CandidateSpec = field(default_factory=CandidateSpec)
    fit: ExtractionFit = field(default_factory=ExtractionFit)

    def __post_init__(self) -> None:
        if self.text.fields != "pair":
            raise ValueError(f"text.fields must be 'pair', not {self.text.fields!r}")

    def to_plain(self) -> dict[str, Any]:
        """Return the recipe as plain data."""
        return asdict(self)


def load_extraction_recipe(path: str | Path) -> ExtractionRecipe:
    """Read a recipe: a path, or ``recipes:NAME.toml`` for a shipped recipe. Raises ConfigError if it is unusable."""
    file = resources.locate(str(path))
    recipe = strict.build(ExtractionRecipe, strict.read_toml(file), file.name)
    name = recipe_files.absolute(file.parent, recipe.text.name)
    return replace(recipe, text=replace(recipe.text, name=name))
