"""The thresholds to test are fixed by unlabelled scores."""

from __future__ import annotations

from math import log

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog_enrichment.precision.grid import GridSize, smallest_sample, threshold_grid

SIZE = GridSize(first=150, fewest=59, step=1.05)


def test_59_products_are_the_fewest_that_certify_95_percent() -> None:
    assert smallest_sample(0.95, 0.05) == 59
    assert 0.95**59 <= 0.05 < 0.95**58


def test_the_grid_has_the_expected_accepted_counts() -> None:
    scores = np.random.default_rng(0).random(100_000)
    grid = threshold_grid(scores, 1000, SIZE)
    expected = [1000 * (scores >= t).mean() for t in grid]
    np.testing.assert_allclose(expected[:-1], 150 * 1.05 ** np.arange(len(grid) - 1), rtol=1e-3)
    assert expected[-1] == 1000
    assert len(grid) == int(log(1000 / 150) / log(1.05)) + 2


def test_the_grid_starts_at_the_floor_where_little_can_be_accepted() -> None:
    scores = np.random.default_rng(0).random(10_000)
    assert 100 * (scores >= threshold_grid(scores, 100, SIZE)[0]).mean() == pytest.approx(59, abs=0.1)
    assert len(threshold_grid(scores, 58, SIZE)) == 0
    rare = np.where(np.arange(10_000) < 1000, scores, -np.inf)  # a tenth can be accepted at all
    assert 1000 * (rare >= threshold_grid(rare, 1000, SIZE)[0]).mean() == pytest.approx(59, abs=0.1)
    assert len(threshold_grid(rare, 500, SIZE)) == 0
    assert len(threshold_grid([], 1000, SIZE)) == 0
    assert threshold_grid(np.linspace(0.1, 1, 10), 2000, SIZE)[0] == 1.0  # 0.75 of ten scores: the best
    assert len(threshold_grid(scores, 0, SIZE)) == 0


def test_the_grid_starts_at_the_usual_count_also_where_exactly_as_many_can_be_accepted() -> None:
    scores = np.random.default_rng(0).random(10_000)
    assert threshold_grid(scores, 150, SIZE).tolist() == [scores.min()]
    assert len(threshold_grid(scores, 149, SIZE)) > 1


@given(st.lists(st.sampled_from([0.1, 0.5, 0.9, 1.0, -np.inf]), max_size=200), st.integers(0, 2000))
def test_the_grid_is_finite_and_strictly_decreasing(scores: list[float], n_products: int) -> None:
    grid = threshold_grid(scores, n_products, SIZE)
    assert np.isfinite(grid).all()
    assert (np.diff(grid) < 0).all()
