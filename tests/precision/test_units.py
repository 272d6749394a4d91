"""The units that are counted are exactly the values that can be written."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from catalog_enrichment.precision.units import (
    Candidate,
    accept_scores,
    as_scores,
    ratio,
    top_candidates,
    units_from,
    writable_values,
)
from catalog_enrichment.records import Cardinality

from .folds import choosing

ONE, MANY = Cardinality.ONE, Cardinality.MANY
LABELS = ("red", "green", "blue", "black", "white")
GRID = st.sampled_from([0.0, 0.25, 0.5, 0.7, 0.9, 1.0])  # few values: ties are the point


def test_scores_are_the_float32_probabilities_as_float64() -> None:
    scores = as_scores([0.9])
    assert scores.dtype == np.float64
    assert scores.tolist() == [float(np.float32(0.9))] != [0.9]
    ((candidate,),) = top_candidates([[0.1, 0.9]], LABELS[:2], ONE)
    assert candidate.score == accept_scores([[0.1, 0.9]], ONE, [True, True])[0] == scores[0]


@pytest.mark.parametrize("bad", [[np.nan, 0.1], [np.inf, 0.1], [0.1], []])
def test_scores_that_cannot_be_used_are_refused(bad: list[float]) -> None:
    with pytest.raises(ValueError, match=r"NaN|do not fit"):
        top_candidates([bad], LABELS[:2], ONE)


def test_a_ratio_is_0_where_the_denominator_is_0() -> None:
    assert ratio([1, 2, 0], [2, 0, 0]).tolist() == [0.5, 0.0, 0.0]


def test_a_fold_whose_scores_do_not_fit_its_labels_is_refused() -> None:
    with pytest.raises(ValueError, match="fold of color: scores, truth, groups and labels do not fit"):
        choosing(labels=("red", "green"))


def test_one_value_attribute_has_one_candidate_and_ties_keep_label_order() -> None:
    assert top_candidates([[0.2, 0.4, 0.4]], LABELS[:3], ONE) == [[Candidate("green", float(np.float32(0.4)), 1)]]


def test_many_value_attribute_has_up_to_three_candidates_best_first() -> None:
    first, second = top_candidates([[0.1, 0.9, 0.5, 0.9, 0.2], [0.5, 0.1, 0.1, 0.2, 0.3]], LABELS, MANY)
    assert [(c.value, c.rank) for c in first] == [("green", 1), ("black", 2), ("blue", 3)]
    assert [(c.value, c.rank) for c in second] == [("red", 1), ("white", 2), ("black", 3)]
    assert [c.score for c in first] == [float(np.float32(score)) for score in (0.9, 0.9, 0.5)]
    assert len(top_candidates([[0.1, 0.9]], LABELS[:2], MANY)[0]) == 2
    assert top_candidates(np.zeros((0, 5)), LABELS, MANY) == []
    many = tuple(f"v{number:03d}" for number in range(200))
    (candidates,) = top_candidates([[0.5, 0.75] * 100], many, MANY)
    assert [c.value for c in candidates] == ["v001", "v003", "v005"]


def test_the_values_that_would_be_written() -> None:
    scores = np.array([[0.9, 0.75, 0.5, 0.25, 0.75], [0.75, 0.5, 0.9, 0.5, 0.5]])
    pool = [True, True, True, False, True]
    single, several = (writable_values(scores, cardinality, pool, 0.75).tolist() for cardinality in (ONE, MANY))
    assert single == [[True, False, False, False, False], [False, False, True, False, False]]
    assert several == [[True, True, False, False, True], [True, False, True, False, False]]
    assert not writable_values(scores, ONE, [False, True, True, True, True], 0.75)[0].any()


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


def test_no_products_are_no_units() -> None:
    for cardinality in (ONE, MANY):
        assert len(units_from(np.empty((0, 3)), np.empty((0, 3), dtype=bool), cardinality, [True] * 3)) == 0
