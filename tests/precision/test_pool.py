"""The pool drops only values that are significantly bad on the choosing fold."""

from __future__ import annotations

import numpy as np
import pytest

from catalog_enrichment.config.schema import PrecisionConfig
from catalog_enrichment.precision.classification_metrics import Pairs, pairs_from
from catalog_enrichment.precision.pool import select_pool, significantly_bad, suggest_threshold
from catalog_enrichment.precision.units import WRITABLE_RANKS, ChoosingScores
from catalog_enrichment.records import Cardinality

from .folds import choosing

RULE = PrecisionConfig()


def fold(rows: list[tuple[int, float, bool]], groups: list[int] | None = None) -> ChoosingScores:
    """Return products with (top value, score, right) of three values."""
    top, score, right = (np.array(column) for column in zip(*rows, strict=True))
    probabilities = np.zeros((len(rows), 3))
    probabilities[np.arange(len(rows)), top] = score
    truth = np.eye(3, dtype=bool)[np.where(right, top, (top + 1) % 3)]
    number = np.arange(len(rows)) if groups is None else np.array(groups)
    return choosing(n=len(rows), probabilities=probabilities, truth=truth, groups=number)


@pytest.mark.parametrize(
    ("accepted", "wrong", "bad"),
    [(0, 0, False), (1, 1, False), (2, 2, True), (5, 1, False), (5, 2, False), (5, 3, True), (100, 15, False),
     (100, 16, True), (1000, 100, False), (1000, 117, True)],
)  # fmt: skip
def test_a_bad_value_has_errors_that_are_improbable_at_90_percent(accepted: int, wrong: int, bad: bool) -> None:
    assert significantly_bad(np.array([accepted]), np.array([wrong]), 0.95).tolist() == [bad]


def test_a_value_that_is_wrong_on_the_choosing_fold_stays_out_of_the_pool() -> None:
    pool = select_pool(choosing(), RULE)
    assert pool.values == ("red", "green")
    assert pool.choosing_threshold is not None
    top = choosing().probabilities.argmax(axis=1)
    assert np.array_equal(np.isneginf(pool.units.accept), top == 2)  # the first threshold is chosen without blue


def test_a_rare_value_with_little_evidence_stays_in() -> None:
    """The point estimate of green is 75%, of 4; nothing is known of blue."""
    rows = [(0, 0.9, True)] * 100 + [(1, 0.9, True)] * 3 + [(1, 0.9, False)]
    assert select_pool(fold(rows), RULE).values == ("red", "green", "blue")


def test_without_a_bad_value_the_threshold_is_lower_and_the_rest_is_judged_again() -> None:
    """Blue hides that green is bad, because the pooled threshold lies above most of green."""
    rows = [(0, 0.99, True)] * 60 + [(2, 0.95, False)] * 20 + [(0, 0.9, True)] * 400 + [(1, 0.8, False)] * 15
    pool = select_pool(fold(rows), RULE)
    assert pool.values == ("red",)
    assert pool.choosing_threshold == pytest.approx(0.9)


def test_where_no_threshold_reaches_the_target_the_best_fifth_of_scores_is_judged() -> None:
    rows = [(1, 0.99, False)] * 5 + [(0, 0.9, k % 5 > 0) for k in range(15)] + [(2, 0.5, False)] * 80
    pool = select_pool(fold(rows), RULE)
    assert pool.choosing_threshold is None
    assert pool.values == ("red", "blue")  # green is wrong 5 of 5 times; blue lies below the 80% quantile


def test_an_empty_choosing_fold_knows_nothing_against_a_value() -> None:
    pool = select_pool(choosing(n=0), RULE)
    assert pool.values == ("red", "green", "blue")
    assert (pool.choosing_threshold, pool.deff, pool.correlation) == (None, 1.0, 1.0)


def test_correlation_and_design_effect_are_those_of_the_pool() -> None:
    """Ten of 200 pairs are wrong, both products of each; with fewer than five wrong products the same is assumed."""
    pairs = [number // 2 for number in range(400)]
    together = select_pool(fold([(0, 0.9, number >= 20) for number in range(400)], pairs), RULE)
    assert together.correlation == pytest.approx(1.0)
    assert together.deff == pytest.approx(2.0, rel=0.02)
    spread = select_pool(fold([(0, 0.9, number % 2 > 0 or number >= 40) for number in range(400)], pairs), RULE)
    assert (spread.correlation, spread.deff) == (0.0, 1.0)
    few = select_pool(fold([(0, 0.9, number >= 4) for number in range(400)], pairs), RULE)
    assert few.correlation == 1.0
    assert few.deff == pytest.approx(2.0, rel=0.02)


def test_the_design_effect_is_that_of_the_accepted_products() -> None:
    """200 products alone are accepted; below the threshold are 100 pairs, half of them wrong together."""
    rows = [(0, 0.9, True)] * 200 + [(0, 0.3, number % 4 < 2) for number in range(200)]
    pool = select_pool(fold(rows, list(range(200)) + [1000 + number // 2 for number in range(200)]), RULE)
    assert pool.choosing_threshold == pytest.approx(0.9)
    assert pool.correlation == pytest.approx(1.0)
    assert pool.deff == 1.0


def test_exactly_the_target_and_a_single_product_are_enough_for_the_pooled_threshold() -> None:
    exactly = fold([(0, 0.9, True)] * 19 + [(0, 0.9, False)])
    assert select_pool(exactly, RULE).choosing_threshold == pytest.approx(0.9)
    alone = fold([(0, 0.9, True), (0, 0.8, False)])
    assert select_pool(alone, RULE).choosing_threshold == pytest.approx(0.9)


def test_errors_at_the_threshold_count_for_the_design_effect() -> None:
    """At the threshold whole pairs are wrong, below it one product of each: together errors hardly correlate."""
    at = [(0, 0.9, number >= 20) for number in range(400)]
    below = [(0, 0.3, number % 2 > 0) for number in range(400)]
    pool = select_pool(fold(at + below, [number // 2 for number in range(800)]), RULE)
    assert pool.choosing_threshold == pytest.approx(0.9)
    assert pool.correlation == 0.0
    assert pool.deff == pytest.approx(1.5, abs=0.05)  # between that and the observed 2


def test_only_the_three_values_that_can_be_written_are_counted_and_suggested() -> None:
    def pairs(true: list[int]) -> Pairs:
        truth = np.tile(np.isin(np.arange(5), true), (40, 1))
        return pairs_from(np.tile([0.9, 0.8, 0.7, 0.6, 0.1], (40, 1)), truth, Cardinality.MANY, WRITABLE_RANKS)

    assert suggest_threshold(pairs([0, 1, 2]), 0.76, below=None) == pytest.approx(0.7)
    assert suggest_threshold(pairs([0, 1, 2, 3]), 0.9, below=None) == pytest.approx(0.7)
    # the fourth value is always wrong: it is never written and so not judged
    level = ChoosingScores(
        attribute="material", labels=tuple("abcde"), cardinality=Cardinality.MANY,
        probabilities=np.tile([0.9] * 4 + [0.1], (40, 1)), truth=np.tile([True] * 3 + [False] * 2, (40, 1)),
        groups=np.arange(40),
    )  # fmt: skip
    assert select_pool(level, RULE).values == tuple("abcde")


def test_what_is_at_the_threshold_is_written_and_not_suggested() -> None:
    rows = fold([(0, 0.75, False)] * 10 + [(0, 0.5, True)] * 10)
    assert suggest_threshold(pairs_from(rows.probabilities, rows.truth, Cardinality.ONE), 0.8, below=0.75) == 0.5


def test_what_is_suggested_is_judged_without_what_is_written() -> None:
    """1,000 right pairs above .9 must not excuse wrong ones below: from .6 on 9 in 10 are right, below 1 in 10."""
    scores = np.concatenate([np.full(1000, 0.95), np.linspace(0.6, 0.8, 100), np.linspace(0.1, 0.5, 100)])
    right = np.concatenate([np.ones(1000, bool), np.arange(100) % 10 != 0, np.arange(100) % 10 == 0])
    pairs = Pairs(scores, right, np.zeros(len(scores), dtype=np.int64), np.array([right.sum(), 0]))
    actual = suggest_threshold(pairs, 0.8, below=0.9)
    assert actual is not None
    assert 0.4 < actual <= 0.6
    assert suggest_threshold(pairs, 0.8, below=None) == pytest.approx(0.1, abs=0.05)
