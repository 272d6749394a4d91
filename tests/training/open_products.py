"""Toy products with attributes that no closed list holds: a brand, a width in cm, and a colour of a closed list."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from catalog_enrichment.config.catalog import CatalogConfig
from catalog_enrichment.config.schema import Config, MlflowConfig, PrecisionConfig, TrainingConfig
from catalog_enrichment.dictionary import Attribute, Dictionary
from catalog_enrichment.records import Cardinality
from catalog_enrichment.values.kinds import Kind, NumberRule

from .toy import COLORS, SYLLABLES, picture, product, recipe_toml

WIDTH = Attribute(
    name="width",
    cardinality=Cardinality.ONE,
    kind=Kind.NUMBER,
    number=NumberRule(unit="cm", low=1, high=300),
)
BRAND = Attribute(name="brand", cardinality=Cardinality.ONE, kind=Kind.TEXT)
COLOR = Attribute(name="color", cardinality=Cardinality.ONE, values=tuple(COLORS))
OPEN = Dictionary({"width": WIDTH, "brand": BRAND})
MIXED = Dictionary({"color": COLOR, "width": WIDTH, "brand": BRAND})
CLOSED = Dictionary({"color": COLOR})

EXTRACT = """
name = "toy"
[text]
pooling = "mean"
max_length = 48
[text.bert]
hidden = 32
layers = 1
heads = 2
intermediate = 64
vocab_size = 300
dropout = 0.0
[fit]
epochs = 6
batch_size = 16
text_learning_rate = 3e-3
learning_rate = 5e-3
"""


def brand_of(number: int) -> str:
    """One brand in three is of a single product."""
    dice = np.random.default_rng(number if number % 3 == 0 else 10_000 + number % 40)
    return "".join(dice.choice(SYLLABLES, 3)).capitalize()


def width_of(number: int) -> int:
    return int(np.random.default_rng(20_000 + number).integers(20, 200))


def listing(number: int, labelled: bool = True, **changes: Any) -> dict[str, Any]:
    """A product whose title begins with its brand and has its width beside its height, in mm in every fourth title.

    One in ten has neither in its text.
    """
    color, width, height = list(COLORS)[number % len(COLORS)], width_of(number), 200 + number % 60
    said = f"{width * 10} mm" if number % 4 == 0 else f"{width} cm"
    words = f"{said} wide and {height} cm high" if number % 2 else f"height {height} cm, width {said}"
    name = "".join(SYLLABLES[int(digit)] for digit in f"{number * 7919 % 100_003:05d}")
    title = f"{brand_of(number)} {color.lower()} shelf {name} {words}"
    if number % 10 == 7:
        title = f"{color.lower()} shelf {name}"
    values = [("color", [color]), ("width", [f"{width} cm"]), ("brand", [brand_of(number)])]
    return product(number) | {
        "title": title,
        "description": "a thing for the wall",
        "images": [{"bytes": picture(color, np.random.default_rng(number)), "uri": None, "version": "1"}],
        "merchant_attributes": values if labelled else [],
        **changes,
    }


def listings() -> list[dict[str, Any]]:
    """1,100 labelled products and 300 unlabelled ones."""
    return [listing(number, labelled=number < 1100) for number in range(1400)]


def config(folder: Path, **training: Any) -> Config:
    (folder / "toy.toml").write_text(recipe_toml(epochs=3))
    (folder / "extract.toml").write_text(EXTRACT)
    settings: dict[str, Any] = {
        "recipe": "toy.toml",
        "extraction": "extract.toml",
        "min_label_count": 5,
        "threads": 1,
        "compute_types": ["fp32"],
        "unimodal_baselines": False,
        **training,
    }
    return Config(
        catalog=CatalogConfig(path="lake", dictionary="dictionary.json"),
        mlflow=MlflowConfig(tracking_uri="sqlite:///x.db"),
        root=str(folder),
        training=TrainingConfig(**settings),
        precision=PrecisionConfig(noticeable_share=1.0),  # few products
    )
