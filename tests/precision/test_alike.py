"""AlikenessTest of labelled and unlabelled products, on simulated scores."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from catalog_enrichment.precision.alike import LEVEL, AlikenessTest, Side, cell_weights, matched_cells, side_of
from catalog_enrichment.precision.strata import MAX_WEIGHT


def side(scores: Any, has_value: Any = None, groups: Any = None, weights: Any = None) -> Side:
    values = np.asarray(scores, dtype=np.float64)
    return side_of(
        values,
        np.zeros(len(values)) if has_value is None else has_value,
        np.arange(len(values)) if groups is None else groups,
        np.ones(len(values)) if weights is None else weights,
    )


def drawn(seed: int, size: int, without: float = 0.0, offset: int = 0) -> Side:
    """Return products of which a share has no value: their scores are lower, and the classifier knows them by half."""
    rng = np.random.default_rng(seed)
    none = np.arange(size) < round(without * size)
    scores = np.where(none, rng.beta(4, 2, size), rng.beta(8, 1, size))
    return side(scores, rng.standard_normal(size) - 2.0 * none, offset + np.arange(size))


def sides(seed: int, without: float, n: int = 2000, m: int = 3000) -> tuple[Side, Side]:
    return drawn(seed, n), drawn(seed + 500, m, without, offset=n)


def compared(seed: int, without: float, n: int = 2000, m: int = 3000) -> AlikenessTest:
    return AlikenessTest(*sides(seed, without, n, m))


def test_products_that_are_alike_are_seldom_found_different() -> None:
    assert compared(0, 0.0).result.alike
    assert compared(0, 0.0).unexplained(0.5) == 0.0
    found = [compared(seed, 0.0, 400, 600).result for seed in range(200)]
    assert np.mean([not result.alike for result in found]) <= 2 * LEVEL
    assert 0.4 < np.mean([result.score_p_value for result in found]) < 0.6
    assert 0.4 < np.mean([result.auc_p_value for result in found]) < 0.6


def test_a_score_test_alone_finds_products_that_the_classifier_does_not_know() -> None:
    result = AlikenessTest(
        side(drawn(1, 2000).scores), side(drawn(2, 2000, 0.2).scores, groups=2000 + np.arange(2000))
    ).result
    assert result.auc_p_value >= 0.5
    assert result.score_p_value < 0.01
    assert not result.alike


def test_a_classifier_alone_finds_products_with_the_scores_of_the_others() -> None:
    rng = np.random.default_rng(3)
    known = rng.standard_normal(2000) - 3.0 * (np.arange(2000) < 200)
    result = AlikenessTest(drawn(4, 2000), side(drawn(5, 2000).scores, known, 2000 + np.arange(2000))).result
    assert result.score_p_value > 0.05
    assert result.auc_p_value < 1e-4
    assert 0.5 < result.auc < 0.6


def test_a_classifier_that_ranks_the_wrong_way_round_is_no_difference() -> None:
    first, second = drawn(1, 1000), drawn(2, 1000, offset=1000)
    result = AlikenessTest(first, side(second.scores, second.has_value + 3.0, second.groups)).result
    assert result.auc < 0.1
    assert result.auc_p_value > 0.99


def test_copies_of_products_are_no_further_evidence() -> None:
    pair = sides(7, 0.04, 500, 700)
    copied = [side(*(np.repeat(column, 8) for column in (of.scores, of.has_value, of.groups))) for of in pair]
    once, many = AlikenessTest(*pair).result, AlikenessTest(*copied).result
    assert (many.auc, many.auc_p_value) == pytest.approx((once.auc, once.auc_p_value))
    assert many.score_p_value == pytest.approx(once.score_p_value, abs=0.02)
    assert many.noticeable_share == pytest.approx(once.noticeable_share, rel=0.02)


def test_a_group_on_both_sides_says_nothing_about_their_difference() -> None:
    """The same products on both sides: no noise, and no difference."""
    result = AlikenessTest(drawn(1, 300), drawn(1, 300)).result
    assert (result.score_distance, result.auc) == (0.0, pytest.approx(0.5))
    assert result.alike


def test_weights_make_the_labelled_products_represent_the_unlabelled() -> None:
    labelled = ["a"] * 90 + ["b"] * 10 + ["only labelled"]
    unlabelled = ["a"] * 50 + ["b"] * 50 + ["only unlabelled"]
    first, second = cell_weights(labelled, unlabelled)
    assert first[:90] == pytest.approx(np.full(90, 5 / 9))
    assert first[90:100] == pytest.approx(np.full(10, 5.0))
    assert first[100] == second[100] == 0
    assert second[:100].tolist() == [1.0] * 100
    heavy, _ = cell_weights(["a"] * 999 + ["b"], ["a"] + ["b"] * 999)
    assert heavy[-1] == MAX_WEIGHT


def test_categories_that_differ_in_number_but_not_in_scores_are_alike_when_weighted() -> None:
    rng = np.random.default_rng(1)
    cells = [rng.random(2000) < share for share in (0.9, 0.4)]
    scores = [np.where(cell, rng.beta(9, 1, 2000), rng.beta(3, 2, 2000)) for cell in cells]
    weights = cell_weights(*(cell.tolist() for cell in cells))
    groups = [np.arange(2000), np.arange(2000, 4000)]
    assert AlikenessTest(*(side(s, None, g, w) for s, g, w in zip(scores, groups, weights, strict=True))).result.alike
    assert not AlikenessTest(*(side(s, None, g) for s, g in zip(scores, groups, strict=True))).result.alike


def test_a_category_that_both_sides_have_often_is_a_cell_of_its_own() -> None:
    """Rare and Other are seldom unlabelled, so they share the cell of the rest."""
    first, second = matched_cells(
        side_with(("A/Top", 0, 80), ("A/Bottom", 0, 20), ("A/Rare", 0, 25), ("A/Other", 0, 25)),
        side_with(("A/Top", 0, 20), ("A/Bottom", 0, 80), ("A/Rare", 0, 2)),
    )
    assert len({*first[:80], *first[80:100], *first[100:]}) == 3
    assert (first[0], first[80], first[100]) == (second[0], second[20], second[100])
    weights, _ = cell_weights(first, second)
    assert weights[0] < 1 < weights[80]


def side_with(*parts: tuple[str, int, int]) -> list[tuple[str, str, int]]:
    """Return products of (category, size class, number of products)."""
    return [("en", category, size) for category, size, number in parts for _ in range(number)]


@pytest.mark.parametrize(
    ("labelled", "unlabelled", "cells"),
    [
        # size classes are apart where each has enough labelled products
        ([("Shoes", 0, 50), ("Shoes", 1, 20)], [("Shoes", 0, 30), ("Shoes", 1, 3)], 2),
        ([("Shoes", 0, 50), ("Shoes", 1, 19)], [("Shoes", 0, 30), ("Shoes", 1, 3)], 1),
        # a rare category with too few labelled products makes its whole first level one cell
        ([("Apparel/Top", 0, 80), ("Apparel/Rare", 0, 19)], [("Apparel/Top", 0, 80), ("Apparel/Rare", 0, 30)], 1),
    ],
)
def test_cells_are_as_fine_as_there_are_labelled_products(
    labelled: list[tuple[str, int, int]], unlabelled: list[tuple[str, int, int]], cells: int
) -> None:
    first, second = matched_cells(side_with(*labelled), side_with(*unlabelled))
    assert set(first) == set(second)
    assert len(set(first)) == cells
    assert (cell_weights(first, second)[0] > 0).all(), "nothing is left out of the comparison"


@pytest.mark.parametrize("without", [0.2, 0.5])
def test_what_the_labelled_products_do_not_explain_covers_those_without_a_value(without: float) -> None:
    """The upper bound is nearly always above the truth, and not much more than noise above it."""
    excess = []
    for seed in range(10):
        labelled, unlabelled = sides(seed, without)
        comparison, none = AlikenessTest(labelled, unlabelled), np.arange(3000) < round(without * 3000)
        for threshold in (0.5, 0.8):
            truth = float(none[unlabelled.scores >= threshold].mean())
            excess.append(comparison.unexplained(threshold) - truth)
    assert np.mean(np.array(excess) > 0) >= 0.8
    assert min(excess) > -0.03
    assert np.mean(excess) < 0.15


def test_nothing_is_explained_where_labelled_products_do_not_reach_the_threshold() -> None:
    comparison = AlikenessTest(
        side(np.linspace(0, 0.5, 500)), side(np.linspace(0.4, 1, 500), groups=500 + np.arange(500))
    )
    assert comparison.unexplained(0.6) == 1.0
    assert comparison.unexplained(2.0) == 1.0


def test_what_would_be_noticed_falls_with_the_number_of_products() -> None:
    shares = [compared(1, 0.0, n, 2 * n).result.noticeable_share for n in (100, 400, 1600)]
    assert shares[0] > 1.7 * shares[1] > 1.7 * 1.7 * shares[2]
    noticed = [compared(seed, 0.0, 400, 800).result.noticeable_share for seed in range(3)]
    share = float(np.mean(noticed))
    rng = np.random.default_rng(5)

    def found(seed: int) -> bool:
        have = np.random.default_rng(seed).beta(8, 1, 400)
        unlabelled = np.random.default_rng(seed + 99).beta(8, 1, 800)
        unlabelled[: round(share * 800)] = rng.random(round(share * 800)) * np.median(have)
        return not AlikenessTest(side(have), side(unlabelled, groups=400 + np.arange(800))).result.alike

    assert np.mean([found(seed) for seed in range(60)]) > 0.65


def test_without_products_on_a_side_nothing_is_compared() -> None:
    empty = side([])
    result = AlikenessTest(empty, drawn(1, 100)).result
    assert (result.labelled, result.unlabelled, result.noticeable_share) == (0, 100, 1.0)
    assert result.alike


def test_the_share_below_what_nine_in_ten_labelled_products_reach() -> None:
    labelled, unlabelled = side(np.linspace(0.01, 1, 100)), side([0.05] * 7 + [0.5] * 3, groups=100 + np.arange(10))
    assert AlikenessTest(labelled, unlabelled).result.below_tenth == pytest.approx(0.7)
