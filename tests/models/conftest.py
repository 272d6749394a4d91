"""One tiny model for the room's tests: a BERT and an lcnet from random weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from catalog_enrichment.inputs.tokenizer import TextTokenizer
from catalog_enrichment.models.network import Head, MultiModalNet, build_network
from catalog_enrichment.models.spec import BertSize, FitSpec, FusionSpec, ImageSpec, ModelSpec, Recipe, TextSpec
from catalog_enrichment.records import Cardinality

HEADS = {  # not in alphabetical order, and one name that torch's ModuleDict would refuse
    "type": Head(Cardinality.ONE, ("Shirt", "Shoe", "Scarf")),
    "color.main": Head(Cardinality.ONE, ("Red", "Navy Blue", "Green")),
    "material": Head(Cardinality.MANY, ("Cotton", "Wool", "Silk", "Leather")),
}
TEMPERATURES = {"type": 1.0, "color.main": 2.5, "material": 0.7}
SIZE = 32


def tiny(kind: str = "modality_attention") -> Recipe:
    model = ModelSpec(
        text=TextSpec(bert=BertSize(hidden=16, layers=1, heads=2, intermediate=32, vocab_size=200), max_length=16),
        image=ImageSpec(name="lcnet_035", size=SIZE),
        fusion=FusionSpec(kind=kind),  # type: ignore[arg-type]
    )
    return Recipe(name="tiny", model=model, fit=FitSpec(epochs=1))


def network(recipe: Recipe, tokenizer: TextTokenizer) -> MultiModalNet:
    torch.manual_seed(0)
    net = build_network(recipe.model, HEADS, tokenizer)
    for name, weight in net.named_parameters():
        if name.startswith(("fusion", "classifiers")):
            torch.nn.init.normal_(weight)  # as far from the neutral start as training goes
    return net.eval()


@pytest.fixture(scope="session")
def tokenizer() -> TextTokenizer:
    return TextTokenizer.train(["navy blue cotton shirt", "red wool scarf for women", "green shoe"] * 5, 200)


@pytest.fixture(scope="session")
def net(tokenizer: TextTokenizer) -> MultiModalNet:
    return network(tiny(), tokenizer)


@pytest.fixture(scope="session")
def batch() -> tuple[list[str | None], list[str | None], list[np.ndarray | None]]:
    """Six products, with and without description and picture."""
    random = np.random.default_rng(0)
    pictures = [random.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8) for _ in range(6)]
    titles = ["navy shirt", "red wool scarf for women", None, "\x00 green", "shoe 👟", "blue"]
    descriptions = ["cotton", "", "a shirt of navy blue cotton", None, "red", "wool " * 40]
    return titles, descriptions, [p if row not in (1, 4) else None for row, p in enumerate(pictures)]
