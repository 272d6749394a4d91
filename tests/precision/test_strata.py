"""Weights by which the certification fold represents the products to fill."""

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
    Population,
    Weighting,
    divide,
    first_level,
    size_classes,
)


def population(*parts: tuple[str, int, int], counts: float = 1.0, language: str = "en") -> Population:
    """Parts of (category, content-group size, number of products)."""
    return Population(
        languages=[language] * sum(number for *_, number in parts),
        categories=[category for category, _, number in parts for _ in range(number)],
        group_sizes=np.array([size for _, size, number in parts for _ in range(number)], dtype=np.int64),
        counts=np.full(sum(number for *_, number in parts), counts),
    )


def weights(
    certification: Population, unlabelled_products: Population, accepted: np.ndarray | None = None
) -> np.ndarray:
    everything = np.ones(len(certification.categories), dtype=bool)
    return Cells(certification, unlabelled_products).weighting(everything if accepted is None else accepted).weights


def together(*populations: Population) -> Population:
    return Population(
        languages=[name for one in populations for name in one.languages],
        categories=[name for one in populations for name in one.categories],
        group_sizes=np.concatenate([one.group_sizes for one in populations]),
        counts=np.concatenate([one.counts for one in populations]),
    )


def all_accepted(certification: Population, unlabelled_products: Population) -> Weighting:
    return Cells(certification, unlabelled_products).weighting(np.ones(len(certification.categories), dtype=bool))


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
    assert (toys.category, toys.accepted, toys.missing, toys.unlabelled_products) == ("Toys", 19, 1, 100)
    assert np.unique(weighting.weights[:100]) == pytest.approx(1.0)
    assert not weighting.weights[100:].any()


def test_enough_evidence_is_counted_among_the_accepted() -> None:
    fold, filled = population(("Shoes", 1, 100), ("Toys", 1, 100)), population(("Shoes", 1, 50), ("Toys", 1, 50))
    accepted = np.arange(200) < 100 + MIN_ACCEPTED
    assert not Cells(fold, filled).weighting(accepted).refused
    accepted[100] = False
    assert [row.category for row in Cells(fold, filled).weighting(accepted).refused] == ["Toys"]


def test_a_category_without_open_products_weighs_nothing_and_is_no_slice() -> None:
    fold, filled = population(("Shoes", 1, 50), ("Bags", 1, 50)), population(("Shoes", 1, 10))
    cells = Cells(fold, filled)
    assert cells.slices == [("en", "Shoes")]
    actual = cells.weighting(np.ones(100, dtype=bool)).weights
    assert (actual[0], actual[50]) == (1.0, 0.0)


def test_a_first_level_category_that_would_weigh_more_than_the_limit_is_refused() -> None:
    """25 of 2,200 certification products would stand for 60% of the open ones."""
    fold = population(("Shoes", 1, 2175), ("Bags", 1, 25))
    weighting = all_accepted(fold, population(("Shoes", 1, 400), ("Bags", 1, 600)))
    (bags,) = weighting.refused
    assert (bags.category, bags.accepted, bags.unlabelled_products, bags.why) == ("Bags", 25, 600, HEAVY)
    assert np.unique(weighting.weights[:2175]) == pytest.approx(1.0)  # over what remains
    assert not weighting.weights[2175:].any()
    assert weighting.unlabelled_products == 400
    enough = population(("Shoes", 1, 2175), ("Bags", 1, 25 + bags.missing))
    weighting = all_accepted(enough, population(("Shoes", 1, 400), ("Bags", 1, 600)))
    assert not weighting.refused
    one_less = population(("Shoes", 1, 2175), ("Bags", 1, 25 + bags.missing - 1))
    assert all_accepted(one_less, population(("Shoes", 1, 400), ("Bags", 1, 600))).refused


def test_a_refused_category_makes_others_too_heavy_until_none_is() -> None:
    """Without A, which holds almost all open products, C would weigh more than 20 times B."""
    fold = population(("A", 1, 20), ("B", 1, 2000), ("C", 1, 20))
    weighting = all_accepted(fold, population(("A", 1, 90_000), ("B", 1, 1000), ("C", 1, 1000)))
    assert [(row.category, row.why) for row in weighting.refused] == [("A", HEAVY), ("C", HEAVY)]
    assert [row.name for row in weighting.strata] == ["B, groups of 1"]


def test_sizes_that_would_weigh_more_than_the_limit_are_merged() -> None:
    fold = population(("Shoes", 1, 2000), ("Shoes", 9, 20))
    weighting = all_accepted(fold, population(("Shoes", 1, 500), ("Shoes", 9, 500)))
    assert [row.name for row in weighting.strata] == ["Shoes"]
    assert not weighting.refused


@pytest.mark.parametrize("category", ["S/A", "S/B"])
@pytest.mark.parametrize("where", ["fold", "open"])
def test_a_size_that_only_one_side_has_once_is_merged_too(category: str, where: str) -> None:
    rare = population((category, 9, 1))
    fold = population(("S/A", 1, 40), ("S/B", 1, 40))
    filled = population(("S/A", 1, 50), ("S/B", 1, 50))
    sides = (together(fold, rare), filled) if where == "fold" else (fold, together(filled, rare))
    weighting = all_accepted(*sides)
    assert [row.name for row in weighting.strata] == ["S"]
    assert np.unique(weighting.weights) == pytest.approx(1.0)


def test_a_weight_of_exactly_the_limit_is_kept_and_one_product_may_be_missing() -> None:
    fold = population(("A", 1, 20), ("B", 1, 1980))
    exactly = all_accepted(fold, population(("A", 1, 200), ("B", 1, 800)))
    assert exactly.strata[0].weight == MAX_WEIGHT
    (refused,) = all_accepted(fold, population(("A", 1, 201), ("B", 1, 800))).refused
    assert (refused.category, refused.missing, refused.unlabelled_products) == ("A", 1, 201)
    assert isinstance(refused.unlabelled_products, int)


def test_certification_products_outside_the_slices_weigh_nothing() -> None:
    fold = population(("Shoes", 1, 40), ("Shoes", 9, 40), ("Toys", 1, 40))
    weighting = all_accepted(fold, population(("Shoes", 1, 50), ("Shoes", 9, 50)))
    assert weighting.strata[-1].name == "Shoes, groups of 6+"
    assert not weighting.weights[80:].any()


def test_cells_and_refusals_are_in_the_order_of_their_names() -> None:
    fold = population(("S/Boots", 1, 300), ("S/Clogs", 1, 150), ("S-x", 1, 40))
    names = [row.name for row in all_accepted(fold, fold).strata]
    assert names == ["S/Boots, groups of 1", "S/Clogs, groups of 1", "S-x, groups of 1"]
    heavy = population(("A", 1, 20), ("B", 1, 2000), ("Z", 1, 19))
    weighting = all_accepted(heavy, population(("A", 1, 90_000), ("B", 1, 1000), ("Z", 1, 10)))
    assert [(row.category, row.why) for row in weighting.refused] == [("A", HEAVY), ("Z", FEW)]


def test_a_category_below_that_would_weigh_more_than_the_limit_is_merged_with_its_parent() -> None:
    fold = population(("A/Large", 1, 4000), ("A/Boots", 1, 100), ("B", 1, 100))
    weighting = all_accepted(fold, population(("A/Large", 1, 100), ("A/Boots", 1, 900), ("B", 1, 10)))
    assert [row.name for row in weighting.strata] == ["A, groups of 1", "B, groups of 1"]
    rest = population(("A/Large", 1, 4000), ("A/Small", 1, 99), ("B", 1, 100))
    weighting = all_accepted(rest, population(("A/Large", 1, 100), ("A/Small", 1, 900), ("B", 1, 10)))
    assert [row.name for row in weighting.strata] == ["A, groups of 1", "B, groups of 1"]


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.5, 3))
def test_no_weight_is_above_the_limit(seed: int, skew: float) -> None:
    """Every open product of a slice is represented at its weight or refused by name."""
    rng = np.random.default_rng(seed)
    names = np.array(["A", "A/B", "A/B/C", "C", "D/E", "F"])

    def any_population(n: int) -> Population:
        shares = rng.random(len(names)) ** (3 * skew)
        return Population(
            languages=np.where(rng.random(n) < 0.1, "fr", "en").tolist(),
            categories=names[rng.choice(len(names), n, p=shares / shares.sum())].tolist(),
            group_sizes=rng.integers(1, 9, n), counts=np.ones(n),
        )  # fmt: skip

    cells = Cells(any_population(3000), any_population(500))
    weighting = cells.weighting(rng.random(3000) < 0.5)
    assert all(row.weight <= MAX_WEIGHT for row in weighting.strata)
    refused = sum(row.unlabelled_products for row in (*weighting.refused, *weighting.refused_languages))
    assert weighting.unlabelled_products + refused == pytest.approx(cells.unlabelled_products)
    assert all(row.missing >= 1 for row in (*weighting.refused, *weighting.refused_languages))


def test_a_language_is_a_cell_of_its_own() -> None:
    fold = together(population(("Shoes", 1, 160)), population(("Shoes", 1, 40), language="fr"))
    filled = together(population(("Shoes", 1, 20)), population(("Shoes", 1, 80), language="fr"))
    weighting = all_accepted(fold, filled)
    assert [row.name for row in weighting.strata] == ["en: Shoes, groups of 1", "fr: Shoes, groups of 1"]
    assert weighting.weights[[0, 160]] == pytest.approx([0.2 / 0.8, 0.8 / 0.2])


def test_a_language_with_too_little_evidence_is_refused_by_name_and_never_merged() -> None:
    """19 French products, whatever their categories; a category is judged in one language alone."""
    fold = together(
        population(("Shoes", 1, 100), ("Bags", 1, 100)),
        population(("Shoes", 1, 12), ("Bags", 1, 7), language="fr"),
        population(("Shoes", 1, 30), ("Bags", 1, 19), language=""),
    )
    filled = together(
        *(population(("Shoes", 1, 50), ("Bags", 1, 50), language=language) for language in ("en", "fr", ""))
    )
    weighting = all_accepted(fold, filled)
    (french,) = weighting.refused_languages
    assert (french.language, french.accepted, french.missing, french.unlabelled_products) == ("fr", 19, 1, 100)
    assert [(row.language, row.category, row.accepted) for row in weighting.refused] == [("", "Bags", 19)]
    assert weighting.unlabelled_products == 150
    assert not weighting.weights[200:219].any()


def test_what_is_missing_is_told_as_labelled_products_too() -> None:
    """A tenth of the labelled products is in the fold, half of these are accepted: about as the others, given few."""
    fold = population(("Shoes", 1, 200), ("Toys", 1, 20))
    accepted = np.arange(220) % 2 == 0
    filled = population(("Shoes", 1, 100), ("Toys", 1, 100))
    (toys,) = Cells(fold, filled, 0.1).weighting(accepted).refused
    assert (toys.accepted, toys.missing, toys.labelled_missing, toys.why) == (10, 10, 200, FEW)
    (toys,) = Cells(fold, filled, 0.1).weighting(np.arange(220) < 100).refused
    assert toys.accepted == 0
    assert toys.labelled_missing == pytest.approx(20 / (20 * 100 / 220 / 40) / 0.1, abs=1.1)


def test_open_products_of_a_category_that_certification_never_saw_are_left_out() -> None:
    fold = population(("Shoes", 1, 50), ("Bags", 1, 50))
    actual = weights(fold, population(("Shoes", 1, 10), ("Bags", 1, 10), ("Toys", 1, 980)))
    assert np.unique(actual) == pytest.approx(1.0)


def cells_of(accepted: dict[str, int]) -> dict[str, str]:
    """The category cells of one first-level category."""

    def count(names: Sequence[str]) -> int:
        return sum(accepted[name] for name in names)

    return divide(first_level(next(iter(accepted))), list(accepted), count, lambda names: count(names) >= MIN_ACCEPTED)


def test_a_large_category_below_the_first_level_has_a_cell_of_its_own() -> None:
    cells = cells_of({"Shoes/Boots": 100, "Shoes/Flats": 99, "Shoes": 5})
    assert cells == {"Shoes/Boots": "Shoes/Boots", "Shoes/Flats": "Shoes", "Shoes": "Shoes"}


def test_what_a_large_category_leaves_over_is_not_refused_but_merged_with_it() -> None:
    cells = cells_of({"Shoes/Boots": 100, "Shoes/Clogs": 300, "Shoes/Flats": 19})
    assert cells == {"Shoes/Boots": "Shoes", "Shoes/Clogs": "Shoes/Clogs", "Shoes/Flats": "Shoes"}
    cells = cells_of({"Shoes/Boots": 300, "Shoes/Clogs": 100, "Shoes/Flats": 19})
    assert cells == {"Shoes/Boots": "Shoes/Boots", "Shoes/Clogs": "Shoes", "Shoes/Flats": "Shoes"}


def test_large_categories_are_divided_further() -> None:
    cells = cells_of({"A/B/C": 150, "A/B/D": 150, "A/E": 50})
    assert cells == {"A/B/C": "A/B/C", "A/B/D": "A/B/D", "A/E": "A"}
    cells = cells_of({"A/B/C": 60, "A/B/D": 60, "A/E": 50})
    assert cells == {"A/B/C": "A/B", "A/B/D": "A/B", "A/E": "A"}


def test_products_without_a_category_are_a_category() -> None:
    filled = population(("", 1, 20), ("A", 1, 20))
    names = [row.name for row in all_accepted(population(("", 1, 20), ("A", 1, 20)), filled).strata]
    assert names == ["no category, groups of 1", "A, groups of 1"]
    (refused,) = all_accepted(population(("", 1, 19), ("A", 1, 20)), filled).refused
    assert refused.category == ""


@given(st.dictionaries(st.sampled_from(["A", "A/B", "A/B/C", "A/D", "A/D/E", "A/D/F"]), st.integers(0, 250)))
def test_every_category_is_in_a_cell_with_enough(accepted: dict[str, int]) -> None:
    if sum(accepted.values()) < MIN_ACCEPTED:
        return
    cells = cells_of(accepted)
    assert set(cells) == set(accepted)
    for cell in set(cells.values()):
        assert sum(accepted[category] for category in cells if cells[category] == cell) >= MIN_ACCEPTED


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_weights_make_the_fold_as_the_open_products_where_none_is_refused(seed: int) -> None:
    rng = np.random.default_rng(seed)
    names = np.array(["A", "A/B", "C", "D/E"])

    def any_population(n: int) -> Population:
        categories = names[rng.integers(0, 4, n)].tolist()
        return Population(
            languages=["en"] * n, categories=categories, group_sizes=rng.integers(1, 9, n), counts=np.ones(n)
        )

    fold, filled = any_population(800), any_population(500)
    weighting = Cells(fold, filled).weighting(rng.random(800) < 0.5)
    assert sum(stratum.open_share for stratum in weighting.strata) == pytest.approx(1)
    for stratum in weighting.strata:
        assert stratum.weight * stratum.certification_products / 800 == pytest.approx(stratum.open_share, rel=1e-6)
