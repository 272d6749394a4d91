"""Thresholds: fixed by unlabelled scores, started by the choosing fold, stopped at the first failure."""

from __future__ import annotations

from dataclasses import dataclass
from math import log

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from catalog_enrichment.precision.thresholds import (
    LARGEST_SHARE,
    RATIO,
    GridSize,
    Requirement,
    choose_grid_size,
    error_rates,
    errors_allowed,
    expected_accepted,
    fixed_sequence,
    last_passed,
    spent_delta,
    threshold_grid,
)
from catalog_enrichment.precision.units import Units

SIZE = GridSize(first=150, fewest=59, step=1.05)
REQUIRED = Requirement(target=0.95, delta=0.05, deff=1.0)
SCORES = np.linspace(0, 1, 10_001)[1:]
"""Scores of unlabelled products: of a fold of n, n x are above 1 - x."""


# --- the sequence -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    threshold: float
    passed: bool


def test_the_sequence_stops_at_the_first_failure_however_good_the_rest_is() -> None:
    steps = fixed_sequence(np.array([0.9, 0.8, 0.7, 0.6]), lambda threshold: Outcome(threshold, threshold != 0.7))
    assert steps == (Outcome(0.9, True), Outcome(0.8, True), Outcome(0.7, False))
    assert last_passed(steps) == Outcome(0.8, True)
    assert last_passed(steps[2:]) is None


@pytest.mark.parametrize("thresholds", [[0.8, 0.9], [0.9, 0.9]])
def test_thresholds_that_do_not_decrease_are_no_sequence(thresholds: list[float]) -> None:
    with pytest.raises(ValueError, match="strictly decreasing"):
        fixed_sequence(np.array(thresholds), lambda threshold: Outcome(threshold, True))


def test_the_uses_of_a_label_set_share_delta() -> None:
    assert [spent_delta(0.05, k) for k in (1, 2, 3, 10)] == pytest.approx([0.05, 0.05 / 6, 0.05 / 12, 0.05 / 110])
    assert sum(spent_delta(0.05, k) for k in range(1, 10_000)) < 1.5 * 0.05


# --- the grid ---------------------------------------------------------------------------------------------------------


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
    assert threshold_grid(scores, 150, SIZE).tolist() == [scores.min()]  # exactly the usual count
    assert len(threshold_grid(scores, 149, SIZE)) > 1


@given(st.lists(st.sampled_from([0.1, 0.5, 0.9, 1.0, -np.inf]), max_size=200), st.integers(0, 2000))
def test_the_grid_is_finite_and_strictly_decreasing(scores: list[float], n_products: int) -> None:
    grid = threshold_grid(scores, n_products, SIZE)
    assert np.isfinite(grid).all()
    assert (np.diff(grid) < 0).all()


# --- the first threshold ----------------------------------------------------------------------------------------------


def fold(n: int, error_rate: float, steep: float = 0.0) -> Units:
    """Return evenly spread scores; every (1 / error_rate)-th product is wrong, and ``steep`` more of the lower half."""
    scores = (np.arange(n) + 0.5) / n
    wrong = np.floor(np.arange(1, n + 1) * error_rate) > np.floor(np.arange(n) * error_rate)
    wrong |= (scores < 0.5) & (np.arange(n) % 100 < 100 * steep)
    return Units(scores, np.where(wrong, scores, -np.inf))


def first(choosing: Units, n_products: int, required: Requirement = REQUIRED) -> float:
    return choose_grid_size(choosing, SCORES, n_products, required, 1.02).first


@pytest.mark.parametrize(
    ("count", "errors"), [(58, -1), (59, 0), (92, 0), (93, 1), (124, 2), (153, 3), (336, 10), (335, 9), (577, 20)]
)
def test_so_many_errors_are_allowed(count: int, errors: int) -> None:
    assert errors_allowed(np.array([float(count)]), REQUIRED).tolist() == [errors]


@pytest.mark.parametrize(
    ("delta", "deff", "fewest"), [(0.05, 1.0, 59), (0.05, 2.0, 118), (0.05 / 110, 1.0, 151), (0.05 / 110, 1.5, 226.5)]
)
def test_the_fewest_products_of_a_start_are_those_of_a_perfect_model(delta: float, deff: float, fewest: float) -> None:
    required = Requirement(0.95, delta, deff)
    size = choose_grid_size(fold(400, 0.0), SCORES, 2000, required, 1.02)
    assert size.fewest == pytest.approx(fewest)
    assert size.first >= size.fewest
    assert size.step == 1.02
    few = choose_grid_size(fold(400, 0.0), SCORES, 20, required, 1.02)
    assert (few.first, few.fewest) == (pytest.approx(fewest), pytest.approx(fewest))


def test_where_labels_are_wrong_the_sequence_starts_with_more_products() -> None:
    """2 of 100 are wrong at every score, or half of them in the lower half of the scores as well."""
    right, noisy = first(fold(1200, 0.0, 0.2), 3000), first(fold(1200, 0.02, 0.2), 3000)
    assert right < noisy <= LARGEST_SHARE * 3000
    assert noisy > 500


def test_a_start_is_at_most_a_share_of_the_fold_and_candidates_are_spaced_by_a_ratio() -> None:
    for n_products in (1000, 3000):
        count = first(fold(1200, 0.02), n_products)
        assert LARGEST_SHARE * n_products / RATIO < count <= LARGEST_SHARE * n_products
        assert (log(count / 59) / log(RATIO)) == pytest.approx(round(log(count / 59) / log(RATIO)), abs=1e-9)
    twice = first(fold(1200, 0.02), 3000, Requirement(0.95, 0.05, 2.0))  # the share is of products that cluster, too
    assert LARGEST_SHARE * 3000 / RATIO < twice <= LARGEST_SHARE * 3000


def test_clustered_products_reach_down_to_lower_thresholds() -> None:
    """The best 15% of the scores are right, all others wrong: a start may accept 150 of 1,000, however they cluster."""
    scores = (np.arange(1200) + 0.5) / 1200
    choosing = Units(scores, np.where(scores < 0.85, scores, -np.inf))
    for deff in (1.0, 2.0):
        assert first(choosing, 1000, Requirement(0.95, 0.05, deff)) <= 150


def test_in_a_small_fold_one_error_may_be_allowed_for() -> None:
    assert first(fold(100, 0.01), 200) == pytest.approx(59 * RATIO**5)  # 95 of 200, more than the share


def test_only_what_can_be_accepted_is_a_start() -> None:
    half = np.where(np.arange(len(SCORES)) % 2 == 0, SCORES, -np.inf)
    size = choose_grid_size(fold(400, 0.02), half, 150, REQUIRED, 1.02)  # 75 can be accepted
    assert size.first in [pytest.approx(59 * RATIO**j) for j in range(3)]
    for scores in (np.empty(0), np.full(100, -np.inf)):
        size = choose_grid_size(fold(400, 0.02), scores, 2000, REQUIRED, 1.02)
        assert (size.first, size.fewest) == (59, 59)


def test_error_rates_are_those_above_each_threshold_with_the_prior() -> None:
    units = Units(np.array([0.9, 0.8, 0.7, 0.6]), np.array([-np.inf, 0.8, -np.inf, 0.5]))
    actual = error_rates(units, np.array([0.95, 0.8, 0.5]))
    assert actual.tolist() == pytest.approx([0.4 / 20, 1.4 / 22, 2.4 / 24])


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_the_expectation_is_that_of_sequences_that_are_played(seed: int) -> None:
    """The same sequences with drawn errors, without the code under test."""
    random = np.random.default_rng(seed)
    counts = 70 * 1.3 ** np.arange(random.integers(1, 7))
    rates = np.sort(random.uniform(0.001, 0.06, len(counts)))
    allowed = np.array([stats.binom.ppf(0.05, round(count), 0.05) - 1 for count in counts]).astype(np.int64)
    draws, start = 20_000, int(random.integers(len(counts)))
    errors = random.binomial(round(counts[start]), rates[start], draws)
    accepted, alive = np.zeros(draws), np.ones(draws, dtype=bool)
    for position in range(start, len(counts)):
        if position > start:
            more = counts[position] * rates[position] - counts[position - 1] * rates[position - 1]
            errors = errors + random.poisson(more, draws)
        alive &= errors <= allowed[position]
        accepted[alive] = counts[position]
    expected = expected_accepted(counts, rates, allowed)[start]
    assert expected == pytest.approx(accepted.mean(), abs=5 * accepted.std() / draws**0.5 + 1e-6)
