"""Experts of titles' words are fitted to the train fold, and kept where they lower the loss on the choosing fold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy import special
from sklearn.linear_model import LogisticRegression

from catalog_enrichment.models.recipe_files import load_model_recipe
from catalog_enrichment.models.title_words import TitleWords
from catalog_enrichment.records import Cardinality
from catalog_enrichment.training import word_experts
from catalog_enrichment.training.evaluation import ModelScores
from catalog_enrichment.training.labels import Labels
from catalog_enrichment.training.scoring import unimodal
from catalog_enrichment.training.word_experts import fit_title_words, shares_of

COLORS = ("Red", "Green", "Blue")
ONE, MANY = Cardinality.ONE, Cardinality.MANY
TRAIN, CHOOSING = np.arange(300), np.arange(300, 400)


def label(truth: Any, cardinality: Cardinality = ONE) -> Labels:
    given, none = np.asarray(truth, dtype=bool), np.zeros(len(truth), dtype=np.int64)
    return Labels("x", cardinality, COLORS[: given.shape[1]], given, given.any(axis=1), none, ~given.any(axis=1))


def fitted(titles: Sequence[str], labels: Labels, probabilities: Any, groups: Any = None) -> TitleWords | None:
    scores = ModelScores(np.arange(400), {"x": np.asarray(probabilities, dtype=np.float32)})
    dataset, folds = SimpleNamespace(titles=list(titles)), SimpleNamespace(train=TRAIN, choosing=CHOOSING)
    return fit_title_words(dataset, folds, np.arange(400) if groups is None else groups, {"x": labels}, scores)


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
    assert shares_of(words) == f"titles' words: x {words.experts['x'].share:.1f}"
    assert shares_of(None) == "titles' words: they clearly improve no attribute"


@pytest.mark.parametrize("seed", range(1, 5))  # 0 is that of the colours
def test_words_that_tell_nothing_get_none_though_one_pool_is_best_by_chance(colors: np.ndarray, seed: int) -> None:
    dice = np.random.default_rng(seed)
    noise, knowing = titles_of(dice.integers(0, 3, 400)), networks(colors, dice)
    assert fitted(noise, label(np.eye(3)[colors]), knowing) is None


def test_what_the_words_of_a_few_content_groups_gain_is_chance() -> None:
    """Of each group the titles and the values are the same: ten products of a group say no more than one."""
    groups = np.arange(400) // 10
    with_share = {True: 0, False: 0}  # key: the content groups are known
    for seed in range(20):
        dice = np.random.default_rng(seed)
        titles = [" ".join(f"word{word}" for word in dice.choice(60, 4)) for _ in range(40)]
        truth = np.eye(3)[dice.integers(0, 3, 40)][groups]
        for known in with_share:
            found = fitted(
                [titles[group] for group in groups], label(truth), np.full((400, 3), 1 / 3), groups if known else None
            )
            with_share[known] += found is not None
    assert with_share[False] >= 4
    assert with_share[True] <= 1


def test_the_words_of_one_content_group_get_none(colors: np.ndarray) -> None:
    truth, unknowing = np.eye(3)[colors], np.full((400, 3), 1 / 3)
    assert fitted(titles_of(colors), label(truth), unknowing, np.zeros(400, dtype=np.int64)) is None


def test_titles_without_words_get_none(colors: np.ndarray) -> None:
    knowing = networks(colors, np.random.default_rng(1))
    assert fitted(["", "one"] * 200, label(np.eye(3)[colors]), knowing) is None
    assert fitted(["a b"] * 400, label(np.eye(3)[colors]), knowing) is None  # no word at all


def test_too_few_products_to_choose_on_give_none(colors: np.ndarray) -> None:
    truth, unknowing = np.eye(3)[colors], np.full((400, 3), 1 / 3)
    truth[CHOOSING[29:]] = 0
    assert fitted(titles_of(colors), label(truth), unknowing) is None
    assert fitted(["", *titles_of(colors)[1:300]] + [""] * 100, label(np.eye(3)[colors]), unknowing) is None


def test_the_temperature_is_that_of_the_products_whose_titles_have_words(colors: np.ndarray) -> None:
    truth, titles = np.eye(3)[colors], titles_of(colors)
    probabilities = np.full((400, 3), 1 / 3)
    expected = fitted(titles[:350] + [""] * 50, label(truth), probabilities)
    probabilities[350:] = (
        np.eye(3)[(colors[350:] + 1) % 3] * 0.97 + 0.01
    )  # wrong and sure of it, on titles without words
    found = fitted(titles[:350] + [""] * 50, label(truth), probabilities)
    assert expected is not None
    assert found is not None
    assert found.experts["x"].temperature == expected.experts["x"].temperature
    assert found.experts["x"].share == expected.experts["x"].share


def test_terms_are_of_the_train_fold_and_fewer_where_an_attribute_has_many_values(
    colors: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    titles, unknowing = titles_of(colors), np.full((400, 3), 1 / 3)
    titles[300:] = [f"{title} unheard" for title in titles[300:]]
    words = fitted(titles, label(np.eye(3)[colors]), unknowing)
    assert words is not None
    assert len(words.vocabulary.terms) == 7
    assert "unheard" not in words.vocabulary.terms
    monkeypatch.setattr(word_experts, "MOST_WEIGHTS", 14)
    fewer = fitted(titles, label(np.eye(3)[colors]), unknowing)
    assert fewer is not None
    assert len(fewer.vocabulary.terms) == 4


def test_a_baseline_of_the_text_alone_has_the_words_and_one_of_the_picture_has_not() -> None:
    recipe = load_model_recipe("recipes:default.toml")
    assert unimodal(recipe, "text_only").title_words
    assert not unimodal(recipe, "image_only").title_words
    assert not unimodal(replace(recipe, title_words=False), "text_only").title_words


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


@pytest.mark.parametrize("values", [2, 3])
@pytest.mark.parametrize("cardinality", [ONE, MANY])
def test_the_probabilities_are_those_of_scikit_learn(colors: np.ndarray, values: int, cardinality: Cardinality) -> None:
    seldom = np.where(np.arange(400) % 4 == 0, colors, 0) % values
    truth = np.eye(values)[seldom]
    words = fitted(titles_of(seldom), label(truth, cardinality), np.full((400, values), 1 / values))
    assert words is not None
    features, expert = words.vocabulary.features(titles_of(seldom)), words.experts["x"]
    found = features @ expert.weights + expert.bias
    learned = features[TRAIN]
    if cardinality is ONE:
        theirs = LogisticRegression(C=10, max_iter=1000).fit(learned, seldom[TRAIN]).predict_proba(features)
        np.testing.assert_allclose(special.softmax(found, axis=1), theirs, atol=1e-4)
        return
    for value in range(values):
        model = LogisticRegression(C=10, max_iter=1000).fit(learned, truth[TRAIN, value])
        np.testing.assert_allclose(special.expit(found[:, value]), model.predict_proba(features)[:, 1], atol=1e-4)


def test_a_value_that_every_product_of_the_train_fold_has_is_always_proposed(colors: np.ndarray) -> None:
    truth = np.eye(3)[colors % 2]
    truth[:, 2] = 1
    words = fitted(titles_of(colors % 2), label(truth, MANY), np.full((400, 3), 1 / 3))
    assert words is not None
    assert words.pooled({"x": np.full((1, 3), 1 / 3)}, {"x": MANY}, ["shirt olive"])["x"][0, 2] > 0.99


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
