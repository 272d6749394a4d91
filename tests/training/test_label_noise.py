"""Confident learning on a toy catalog whose wrong labels are known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from catalog_enrichment.models.spec import FitSpec, NoiseSpec, Recipe
from catalog_enrichment.records import Cardinality
from catalog_enrichment.training import label_noise
from catalog_enrichment.training.label_noise import flagged_pictures, noise_model_spec, suspect_labels
from catalog_enrichment.training.labels import Labels
from catalog_enrichment.training.task import Task

from .toy import COLORS, easy, recipe, silent

COUNT = 320
FIT = FitSpec(epochs=4, batch_size=16, image_learning_rate=2e-3, learning_rate=5e-3)


def noisy(share: float) -> Recipe:
    return replace(recipe(), noise=NoiseSpec(fit=FIT, folds=4, share=share))


@pytest.fixture(scope="module")
def wrong() -> np.ndarray:
    return np.sort(np.random.default_rng(0).permutation(COUNT)[: COUNT // 10])


@pytest.fixture(scope="module")
def task(toy_task, wrong) -> Task:
    """A tenth of the colours is wrong, some are missing, and a tenth of the pictures. The season is always the same."""
    names = list(COLORS)
    rows = [easy(number) for number in range(COUNT)]
    for number in wrong:
        rows[number]["merchant_attributes"] = [("color", [names[(number + 1 + number // 7 % 3) % 4]])]
    for number, row in enumerate(rows):
        colour = [pair for pair in row["merchant_attributes"] if pair[0] == "color" and (number % 9 or number in wrong)]
        row["merchant_attributes"] = [*colour, ("season", ["Summer"])]
        if number % 10 == 3:
            row["images"] = []
    return toy_task(rows, attributes=["color", "season"])


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("noise")


@pytest.fixture(scope="module")
def flagged(task, checkpoints) -> np.ndarray:
    return flagged_pictures(noisy(1.0), task, silent, checkpoints)


def test_the_flagged_labels_are_the_wrong_ones(task, wrong, flagged):
    assert flagged.shape == (COUNT,)
    candidates = task.train[task.examples.has_image[task.train]]
    assert set(np.flatnonzero(flagged)) <= set(candidates)
    correctly_flagged = np.isin(np.flatnonzero(flagged), wrong)
    assert correctly_flagged.mean() >= 0.8
    assert correctly_flagged.sum() >= 0.8 * len(np.intersect1d(candidates, wrong))


def test_a_share_of_the_flagged_is_dropped(task, wrong, flagged, checkpoints):
    lines: list[str] = []
    dropped = flagged_pictures(noisy(0.5), task, lines.append, checkpoints)
    assert dropped.sum() == round(0.5 * flagged.sum()) > 0
    assert not (dropped & ~flagged).any()
    assert np.isin(np.flatnonzero(dropped), wrong).all()
    pictures = task.examples.has_image[task.train].sum()
    assert lines[-1] == f"noise: {pictures} pictures, {flagged.sum()} labels flagged, {dropped.sum()} pictures dropped"
    assert not any("products/s" in line for line in lines)  # all fits come from checkpoints


def test_the_least_confident_labels_of_every_attribute_are_dropped(task, checkpoints, monkeypatch):
    suspects = {"color": [8, 2, 5, 0], "season": [9, 2]}
    monkeypatch.setattr(label_noise, "suspect_labels", lambda label, rows, _: rows[suspects[label.attribute]])
    dropped = flagged_pictures(noisy(0.5), task, silent, checkpoints)
    colours = task.train[task.examples.has_image[task.train] & task.labels["color"].learnable[task.train]]
    seasons = task.train[task.examples.has_image[task.train]]
    assert set(np.flatnonzero(dropped)) == {colours[8], colours[2], seasons[9]}


def test_with_too_few_pictures_no_label_is_flagged(toy_task):
    rows = [easy(number) for number in range(120)]
    for row in rows:
        row["images"] = []
    lines: list[str] = []
    assert not flagged_pictures(noisy(1.0), toy_task(rows), lines.append).any()
    assert "too few" in lines[0]


def many(truth: np.ndarray) -> Labels:
    count, values = truth.shape
    none = np.zeros(count, dtype=np.int64)
    names = tuple(f"v{value}" for value in range(values))
    return Labels("material", Cardinality.MANY, names, truth, truth.any(axis=1), none, ~truth.any(axis=1))


@pytest.mark.parametrize(
    "constant", [[], [True], [False, True]], ids=["varied", "a value of all", "a value of all, and of none"]
)
@pytest.mark.parametrize("values", [1, 3])
def test_each_value_of_a_multi_valued_attribute_is_checked(values, constant):
    """A tenth of the products has a wrong or missing value; the model's probabilities follow the true values."""
    random = np.random.default_rng(1)
    true_values = random.random((200, values)) < 0.4
    flip = np.zeros_like(true_values)
    flip[np.arange(20) * 10, np.arange(20) % values] = True
    merchant_values = np.hstack([true_values ^ flip, np.tile(constant, (200, 1)).astype(bool)])
    probability = np.clip(0.1 + 0.8 * true_values + random.normal(0, 0.03, true_values.shape), 0, 1)
    probability = np.hstack([probability, np.full((200, len(constant)), 0.5)])
    rows = np.arange(1000, 1400, 2)  # positions in the data set differ from positions in rows
    label = many(np.zeros((1400, merchant_values.shape[1]), dtype=bool))
    label.truth[rows] = merchant_values
    suspects = suspect_labels(label, rows, probability)
    expected = 1000 + 20 * np.arange(20)
    assert set(suspects) <= set(expected)
    assert len(suspects) >= 15


def test_the_least_likely_label_comes_first():
    classes = np.arange(90) % 3
    probability = np.full((90, 3), 0.15)
    probability[np.arange(90), classes] = 0.7
    for row, self_confidence in {3: 0.1, 31: 0.01, 62: 0.05}.items():
        probability[row] = 0.0
        probability[row, classes[row]], probability[row, (classes[row] + 1) % 3] = self_confidence, 1 - self_confidence
    label = replace(many(np.eye(3, dtype=bool)[classes]), cardinality=Cardinality.ONE)
    assert suspect_labels(label, np.arange(90), probability).tolist() == [31, 62, 3]


def test_a_value_that_all_products_have_is_not_checked():
    single = replace(many(np.ones((30, 1), dtype=bool)), cardinality=Cardinality.ONE)
    for label in (single, many(np.ones((30, 2), dtype=bool))):
        assert len(suspect_labels(label, np.arange(30), np.full(label.truth.shape, 0.5))) == 0


def test_an_encoder_of_its_own_has_none_of_the_stages_frozen_that_the_recipes_has():
    image = replace(recipe().model.image, weights="w.pth", frozen_stages=3)
    model, fitted = replace(recipe().model, image=image), FitSpec(epochs=1)
    own = noise_model_spec(model, NoiseSpec(fit=fitted, encoder="resnet18")).image
    assert (own.name, own.weights, own.frozen_stages) == ("resnet18", "", 0)
    same = noise_model_spec(model, NoiseSpec(fit=fitted)).image
    assert (same.weights, same.frozen_stages) == ("w.pth", 3)
