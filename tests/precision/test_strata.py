"""Weights by which the certification fold represents the unlabelled products."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog_enrichment.precision.strata import (
    FEW,
    HEAVY,
    MAX_WEIGHT,
    MIN_ACCEPTED,
    Cells,
    UniformDraw,
    Weighting,
    divide,
    first_level,
    size_classes,
)
from catalog_enrichment.precision.units import StratifiedProducts


def products(*parts: tuple[str, int, int], counts: float = 1.0, language: str = "en") -> StratifiedProducts:
    """Return the products of parts (category, content-group size, number of products)."""
    number = sum(size for *_, size in parts)
    return StratifiedProducts(
        languages=[language] * number,
        categories=[category for category, _, size in parts for _ in range(size)],
        group_sizes=np.array([size for _, size, times in parts for _ in range(times)], dtype=np.int64),
        counts=np.full(number, counts),
    )


def together(*parts: StratifiedProducts) -> StratifiedProducts:
    return StratifiedProducts(
        languages=[name for part in parts for name in part.languages],
        categories=[name for part in parts for name in part.categories],
        group_sizes=np.concatenate([part.group_sizes for part in parts]),
        counts=np.concatenate([part.counts for part in parts]),
    )


def all_accepted(certification: StratifiedProducts, unlabelled: StratifiedProducts) -> Weighting:
    return Cells(certification, unlabelled).weighting(np.ones(len(certification.categories), dtype=bool))


def names(weighting: Weighting) -> list[str]:
    return [row.name for row in weighting.strata]


# --- weights ----------------------------------------------------------------------------------------------------------


def test_size_classes_are_1_2_to_5_and_6_and_more() -> None:
    assert size_classes([1, 2, 5, 6, 400]).tolist() == [0, 1, 1, 2, 2]


def test_a_weight_is_the_unlabelled_share_over_the_certification_share() -> None:
    fold = products(("Shoes", 1, 60), ("Bags", 1, 40))
    actual = all_accepted(fold, products(("Shoes", 1, 200), ("Bags", 1, 800))).weights
    assert np.unique(actual[:60]) == pytest.approx(0.2 / 0.6)
    assert np.unique(actual[60:]) == pytest.approx(0.8 / 0.4)
    assert actual.sum() == pytest.approx(100)
    sampled = replace(products(("Shoes", 1, 10), ("Bags", 1, 10)), counts=np.repeat([3.0, 1.0], 10))
    actual = all_accepted(products(("Shoes", 1, 50), ("Bags", 1, 50)), sampled).weights
    assert actual[[0, 50]] == pytest.approx([1.5, 0.5])  # each as often as it stands for


def test_only_slices_with_certification_and_unlabelled_products_take_part() -> None:
    fold = products(("Shoes", 1, 50), ("Bags", 1, 50))
    cells = Cells(fold, products(("Shoes", 1, 10), ("Toys", 1, 980)))
    assert cells.slices == [("en", "Shoes")]
    assert cells.unlabelled_products == 10
    actual = cells.weighting(np.ones(100, dtype=bool))
    assert actual.weights[[0, 50]].tolist() == [1.0, 0.0]
    assert names(actual) == ["Shoes, groups of 1"]


def test_a_uniform_draw_has_weights_of_1_and_refuses_nothing() -> None:
    sample = UniformDraw(
        products(("Shoes", 1, 3), ("Bags", 1, 1)), products(("Shoes", 1, 5), ("Toys", 1, 9), counts=2.0)
    )
    assert sample.slices == [("en", "Shoes")]
    weighting = sample.weighting(np.array([True, False, True, True]))
    assert (weighting.weights.tolist(), weighting.unlabelled_products) == ([1.0] * 4, 10.0)
    assert (weighting.strata, weighting.refused, weighting.refused_languages) == ((), (), ())


# --- sizes ------------------------------------------------------------------------------------------------------------


def test_sizes_are_cells_of_their_own_where_enough_are_accepted() -> None:
    fold = products(("Shoes", 1, 40), ("Shoes", 3, 40), ("Shoes", 9, 40))
    weighting = all_accepted(fold, products(("Shoes", 1, 10), ("Shoes", 3, 20), ("Shoes", 9, 70)))
    assert names(weighting) == ["Shoes, groups of 1", "Shoes, groups of 2-5", "Shoes, groups of 6+"]
    assert weighting.weights[[0, 40, 80]] == pytest.approx([0.3, 0.6, 2.1])


def test_sizes_with_too_few_accepted_merge_first_with_each_other() -> None:
    fold = products(("Shoes", 1, 40), ("Shoes", 3, 40), ("Shoes", 9, 40))
    cells = Cells(fold, products(("Shoes", 1, 50), ("Shoes", 9, 50)))
    accepted = np.arange(120) < 80 + MIN_ACCEPTED - 1  # 19 of the largest groups
    two = cells.weighting(accepted)
    assert names(two) == ["Shoes, groups of 1", "Shoes, groups of 2+"]
    assert two.weights[[0, 40, 80]] == pytest.approx([1.5, 0.75, 0.75])
    accepted[: 40 - MIN_ACCEPTED + 1] = False
    single = cells.weighting(accepted)
    assert names(single) == ["Shoes"]
    assert np.unique(single.weights) == pytest.approx(1.0)


@pytest.mark.parametrize("category", ["S/A", "S/B"])
@pytest.mark.parametrize("where", ["fold", "unlabelled"])
def test_a_size_that_only_one_side_has_once_is_merged_too(category: str, where: str) -> None:
    rare = products((category, 9, 1))
    fold, unlabelled = products(("S/A", 1, 40), ("S/B", 1, 40)), products(("S/A", 1, 50), ("S/B", 1, 50))
    sides = (together(fold, rare), unlabelled) if where == "fold" else (fold, together(unlabelled, rare))
    weighting = all_accepted(*sides)
    assert names(weighting) == ["S"]
    assert np.unique(weighting.weights) == pytest.approx(1.0)


# --- refusals ---------------------------------------------------------------------------------------------------------


def test_a_category_with_too_little_evidence_is_refused_by_name_and_weighs_nothing() -> None:
    fold = products(("Shoes", 1, 100), ("Toys/Dolls", 1, 12), ("Toys", 1, 7))
    unlabelled = products(("Shoes", 1, 50), ("Toys/Dolls", 1, 30), ("Toys", 1, 20), counts=2.0)
    weighting = all_accepted(fold, unlabelled)
    (toys,) = weighting.refused
    assert (toys.category, toys.accepted, toys.missing, toys.unlabelled_products) == ("Toys", 19, 1, 100)
    assert np.unique(weighting.weights[:100]) == pytest.approx(1.0)
    assert not weighting.weights[100:].any()


def test_enough_evidence_is_counted_among_the_accepted() -> None:
    cells = Cells(products(("Shoes", 1, 100), ("Toys", 1, 100)), products(("Shoes", 1, 50), ("Toys", 1, 50)))
    accepted = np.arange(200) < 100 + MIN_ACCEPTED
    assert not cells.weighting(accepted).refused
    accepted[100] = False
    assert [row.category for row in cells.weighting(accepted).refused] == ["Toys"]


def test_a_first_level_category_that_would_weigh_more_than_the_limit_is_refused() -> None:
    """25 of 2,200 certification products would stand for 60% of the unlabelled ones."""
    unlabelled = products(("Shoes", 1, 400), ("Bags", 1, 600))
    weighting = all_accepted(products(("Shoes", 1, 2175), ("Bags", 1, 25)), unlabelled)
    (bags,) = weighting.refused
    assert (bags.category, bags.accepted, bags.unlabelled_products, bags.why) == ("Bags", 25, 600, HEAVY)
    assert np.unique(weighting.weights[:2175]) == pytest.approx(1.0)  # over the remaining products
    assert not weighting.weights[2175:].any()
    assert weighting.unlabelled_products == 400
    assert not all_accepted(products(("Shoes", 1, 2175), ("Bags", 1, 25 + bags.missing)), unlabelled).refused
    assert all_accepted(products(("Shoes", 1, 2175), ("Bags", 1, 24 + bags.missing)), unlabelled).refused


def test_a_weight_of_exactly_the_limit_is_kept_and_one_product_may_be_missing() -> None:
    fold = products(("A", 1, 20), ("B", 1, 1980))
    assert all_accepted(fold, products(("A", 1, 200), ("B", 1, 800))).strata[0].weight == MAX_WEIGHT
    (refused,) = all_accepted(fold, products(("A", 1, 201), ("B", 1, 800))).refused
    assert (refused.category, refused.missing, refused.unlabelled_products) == ("A", 1, 201)
    assert isinstance(refused.unlabelled_products, int)


@pytest.mark.parametrize(
    ("parts", "cells", "refused"),
    [
        # sizes that would weigh more than the limit are merged
        ([("Shoes", 1, 2000, 500), ("Shoes", 9, 20, 500)], ["Shoes"], []),
        # a category below that would weigh more, or has too few products, is merged with its parent
        ([("A/Large", 1, 4000, 100), ("A/Boots", 1, 100, 900), ("B", 1, 100, 10)], ["A", "B"], []),
        ([("A/Large", 1, 4000, 100), ("A/Small", 1, 99, 900), ("B", 1, 100, 10)], ["A", "B"], []),
        # a refused category makes others too heavy: without A, C would weigh more than 20 times B
        ([("A", 1, 20, 90_000), ("B", 1, 2000, 1000), ("C", 1, 20, 1000)], ["B"], [("A", HEAVY), ("C", HEAVY)]),
        # cells and refusals are in the order of their names
        ([("S/Boots", 1, 300, 300), ("S/Clogs", 1, 150, 150), ("S-x", 1, 40, 40)], ["S/Boots", "S/Clogs", "S-x"], []),
        ([("A", 1, 20, 90_000), ("B", 1, 2000, 1000), ("Z", 1, 19, 10)], ["B"], [("A", HEAVY), ("Z", FEW)]),
        # products without a category are a category
        ([("", 1, 20, 20), ("A", 1, 20, 20)], ["no category", "A"], []),
        ([("", 1, 19, 20), ("A", 1, 20, 20)], ["A"], [("", FEW)]),
    ],
)  # fmt: skip
def test_cells_and_refused_categories(
    parts: list[tuple[str, int, int, int]], cells: list[str], refused: list[tuple[str, str]]
) -> None:
    """``parts``: category, content-group size, number of products in the fold and of unlabelled products."""
    fold = products(*((category, size, number) for category, size, number, _ in parts))
    weighting = all_accepted(fold, products(*((category, size, number) for category, size, _, number in parts)))
    assert [name.removesuffix(", groups of 1") for name in names(weighting)] == cells
    assert [(row.category, row.why) for row in weighting.refused] == refused


def test_what_is_missing_is_told_as_labelled_products_too() -> None:
    """A tenth of the labelled products is in the fold, half of these are accepted: about as the others, given few."""
    fold, unlabelled = products(("Shoes", 1, 200), ("Toys", 1, 20)), products(("Shoes", 1, 100), ("Toys", 1, 100))
    (toys,) = Cells(fold, unlabelled, 0.1).weighting(np.arange(220) % 2 == 0).refused
    assert (toys.accepted, toys.missing, toys.labelled_missing, toys.why) == (10, 10, 200, FEW)
    (toys,) = Cells(fold, unlabelled, 0.1).weighting(np.arange(220) < 100).refused
    assert toys.accepted == 0
    assert toys.labelled_missing == pytest.approx(20 / (20 * 100 / 220 / 40) / 0.1, abs=1.1)


# --- languages --------------------------------------------------------------------------------------------------------


def test_a_language_is_a_cell_of_its_own() -> None:
    fold = together(products(("Shoes", 1, 160)), products(("Shoes", 1, 40), language="fr"))
    weighting = all_accepted(fold, together(products(("Shoes", 1, 20)), products(("Shoes", 1, 80), language="fr")))
    assert names(weighting) == ["en: Shoes, groups of 1", "fr: Shoes, groups of 1"]
    assert weighting.weights[[0, 160]] == pytest.approx([0.2 / 0.8, 0.8 / 0.2])


def test_a_language_with_too_little_evidence_is_refused_by_name_and_never_merged() -> None:
    """19 French products, whatever their categories; a category is judged in one language alone."""
    fold = together(
        products(("Shoes", 1, 100), ("Bags", 1, 100)),
        products(("Shoes", 1, 12), ("Bags", 1, 7), language="fr"),
        products(("Shoes", 1, 30), ("Bags", 1, 19), language=""),
    )
    sides = (products(("Shoes", 1, 50), ("Bags", 1, 50), language=language) for language in ("en", "fr", ""))
    weighting = all_accepted(fold, together(*sides))
    (french,) = weighting.refused_languages
    assert (french.language, french.accepted, french.missing, french.unlabelled_products) == ("fr", 19, 1, 100)
    assert [(row.language, row.category, row.accepted) for row in weighting.refused] == [("", "Bags", 19)]
    assert names(weighting)[0] == "no language: Shoes, groups of 1"
    assert weighting.unlabelled_products == 150
    assert not weighting.weights[200:219].any()


# --- category cells ---------------------------------------------------------------------------------------------------


def cells_of(accepted: dict[str, int]) -> dict[str, str]:
    """Return the category cells of one first-level category."""

    def count(categories: Sequence[str]) -> int:
        return sum(accepted[category] for category in categories)

    return divide(first_level(next(iter(accepted))), list(accepted), count, lambda some: count(some) >= MIN_ACCEPTED)


@pytest.mark.parametrize(
    ("accepted", "cells"),
    [
        # a large category below the first level has a cell of its own
        ({"S/Boots": 100, "S/Flats": 99, "S": 5}, ["S/Boots", "S", "S"]),
        # the rest beside a large category is not refused but merged with the smallest large category
        ({"S/Boots": 100, "S/Clogs": 300, "S/Flats": 19}, ["S", "S/Clogs", "S"]),
        ({"S/Boots": 300, "S/Clogs": 100, "S/Flats": 19}, ["S/Boots", "S", "S"]),
        # large categories are divided further
        ({"A/B/C": 150, "A/B/D": 150, "A/E": 50}, ["A/B/C", "A/B/D", "A"]),
        ({"A/B/C": 60, "A/B/D": 60, "A/E": 50}, ["A/B", "A/B", "A"]),
    ],
)
def test_the_cells_of_a_first_level_category(accepted: dict[str, int], cells: list[str]) -> None:
    assert cells_of(accepted) == dict(zip(accepted, cells, strict=True))


@given(st.dictionaries(st.sampled_from(["A", "A/B", "A/B/C", "A/D", "A/D/E", "A/D/F"]), st.integers(0, 250)))
def test_every_category_is_in_a_cell_with_enough(accepted: dict[str, int]) -> None:
    if sum(accepted.values()) < MIN_ACCEPTED:
        return
    cells = cells_of(accepted)
    assert set(cells) == set(accepted)
    for cell in set(cells.values()):
        assert sum(accepted[category] for category in cells if cells[category] == cell) >= MIN_ACCEPTED


# --- all together -----------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0, 3))
def test_every_unlabelled_product_of_a_slice_is_represented_or_refused_by_name(seed: int, skew: float) -> None:
    """No weight is above the limit. Where nothing is refused the weights make the fold as the unlabelled products."""
    rng = np.random.default_rng(seed)
    paths = np.array(["A", "A/B", "A/B/C", "C", "D/E", "F"])

    def any_products(n: int) -> StratifiedProducts:
        shares = rng.random(len(paths)) ** (3 * skew)
        return StratifiedProducts(
            languages=np.where(rng.random(n) < 0.1, "fr", "en").tolist(),
            categories=paths[rng.choice(len(paths), n, p=shares / shares.sum())].tolist(),
            group_sizes=rng.integers(1, 9, n), counts=np.ones(n),
        )  # fmt: skip

    cells = Cells(any_products(3000), any_products(500))
    weighting = cells.weighting(rng.random(3000) < 0.5)
    assert all(row.weight <= MAX_WEIGHT for row in weighting.strata)
    refusals = (*weighting.refused, *weighting.refused_languages)
    refused = sum(row.unlabelled_products for row in refusals)
    assert weighting.unlabelled_products + refused == pytest.approx(cells.unlabelled_products)
    assert all(row.missing >= 1 for row in refusals)
    in_cells = sum(row.certification_products for row in weighting.strata)
    assert sum(row.unlabelled_share for row in weighting.strata) == pytest.approx(1 if weighting.strata else 0)
    for row in weighting.strata:
        assert row.weight * row.certification_products / in_cells == pytest.approx(row.unlabelled_share, rel=1e-6)
