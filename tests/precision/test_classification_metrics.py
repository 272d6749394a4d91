"""Metrics against scikit-learn, by hand and on empty inputs; the temperature against the true temperature."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as reference

from catalog_enrichment.precision import classification_metrics as metrics
from catalog_enrichment.precision.classification_metrics import Pairs, pairs_from
from catalog_enrichment.records import Cardinality

RNG = np.random.default_rng(7)
ONE, MANY = Cardinality.ONE, Cardinality.MANY


# --- predicted values -------------------------------------------------------------------------------------------------


def test_f1_and_accuracy_equal_scikit_learn() -> None:
    values, predicted_values = RNG.integers(0, 6, 400), RNG.integers(0, 7, 400)
    single = (np.eye(8, dtype=bool)[predicted_values], np.eye(8, dtype=bool)[values])
    several = (RNG.random((300, 5)) < 0.5, RNG.random((300, 5)) < 0.4)
    for predicted, truth in (single, several):
        scores = metrics.f1(predicted, truth)
        for average in ("micro", "macro", "weighted"):
            occurring = np.flatnonzero((predicted | truth).any(axis=0))
            expected = reference.f1_score(truth, predicted, average=average, labels=occurring, zero_division=0)
            assert getattr(scores, average) == pytest.approx(expected)
        per_label = reference.f1_score(truth, predicted, average=None, zero_division=0)
        np.testing.assert_allclose(scores.per_label, per_label)
        assert metrics.accuracy(predicted, truth) == pytest.approx(reference.accuracy_score(truth, predicted))


@pytest.mark.parametrize(
    ("support", "head"),
    [
        ([5, 50, 10, 30, 5], [1, 3]),  # 80 of 100: exactly the share is enough
        ([50, 29, 21], [0, 1, 2]),  # 79 of 100 is not, and the label that crosses belongs to the head
        ([1, 1, 1, 1, 1], [0, 1, 2, 3]),
        ([7, 0], [0]),
        ([0, 0], []),
        ([], []),
    ],
)
def test_the_head_is_the_fewest_labels_with_80_percent_of_the_instances(support: list[int], head: list[int]) -> None:
    assert np.flatnonzero(metrics.head_labels(support)).tolist() == head


def test_head_and_tail_f1_by_hand() -> None:
    # six products, labels 0 and 1 are the head by their training support, 2 and 3 the tail
    truth, predicted = np.eye(4, dtype=bool)[[0, 0, 1, 1, 2, 3]], np.eye(4, dtype=bool)[[0, 1, 1, 1, 2, 0]]
    head, tail = metrics.f1_head_tail(predicted, truth, [60, 25, 10, 5])
    assert head == pytest.approx((2 * 1 / (2 + 2) + 2 * 2 / (3 + 2)) / 2)
    assert tail == pytest.approx((1 + 0) / 2)
    assert metrics.f1_head_tail(predicted[:, :1], truth[:, :1], [60]) == (pytest.approx(0.5), 0.0)


def test_plain_predictions_are_the_top_value_or_every_value_from_one_half() -> None:
    probabilities = [[0.5, 0.3, 0.6]]
    assert metrics.predictions(probabilities, ONE).tolist() == [[False, False, True]]
    assert metrics.predictions(probabilities, MANY).tolist() == [[True, False, True]]


# --- thresholds -------------------------------------------------------------------------------------------------------


def test_pairs_count_every_true_pair_as_positive() -> None:
    truth = [[True, True, False], [False, False, True]]
    top = pairs_from([[0.7, 0.2, 0.1], [0.7, 0.2, 0.1]], truth, ONE)
    assert (top.correct.tolist(), top.positives.tolist(), top.total) == ([True, False], [1, 1, 1], 3)
    every = pairs_from([[0.7, 0.2, 0.1], [0.7, 0.2, 0.1]], truth, MANY)
    assert (len(every.scores), int(every.correct.sum()), every.total) == (6, 3, 3)
    assert len(pairs_from([[0.9, 0.8, 0.7]], [[True] * 3], MANY, limit=2).scores) == 2


def test_precision_recall_curve_equals_scikit_learn_with_ties() -> None:
    scores, correct = RNG.integers(0, 30, 500) / 30, RNG.random(500) < 0.6
    curve = metrics.precision_recall_curve(scores, correct, int(correct.sum()))
    precision, recall, thresholds = reference.precision_recall_curve(correct, scores)
    np.testing.assert_allclose(curve.thresholds, thresholds[::-1])
    np.testing.assert_allclose(curve.precision, precision[:-1][::-1])
    np.testing.assert_allclose(curve.recall, recall[:-1][::-1])


def test_operating_point_accepts_equal_scores_together() -> None:
    # taking only the right pair of the two at 0.8 would look perfect
    point = metrics.operating_point([0.9, 0.8, 0.8, 0.1], [True, True, False, False], 4, 0.95)
    assert point == metrics.OperatingPoint(0.9, recall=0.25)


def test_the_operating_point_may_be_below_a_threshold_with_too_low_precision() -> None:
    point = metrics.operating_point(np.linspace(1, 0.1, 20), [False] + [True] * 19, 25, 0.95)
    assert point == metrics.OperatingPoint(pytest.approx(0.1), recall=19 / 25)  # exactly the target is enough


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
    pairs = pairs_from([[0.9, 0.1]] * 4, [[True, True]] * 4, ONE)
    assert metrics.r_at_p_micro(pairs).recall == 0.5


def test_macro_recall_counts_rare_values_as_zero() -> None:
    scores, values = np.full(30, 0.9), np.array([0] * 20 + [1] * 10)
    pairs = Pairs(scores, np.ones(30, dtype=bool), values, np.array([20, 19]))
    assert metrics.r_at_p_macro(pairs) == 0.5
    assert metrics.r_at_p_macro(pairs, min_positives=19) == pytest.approx((1 + 10 / 19) / 2)


# --- calibration ------------------------------------------------------------------------------------------------------


def test_reliability_of_perfectly_calibrated_scores() -> None:
    scores = RNG.random(200_000)
    actual = metrics.reliability(scores, RNG.random(200_000) < scores)
    np.testing.assert_allclose(actual.accuracy, actual.confidence, atol=0.02)
    assert actual.expected_error < 0.01
    assert (len(actual.count), actual.count.sum()) == (10, 200_000)


def test_reliability_bins_are_equal_parts_of_0_to_1_and_empty_bins_are_left_out() -> None:
    actual = metrics.reliability([0.05, 0.15, 0.15, 0.85, 0.95, 1.0], [True] * 6)
    assert actual.count.tolist() == [1, 2, 1, 2]
    np.testing.assert_allclose(actual.confidence, [0.05, 0.15, 0.85, 0.975])
    single = metrics.reliability([1.0, 1.0], [True, False])
    assert (single.confidence.tolist(), single.accuracy.tolist(), single.expected_error) == ([1.0], [0.5], 0.5)


@pytest.mark.parametrize("true", [0.5, 1.0, 3.0])
def test_the_temperature_is_recovered(true: float) -> None:
    rng = np.random.default_rng(1)
    calibrated = rng.normal(0, 2, (8000, 4))
    drawn = (calibrated + rng.gumbel(size=calibrated.shape)).argmax(axis=1)  # a draw from softmax(calibrated)
    softmax = metrics.fit_temperature(calibrated * true, np.eye(4, dtype=bool)[drawn], ONE)
    sigmoids = metrics.fit_temperature(calibrated * true, rng.random((8000, 4)) < 1 / (1 + np.exp(-calibrated)), MANY)
    assert (softmax, sigmoids) == pytest.approx((true, true), rel=0.06)


def test_too_few_products_leave_the_temperature_at_one() -> None:
    truth = np.zeros((500, 3), dtype=bool)
    truth[:29, 0] = True
    logits = np.random.default_rng(3).normal(size=(500, 3)) * 9
    assert metrics.fit_temperature(logits, truth, ONE) == 1.0
    truth[29, 0] = True
    assert metrics.fit_temperature(logits, truth, ONE) > 2  # thirty are enough
    assert metrics.fit_temperature(np.empty((0, 3)), np.empty((0, 3), dtype=bool), MANY) == 1.0


def test_a_perfect_head_is_not_frozen_into_ties() -> None:
    truth = np.eye(3, dtype=bool)[np.arange(90) % 3]
    low, high = metrics.TEMPERATURES
    assert metrics.fit_temperature(truth * 5.0, truth, ONE) == pytest.approx(low, rel=0.01)
    assert metrics.fit_temperature(truth * 1000.0, ~truth, MANY) <= high


# --- empty inputs -----------------------------------------------------------------------------------------------------


def test_empty_inputs_give_0_and_never_nan() -> None:
    none = np.empty((0, 3), dtype=bool)
    scores = metrics.f1(none, none)
    assert (scores.micro, scores.macro, scores.weighted, scores.per_label.tolist()) == (0, 0, 0, [0, 0, 0])
    assert metrics.accuracy(none, none) == 0.0
    assert metrics.operating_point([], [], 0, 0.95) == metrics.OperatingPoint(None)
    assert metrics.operating_point([0.9], [False], 1, 0.95) == metrics.OperatingPoint(None)
    assert metrics.operating_point([0.9], [True], 0, 0.95).recall == 0.0
    assert len(metrics.precision_recall_curve([], [], 0).thresholds) == 0
    assert metrics.reliability([], []).expected_error == 0.0
    empty = pairs_from(np.empty((0, 3)), none, ONE)
    assert (empty.total, metrics.r_at_p_micro(empty).recall, metrics.r_at_p_macro(empty)) == (0, 0.0, 0.0)
    no_values = Pairs(np.empty(0), np.empty(0, dtype=bool), np.empty(0, dtype=int), np.empty(0, dtype=int))
    assert metrics.r_at_p_macro(no_values) == 0.0
