"""The scores of certification by stratum, from scores that are written down."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from catalog_enrichment.dictionary import Attribute, Dictionary
from catalog_enrichment.records import Cardinality, Modality
from catalog_enrichment.training.dataset import Dataset, Labels
from catalog_enrichment.training.drift_reference import drift_reference
from catalog_enrichment.training.evaluation import ModelScores

from ..sample_certificate import abstention, certificate

COLOR = Attribute(name="color", cardinality=Cardinality.ONE, values=("red", "green"))
TOP = [0.96, 0.31, 0.97, 0.98, 0.2, 0.99, 0.99]


def dataset() -> Dataset:
    """Seven products: 0-2 shirts in English, 3-4 a shirt and a toy in French, 5 without a picture, 6 labelled."""
    n = 7
    return Dataset(
        Dictionary({"color": COLOR}),
        ids=[f"p{i}" for i in range(n)],
        titles=["t"] * n,
        descriptions=[""] * n,
        categories=["Shirts/A", "Shirts/B", "Shirts", "Shirts/A", "Toys", "Shirts", "Shirts"],
        languages=["en", "en", "en", "fr", "fr", "en", "en"],
        pictures=["x"] * 5 + [None, "x"],
        picture_reasons=[None] * n,
        updated_at=[None] * n,
        merchant=[{}] * 6 + [{"color": ("red",)}],
        self_derived=[frozenset()] * n,
    )


def scores(top: list[float], index: list[int]) -> ModelScores:
    """The top value is red, but green where the number is below 0.5."""
    return ModelScores(np.array(index), {"color": np.array([(top[i], 1 - top[i]) for i in index])})


def learned(data: Dataset) -> Labels:
    """The labels as if both values were learned."""
    return replace(data.labels("color"), values=("red", "green"), truth=np.zeros((7, 2), dtype=bool))


def test_strata_have_the_products_to_fill_of_their_path() -> None:
    data = dataset()
    labels = {"color": learned(data)}
    text = abstention(modality=Modality.TEXT_ONLY)
    both, without = drift_reference(
        data, labels, scores(TOP, list(range(7))), [certificate(threshold=0.95, values=("red",)), text], None
    )
    assert (both["attribute"], both["modality"], both["compute_type"]) == ("color", "both", "fp32-cpu")
    facts = {(one["language"], one["category"]): (one["products"], one["accepted"]) for one in both["strata"]}
    # green has .69 and .8, and is not in the pool
    assert facts == {("en", "Shirts"): (3, 2), ("fr", "Shirts"): (1, 1), ("fr", "Toys"): (1, 0)}
    english = both["strata"][0]
    assert sum(english["histogram"]) == 3
    assert (english["histogram"][19], english["histogram"][13]) == (2, 1)
    assert english["masked"] == {}
    assert [(one["products"], one["accepted"]) for one in without["strata"]] == [(1, 0)]


def test_masked_products_are_those_whose_top_value_changes() -> None:
    data = dataset()
    asked: list[tuple[list[int], str]] = []

    def score_masked(index: np.ndarray, name: str) -> ModelScores:
        asked.append((index.tolist(), name))
        top = TOP if name == "image" else [0.4] * 7
        return scores(top, index.tolist())

    (both,) = drift_reference(
        data, {"color": learned(data)}, scores(TOP, list(range(7))), [certificate(threshold=0.95)], score_masked
    )
    assert asked == [([0, 1, 2, 3, 4], "image"), ([0, 1, 2, 3, 4], "text")]
    masked = {(one["language"], one["category"]): one["masked"] for one in both["strata"]}
    assert masked["en", "Shirts"] == {"image": [0, 3], "text": [2, 3]}
    assert masked["fr", "Toys"] == {"image": [0, 1], "text": [0, 1]}
