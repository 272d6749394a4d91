"""What is counted is exactly what can be written."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from catalog_enrichment.precision.units import (
    accept_scores,
    pairs_from,
    top_candidates,
    units_from,
    writable_values,
)
from catalog_enrichment.records import Cardinality

ONE, MANY = Cardinality.ONE, Cardinality.MANY
LABELS = ("red", "green", "blue", "black", "white")
GRID = st.sampled_from([0.0, 0.25, 0.5, 0.7, 0.9, 1.0])  # few values: ties are the point


def test_one_value_attribute_has_one_candidate_and_ties_keep_label_order() -> None:
    assert top_candidates([[0.2, 0.4, 0.4]], LABELS[:3], ONE) == [[("green", float(np.float32(0.4)), 1)]]


def test_many_value_attribute_has_up_to_three_candidates_best_first() -> None:
    first, second = top_candidates([[0.1, 0.9, 0.5, 0.9, 0.2], [0.5, 0.1, 0.1, 0.2, 0.3]], LABELS, MANY)
    assert [(c.value, c.rank) for c in first] == [("green", 1), ("black", 2), ("blue", 3)]
    assert [(c.value, c.rank) for c in second] == [("red", 1), ("white", 2), ("black", 3)]
    assert [c.score for c in first] == [float(np.float32(score)) for score in (0.9, 0.9, 0.5)]
    assert len(top_candidates([[0.1, 0.9]], LABELS[:2], MANY)[0]) == 2
    assert top_candidates(np.zeros((0, 5)), LABELS, MANY) == []


def test_equal_scores_keep_the_order_of_the_labels_also_where_there_are_many() -> None:
    labels = tuple(f"v{number:03d}" for number in range(200))
    (candidates,) = top_candidates([[0.5, 0.75] * 100], labels, MANY)
    assert [c.value for c in candidates] == ["v001", "v003", "v005"]


def test_the_number_of_values_that_can_be_written_is_a_limit_everywhere() -> None:
    scores, pool = [[0.9, 0.8, 0.7, 0.6, 0.5]], [False, False, False, True, False]
    assert len(top_candidates(scores, LABELS, MANY, limit=1)[0]) == 1
    assert len(top_candidates(scores, LABELS, MANY, limit=4)[0]) == 4
    assert accept_scores(scores, MANY, pool)[0] == -np.inf
    assert accept_scores(scores, MANY, pool, limit=4)[0] == float(np.float32(0.6))
    assert units_from(scores, [[False] * 5], MANY, pool, limit=4).counts(0.6) == (1, 1)
    assert len(pairs_from(scores, [[True] * 5], MANY).scores) == 5
    assert len(pairs_from(scores, [[True] * 5], MANY, limit=2).scores) == 2


def test_the_values_that_would_be_written() -> None:
    scores = np.array([[0.9, 0.75, 0.5, 0.25, 0.75], [0.75, 0.5, 0.9, 0.5, 0.5]])
    pool = [True, True, True, False, True]
    one, many = (writable_values(scores, cardinality, pool, 0.75).tolist() for cardinality in (ONE, MANY))
    assert one == [[True, False, False, False, False], [False, False, True, False, False]]
    assert many == [[True, True, False, False, True], [True, False, True, False, False]]
    assert not writable_values(scores, ONE, [False, True, True, True, True], 0.75)[0].any()


def test_scores_go_through_float32_once() -> None:
    ((candidate,),) = top_candidates([[0.1, 0.9]], LABELS[:2], ONE)
    assert candidate.score == float(np.float32(0.9)) != 0.9
    assert accept_scores([[0.1, 0.9]], ONE, [True, True])[0] == candidate.score


@pytest.mark.parametrize("bad", [[np.nan, 0.1], [np.inf, 0.1], [0.1], []])
def test_scores_that_cannot_be_used_are_refused(bad: list[float]) -> None:
    with pytest.raises(ValueError, match=r"NaN|do not fit"):
        top_candidates([bad], LABELS[:2], ONE)


def test_single_valued_unit_is_the_top_value_and_never_a_runner_up_from_the_pool() -> None:
    units = units_from([[0.6, 0.4], [0.3, 0.7]], [[True, False], [True, False]], ONE, pool=[False, True])
    assert units.accept.tolist() == [-np.inf, float(np.float32(0.7))]
    assert units.counts(0.7 - 1e-6) == (1, 1)


def test_multi_valued_unit_is_wrong_if_any_written_value_is_wrong() -> None:
    units = units_from([[0.9, 0.6, 0.1]], [[True, False, False]], MANY, pool=[True, True, True])
    assert units.counts(0.8) == (1, 0)
    assert units.counts(0.5) == (1, 1)
    assert units.counts(0.95) == (0, 0)


@given(
    arrays(np.float32, (6, 5), elements=GRID.map(np.float32)),
    arrays(bool, (6, 5)),
    arrays(bool, 5),
    st.sampled_from([ONE, MANY]),
    GRID,
)
def test_units_count_what_the_candidates_would_write(
    probabilities: np.ndarray, truth: np.ndarray, pool: np.ndarray, cardinality: Cardinality, threshold: float
) -> None:
    t = float(np.float32(threshold))
    written = [
        [c for c in row if pool[LABELS.index(c.value)] and c.score >= t]
        for row in top_candidates(probabilities, LABELS, cardinality)
    ]
    wrong = [any(not truth[i, LABELS.index(c.value)] for c in row) for i, row in enumerate(written)]
    units = units_from(probabilities, truth, cardinality, pool)
    assert units.counts(t) == (sum(bool(row) for row in written), sum(wrong))
    assert np.array_equal(units.accept, accept_scores(probabilities, cardinality, pool))


def test_pairs_count_every_true_pair_as_positive() -> None:
    truth = [[True, True, False], [False, False, True]]
    one = pairs_from([[0.7, 0.2, 0.1], [0.7, 0.2, 0.1]], truth, ONE)
    assert one.correct.tolist() == [True, False]
    assert one.positives.tolist() == [1, 1, 1]
    assert one.total == 3
    many = pairs_from([[0.7, 0.2, 0.1], [0.7, 0.2, 0.1]], truth, MANY)
    assert (len(many.scores), int(many.correct.sum()), many.total) == (6, 3, 3)


def test_no_products_are_no_units_and_no_pairs() -> None:
    empty, none = np.empty((0, 3)), np.empty((0, 3), dtype=bool)
    for cardinality in (ONE, MANY):
        assert len(units_from(empty, none, cardinality, [True] * 3)) == 0
        assert pairs_from(empty, none, cardinality).total == 0
