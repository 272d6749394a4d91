"""The drift reference from scores that are written down, and categories that seldom have an attribute."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from catalog_enrichment.dictionary import Attribute, Dictionary
from catalog_enrichment.records import Cardinality, Modality
from catalog_enrichment.training.dataset import Dataset
from catalog_enrichment.training.evaluation import ModelScores
from catalog_enrichment.training.labels import Labels
from catalog_enrichment.training.version_facts import drift_reference, seldom_given
from catalog_enrichment.values.kinds import Kind, NumberRule

from ..sample_certificate import abstention, certificate
from .two_colours import Marketplace

TOP = [0.96, 0.31, 0.97, 0.98, 0.2, 0.99, 0.99]


def dataset() -> Dataset:
    """Seven products: 0-2 shirts in English, 3-4 a shirt and a toy in French, 5 without a picture, 6 labelled."""
    return Dataset(
        Dictionary({"color": Attribute(name="color", cardinality=Cardinality.ONE, values=("red", "green"))}),
        ids=[f"p{i}" for i in range(7)],
        categories=["Shirts/A", "Shirts/B", "Shirts", "Shirts/A", "Toys", "Shirts", "Shirts"],
        languages=["en", "en", "en", "fr", "fr", "en", "en"],
        pictures=["x"] * 5 + [None, "x"],
        picture_reasons=[None] * 7,
    )


def labels() -> dict[str, Labels]:
    labelled = np.arange(7) == 6
    truth = np.zeros((7, 2), dtype=bool)
    return {"color": Labels("color", Cardinality.ONE, ("red", "green"), truth, labelled, np.zeros(7, int), ~labelled)}


def scores(top: list[float], index: list[int]) -> ModelScores:
    """The top value is red, but green where the number is below 0.5."""
    return ModelScores(np.array(index), {"color": np.array([(top[i], 1 - top[i]) for i in index])})


def test_strata_have_the_unlabelled_products_of_their_path() -> None:
    certificates = [certificate(threshold=0.95, values=("red",)), abstention(modality=Modality.TEXT_ONLY)]
    both, without = drift_reference(dataset(), labels(), scores(TOP, list(range(7))), certificates, None)
    assert (both["attribute"], both["modality"], both["compute_type"]) == ("color", "both", "fp32-cpu")
    facts = {(row["language"], row["category"]): (row["products"], row["accepted"]) for row in both["strata"]}
    # green has .69 and .8, and is not in the pool
    assert facts == {("en", "Shirts"): (3, 2), ("fr", "Shirts"): (1, 1), ("fr", "Toys"): (1, 0)}
    english = both["strata"][0]
    assert sum(english["histogram"]) == 3
    assert (english["histogram"][19], english["histogram"][13]) == (2, 1)
    assert english["masked"] == {}
    assert [(row["products"], row["accepted"]) for row in without["strata"]] == [(1, 0)]


def test_masked_products_are_those_whose_top_value_changes() -> None:
    asked: list[tuple[list[int], str]] = []

    def score_masked(index: np.ndarray, *, masked: str) -> ModelScores:
        asked.append((index.tolist(), masked))
        return scores(TOP if masked == "image" else [0.4] * 7, index.tolist())

    of_all = scores(TOP, list(range(7)))
    (both,) = drift_reference(dataset(), labels(), of_all, [certificate(threshold=0.95)], score_masked)
    assert asked == [([0, 1, 2, 3, 4], "image"), ([0, 1, 2, 3, 4], "text")]
    masked = {(row["language"], row["category"]): row["masked"] for row in both["strata"]}
    assert masked["en", "Shirts"] == {"image": [0, 3], "text": [2, 3]}
    assert masked["fr", "Toys"] == {"image": [0, 1], "text": [0, 1]}


def test_of_an_open_attribute_a_masked_product_changes_where_another_value_is_proposed() -> None:
    """As a run compares them: the only column of such an attribute is always on top."""
    data = dataset()
    rule = NumberRule(unit="cm", low=1, high=500)
    data.dictionary = Dictionary(
        {"color": Attribute(name="color", cardinality=Cardinality.ONE, kind=Kind.NUMBER, number=rule)}
    )
    index = np.arange(7)
    widths = {"color": ["51 cm", "51 cm", "", "20 cm", "", "9 cm", ""]}
    without = {"color": ["20.08 in", "", "", "21 cm", "", "9 cm", ""]}
    one = {"color": np.full((7, 1), 0.9)}

    def score_masked(index: np.ndarray, *, masked: str) -> ModelScores:
        del masked
        return ModelScores(
            index, {"color": one["color"][index]}, proposed={"color": [without["color"][i] for i in index]}
        )

    (both,) = drift_reference(
        data, labels(), ModelScores(index, one, proposed=widths), [certificate(threshold=0.95)], score_masked
    )
    masked = {(row["language"], row["category"]): row["masked"]["text"] for row in both["strata"]}
    assert masked == {("en", "Shirts"): [1, 3], ("fr", "Shirts"): [1, 1], ("fr", "Toys"): [0, 1]}


def test_a_category_in_which_merchants_hardly_ever_give_a_value_is_named_with_the_dictionarys_line() -> None:
    market = Marketplace()
    names = {0: "Beauty/Perfume", 1: "Beauty/Make-up", 2: "Apparel/Topwear", 3: "Shoes"}
    market.dataset.categories = [names[group % 4] for group in market.groups.tolist()]
    perfume = market.groups % 4 == 0
    labels = replace(market.labels, labelled=market.labelled & ~perfume, unlabelled=~market.labelled | perfume)
    (row,) = seldom_given(market.dataset, {"color": labels}, np.full(market.count, 2.0))
    assert row == {
        "attribute": "color", "category": "Beauty/Perfume", "products": 800, "labelled": 0,
        "categories": ["Apparel", "Beauty/Make-up", "Shoes"],
    }  # fmt: skip


@pytest.mark.parametrize("labelled_share", [0.0, 0.06])
def test_an_attribute_that_is_given_nowhere_or_often_enough_names_no_category(labelled_share: float) -> None:
    market = Marketplace()
    given = np.arange(market.count) % 100 < 100 * labelled_share
    labels = replace(market.labels, labelled=given, unlabelled=~given)
    assert seldom_given(market.dataset, {"color": labels}, np.ones(market.count)) == []
