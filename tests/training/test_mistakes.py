"""Which mistakes are shown, in which order, with which picture. Colours: column 0 is Red (odd products: Blue)."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image

from catalog_enrichment.precision.paired_recall import HeldOutDecision
from catalog_enrichment.records import Cardinality, Modality
from catalog_enrichment.training.dataset import Labels
from catalog_enrichment.training.evaluation import ModelScores
from catalog_enrichment.training.mistakes import TITLE, mistakes, pictures_of
from catalog_enrichment.training.task import Split

from .two_colours import NONE, Marketplace


class World:
    """The first 400 products are the test fold; the model is right about all, until a test says otherwise."""

    def __init__(self) -> None:
        self.market = Marketplace()
        self.dataset = self.market.dataset
        self.dataset.titles = [f"title {n}" for n in range(self.market.count)]
        folds = replace(self.market.folds, train=NONE, test=self.market.folds.train)
        self.split = Split(self.dataset, self.market.groups, folds)
        self.probabilities = self.market.scores.copy()
        self.written: dict[int, tuple[str, ...]] = {}
        self.weights = np.full(self.market.count, 0.25)

    def wrong(self, product: int, score: float, written: bool = False) -> None:
        """The other colour is predicted for ``product``."""
        truth = self.market.truth[product]
        self.probabilities[product] = np.where(truth, 1 - score, score)
        if written:
            self.written[product] = (self.market.labels.values[int((~truth).argmax())],)

    def rows(self, most: int = 10, labels: Labels | None = None) -> list[dict[str, Any]]:
        names = self.market.labels.values
        decisions = [
            HeldOutDecision(f"p{n}", n // 2, "color", (names[n % 2],), self.written.get(n, ()), Modality.BOTH)
            for n in reversed(range(400))
        ]
        scores = ModelScores(np.arange(self.market.count), {"color": self.probabilities}, {"color": self.weights})
        return mistakes(self.split, {"color": labels or self.market.labels}, scores, decisions, most)


def test_a_model_that_is_right_has_no_mistakes() -> None:
    assert World().rows() == []


def test_a_mistake_has_the_product_the_truth_and_the_prediction() -> None:
    world = World()
    world.wrong(7, 0.9)
    world.weights[7] = 0.75
    (row,) = world.rows()
    assert row == {
        "attribute": "color", "product_id": "p7", "title": "title 7", "true": ["Blue"], "said": "Red",
        "score": pytest.approx(0.9), "modality": "both", "attention": 0.75, "written": False,
    }  # fmt: skip


def test_what_would_be_written_comes_first_then_the_highest_score() -> None:
    world = World()
    for product, score, written in ((1, 0.7, False), (2, 0.9, False), (3, 0.6, True), (4, 0.8, True)):
        world.wrong(product, score, written)
    assert [row["product_id"] for row in world.rows()] == ["p4", "p3", "p2", "p1"]
    assert [row["product_id"] for row in world.rows(most=3)] == ["p4", "p3", "p2"]
    assert [row["written"] for row in world.rows()] == [True, True, False, False]
    assert world.rows(most=0) == []


def test_of_several_values_a_wrong_one_that_would_be_written_is_shown() -> None:
    """Of cardinality many, and a product that has none of the colours."""
    world = World()
    world.market.truth[5] = False
    world.probabilities[5] = (0.95, 0.4)  # the second is written at a lower score than 0.5
    many = replace(world.market.labels, cardinality=Cardinality.MANY)
    assert [(row["said"], row["written"]) for row in world.rows(labels=many)] == [("Red", False)]
    world.written[5] = ("Blue",)
    assert [(row["said"], row["written"]) for row in world.rows(labels=many)] == [("Blue", True)]


def test_a_weight_that_is_not_defined_is_none_and_a_title_is_cut() -> None:
    world = World()
    world.wrong(7, 0.9)
    world.weights[7] = np.nan
    world.dataset.titles[7] = "x" * 1000
    (row,) = world.rows()
    assert row["attention"] is None
    assert row["title"] == "x" * TITLE


def test_pictures_are_those_that_the_model_saw() -> None:
    world = World()
    world.dataset.pixels = np.zeros((world.market.count, 8, 8, 3), dtype=np.uint8)
    world.dataset.pixels[7] = (250, 0, 0)
    without = next(n for n, picture in enumerate(world.dataset.pictures) if picture is None)
    pictures = pictures_of(world.dataset, ["p7", f"p{without}"])
    assert set(pictures) == {"p7"}
    decoded = np.asarray(Image.open(BytesIO(pictures["p7"])))
    assert decoded.shape == (8, 8, 3)
    assert np.abs(decoded.astype(int) - (250, 0, 0)).max() < 10


def test_products_of_a_gold_sample_are_no_mistakes_of_the_test_fold() -> None:
    world = World()
    scores = ModelScores(np.arange(world.market.count), {"color": world.probabilities}, {"color": world.weights})
    gold = HeldOutDecision("p1300", 650, "color", (), ("Red",), Modality.BOTH)
    labels = {"color": world.market.labels}
    assert mistakes(world.split, labels, scores, [gold], 10) == []
    world.wrong(3, 0.9)
    wrong = HeldOutDecision("p3", 1, "color", ("Blue",), ("Red",), Modality.BOTH)
    assert [row["product_id"] for row in mistakes(world.split, labels, scores, [gold, wrong], 10)] == ["p3"]
