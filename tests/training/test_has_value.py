"""Classifiers that tell labelled from unlabelled products, on generated vectors."""

from __future__ import annotations

import numpy as np
import pytest

from catalog_enrichment.models import has_value as served
from catalog_enrichment.precision.alike import Comparison
from catalog_enrichment.training import has_value
from catalog_enrichment.training.has_value import Products


def generated(seed: int = 0, without: float = 0.5, apart: float = 4.0, size: int = 600) -> Products:
    """Half labelled, half unlabelled; the vectors of the share of the latter that has no value are ``apart``."""
    rng = np.random.default_rng(seed)
    labelled = np.arange(size) < size // 2
    vectors = rng.standard_normal((size, 6)) * np.array([3.0, 1, 1, 1, 1, 0.1])
    none = ~labelled & (rng.random(size) < without)
    vectors[none, 1] += apart
    return Products(labelled=labelled, vectors=vectors, groups=np.arange(size), weights=np.ones(size))


def test_a_head_gives_products_without_a_value_a_small_probability() -> None:
    products = generated()
    head = has_value.head(products)
    assert head is not None
    assert head.shape == (7,)
    assert head.dtype == np.float32
    factors = served.has_value(head, products.vectors)
    none = products.vectors[:, 1] > 2.5
    assert factors[none & ~products.labelled].mean() < 0.2
    assert factors[products.labelled & ~none].mean() > 0.85
    assert factors.max() <= 1.0


def test_there_is_no_head_where_nothing_tells_the_sides_apart() -> None:
    assert [has_value.head(generated(seed, without=0.0)) is None for seed in range(10)] == [True] * 10


def test_there_is_no_head_for_a_few_products() -> None:
    assert has_value.head(generated(size=16)) is None


def test_a_head_does_not_learn_what_the_weights_make_equal() -> None:
    """A difference in the mix of categories is no reason to think that a product has no value."""
    rng = np.random.default_rng(1)
    labelled = np.arange(2000) < 1000
    kind = rng.random(2000) < np.where(labelled, 0.9, 0.1)
    vectors = rng.standard_normal((2000, 3))
    vectors[:, 0] += 3 * kind
    weights = np.where(labelled, np.where(kind, 0.1 / 0.9, 0.9 / 0.1), 1.0)
    plain = Products(labelled=labelled, vectors=vectors, groups=np.arange(2000), weights=np.ones(2000))
    weighted = Products(labelled=labelled, vectors=vectors, groups=np.arange(2000), weights=weights)
    assert has_value.head(plain) is not None
    assert has_value.head(weighted) is None


def test_copies_on_both_sides_are_not_told_apart_by_having_been_seen() -> None:
    """A group is in one part of the cross-fit: a classifier never scores a copy of a product that it was fitted to."""
    rng = np.random.default_rng(2)
    vectors = np.repeat(rng.standard_normal((100, 20)), 10, axis=0)
    groups = np.repeat(np.arange(100), 10)
    labelled = groups < 50
    products = Products(labelled=labelled, vectors=vectors, groups=groups, weights=np.ones(1000))
    outputs = has_value.told_apart(products, np.full(1000, 0.9), [""] * 1000)
    result = Comparison(*has_value.sides(outputs, outputs, products)).result
    assert result.auc < 0.65


def test_the_comparison_reads_scores_and_categories() -> None:
    products = generated(without=0.0)
    nothing = np.full(len(products), 0.9)
    low = np.where(products.labelled, 0.9, np.linspace(0.1, 0.9, len(products)))
    categories = ["Perfume" if not one and place % 3 == 0 else "Shirts" for place, one in enumerate(products.labelled)]

    def auc(scores: np.ndarray, names: list[str]) -> float:
        outputs = has_value.told_apart(products, scores, names)
        return Comparison(*has_value.sides(scores, outputs, products)).result.auc

    assert auc(nothing, [""] * len(products)) == pytest.approx(0.5, abs=0.06)
    assert auc(low, [""] * len(products)) > 0.8
    assert auc(nothing, categories) > 0.6


def test_a_score_of_minus_infinity_is_the_lowest() -> None:
    products = generated(without=0.0)
    scores = np.where(products.labelled, 0.9, -np.inf)
    outputs = has_value.told_apart(products, scores, [""] * len(products))
    assert np.isfinite(outputs).all()
    assert Comparison(*has_value.sides(scores, outputs, products)).result.auc == pytest.approx(1.0)


def test_a_path_with_products_on_one_side_only_is_not_told_apart() -> None:
    rng = np.random.default_rng(0)
    for size in (0, 50):
        products = Products(
            labelled=np.ones(size, dtype=bool), vectors=rng.standard_normal((size, 3)), groups=np.arange(size),
            weights=np.ones(size),
        )  # fmt: skip
        assert has_value.told_apart(products, np.full(size, 0.5), [""] * size).tolist() == [0.0] * size
