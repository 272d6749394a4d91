"""A toy catalog: coloured squares as JPEG, every second title with the colour, a material that only the text has."""

from __future__ import annotations

import io
import tomllib
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from catalog_enrichment import contract
from catalog_enrichment.config import strict
from catalog_enrichment.dictionary import Attribute, Dictionary
from catalog_enrichment.models.spec import Recipe
from catalog_enrichment.records import Cardinality, stable_hash

COLORS = {"Red": (200, 30, 30), "Green": (30, 170, 40), "Blue": (40, 50, 200), "Navy Blue": (10, 10, 80)}
MATERIALS = ("Cotton", "Leather", "Wool")
SYLLABLES = ("ka", "lo", "mi", "ne", "pu", "ra", "si", "to", "vu", "ze")

DICTIONARY = Dictionary(
    {
        "color": Attribute(
            name="color",
            cardinality=Cardinality.ONE,
            values=(*COLORS, "Mauve"),
            aliases={"en": {"crimson": "Red"}},
        ),
        "material": Attribute(name="material", cardinality=Cardinality.MANY, values=MATERIALS),
        "season": Attribute(name="season", cardinality=Cardinality.ONE, values=("Summer", "Winter")),
    }
)


def picture(color: str, random: np.random.Generator, size: int = 24) -> bytes:
    """A noisy square of the colour, as JPEG."""
    base = np.full((size, size, 3), COLORS[color], dtype=np.float64)
    pixels = np.clip(base + random.normal(0, 12, base.shape), 0, 255).astype(np.uint8)
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, format="JPEG", quality=90)
    return sink.getvalue()


def product(number: int, labelled: bool = True, **changes: Any) -> dict[str, Any]:
    """A product row, determined by its number."""
    random = np.random.default_rng(number)
    color = list(COLORS)[number % len(COLORS)]
    material = [MATERIALS[number % 3]] if number % 5 else [MATERIALS[0], MATERIALS[2]]
    brand = "".join(random.choice(SYLLABLES, 4))
    image = picture(color, random)
    row = {
        "product_id": f"p{number:05d}",
        "shop_id": "shop",
        "title": f"{brand} {color.lower() if number % 2 else ''} shirt of {' and '.join(material).lower()}",
        "description": f"a {brand} thing",
        "category": "Apparel/Topwear",
        "language": "en",
        "images": [{"bytes": image, "uri": None, "version": "1"}],
        "merchant_attributes": [("color", [color]), ("material", material)] if labelled else [],
        "opt_out": False,
        "updated_at": datetime(2026, 1, 1, tzinfo=UTC),
    }
    row |= changes
    return row | {"content_hash": stable_hash(row["title"], row["description"])}


def batches(rows: Sequence[dict[str, Any]], size: int = 64) -> list[pa.RecordBatch]:
    """The rows as record batches, as the catalog's scan returns them."""
    return pa.Table.from_pylist(list(rows), schema=contract.arrow_schema("products")).to_batches(max_chunksize=size)


def easy(number: int, **changes: Any) -> dict[str, Any]:
    """A product whose title has its colour and materials, and a brand that no other product has."""
    row = product(number)
    words = [value.lower() for _, values in row["merchant_attributes"] for value in values]
    # the digits of a permutation: products with large numbers have no syllables of their own
    brand = "".join(SYLLABLES[int(digit)] for digit in f"{number * 7919 % 100_003:05d}")
    return row | {"title": f"{' '.join(words)} {brand}"} | changes


def recipe(fusion: str = "modality_attention", **fit: Any) -> Recipe:
    """Return the smallest model that can learn the toy catalog; ``fit``: changed keys."""
    content = tomllib.loads(recipe_toml(epochs=2))
    content["model"]["fusion"] = {"kind": fusion}
    content["fit"] |= {"augment": True, **fit}
    return strict.build(Recipe, content, where="toy")


def silent(line: str) -> None:
    """A progress callback that discards its line."""


def recipe_toml(epochs: int) -> str:
    """Return the model of :func:`recipe` as a recipe file."""
    return f"""
name = "toy"
[model.text]
pooling = "mean"
max_length = 16
[model.text.bert]
hidden = 32
layers = 1
heads = 2
intermediate = 64
vocab_size = 200
dropout = 0.0
[model.image]
name = "test_convnext"
size = 32
[fit]
epochs = {epochs}
batch_size = 16
text_learning_rate = 3e-3
image_learning_rate = 1e-3
learning_rate = 5e-3
image_dropout = 0.2
"""
