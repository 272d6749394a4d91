"""The p-value of one threshold: the exact binomial test, made robust against groups and weights."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special, stats

from catalog_enrichment.precision.certificate import ThresholdTest
from catalog_enrichment.precision.cluster import (
    MIN_WRONG,
    PRIOR_GROUPS,
    AcceptedSample,
    cluster_test,
    group_numbers,
    intraclass_correlation,
    precision_interval,
    products_needed,
)


def sample(wrong: list[int], sizes: list[int], weights: list[float] | None = None) -> AcceptedSample:
    """Return groups of the given sizes, all accepted, with so many wrong products each; one weight per group."""
    groups = np.repeat(np.arange(len(sizes)), np.array(sizes, dtype=int))
    mistaken = np.array(
        [product < k for size, k in zip(sizes, wrong, strict=True) for product in range(size)], dtype=bool
    )
    per_product = None if weights is None else np.repeat(np.array(weights, dtype=float), sizes)
    return AcceptedSample.of(np.ones(len(groups), dtype=bool), mistaken, groups, per_product)


def result_of(of: AcceptedSample, correlation: float = 1.0, delta: float = 0.05) -> ThresholdTest:
    return cluster_test(of, 0.9, 0.95, delta, correlation)


def single(n: int, k: int) -> AcceptedSample:
    return sample([1] * k + [0] * (n - k), [1] * n)


@given(st.integers(2, 400), st.data())
def test_groups_of_one_and_weights_of_one_give_the_exact_binomial_test(n: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(0, n))
    bound = stats.beta.ppf(0.05, n - k, k + 1) if k < n else 0.0
    for of in (single(n, k), sample([1] * k + [0] * (n - k), [1] * n, weights=[3.0] * n)):
        actual = result_of(of)
        assert actual.p_value == pytest.approx(float(stats.binom.cdf(k, n, 0.05)), rel=1e-6)
        assert actual.lower_bound == pytest.approx(bound, abs=1e-6)
        assert (actual.accepted, actual.wrong, actual.groups) == (n, k, n)


def test_pairs_that_are_wrong_together_count_as_half_as_many() -> None:
    """200 pairs, ten wrong in both products: deff 2 (Kish), so 200 effective products with ten wrong."""
    actual = result_of(sample([2] * 10 + [0] * 190, [2] * 200), correlation=1.0)
    p = 0.05
    variance = 200 / 199 * (10 * (2 - 2 * p) ** 2 + 190 * (2 * p) ** 2) / 400**2
    observed = variance * 399 / (p * (1 - p))
    deff = (10 * observed + PRIOR_GROUPS * 2) / (10 + PRIOR_GROUPS)
    correction = (stats.t.ppf(0.95, 399) / stats.t.ppf(0.95, 199)) ** 2
    n = correction * 400 / deff
    assert actual.deff == pytest.approx(deff)
    assert actual.deff == pytest.approx(2, rel=0.01)
    assert actual.p_value == pytest.approx(special.betainc(n - p * n, p * n + 1, 0.95))
    assert actual.p_value > result_of(single(400, 20)).p_value


def test_the_design_effect_is_a_mean_of_what_is_seen_and_what_the_choosing_fold_suggests() -> None:
    """40 of 200 pairs have one error each: observed deff below 1. Errors of pairs correlate by .5 there."""
    pairs = sample([1] * 40 + [0] * 160, [2] * 200)
    residuals = 40 * (1 - 0.1 * 2) ** 2 + 160 * (0.1 * 2) ** 2
    observed = 200 / 199 * residuals / 400**2 * 399 / (0.1 * 0.9)
    assert observed < 1
    expected = 1 + (2 - 1) * 0.5
    blended = (40 * observed + PRIOR_GROUPS * expected) / (40 + PRIOR_GROUPS)
    assert pairs.deff(0.5) == pytest.approx(max(1.0, blended))
    few = sample([1] * 2 + [0] * 198, [2] * 200)
    assert pairs.deff(1.0) < few.deff(1.0) < 2.0  # with few wrong groups the choosing fold has more weight


def test_few_large_groups_leave_few_degrees_of_freedom() -> None:
    assert single(50, 0).effective_groups == pytest.approx(50)
    assert sample([0] * 4, [50, 50, 1, 1]).effective_groups == pytest.approx(2, abs=0.01)
    unequal = sample([1] * 5 + [0] * 97, [1] * 100 + [40, 40])
    t = stats.t.ppf(0.95, [179, unequal.effective_groups - 1])
    n = (t[0] / t[1]) ** 2 * 180 / unequal.deff(0.0)
    k = n * 5 / 180
    assert result_of(unequal, correlation=0.0).p_value == pytest.approx(special.betainc(n - k, k + 1, 0.95))


def test_clusters_that_spread_errors_evenly_are_not_credited_for_it_and_unequal_weights_cost() -> None:
    even = sample([1] * 20, [20] * 20)  # one product is wrong in each group: the variance between groups is 0
    assert result_of(even, correlation=0.0).deff == 1.0
    even = sample([1] * 20, [20] * 20, weights=[1.0, 3.0] * 10)
    assert result_of(even, correlation=0.0).deff == pytest.approx(1.25)
    kish = 200 * (100 + 900) / 400**2
    assert result_of(sample([0] * 200, [1] * 200, [1.0] * 100 + [3.0] * 100)).deff == pytest.approx(kish)


def test_weights_move_the_error_rate() -> None:
    light, equal, heavy = (result_of(sample([1] + [0] * 199, [1] * 200, [w] + [1.0] * 199)) for w in (0.2, 1.0, 5.0))
    assert light.p_value < equal.p_value < heavy.p_value


def test_without_an_error_groups_count_as_one_product_unless_the_choosing_fold_knows_better() -> None:
    perfect = sample([0] * 60, [4] * 60)
    assert result_of(perfect).deff == pytest.approx(4.0)
    assert result_of(perfect, correlation=0.25).deff == pytest.approx(1.75)
    assert result_of(perfect, correlation=0.0).deff == 1.0
    mixed = sample([0] * 3, [1, 2, 3])
    assert result_of(mixed).deff == pytest.approx((1 + 4 + 9) / 6)


def test_correlation_and_unequal_weights_add_up() -> None:
    pairs = sample([0, 0], [2, 2], weights=[1.0, 3.0])
    independent, together = 4 * (2 * 1 + 2 * 9) / 8**2, 4 * (2**2 + 6**2) / 8**2
    for correlation, expected in ((0.0, independent), (1.0, together), (0.5, (independent + together) / 2)):
        assert pairs.deff(correlation) == pytest.approx(expected)


def test_two_groups_have_a_variance() -> None:
    two = sample([1, 0], [3, 3])
    observed = 2 * (2 * (1 / 2) ** 2) / 36 * 5 / (1 / 6 * 5 / 6)
    assert two.deff(1.0) == pytest.approx((observed + PRIOR_GROUPS * 3) / (1 + PRIOR_GROUPS))
    nothing = single(0, 0)
    assert (nothing.error_rate, nothing.effective_groups, nothing.deff(1.0)) == (0.0, 0.0, 1.0)


@pytest.mark.parametrize("n", [2, 10, 28, 57])
def test_without_errors_58_and_a_bit_are_needed(n: int) -> None:
    """0.95^n <= 0.05; with 28 it is more than twice as many, with 57 a little more."""
    assert products_needed(single(n, 0), 0.95, 0.05, 1.0) == pytest.approx(np.log(0.05) / np.log(0.95))


@pytest.mark.parametrize("of", [single(100, 2), single(60, 2), sample([1, 0], [20, 200])])
def test_the_products_needed_are_those_with_which_the_test_passes(of: AcceptedSample) -> None:
    times = products_needed(of, 0.95, 0.05, 0.0) / of.accepted
    quantiles = stats.t.ppf(0.95, [of.accepted - 1, max(of.effective_groups - 1, 1.0)])
    n = of.accepted / of.deff(0.0) * (quantiles[0] / quantiles[1]) ** 2
    k = of.error_rate * n
    assert special.betainc(times * (n - k), times * k + 1, 0.95) == pytest.approx(0.05, abs=1e-6)


def test_more_than_128_times_as_many_products_are_no_answer() -> None:
    """By weight 4.55 and 4.6 of 100 products are wrong: about 98 and more than 128 times as many would be enough."""
    near, too_near = (sample([1] * 5 + [0] * 95, [1] * 100, [share] * 5 + [1.0] * 95) for share in (0.906, 0.95))
    assert 64 * 100 < products_needed(near, 0.95, 0.05, 0.0) < 128 * 100
    assert products_needed(too_near, 0.95, 0.05, 0.0) == np.inf
    for unknown in (single(1, 0), single(0, 0), single(5, 5), sample([3], [500])):
        assert products_needed(unknown, 0.95, 0.05, 1.0) == np.inf


@pytest.mark.parametrize(("n", "wrong"), [(2, 1), (10, 0), (10, 10), (10, 3), (10, 1), (10, 9)])
def test_the_precision_of_single_products_has_the_interval_of_clopper_and_pearson(n: int, wrong: int) -> None:
    exact = stats.binomtest(n - wrong, n).proportion_ci()
    assert precision_interval(single(n, wrong)) == pytest.approx((exact.low, exact.high))
    assert precision_interval(single(1, 0)) == (0.0, 1.0)


@pytest.mark.parametrize("of", [sample([0], [500]), single(0, 0), sample([3], [500]), single(5, 5)])
def test_fewer_than_two_groups_and_errors_only_certify_nothing(of: AcceptedSample) -> None:
    assert (result_of(of).p_value, result_of(of).lower_bound) == (1.0, 0.0)


def test_only_the_accepted_products_and_their_groups_count() -> None:
    groups = group_numbers(["a", "b", "b", "c", "d"])
    accepted = np.array([True, True, False, False, True])
    of = AcceptedSample.of(accepted, np.array([False, True, True, True, False]), groups)
    assert (of.accepted, of.wrong, len(of.weight), of.error_rate) == (3, 1, 3, pytest.approx(1 / 3))


@given(
    st.lists(st.tuples(st.integers(1, 6), st.floats(0.1, 20)), min_size=2, max_size=40),
    st.floats(0.01, 100),
    st.integers(0, 2**32 - 1),
)
def test_the_scale_of_the_weights_does_not_matter(groups: list[tuple[int, float]], scale: float, seed: int) -> None:
    sizes, weights = [size for size, _ in groups], [weight for _, weight in groups]
    wrong = [int(k) for k in np.random.default_rng(seed).binomial(sizes, 0.1)]
    before = result_of(sample(wrong, sizes, weights))
    after = result_of(sample(wrong, sizes, [weight * scale for weight in weights]))
    assert after.p_value == pytest.approx(before.p_value, rel=1e-6, abs=1e-12)
    assert after.deff == pytest.approx(before.deff, rel=1e-6)


@given(st.integers(2, 60), st.integers(1, 6), st.data())
def test_one_wholly_wrong_group_more_never_lowers_the_p_value(groups: int, size: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(0, groups - 1))
    before = result_of(sample([size] * k + [0] * (groups - k), [size] * groups))
    after = result_of(sample([size] * (k + 1) + [0] * (groups - k - 1), [size] * groups))
    assert after.p_value >= before.p_value - 1e-9


@given(st.lists(st.integers(1, 5), min_size=2, max_size=60), st.integers(0, 2**32 - 1), st.sampled_from([0.05, 0.01]))
def test_the_lower_bound_reaches_the_target_where_the_test_passes(sizes: list[int], seed: int, delta: float) -> None:
    wrong = [int(k) for k in np.random.default_rng(seed).binomial(sizes, 0.02)]
    actual = result_of(sample(wrong, sizes), delta=delta)
    assert actual.passed == (actual.p_value <= delta)
    if abs(actual.p_value - delta) > 1e-9:
        assert (actual.lower_bound >= 0.95) == (actual.p_value <= delta)


def correlation(wrong: list[int], sizes: list[int]) -> float:
    groups = np.repeat(np.arange(len(sizes)), sizes)
    return intraclass_correlation(
        np.array([unit < k for size, k in zip(sizes, wrong, strict=True) for unit in range(size)], dtype=bool), groups
    )


def test_the_correlation_of_errors_is_that_of_the_analysis_of_variance() -> None:
    assert correlation([4] * 10 + [0] * 90, [4] * 100) == pytest.approx(1.0)
    assert correlation([1] * 40, [4] * 40) == 0.0  # spread more evenly than by chance
    assert correlation([MIN_WRONG, 0], [MIN_WRONG, MIN_WRONG]) == pytest.approx(1.0)  # two groups are enough
    assert 0 < correlation([6, 1], [10, 10]) < 1
    assert correlation([1] * MIN_WRONG + [0] * 95, [2] * 100) == 0.0  # so many wrong ones are enough
    gaps = np.repeat([0, 2, 7, 9], 5)
    wrong_groups = np.repeat([True, False, True, False], 5)
    assert intraclass_correlation(wrong_groups, gaps) == pytest.approx(1.0)
    one_right = wrong_groups ^ (np.arange(20) % 5 == 0)
    assert intraclass_correlation(one_right, gaps) == intraclass_correlation(one_right, group_numbers(gaps)) < 1
    wrong, sizes = [4] * 5 + [2] * 5 + [0] * 90, [4] * 100
    shares = np.array(wrong) / 4
    between = 4 * shares.var(ddof=1)
    within = float((np.array(wrong) * (1 - shares)).sum()) / (400 - 100)
    assert correlation(wrong, sizes) == pytest.approx((between - within) / (between + 3 * within))


@pytest.mark.parametrize(
    ("wrong", "sizes"),
    [
        ([1] * (MIN_WRONG - 1) + [0] * 96, [2] * 100),  # too few wrong
        ([2] * 98 + [0] * 2, [2] * 100),  # too few right
        ([2] * 96 + [1] * 4, [2] * 100),  # too few right, and apart
        ([1] * 20 + [0] * 80, [1] * 100),  # no group of several
        ([30], [100]),
        ([], []),
    ],
)
def test_without_evidence_groups_are_taken_as_correlated(wrong: list[int], sizes: list[int]) -> None:
    assert correlation(wrong, sizes) == 1.0
