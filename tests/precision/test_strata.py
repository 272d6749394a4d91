"""Weights by which the certification fold represents the products to fill."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog_enrichment.precision.strata import (
    MAX_WEIGHT,
    MIN_ACCEPTED,
    Cells,
    Population,
    category_cells,
    size_classes,
)


def population(*parts: tuple[str, int, int], counts: float = 1.0) -> Population:
    """Parts of (category, content-group size, number of products)."""
    return Population(
        categories=[category for category, _, number in parts for _ in range(number)],
        group_sizes=np.array([size for _, size, number in parts for _ in range(number)], dtype=np.int64),
        counts=np.full(sum(number for *_, number in parts), counts),
    )


def weights(certification: Population, open_products: Population, accepted: np.ndarray | None = None) -> np.ndarray:
    everything = np.ones(len(certification.categories), dtype=bool)
    return Cells(certification, open_products).weighting(everything if accepted is None else accepted).weights


def test_size_classes_are_1_2_to_5_and_6_and_more() -> None:
    assert size_classes([1, 2, 5, 6, 400]).tolist() == [0, 1, 1, 2, 2]


def test_a_weight_is_the_open_share_over_the_certification_share() -> None:
    fold = population(("Shoes", 1, 60), ("Bags", 1, 40))
    actual = weights(fold, population(("Shoes", 1, 200), ("Bags", 1, 800)))
    assert np.unique(actual[:60]) == pytest.approx(0.2 / 0.6)
    assert np.unique(actual[60:]) == pytest.approx(0.8 / 0.4)
    assert actual.sum() == pytest.approx(100)


def test_sampled_open_products_count_as_often_as_they_stand_for() -> None:
    fold = population(("Shoes", 1, 50), ("Bags", 1, 50))
    sampled = replace(population(("Shoes", 1, 10), ("Bags", 1, 10)), counts=np.repeat([3.0, 1.0], 10))
    actual = weights(fold, sampled)
    assert (actual[0], actual[50]) == (pytest.approx(1.5), pytest.approx(0.5))


def test_sizes_are_cells_of_their_own_where_enough_are_accepted() -> None:
    fold = population(("Shoes", 1, 40), ("Shoes", 3, 40), ("Shoes", 9, 40))
    filled = population(("Shoes", 1, 10), ("Shoes", 3, 20), ("Shoes", 9, 70))
    weighting = Cells(fold, filled).weighting(np.ones(120, dtype=bool))
    names = [stratum.name for stratum in weighting.strata]
    assert names == ["Shoes, groups of 1", "Shoes, groups of 2-5", "Shoes, groups of 6+"]
    assert weighting.weights[[0, 40, 80]] == pytest.approx([0.3, 0.6, 2.1])


def test_sizes_with_too_few_accepted_merge_first_with_each_other() -> None:
    fold = population(("Shoes", 1, 40), ("Shoes", 3, 40), ("Shoes", 9, 40))
    filled = population(("Shoes", 1, 50), ("Shoes", 9, 50))
    accepted = np.ones(120, dtype=bool)
    accepted[: MIN_ACCEPTED + 1] = True
    accepted[80 : 120 - MIN_ACCEPTED + 1] = False  # one too few of the largest groups
    two = Cells(fold, filled).weighting(accepted)
    assert [stratum.name for stratum in two.strata] == ["Shoes, groups of 1", "Shoes, groups of 2+"]
    assert two.weights[[0, 40, 80]] == pytest.approx([1.5, 0.75, 0.75])
    accepted[: 40 - MIN_ACCEPTED + 1] = False
    one = Cells(fold, filled).weighting(accepted)
    assert [stratum.name for stratum in one.strata] == ["Shoes"]
    assert np.unique(one.weights) == pytest.approx(1.0)


def test_a_category_with_too_little_evidence_is_refused_by_name_and_weighs_nothing() -> None:
    fold = population(("Shoes", 1, 100), ("Toys/Dolls", 1, 12), ("Toys", 1, 7))
    filled = population(("Shoes", 1, 50), ("Toys/Dolls", 1, 30), ("Toys", 1, 20), counts=2.0)
    weighting = Cells(fold, filled).weighting(np.ones(119, dtype=bool))
    (toys,) = weighting.refused
    assert (toys.category, toys.accepted, toys.missing, toys.open_products) == ("Toys", 19, 1, 100)
    assert np.unique(weighting.weights[:100]) == pytest.approx(1.0)
    assert not weighting.weights[100:].any()


def test_enough_evidence_is_counted_among_the_accepted() -> None:
    fold, filled = population(("Shoes", 1, 100), ("Toys", 1, 100)), population(("Shoes", 1, 50), ("Toys", 1, 50))
    accepted = np.arange(200) < 100 + MIN_ACCEPTED
    assert not Cells(fold, filled).weighting(accepted).refused
    accepted[100] = False
    assert [row.category for row in Cells(fold, filled).weighting(accepted).refused] == ["Toys"]


def test_a_cell_without_open_products_weighs_nothing() -> None:
    fold = population(("Shoes", 1, 50), ("Bags", 1, 50))
    actual = weights(fold, population(("Shoes", 1, 10)))
    assert (actual[0], actual[50]) == (2.0, 0.0)


def test_no_weight_is_above_the_limit() -> None:
    fold = population(("Shoes", 1, 2000), ("Bags", 1, 20))
    actual = weights(fold, population(("Shoes", 1, 10), ("Bags", 1, 990)))
    assert actual[-1] == MAX_WEIGHT


def test_open_products_of_a_category_that_certification_never_saw_are_left_out() -> None:
    fold = population(("Shoes", 1, 50), ("Bags", 1, 50))
    actual = weights(fold, population(("Shoes", 1, 10), ("Bags", 1, 10), ("Toys", 1, 980)))
    assert np.unique(actual) == pytest.approx(1.0)


def test_a_large_category_below_the_first_level_has_a_cell_of_its_own() -> None:
    cells, refused = category_cells({"Shoes/Boots": 100, "Shoes/Flats": 99, "Shoes": 5})
    assert cells == {"Shoes/Boots": "Shoes/Boots", "Shoes/Flats": "Shoes", "Shoes": "Shoes"}
    assert refused == []


def test_what_a_large_category_leaves_over_is_not_refused_but_merged_with_it() -> None:
    cells, refused = category_cells({"Shoes/Boots": 100, "Shoes/Clogs": 300, "Shoes/Flats": 19})
    assert cells == {"Shoes/Boots": "Shoes", "Shoes/Clogs": "Shoes/Clogs", "Shoes/Flats": "Shoes"}
    assert refused == []


def test_large_categories_are_divided_further() -> None:
    cells, _ = category_cells({"A/B/C": 150, "A/B/D": 150, "A/E": 50})
    assert cells == {"A/B/C": "A/B/C", "A/B/D": "A/B/D", "A/E": "A"}


def test_products_without_a_category_are_a_category() -> None:
    assert category_cells({"": 20, "A": 20}) == ({"": "", "A": "A"}, [])
    assert category_cells({"": 19}) == ({}, [""])


@given(st.dictionaries(st.sampled_from(["", "A", "A/B", "A/B/C", "A/D", "E/F", "E", "G"]), st.integers(0, 250)))
def test_every_category_is_in_a_cell_with_enough_or_refused(accepted: dict[str, int]) -> None:
    cells, refused = category_cells(accepted)
    for category in accepted:
        assert (category in cells) != (category.partition("/")[0] in refused)
    for cell in set(cells.values()):
        assert sum(accepted[category] for category in cells if cells[category] == cell) >= MIN_ACCEPTED


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_weights_make_the_fold_as_the_open_products_where_none_is_cut(seed: int) -> None:
    rng = np.random.default_rng(seed)
    names = np.array(["A", "A/B", "C", "D/E"])

    def any_population(n: int) -> Population:
        categories = names[rng.integers(0, 4, n)].tolist()
        return Population(categories=categories, group_sizes=rng.integers(1, 9, n), counts=np.ones(n))

    fold, filled = any_population(800), any_population(500)
    weighting = Cells(fold, filled).weighting(rng.random(800) < 0.5)
    assert sum(stratum.open_share for stratum in weighting.strata) == pytest.approx(1)
    for stratum in weighting.strata:
        assert stratum.weight * stratum.certification_products / 800 == pytest.approx(stratum.open_share, rel=1e-6)
