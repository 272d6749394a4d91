"""Classification metrics against scikit-learn, by hand, and on empty inputs."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as reference

from catalog_enrichment.precision import classification_metrics
from catalog_enrichment.records import Cardinality

RNG = np.random.default_rng(7)


def test_f1_equals_scikit_learn_for_one_value() -> None:
    truth, predicted = RNG.integers(0, 6, 400), RNG.integers(0, 7, 400)
    scores = classification_metrics.f1(np.eye(8, dtype=bool)[predicted], np.eye(8, dtype=bool)[truth])
    for average, value in (("micro", scores.micro), ("macro", scores.macro), ("weighted", scores.weighted)):
        assert value == pytest.approx(reference.f1_score(truth, predicted, average=average, zero_division=0))
    per_label = reference.f1_score(truth, predicted, average=None, labels=range(8), zero_division=0)
    np.testing.assert_allclose(scores.per_label, per_label)


def test_f1_and_accuracy_equal_scikit_learn_for_many_values() -> None:
    truth, predicted = RNG.random((300, 5)) < 0.4, RNG.random((300, 5)) < 0.5
    scores = classification_metrics.f1(predicted, truth)
    for average, value in (("micro", scores.micro), ("macro", scores.macro), ("weighted", scores.weighted)):
        assert value == pytest.approx(reference.f1_score(truth, predicted, average=average, zero_division=0))
    assert classification_metrics.accuracy(predicted, truth) == pytest.approx(
        reference.accuracy_score(truth, predicted)
    )


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
    assert np.flatnonzero(classification_metrics.head_labels(support)).tolist() == head


def test_head_and_tail_f1_by_hand() -> None:
    # six products, labels 0 and 1 are the head by their training support, 2 and 3 the tail
    truth, predicted = np.eye(4, dtype=bool)[[0, 0, 1, 1, 2, 3]], np.eye(4, dtype=bool)[[0, 1, 1, 1, 2, 0]]
    head, tail = classification_metrics.f1_head_tail(predicted, truth, [60, 25, 10, 5])
    assert head == pytest.approx((2 * 1 / (2 + 2) + 2 * 2 / (3 + 2)) / 2)
    assert tail == pytest.approx((1 + 0) / 2)
    assert classification_metrics.f1_head_tail(predicted[:, :1], truth[:, :1], [60]) == (pytest.approx(0.5), 0.0)


def test_plain_predictions_are_the_top_value_or_every_value_from_one_half() -> None:
    probabilities = [[0.5, 0.3, 0.6]]
    assert classification_metrics.predictions(probabilities, Cardinality.ONE).tolist() == [[False, False, True]]
    assert classification_metrics.predictions(probabilities, Cardinality.MANY).tolist() == [[True, False, True]]


def test_scores_are_the_float32_probabilities_as_float64() -> None:
    scores = classification_metrics.as_scores([0.9])
    assert scores.dtype == np.float64
    assert scores.tolist() == [float(np.float32(0.9))] != [0.9]
    for unusable in (np.nan, np.inf):
        with pytest.raises(ValueError, match="NaN or infinity"):
            classification_metrics.as_scores([0.1, unusable])


def test_a_ratio_is_0_where_the_denominator_is_0() -> None:
    assert classification_metrics.ratio([1, 2, 0], [2, 0, 0]).tolist() == [0.5, 0.0, 0.0]


def test_empty_inputs_give_0_and_never_nan() -> None:
    none = np.empty((0, 3), dtype=bool)
    scores = classification_metrics.f1(none, none)
    assert (scores.micro, scores.macro, scores.weighted) == (0, 0, 0)
    assert scores.per_label.tolist() == [0, 0, 0]
    assert classification_metrics.accuracy(none, none) == 0.0
