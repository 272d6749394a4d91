"""Weighted metrics against plain Python on repeated rows; intervals and p-values against numbers worked out by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from catalog_enrichment.precision import bootstrap, classification_metrics
from catalog_enrichment.precision.bootstrap import Difference, Measure, Resamples
from catalog_enrichment.precision.classification_metrics import pairs_from
from catalog_enrichment.records import Cardinality

Rows = Sequence[int]
"""Products, each as often as it was drawn."""


class Sample:
    """Forty products, five values, scores on a coarse grid so that many are equal."""

    def __init__(self, cardinality: Cardinality, seed: int) -> None:
        random = np.random.default_rng(seed)
        self.cardinality = cardinality
        self.truth = np.eye(5, dtype=bool)[random.choice(5, 40, p=(0.4, 0.3, 0.2, 0.1, 0.0))]
        if cardinality is Cardinality.MANY:
            self.truth |= random.random((40, 5)) < 0.1
        noise = random.random((40, 5)) * 2.0
        self.probabilities = (np.round((noise + self.truth) / 3.0 * 16) / 16).astype(np.float32)
        self.unlearned = (random.random(40) < 0.1).astype(np.int64)
        self.predicted = classification_metrics.predictions(self.probabilities, cardinality)

    def pairs(self, rows: Rows, value: int | None = None) -> list[tuple[float, bool]]:
        """Return (score, right) of each prediction for the products in ``rows``, of a single value or of all."""
        actual = []
        for row in rows:
            scores = self.probabilities[row].tolist()
            columns = [scores.index(max(scores))] if self.cardinality is Cardinality.ONE else list(range(5))
            actual += [(scores[c], bool(self.truth[row, c])) for c in columns if value in (None, c)]
        return actual


def recall_at(pairs: list[tuple[float, bool]], positives: int, target: float) -> float:
    """Return the best recall of all thresholds."""
    best = 0.0
    for threshold, _ in pairs:
        taken = [right for score, right in pairs if score >= threshold]
        if sum(taken) / len(taken) >= target and positives:
            best = max(best, sum(taken) / positives)
    return best


def f1(sample: Sample, rows: Rows) -> dict[str, float]:
    hits, occurs, is_true = [0] * 5, [0] * 5, [0] * 5
    for value in range(5):
        for row in rows:
            predicted, true = bool(sample.predicted[row, value]), bool(sample.truth[row, value])
            hits[value] += predicted and true
            occurs[value] += predicted + true
            is_true[value] += true
    of_label = [2 * hit / many if many else 0.0 for hit, many in zip(hits, occurs, strict=True)]
    return {
        "f1_micro": 2 * sum(hits) / sum(occurs),
        "f1_macro": sum(of_label) / sum(many > 0 for many in occurs),
        "f1_weighted": sum(f1 * many for f1, many in zip(of_label, is_true, strict=True)) / sum(is_true),
    }


def measures(predicted: Any, scores: Any, truth: Any, cardinality: Cardinality) -> dict[str, Measure]:
    return {
        "accuracy": bootstrap.accuracy(predicted, truth),
        "f1_micro": bootstrap.f1_micro(predicted, truth),
        "f1_macro": bootstrap.f1_macro(predicted, truth),
        "f1_weighted": bootstrap.f1_weighted(predicted, truth),
        "micro": bootstrap.r_at_p_micro(scores, truth, cardinality),
        "macro": bootstrap.r_at_p_macro(scores, truth, cardinality),
    }


@pytest.mark.parametrize("cardinality", list(Cardinality))
@pytest.mark.parametrize("step", [1, 7, 1000])
def test_a_weight_is_a_repeated_row(cardinality: Cardinality, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "_PAIRS_AT_ONCE", step)
    sample = Sample(cardinality, seed=step)
    weights = np.random.default_rng(1).integers(0, 4, (25, 40), dtype=np.int32)
    target, least = 0.7, 8
    truth, unlearned, scores = sample.truth, sample.unlearned, sample.probabilities
    measured = measures(sample.predicted, scores, truth, cardinality) | {
        "micro": bootstrap.r_at_p_micro(scores, truth, cardinality, unlearned, target),
        "macro": bootstrap.r_at_p_macro(scores, truth, cardinality, target, least),
    }
    actual = {name: measure(weights) for name, measure in measured.items()}
    frequent = [value for value in range(5) if sum(truth[:, value].tolist()) >= least]
    assert 2 <= len(frequent) < 5
    for position, counts in enumerate(weights.tolist()):
        rows = [row for row, count in enumerate(counts) for _ in range(count)]
        exact = [sample.predicted[row].tolist() == truth[row].tolist() for row in rows]
        of_value = [sum(bool(truth[row, value]) for row in rows) for value in range(5)]
        micro = recall_at(sample.pairs(rows), sum(of_value) + sum(int(unlearned[row]) for row in rows), target)
        macro = [recall_at(sample.pairs(rows, value), of_value[value], target) for value in frequent]
        expected = {"accuracy": sum(exact) / len(rows), "micro": micro, "macro": sum(macro) / 5, **f1(sample, rows)}
        assert {name: values[position] for name, values in actual.items()} == pytest.approx(expected)
    # the resamples differ, so there was something to see
    assert min(np.ptp(values) for values in actual.values()) > 0.05


@pytest.mark.parametrize("cardinality", list(Cardinality))
def test_the_estimate_is_the_metric_itself(cardinality: Cardinality) -> None:
    random = np.random.default_rng(3)
    truth = np.eye(6, dtype=bool)[random.integers(0, 6, 600)]
    scores = np.clip(random.normal(0.3, 0.15, (600, 6)) + 0.4 * truth, 0, 1)
    predicted, pairs = classification_metrics.predictions(scores, cardinality), pairs_from(scores, truth, cardinality)
    f1s = classification_metrics.f1(predicted, truth)
    expected = {
        "accuracy": classification_metrics.accuracy(predicted, truth),
        "f1_micro": f1s.micro,
        "f1_macro": f1s.macro,
        "f1_weighted": f1s.weighted,
        "micro": classification_metrics.r_at_p_micro(pairs).recall,
        "macro": classification_metrics.r_at_p_macro(pairs),
    }
    actual = {name: of.estimate for name, of in measures(predicted, scores, truth, cardinality).items()}
    assert actual == pytest.approx(expected)
    assert expected["micro"] > 0.1


def test_exactly_the_target_is_reached() -> None:
    truth, scores = np.ones((20, 1), dtype=bool), np.full((20, 1), 0.5)
    truth[0] = False
    measure = bootstrap.r_at_p_micro(scores, truth, Cardinality.ONE)
    once, twice_wrong = np.ones((2, 20), dtype=np.int32)
    twice_wrong[0] = 2
    assert measure(np.stack([once * 5, twice_wrong])).tolist() == [1.0, 0.0]


@pytest.mark.parametrize("step", [1, 7, 1000])
def test_a_threshold_below_one_with_too_low_precision_can_be_best(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "_PAIRS_AT_ONCE", step)
    truth = np.ones((25, 1), dtype=bool)
    truth[[0, 20, 21]] = False  # the best score is wrong, the nineteen below it make up for it exactly
    scores = np.linspace(1, 0.1, 25)[:, None]
    assert bootstrap.r_at_p_micro(scores, truth, Cardinality.ONE).estimate == 19 / 22
    # also where no right pair follows
    assert bootstrap.r_at_p_micro(scores[:20], truth[:20], Cardinality.ONE).estimate == 1.0


def test_a_value_with_just_enough_positives_is_not_lost_in_half_of_the_resamples() -> None:
    truth, scores = np.eye(2, dtype=bool)[[0] * 20 + [1] * 19], np.zeros((39, 2))
    scores[truth] = 0.9
    measure = bootstrap.r_at_p_macro(scores, truth, Cardinality.ONE)
    assert bootstrap.intervals({"": measure}, Resamples(np.arange(39)))[""] == bootstrap.Interval(0.5, 0.5, 0.5)


def right(answers: list[int]) -> Measure:
    """Return the accuracy of a model that is right (1) or wrong (0) on each product."""
    return bootstrap.accuracy(np.array(answers, dtype=bool)[:, None], np.ones((len(answers), 1), dtype=bool))


def given(*rows: list[int]) -> list[NDArray[np.int32]]:
    return [np.array([row], dtype=np.int32) for row in rows]


def test_percentiles_of_given_resamples() -> None:
    # accuracies 0, 0.25, 0.5, 0.75, 1: a tenth of the way in from each end at 95% is 0.1 of a step
    drawn = given([0, 0, 4, 0], [1, 0, 3, 0], [1, 1, 2, 0], [1, 1, 1, 1], [2, 1, 0, 1])
    actual = bootstrap.intervals({"accuracy": right([1, 1, 0, 1])}, drawn)["accuracy"]
    assert (actual.estimate, actual.low, actual.high) == pytest.approx((0.75, 0.025, 0.975))


def test_paired_difference_of_given_resamples() -> None:
    first, second = right([1, 1, 1, 0]), right([1, 0, 0, 1])
    # per product the first is ahead by 0, 1, 1, -1; of nine resamples the first says -0.25, the others more than 0
    drawn = given([1, 0, 1, 2], *[[1, 1, 1, 1]] * 4, *[[0, 2, 1, 1]] * 4)
    actual = bootstrap.difference(first, second, drawn)
    # sorted: -0.25, 0.25 x 4, 0.5 x 4; the 2.5% quantile is 0.2 of the way from the first to the second
    assert astuple(actual) == pytest.approx((0.25, -0.25 + 0.2 * 0.5, 0.5, 2 * (1 + 1) / (9 + 1)))
    assert astuple(bootstrap.difference(second, first, drawn)) == pytest.approx((-0.25, -0.5, 0.15, actual.p_value))


def test_equal_models_do_not_differ() -> None:
    model = right([1, 0, 1, 1, 0])
    assert bootstrap.difference(model, model, Resamples(np.arange(5), 50)) == Difference(0.0, 0.0, 0.0, 1.0)


def test_a_paired_difference_is_significant_where_intervals_overlap() -> None:
    answers = np.random.default_rng(0).random(400) < 0.7
    better = answers.copy()
    better[np.flatnonzero(~answers)[:12]] = True
    drawn = Resamples(np.arange(400))
    models = {"better": right(better.tolist()), "worse": right(answers.tolist())}
    intervals = bootstrap.intervals(models, drawn)
    assert intervals["better"].low < intervals["worse"].high  # they overlap
    actual = bootstrap.difference(models["better"], models["worse"], drawn)
    assert actual.estimate == pytest.approx(0.03)
    assert actual.low > 0.01
    assert actual.p_value == pytest.approx(2 / 1001)  # the least that 1,000 resamples can say


def test_a_group_is_drawn_as_a_whole() -> None:
    groups = np.array([70, 3, 70, 5, 3, 70])
    (weights,) = Resamples(groups, count=200)
    assert weights.shape == (200, 6)
    assert (weights[:, [0, 0, 1]] == weights[:, [2, 5, 4]]).all()
    assert (weights[:, [0, 1, 3]].sum(axis=1) == 3).all()  # three groups are drawn
    assert weights[:, [0, 1, 3]].mean(axis=0) == pytest.approx([1, 1, 1], abs=0.15)


def test_resamples_are_the_same_each_time_and_come_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "_WEIGHTS_AT_ONCE", 40)
    drawn = Resamples(np.arange(10), count=9, seed=4)
    assert [len(block) for block in drawn] == [4, 4, 1]
    assert np.array_equal(np.concatenate(list(drawn)), np.concatenate(list(drawn)))
    assert [len(block) for block in Resamples(np.arange(50), count=2)] == [1, 1]  # at least one at once
    assert [block.shape for block in Resamples(np.arange(0), count=50)] == [(40, 0), (10, 0)]
    assert [len(block) for block in Resamples(np.arange(3), count=1)] == [1]
    other = np.concatenate(list(Resamples(np.arange(10), count=9, seed=5)))
    assert not np.array_equal(np.concatenate(list(drawn)), other)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="resamples have 3 products, the metric 2"):
        right([1, 0])(np.ones((1, 3), dtype=np.int32))
    with pytest.raises(ValueError, match="count must be at least 1, not 0"):
        Resamples(np.arange(3), count=0)


def test_no_products_are_zero_and_never_nan() -> None:
    none, truth = np.empty((0, 3)), np.empty((0, 3), dtype=bool)
    for cardinality in Cardinality:
        actual = bootstrap.intervals(measures(truth, none, truth, cardinality), Resamples(np.arange(0), 10))
        assert set(actual.values()) == {bootstrap.Interval(0.0, 0.0, 0.0)}
    single = np.ones((1, 1), dtype=bool)
    assert bootstrap.r_at_p_micro(single * 0.9, single, Cardinality.ONE).estimate == 1.0
    valueless = np.ones((4, 0), dtype=bool)
    assert bootstrap.r_at_p_macro(np.ones((4, 0)), valueless, Cardinality.MANY).estimate == 0.0
