"""Tiny models for the room's tests: BERTs, an lcnet and a vision transformer from random weights."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from catalog_enrichment.inputs.product_batch import ProductBatch
from catalog_enrichment.inputs.text import TextTokenizer
from catalog_enrichment.models import artifact
from catalog_enrichment.models.network import MultiModalNet, build_network
from catalog_enrichment.models.predictor import Predictor
from catalog_enrichment.models.recipe_files import load_model_recipe
from catalog_enrichment.models.spec import (
    BertSize,
    FitSpec,
    FusionSpec,
    Head,
    ImageSpec,
    ModelSpec,
    Recipe,
    TextSpec,
    fusion_files,
)
from catalog_enrichment.records import Cardinality

HEADS = {  # not in alphabetical order, and a name that torch's ModuleDict would refuse
    "type": Head(Cardinality.ONE, ("Shirt", "Shoe", "Scarf")),
    "color.main": Head(Cardinality.ONE, ("Red", "Navy Blue", "Green")),
    "material": Head(Cardinality.MANY, ("Cotton", "Wool", "Silk", "Leather")),
}
TEMPERATURES = {"type": 1.0, "color.main": 2.5, "material": 0.7}
SIZE = 32
KINDS = list(fusion_files())
VARIANTS = ("pair lcnet", "apart lcnet", "pair second vit", "apart second vit", "pair regions")
"""Encoders: title and description as a pair or apart, a second text encoder or none, what reads the picture."""

_IMAGES = {
    "lcnet": ImageSpec(name="lcnet_035", size=SIZE),
    "regions": ImageSpec(name="lcnet_035", size=SIZE, regions=2),
    "vit": ImageSpec(
        name="vit_tiny_patch16_224",
        args={"img_size": SIZE, "patch_size": 16, "embed_dim": 16, "depth": 1, "num_heads": 2},
        size=SIZE,
    ),
}


def tiny(kind: str = "modality_attention", variant: str = "pair lcnet", **options: Any) -> Recipe:
    fields, *_, image = variant.split()
    text, second = (
        TextSpec(
            bert=BertSize(hidden=16, layers=1, heads=2, intermediate=32, vocab_size=vocab_size),
            fields=fields,  # type: ignore[arg-type]
            max_length=16,
        )
        for vocab_size in (200, 60)
    )
    model = ModelSpec(
        text=text,
        second_text=second if "second" in variant else None,
        image=_IMAGES[image],
        fusion=FusionSpec(kind=kind, options=options),
    )
    return Recipe(name="tiny", model=model, fit=FitSpec(epochs=1))


def load_single_recipe(path: str | Path) -> Recipe:
    """Load the recipe of a file that is not an ensemble's."""
    recipe = load_model_recipe(path)
    assert isinstance(recipe, Recipe)
    return recipe


def tokenizers_of(recipe: Recipe) -> dict[str, TextTokenizer]:
    """Return a tokenizer per text encoder, each with a vocabulary of its own."""
    return {name: _tokenizer(text.bert.vocab_size) for name, text in recipe.model.texts.items() if text.bert}


@cache
def _tokenizer(vocab_size: int) -> TextTokenizer:
    return TextTokenizer.train(["navy blue cotton shirt", "red wool scarf for women", "green shoe"] * 5, vocab_size)


def save(folder: Path, recipe: Recipe | None = None) -> Path:
    """Save the network of ``recipe`` (the default: of :func:`tiny`) as a model version; returns ``folder``."""
    recipe = recipe or tiny()
    artifact.save(folder, network(recipe), tokenizers_of(recipe), recipe, TEMPERATURES)
    return folder


def predictor_of(recipe: Recipe, numbers: str = "fp32") -> Predictor:
    return Predictor(network(recipe), tokenizers_of(recipe), recipe.model, TEMPERATURES, numbers=numbers)


def network(recipe: Recipe) -> MultiModalNet:
    torch.manual_seed(0)
    net = build_network(recipe.model, HEADS, tokenizers_of(recipe))
    for weight in net.fusion.parameters():
        # as far from the neutral start as training goes
        torch.nn.init.normal_(weight, std=weight.shape[-1] ** -0.5 if weight.ndim > 1 else 1.0)
    for name, chosen in net.fusion.named_buffers():  # what choose_parameters() chooses
        chosen.fill_({"alpha": 0.3, "settled": True}[name])
    return net.eval()


@pytest.fixture(scope="session")
def tokenizers() -> dict[str, TextTokenizer]:
    return tokenizers_of(tiny())


@pytest.fixture(scope="session")
def net() -> MultiModalNet:
    return network(tiny())


@pytest.fixture(scope="session")
def batch() -> ProductBatch:
    """Six products, with and without description and picture."""
    random = np.random.default_rng(0)
    pictures = [random.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8) for _ in range(6)]
    titles = ["navy shirt", "red wool scarf for women", None, "\x00 green", "shoe 👟", "blue"]
    descriptions = ["cotton", "", "a shirt of navy blue cotton", None, "red", "wool " * 40]
    return ProductBatch(titles, descriptions, [p if row not in (1, 4) else None for row, p in enumerate(pictures)])
