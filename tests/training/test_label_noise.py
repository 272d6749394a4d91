"""Confident learning on a toy whose wrong labels are known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from catalog_enrichment.models.spec import FitSpec, NoiseSpec, Recipe
from catalog_enrichment.records import Cardinality
from catalog_enrichment.training import label_noise
from catalog_enrichment.training.dataset import Labels
from catalog_enrichment.training.fit import set_threads
from catalog_enrichment.training.label_noise import flagged_pictures, suspect_labels
from catalog_enrichment.training.task import Task

from .toy import COLORS, easy, recipe, silent

COUNT = 320
FIT = FitSpec(epochs=4, batch_size=16, image_learning_rate=2e-3, learning_rate=5e-3)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    set_threads(1)


def noisy(share: float) -> Recipe:
    return replace(recipe(), noise=NoiseSpec(fit=FIT, folds=4, share=share))


@pytest.fixture(scope="module")
def wrong() -> np.ndarray:
    return np.sort(np.random.default_rng(0).permutation(COUNT)[: COUNT // 10])


@pytest.fixture(scope="module")
def task(toy_task, wrong) -> Task:
    """A tenth of the colours are not what the picture shows, some are not given, and one picture in ten is missing.

    All products have one season: nothing there could be mistaken for anything.
    """
    names = list(COLORS)
    rows = [easy(number) for number in range(COUNT)]
    for number in wrong:
        rows[number]["merchant_attributes"] = [("color", [names[(number + 1 + number // 7 % 3) % 4]])]
    for number, row in enumerate(rows):
        given = [pair for pair in row["merchant_attributes"] if pair[0] == "color" and (number % 9 or number in wrong)]
        row["merchant_attributes"] = [*given, ("season", ["Summer"])]
        if number % 10 == 3:
            row["images"] = []
    return toy_task(rows, attributes=["color", "season"])


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("noise")


@pytest.fixture(scope="module")
def flagged(task, checkpoints) -> np.ndarray:
    return flagged_pictures(noisy(1.0), task, silent, checkpoints)


def test_what_is_flagged_are_the_wrong_labels(task, wrong, flagged):
    assert flagged.shape == (COUNT,)
    candidates = task.train[task.examples.has_image[task.train]]
    assert set(np.flatnonzero(flagged)) <= set(candidates)
    right = np.isin(np.flatnonzero(flagged), wrong)
    assert right.mean() >= 0.8
    assert right.sum() >= 0.8 * len(np.intersect1d(candidates, wrong))


def test_a_share_of_the_flagged_is_dropped(task, wrong, flagged, checkpoints):
    lines: list[str] = []
    dropped = flagged_pictures(noisy(0.5), task, lines.append, checkpoints)
    assert dropped.sum() == round(0.5 * flagged.sum()) > 0
    assert not (dropped & ~flagged).any()
    assert np.isin(np.flatnonzero(dropped), wrong).all()
    pictures = task.examples.has_image[task.train].sum()
    assert lines[-1] == f"noise: {pictures} pictures, {flagged.sum()} labels flagged, {dropped.sum()} pictures dropped"
    assert not any("products/s" in line for line in lines)  # fitted once, for whatever share


def test_the_worst_are_dropped_and_the_attributes_joined(task, checkpoints, monkeypatch):
    worst = {"color": [8, 2, 5, 0], "season": [9, 2]}
    monkeypatch.setattr(label_noise, "suspect_labels", lambda label, rows, _: rows[worst[label.attribute]])
    dropped = flagged_pictures(noisy(0.5), task, silent, checkpoints)
    colours = task.train[task.examples.has_image[task.train] & task.labels["color"].learnable[task.train]]
    seasons = task.train[task.examples.has_image[task.train]]
    assert set(np.flatnonzero(dropped)) == {colours[8], colours[2], seasons[9]}


def test_the_checkpoints_do_not_change_what_is_found(task, flagged):
    lines: list[str] = []
    assert (flagged_pictures(noisy(1.0), task, lines.append) == flagged).all()
    assert sum("products/s" in line for line in lines) == 4 * FIT.epochs


def test_too_few_pictures_judge_nobody(toy_task):
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
    "constant", [[], [True], [False, True]], ids=["", "one that all have", "and one that none has"]
)
@pytest.mark.parametrize("values", [1, 3])
def test_several_values_at_once_are_judged_one_by_one(values, constant):
    """A tenth of the products have a value too many or too few, and the model knows better."""
    random = np.random.default_rng(1)
    right = random.random((200, values)) < 0.4
    flip = np.zeros_like(right)
    flip[np.arange(20) * 10, np.arange(20) % values] = True
    given = np.hstack([right ^ flip, np.tile(constant, (200, 1)).astype(bool)])
    probability = np.clip(0.1 + 0.8 * right + random.normal(0, 0.03, right.shape), 0, 1)
    probability = np.hstack([probability, np.full((200, len(constant)), 0.5)])
    rows = np.arange(1000, 1400, 2)  # positions in the data set are not positions among the judged
    label = many(np.zeros((1400, given.shape[1]), dtype=bool))
    label.truth[rows] = given
    found = suspect_labels(label, rows, probability)
    expected = 1000 + 20 * np.arange(20)
    assert set(found) <= set(expected)
    assert len(found) >= 15


def test_the_least_likely_label_comes_first():
    classes = np.arange(90) % 3
    probability = np.full((90, 3), 0.15)
    probability[np.arange(90), classes] = 0.7
    for row, left in {3: 0.1, 31: 0.01, 62: 0.05}.items():  # what is left for the value that was given
        probability[row] = 0.0
        probability[row, classes[row]], probability[row, (classes[row] + 1) % 3] = left, 1 - left
    label = replace(many(np.eye(3, dtype=bool)[classes]), cardinality=Cardinality.ONE)
    assert suspect_labels(label, np.arange(90), probability).tolist() == [31, 62, 3]


def test_one_value_that_everyone_has_cannot_be_wrong():
    one = replace(many(np.ones((30, 1), dtype=bool)), cardinality=Cardinality.ONE)
    for label in (one, many(np.ones((30, 2), dtype=bool))):
        assert len(suspect_labels(label, np.arange(30), np.full(label.truth.shape, 0.5))) == 0
