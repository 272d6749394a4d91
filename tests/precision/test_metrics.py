"""R@P95, calibration and binomial bounds against scikit-learn and exact tables; empty inputs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as reference

from catalog_enrichment.precision import metrics
from catalog_enrichment.precision.units import Pairs, pairs_from
from catalog_enrichment.records import Cardinality

RNG = np.random.default_rng(7)


def test_precision_recall_curve_equals_scikit_learn_with_ties() -> None:
    scores, correct = RNG.integers(0, 30, 500) / 30, RNG.random(500) < 0.6
    curve = metrics.precision_recall_curve(scores, correct, int(correct.sum()))
    precision, recall, thresholds = reference.precision_recall_curve(correct, scores)
    np.testing.assert_allclose(curve.thresholds, thresholds[::-1])
    np.testing.assert_allclose(curve.precision, precision[:-1][::-1])
    np.testing.assert_allclose(curve.recall, recall[:-1][::-1])


def test_operating_point_accepts_equal_scores_together() -> None:
    # taking only the right one of the two at 0.8 would look perfect
    point = metrics.operating_point([0.9, 0.8, 0.8, 0.1], [True, True, False, False], 4, 0.95)
    assert point == metrics.OperatingPoint(0.9, recall=0.25, precision=1.0, accepted=1, wrong=0)


def test_the_operating_point_may_be_below_a_threshold_with_too_low_precision() -> None:
    correct = [False] + [True] * 19
    point = metrics.operating_point(np.linspace(1, 0.1, 20), correct, 25, 0.95)
    assert point.accepted == 20
    assert point.recall == 19 / 25
    assert (point.precision, point.wrong) == (0.95, 1)  # exactly the target is enough


@given(st.integers(1, 3000))
def test_exactly_the_target_reaches_the_target(twentieths: int) -> None:
    correct = np.arange(20 * twentieths) >= twentieths
    scores = np.full(len(correct), 0.5)
    assert metrics.operating_point(scores, correct, len(correct), 0.95).threshold == 0.5
    correct[-1] = False
    assert metrics.operating_point(scores, correct, len(correct), 0.95).threshold is None


@given(st.lists(st.tuples(st.integers(0, 9), st.booleans()), max_size=40), st.integers(0, 20))
def test_operating_point_is_the_best_of_all_thresholds(pairs: list[tuple[int, bool]], missed: int) -> None:
    positives = sum(right for _, right in pairs) + missed
    best = 0.0
    for t in range(10):
        taken = [right for score, right in pairs if score >= t]
        if taken and sum(taken) / len(taken) >= 0.75:
            best = max(best, sum(taken) / positives if positives else 0.0)
    point = metrics.operating_point([s for s, _ in pairs], [r for _, r in pairs], positives, 0.75)
    assert point.recall == pytest.approx(best)


def test_abstentions_are_misses() -> None:
    pairs = pairs_from([[0.9, 0.1]] * 4, [[True, True]] * 4, Cardinality.ONE)
    assert metrics.r_at_p_micro(pairs).recall == 0.5


def test_macro_recall_counts_rare_values_as_zero() -> None:
    scores, values = np.full(30, 0.9), np.array([0] * 20 + [1] * 10)
    pairs = Pairs(scores, np.ones(30, dtype=bool), values, np.array([20, 19]))
    assert metrics.r_at_p_macro(pairs) == 0.5
    assert metrics.r_at_p_macro(pairs, min_positives=19) == pytest.approx((1 + 10 / 19) / 2)


def test_reliability_of_perfectly_calibrated_scores() -> None:
    scores = RNG.random(200_000)
    actual = metrics.reliability(scores, RNG.random(200_000) < scores)
    np.testing.assert_allclose(actual.accuracy, actual.confidence, atol=0.02)
    assert actual.expected_error < 0.01
    assert actual.count.sum() == 200_000
    assert len(actual.count) == 10


def test_reliability_bins_are_equal_parts_of_0_to_1() -> None:
    actual = metrics.reliability([0.05, 0.15, 0.15, 0.85, 0.95, 1.0], [True] * 6)
    assert actual.count.tolist() == [1, 2, 1, 2]
    np.testing.assert_allclose(actual.confidence, [0.05, 0.15, 0.85, 0.975])


def test_reliability_leaves_out_empty_bins_and_keeps_one() -> None:
    actual = metrics.reliability([1.0, 1.0], [True, False], bins=10)
    assert (actual.confidence.tolist(), actual.accuracy.tolist(), actual.expected_error) == ([1.0], [0.5], 0.5)


@pytest.mark.parametrize(
    ("k", "n", "low", "high"),
    [(0, 10, 0.0, 0.3085), (10, 10, 0.6915, 1.0), (5, 10, 0.1871, 0.8129), (1, 10, 0.0025, 0.4450)],
)
def test_clopper_pearson_known_values(k: int, n: int, low: float, high: float) -> None:
    assert metrics.binomial_interval(k, n) == pytest.approx((low, high), abs=1e-4)


def test_the_error_rate_is_the_decimal_one() -> None:
    assert metrics.error_rate(0.95) == 0.05 != 1 - 0.95
    assert metrics.error_rate(0.9) == 0.1 != 1 - 0.9


@given(st.integers(1, 3000), st.data(), st.sampled_from([0.9, 0.95, 0.99]), st.sampled_from([0.01, 0.05, 0.1]))
def test_p_value_and_lower_bound_are_one_test(n: int, data: st.DataObject, target: float, delta: float) -> None:
    k = data.draw(st.integers(0, min(n, 200)))
    p, bound = metrics.p_not_certified(n, k, target), metrics.precision_lower_bound(n, k, delta)
    if abs(p - delta) > 1e-9:  # on the edge itself only rounding decides
        assert (p <= delta) == (bound >= target)


def test_significance_of_too_many_errors() -> None:
    assert metrics.not_significantly_below(100, 5) > 0.5
    assert metrics.not_significantly_below(100, 12) < 0.05
    assert metrics.not_significantly_below(100, 12) == pytest.approx(1 - metrics.p_not_certified(100, 11, 0.95))
    assert metrics.not_significantly_below(100, 0) == 1.0


def test_empty_inputs_give_0_and_never_nan() -> None:
    assert metrics.operating_point([], [], 0, 0.95) == metrics.OperatingPoint(None)
    assert metrics.operating_point([0.9], [False], 1, 0.95) == metrics.OperatingPoint(None)
    assert metrics.operating_point([0.9], [True], 0, 0.95).recall == 0.0
    assert len(metrics.precision_recall_curve([], [], 0).thresholds) == 0
    assert metrics.reliability([], []).expected_error == 0.0
    assert metrics.binomial_interval(0, 0) == (0.0, 1.0)
    assert metrics.precision_lower_bound(0, 0, 0.05) == 0.0
    assert metrics.p_not_certified(0, 0, 0.95) == 1.0
    assert metrics.not_significantly_below(0, 0) == 1.0
    empty = pairs_from(np.empty((0, 3)), np.empty((0, 3), dtype=bool), Cardinality.ONE)
    assert (metrics.r_at_p_micro(empty).recall, metrics.r_at_p_macro(empty)) == (0.0, 0.0)
    no_values = Pairs(np.empty(0), np.empty(0, dtype=bool), np.empty(0, dtype=int), np.empty(0, dtype=int))
    assert metrics.r_at_p_macro(no_values) == 0.0
