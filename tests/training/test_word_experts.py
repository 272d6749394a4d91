"""Experts of titles' words are fitted to the train fold, and kept where they lower the loss on the choosing fold."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy import special

from catalog_enrichment.models.title_words import TitleWords
from catalog_enrichment.records import Cardinality
from catalog_enrichment.training.evaluation import ModelScores
from catalog_enrichment.training.labels import Labels
from catalog_enrichment.training.word_experts import fit_title_words

COLORS = ("Red", "Green", "Blue")
ONE, MANY = Cardinality.ONE, Cardinality.MANY
TRAIN, CHOOSING = np.arange(300), np.arange(300, 400)


def label(truth: Any, cardinality: Cardinality = ONE) -> Labels:
    given, none = np.asarray(truth, dtype=bool), np.zeros(len(truth), dtype=np.int64)
    return Labels("x", cardinality, COLORS[: given.shape[1]], given, given.any(axis=1), none, ~given.any(axis=1))


def fitted(titles: Sequence[str], labels: Labels, probabilities: Any) -> TitleWords | None:
    scores = ModelScores(np.arange(400), {"x": np.asarray(probabilities, dtype=np.float32)})
    dataset, folds = SimpleNamespace(titles=list(titles)), SimpleNamespace(train=TRAIN, choosing=CHOOSING)
    return fit_title_words(dataset, folds, {"x": labels}, scores)


@pytest.fixture
def colors() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 3, 400)


def networks(colors: np.ndarray, dice: np.random.Generator) -> np.ndarray:
    """Calibrated probabilities, right for about three products in four."""
    return special.softmax(2.0 * np.eye(3)[colors] + dice.gumbel(0, 1, (400, 3)), axis=1)


def titles_of(colors: Sequence[int]) -> list[str]:
    return [f"shirt {('crimson', 'olive', 'navy')[color]}" for color in colors]


def test_words_that_tell_what_the_network_does_not_know_get_a_share(colors: np.ndarray) -> None:
    truth, unknowing = np.eye(3)[colors], np.full((400, 3), 1 / 3)
    words = fitted(titles_of(colors), label(truth), unknowing)
    assert words is not None
    found = words.pooled({"x": unknowing}, {"x": ONE}, titles_of(colors))["x"][CHOOSING]
    assert (found.argmax(axis=1) == colors[CHOOSING]).all()
    assert found.max(axis=1).min() > 0.9


@pytest.mark.parametrize("seed", range(1, 5))  # 0 is that of the colours
def test_words_that_tell_nothing_get_none_though_one_pool_is_best_by_chance(colors: np.ndarray, seed: int) -> None:
    dice = np.random.default_rng(seed)
    noise, knowing = titles_of(dice.integers(0, 3, 400)), networks(colors, dice)
    assert fitted(noise, label(np.eye(3)[colors]), knowing) is None


def test_titles_without_words_get_none(colors: np.ndarray) -> None:
    knowing = networks(colors, np.random.default_rng(1))
    assert fitted(["", "one"] * 200, label(np.eye(3)[colors]), knowing) is None
    assert fitted(["a b"] * 400, label(np.eye(3)[colors]), knowing) is None  # no word at all


def test_labels_of_the_choosing_fold_fit_nothing(colors: np.ndarray) -> None:
    truth = np.eye(3)[colors]
    truth[TRAIN] = 0
    assert fitted(titles_of(colors), label(truth), np.full((400, 3), 1 / 3)) is None


def test_each_of_several_values_has_its_own_classifier(colors: np.ndarray) -> None:
    both = np.eye(3)[colors] + np.eye(3)[(colors + 1) % 3] * (np.arange(400) % 2)[:, None]
    titles = [" ".join(("crimson", "olive", "navy")[value] for value in np.flatnonzero(row)) for row in both]
    unknowing = np.full((400, 3), 0.5)
    words = fitted(titles, label(both, MANY), unknowing)
    assert words is not None
    found = words.pooled({"x": unknowing}, {"x": MANY}, titles)["x"][CHOOSING]
    assert ((found > 0.5) == both[CHOOSING].astype(bool)).all()


@pytest.mark.parametrize("cardinality", [ONE, MANY])
def test_a_value_that_no_product_of_the_train_fold_has_is_hardly_ever_proposed(
    colors: np.ndarray, cardinality: Cardinality
) -> None:
    truth = np.eye(3)[colors % 2]
    words = fitted(titles_of(colors % 2), label(truth, cardinality), np.full((400, 3), 1 / 3))
    assert words is not None
    found = words.pooled({"x": np.full((1, 3), 1 / 3)}, {"x": cardinality}, ["shirt olive"])["x"][0]
    assert found.argmax() == 1
    assert found[2] < 0.01
