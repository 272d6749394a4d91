"""The test by verdicts: the wealth, the fixed thresholds, the prefix that is settled, and what is still needed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog_enrichment.precision import verdict_test
from catalog_enrichment.precision.verdict_test import (
    BETS,
    DrawnProducts,
    VerdictStep,
    fewest_products,
    highest_wealth,
    lower_bound,
    promising_score,
    run_tests,
    sequences,
    verdicts_needed,
    wealth,
)

TARGET, DELTA, RATIO = 0.95, 0.05, 1.05
FEWEST = 85


def drawn(scores: Any, wrong: Any = (), **columns: Any) -> DrawnProducts:
    """Return products of a sample that are all settled; ``wrong``: places of the products whose value is wrong."""
    scores = np.asarray(scores, dtype=np.float64)
    n = len(scores)
    is_wrong = np.zeros(n, dtype=bool)
    is_wrong[list(wrong)] = True
    content: dict[str, Any] = {
        "scores": scores,
        "wrong_scores": np.where(is_wrong, scores, -np.inf),
        "settled": np.ones(n, dtype=bool),
        "lowest": np.zeros(n),
        "samples": np.zeros(n, dtype=np.int64),
        "product_ids": tuple(f"p{place}" for place in range(n)),
    }
    return DrawnProducts(**(content | columns))


def both(first: DrawnProducts, second: DrawnProducts, lowest: float, names: str = "q") -> DrawnProducts:
    """Return the products of two samples; the second was drawn from ``lowest``."""
    return DrawnProducts(
        scores=np.append(first.scores, second.scores),
        wrong_scores=np.append(first.wrong_scores, second.wrong_scores),
        settled=np.append(first.settled, second.settled),
        lowest=np.append(first.lowest, np.full(len(second), lowest)),
        samples=np.append(first.samples, second.samples + first.samples.max() + 1),
        product_ids=(*first.product_ids, *(name.replace("p", names) for name in second.product_ids)),
    )


def result_of(of: DrawnProducts) -> verdict_test.VerdictTest:
    test = run_tests(of, TARGET, DELTA, RATIO)
    assert test is not None
    return test


# --- the wealth -----------------------------------------------------------------------------------------------------


def test_the_wealth_by_hand() -> None:
    right = sum(weight * (1 + bet / 0.95 * 0.05) for bet, weight in BETS.items())
    then_wrong = sum(weight * (1 + bet / 0.95 * 0.05) * (1 - bet) for bet, weight in BETS.items())
    assert wealth([0, 1], TARGET).tolist() == pytest.approx([right, then_wrong])
    assert wealth([], TARGET).tolist() == []
    assert highest_wealth([], TARGET) == highest_wealth([1, 1], TARGET) == 1.0
    assert sum(BETS.values()) == pytest.approx(1.0)
    # a fair game at the target: the expected factor of a product is 1
    assert 0.95 * wealth([0], TARGET)[0] + 0.05 * wealth([1], TARGET)[0] == pytest.approx(1.0)


@pytest.mark.parametrize(("delta", "expected"), [(DELTA, FEWEST), (DELTA / 6, 134)])
def test_the_fewest_products_that_certify(delta: float, expected: int) -> None:
    assert fewest_products(TARGET, delta) == expected
    assert highest_wealth(np.zeros(expected), TARGET) >= 1 / delta > highest_wealth(np.zeros(expected - 1), TARGET)
    later_errors = np.append(np.zeros(expected), np.ones(20))
    assert highest_wealth(later_errors, TARGET) >= 1 / delta, "what was reached stays"


@given(st.lists(st.booleans(), min_size=1, max_size=150))
@settings(max_examples=60, deadline=None)
def test_the_lower_bound_inverts_the_test(wrong: list[bool]) -> None:
    bound = lower_bound(wrong, DELTA)
    assert 0 <= bound < 1
    assert (bound >= TARGET) == (highest_wealth(wrong, TARGET) >= 1 / DELTA)
    if bound:
        assert highest_wealth(wrong, bound - 1e-6) >= 1 / DELTA
    assert highest_wealth(wrong, bound + 1e-6) < 1 / DELTA


@given(st.lists(st.booleans(), min_size=1, max_size=150), st.integers(0, 149))
@settings(max_examples=60, deadline=None)
def test_a_wrong_product_in_place_of_a_right_one_never_helps(wrong: list[bool], place: int) -> None:
    place %= len(wrong)
    worse = [*wrong[:place], True, *wrong[place + 1 :]]
    assert (wealth(worse, TARGET) <= wealth(wrong, TARGET) + 1e-12).all()


# --- the sequence ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "ratio", "ranks"),
    [
        (1000, 1.25, [250, 313, 391, 489, 611, 763, 954, 1000]),  # a quarter, then by a ratio, up to all
        (86, RATIO, [85, 86]),  # in a small sample the fewest that can certify
        (85, RATIO, [85]),
        (40, RATIO, [40]),
    ],
)
def test_the_first_sample_fixes_the_thresholds_by_its_scores_alone(n: int, ratio: float, ranks: list[int]) -> None:
    scores = np.linspace(0, 1, n)
    (sequence,) = sequences(drawn(scores), TARGET, DELTA, ratio)
    assert sequence.thresholds == tuple(np.sort(scores)[::-1][rank - 1] for rank in ranks)
    assert sequences(drawn(scores, range(n // 3)), TARGET, DELTA, ratio) == [sequence]
    assert (sequence.number, sequence.delta, sequence.first_sample) == (1, DELTA, 0)


@given(st.lists(st.sampled_from([0.1, 0.2, 0.5, 0.8, 0.9]), min_size=1, max_size=400), st.randoms())
@settings(max_examples=40, deadline=None)
def test_the_order_of_the_draw_does_not_move_thresholds(scores: list[float], random: Any) -> None:
    (sequence,) = sequences(drawn(scores), TARGET, DELTA, RATIO)
    random.shuffle(scores)
    assert sequences(drawn(scores), TARGET, DELTA, RATIO) == [sequence]
    assert sequence.thresholds[-1] == min(scores)
    assert all(earlier > later for earlier, later in zip(sequence.thresholds, sequence.thresholds[1:], strict=False))


def test_equal_scores_are_a_single_threshold() -> None:
    assert result_of(drawn(np.full(FEWEST, 0.7))).certified is not None
    assert result_of(drawn(np.full(FEWEST - 1, 0.7))).certified is None
    (step,) = result_of(drawn(np.full(FEWEST, 0.7))).steps
    assert (step.threshold, step.drawn, step.judged, step.wrong, step.waiting) == (0.7, FEWEST, FEWEST, 0, 0)
    assert run_tests(drawn([]), TARGET, DELTA, RATIO) is None


def test_the_sequence_stops_at_the_first_threshold_that_is_not_certified() -> None:
    """Right above .5, wrong below: thresholds are certified as long as few wrong ones are in."""
    scores = np.random.default_rng(3).random(600)
    test = result_of(drawn(scores, np.flatnonzero(scores < 0.5)))
    *passed, last = test.steps
    assert all(step.certified for step in passed)
    assert not last.certified
    assert test.certified == passed[-1]
    assert test.undecided == last
    assert 0.42 < passed[-1].threshold < 0.52
    assert passed[-1].lower_bound >= TARGET > last.lower_bound
    assert len(test.steps) < len(test.sequence.thresholds)
    nothing = result_of(drawn(scores, np.flatnonzero(scores > 0.8)))
    assert (nothing.certified, len(nothing.steps)) == (None, 1)


def test_a_value_is_wrong_from_its_own_score_down() -> None:
    """A product whose lower value is wrong counts as wrong where the lower value would be written."""
    scores = np.linspace(0.6, 0.9, 400)
    below, at = (result_of(drawn(scores, wrong_scores=np.full(400, wrong))) for wrong in (0.5, 0.6))
    assert (below.steps[-1].threshold, below.undecided) == (0.6, None)
    assert (at.steps[-1].threshold, at.undecided) == (0.6, at.steps[-1])


# --- what is settled ------------------------------------------------------------------------------------------------


def test_only_products_before_the_first_unsettled_product_count() -> None:
    settled = np.ones(200, dtype=bool)
    settled[FEWEST - 1] = False
    test = result_of(drawn(np.full(200, 0.9), settled=settled))
    (step,) = test.steps
    assert (step.drawn, step.judged, step.waiting, step.certified) == (200, FEWEST - 1, 200 - FEWEST, False)
    settled[FEWEST - 1], settled[FEWEST] = True, False
    (step,) = result_of(drawn(np.full(200, 0.9), settled=settled)).steps
    assert (step.judged, step.certified) == (FEWEST, True)


def test_an_unsettled_product_blocks_only_the_thresholds_that_accept_it() -> None:
    scores = np.tile([0.9, 0.8], 200)
    settled = np.ones(400, dtype=bool)
    settled[1] = False  # .8
    test = result_of(drawn(scores, settled=settled))
    high, low = test.steps
    assert (high.threshold, high.judged, high.certified) == (0.9, 200, True)
    assert (low.threshold, low.judged, low.waiting, low.certified) == (0.8, 1, 398, False)


# --- several samples ------------------------------------------------------------------------------------------------


def test_a_second_sample_goes_on_where_the_first_ended() -> None:
    first = drawn(np.full(FEWEST - 1, 0.9))
    assert result_of(first).certified is None
    more = both(first, drawn([0.9]), lowest=0.0)
    assert result_of(more).certified is not None
    again = both(first, drawn([0.9]), lowest=0.0, names="p")  # the first product once more
    assert result_of(again).certified is None
    assert again.at(0.9).tolist() == list(range(FEWEST - 1))  # where it was drawn first


def test_a_sample_from_a_higher_score_counts_at_its_scores_only() -> None:
    first = drawn(np.tile([0.9, 0.6], 100), lowest=np.full(200, 0.5))
    second = drawn(np.full(50, 0.9))
    of_both = both(first, second, lowest=0.8)
    assert sequences(of_both, TARGET, DELTA, RATIO) == sequences(first, TARGET, DELTA, RATIO)
    assert [len(of_both.at(0.9)), len(of_both.at(0.6))] == [150, 200]
    high, low = result_of(of_both).steps
    assert (high.drawn, high.sampled, low.drawn, low.sampled) == (150, 250, 200, 200)


def test_a_sample_from_a_lower_score_adds_thresholds_below() -> None:
    first = drawn(np.full(100, 0.9), lowest=np.full(100, 0.8))
    second = drawn(np.append(np.full(60, 0.85), np.linspace(0.5, 0.79, 200)))
    (before,) = sequences(first, TARGET, DELTA, RATIO)
    (after,) = sequences(both(first, second, lowest=0.5), TARGET, DELTA, RATIO)
    assert after.thresholds[: len(before.thresholds)] == before.thresholds == (0.9,)
    assert max(after.thresholds[1:]) < 0.8
    assert after.thresholds[-1] == 0.5
    test = result_of(both(first, second, lowest=0.5))
    assert test.certified is not None
    assert (test.certified.threshold, test.certified.drawn) == (0.5, 260)
    (same,) = sequences(both(first, drawn(np.full(20, 0.95)), lowest=0.5), TARGET, DELTA, RATIO)
    assert same.thresholds == (0.9,), "a sample without lower scores adds nothing"


def test_a_sample_from_above_every_threshold_begins_a_new_sequence_with_less_delta() -> None:
    first = drawn(np.linspace(0.1, 0.6, 300), range(300))
    second = drawn(np.full(140, 0.9))
    old, new = sequences(both(first, second, lowest=0.8), TARGET, DELTA, RATIO)
    assert (old.number, new.number, new.delta, new.first_sample) == (1, 2, DELTA / 6, 1)
    test = result_of(both(first, second, lowest=0.8))
    assert (test.sequence, test.certified is not None) == (new, True)
    few = result_of(both(first, drawn(np.full(133, 0.9)), lowest=0.8))  # enough at delta, not at delta / 6
    assert (few.sequence.number, few.certified) == (2, None)


def test_of_two_certified_sequences_the_lower_certified_threshold_counts_not_the_lower_tested_threshold() -> None:
    """The second sequence is certified at .9 and fails at .1; the first is certified at .7."""
    first, high = drawn(np.full(100, 0.7), lowest=np.full(100, 0.6)), drawn(np.full(140, 0.9))
    low = drawn(np.full(200, 0.1), range(200))
    of = both(both(first, high, lowest=0.8), low, lowest=0.0, names="r")
    assert [sequence.thresholds for sequence in sequences(of, TARGET, DELTA, RATIO)] == [(0.7,), (0.9, 0.1)]
    test = result_of(of)
    assert test.certified is not None
    assert (test.sequence.number, test.certified.threshold) == (1, 0.7)


# --- what is still needed -------------------------------------------------------------------------------------------


def step(judged: int, wrong: int, **changes: Any) -> VerdictStep:
    reached = highest_wealth(np.append(np.ones(wrong), np.zeros(judged - wrong)), TARGET)
    content: dict[str, Any] = {
        "threshold": 0.5, "sampled": judged, "drawn": judged, "judged": judged, "waiting": 0, "wrong": wrong,
        "wealth": reached, "lower_bound": 0.0, "certified": False,
    }  # fmt: skip
    return VerdictStep(**(content | changes))


def test_needed_at_best_is_what_certifies_without_a_further_error() -> None:
    of = step(50, 1)
    needed = verdicts_needed(of, TARGET, DELTA)
    verdicts = np.append(np.append(np.zeros(49), 1), np.zeros(needed.at_best))
    assert highest_wealth(verdicts, TARGET) >= 1 / DELTA > highest_wealth(verdicts[:-1], TARGET)
    assert needed.likely is not None
    assert needed.likely >= needed.at_best
    assert needed == verdicts_needed(of, TARGET, DELTA)  # seeded


def test_nothing_judged_yet_needs_what_the_prior_says() -> None:
    needed = verdicts_needed(step(0, 0), TARGET, DELTA)
    assert (needed.at_best, needed.precision) == (FEWEST, 0.98)
    assert 150 <= (needed.likely or 0) <= 260


def test_below_the_target_nothing_is_likely() -> None:
    assert verdicts_needed(step(100, 9), TARGET, DELTA).likely is None
    assert verdicts_needed(step(100, 9), TARGET, DELTA).precision < TARGET


def test_needed_counts_the_drawn_products_below_the_threshold_too() -> None:
    of = step(50, 0)
    needed, half = verdicts_needed(of, TARGET, DELTA), verdicts_needed(replace(of, sampled=100), TARGET, DELTA)
    assert (half.at_best, half.likely) == (2 * needed.at_best, 2 * (needed.likely or 0))
    assert verdicts_needed(replace(of, drawn=80, sampled=160), TARGET, DELTA).left == 60


def test_a_promising_score_is_above_all_thresholds_and_nearly_all_are_right_there() -> None:
    scores = np.linspace(0, 1, 1000)
    of = drawn(scores, np.flatnonzero(scores < 0.9))
    test = result_of(of)
    found = promising_score(of, test, TARGET)
    assert found is not None
    assert test.sequence.thresholds[0] < found
    assert 0.88 < found <= 0.901
    bad = drawn(scores, range(0, 1000, 3))
    assert promising_score(bad, result_of(bad), TARGET) is None


# --- the promise ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("population", [0, 300], ids=["large population", "all 300 products are judged"])
def test_false_certificates_at_exactly_the_target_are_rare(population: int) -> None:
    """At any number of looks: 1,000 draws, delta .05; without replacement false certificates are rarer."""
    rng = np.random.default_rng(0)
    verdicts = (
        [rng.permutation(np.arange(population) < 15) for _ in range(1000)]
        if population
        else list(rng.random((1000, 1500)) < 0.05)
    )
    false = np.mean([highest_wealth(row, TARGET) >= 1 / DELTA for row in verdicts])
    assert false <= (0.02 if population else 0.05 + 2 * 0.007)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"product_ids": ()}, "one entry per product"),
        ({"samples": np.array([1, 0])}, "follow each other"),
        ({"wrong_scores": np.array([0.9, 0.1])}, "must not be above"),
    ],
)
def test_drawn_products_that_cannot_be(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        drawn([0.5, 0.6], **changes)
