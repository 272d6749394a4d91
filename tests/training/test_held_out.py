"""The decisions of the certificates on the test fold, and the mistakes that are shown. Column 0 is Red, odd products
are Blue."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image

from catalog_enrichment.dictionary import Attribute, Dictionary
from catalog_enrichment.precision.certificate import CertificateBasis, RefusedCategory
from catalog_enrichment.precision.certified_recall import HeldOutDecision, certified_metrics
from catalog_enrichment.reasons import Reason
from catalog_enrichment.records import ANY_VALUE, Cardinality, Modality
from catalog_enrichment.training.evaluation import ModelScores
from catalog_enrichment.training.held_out import TITLE, decisions_of, held_out_decisions, mistakes, pictures_of
from catalog_enrichment.training.labels import Labels
from catalog_enrichment.values.kinds import Kind, NumberRule

from .two_colours import Marketplace


def test_certified_metrics_are_of_what_may_be_written_on_both_paths() -> None:
    """40 of the 400 products have no picture; 100 are of a refused category, 100 of a language never seen."""
    market = Marketplace()
    both, text_only = market.certificate(), market.certificate(Modality.TEXT_ONLY)
    home = RefusedCategory(
        category="Home", language="en", accepted=3, missing=17, unlabelled_products=100, labelled_missing=200, why="few"
    )
    refused = replace(both, refused_categories=(home,), categories=("Apparel", "Home"))
    market.dataset.categories[:100] = ["Home"] * 100
    market.dataset.languages[100:200] = ["ja"] * 100
    split = market.split(market.test_folds)
    scores = market.model_scores()
    decisions = held_out_decisions(split, {"color": market.labels}, scores, [refused, text_only])
    assert len(decisions) == 400
    may = market.dataset.has_image[:400] & (np.arange(400) >= 200)
    assert [bool(row.written_values) for row in decisions] == may.tolist()
    row = certified_metrics(decisions, np.zeros(400))
    assert (row["products"], row["accepted"]) == (400, may.sum())
    assert row["recall"] == sum(row.written_values == row.true_values for row in decisions) / 400
    certified = replace(both, modality=Modality.TEXT_ONLY)
    with_both = held_out_decisions(split, {"color": market.labels}, scores, [refused, certified])
    assert [bool(row.written_values) for row in with_both] == (np.arange(400) >= 200).tolist()


def test_a_product_whose_picture_could_not_be_reached_is_in_no_test_fold() -> None:
    market = Marketplace()
    unreachable = np.flatnonzero(~market.dataset.has_image[:400])[:3].tolist()
    for product in unreachable:
        market.dataset.picture_reasons[product] = Reason.IMAGE_UNREACHABLE
    split = market.split(market.test_folds)
    scores = market.model_scores()
    decisions = held_out_decisions(split, {"color": market.labels}, scores, [market.certificate()])
    assert [row.product_id for row in decisions] == [f"p{n}" for n in range(400) if n not in unreachable]


def test_gold_products_that_did_not_certify_are_test_products() -> None:
    """Half of the unlabelled products were answered, a third of these have no value; a twin of a product that trained
    is left out."""
    market = Marketplace()
    answered = ~market.labelled & (market.groups % 2 == 0)
    market.dataset.gold = [
        {"color": () if group % 3 == 0 else (("Red", "Blue")[product % 2],)} if asked else {}
        for product, (asked, group) in enumerate(zip(answered.tolist(), market.groups.tolist(), strict=True))
    ]
    market.dataset.merchant = [{"color": ("Red",)} if given else {} for given in market.labelled.tolist()]
    market.groups = np.where(np.arange(market.count) >= 1500, market.groups - 750, market.groups)
    labels = replace(market.labels, gold=answered, gold_truth=market.truth)
    folds = replace(market.folds, test=market.folds.certification[:40])
    split = market.split(folds)
    scores = market.model_scores()
    certificate = market.certificate()
    found = held_out_decisions(split, {"color": labels}, scores, [certificate])
    rows = {row.product_id: row for row in found}
    fresh = answered & (np.arange(market.count) < 1500)
    assert set(rows) == {f"p{n}" for n in np.flatnonzero(fresh)} | {f"p{n}" for n in folds.test}
    (none,) = {rows[f"p{n}"].true_values for n in np.flatnonzero(fresh) if market.dataset.gold[n]["color"] == ()}
    assert none == ()
    written = sum(bool(row.written_values) and not row.true_values for row in found)
    assert written > 0, "the gate sees that a value is written to products that have none"

    by_gold = replace(certificate, basis=CertificateBasis.GOLD_SAMPLE)
    without = held_out_decisions(split, {"color": labels}, scores, [by_gold])
    of_other_path = fresh & ~market.dataset.has_image
    assert {row.product_id for row in without} == {f"p{n}" for n in np.flatnonzero(of_other_path)} | {
        f"p{n}" for n in folds.test
    }


# --- mistakes ----------------------------------------------------------------------------------------------------


class World:
    """The first 400 products are the test fold; the model is right about all, until a test says otherwise."""

    def __init__(self) -> None:
        self.market = Marketplace()
        self.dataset = self.market.dataset
        self.dataset.titles = [f"title {n}" for n in range(self.market.count)]
        self.split = self.market.split(self.market.test_folds)
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
        return self.mistakes(decisions, most, labels)

    def mistakes(
        self, decisions: list[HeldOutDecision], most: int = 10, labels: Labels | None = None
    ) -> list[dict[str, Any]]:
        scores = ModelScores(np.arange(self.market.count), {"color": self.probabilities}, {"color": self.weights})
        return mistakes(self.split, {"color": labels or self.market.labels}, scores, decisions, most)


def test_a_mistake_has_the_product_the_truth_and_the_prediction() -> None:
    world = World()
    assert world.rows() == []
    world.wrong(7, 0.9)
    world.weights[7] = 0.75
    (row,) = world.rows()
    assert row == {
        "attribute": "color", "product_id": "p7", "title": "title 7", "true": ["Blue"], "predicted": "Red",
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


def test_a_wrong_value_that_would_be_written_is_shown_before_others() -> None:
    """The attribute can have many values, and the product has none of them."""
    world = World()
    world.market.truth[5] = False
    world.probabilities[5] = (0.95, 0.4)  # the second is written at a lower score than 0.5
    many = replace(world.market.labels, cardinality=Cardinality.MANY)
    assert [(row["predicted"], row["written"]) for row in world.rows(labels=many)] == [("Red", False)]
    world.written[5] = ("Blue",)
    assert [(row["predicted"], row["written"]) for row in world.rows(labels=many)] == [("Blue", True)]


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
    gold = HeldOutDecision("p1300", 650, "color", (), ("Red",), Modality.BOTH)
    assert world.mistakes([gold]) == []
    world.wrong(3, 0.9)
    wrong = HeldOutDecision("p3", 1, "color", ("Blue",), ("Red",), Modality.BOTH)
    assert [row["product_id"] for row in world.mistakes([gold, wrong])] == ["p3"]


def test_a_number_of_a_gold_sample_in_another_spelling_is_the_written_one() -> None:
    market = Marketplace(8)
    rule = NumberRule(unit="cm", low=1, high=500)
    width = Attribute(name="width", cardinality=Cardinality.ONE, kind=Kind.NUMBER, number=rule)
    market.dataset.dictionary = Dictionary({"width": width})
    market.dataset.merchant = [{}] * 8
    market.dataset.gold = [{"width": ("51 cm",)}, {"width": ("51 cm",)}, *[{}] * 6]
    nothing = np.zeros(8, dtype=bool)
    label = Labels(
        "width", Cardinality.ONE, (ANY_VALUE,), nothing[:, None], nothing, np.zeros(8, dtype=np.int64), ~nothing,
        right=("",) * 8, proposed=("50.8 cm", "20 cm", *[""] * 6),
    )  # fmt: skip
    found = decisions_of(market.split(), label, np.array([0, 1]), np.ones((2, 1), dtype=bool))
    assert [(row.true_values, row.written_values, row.right) for row in found] == [
        (("50.8 cm",), ("50.8 cm",), 1),
        (("51 cm",), ("20 cm",), 0),
    ]
