"""Certified recall of a version, and the paired difference of two. The simulations use the promotion gate's rule."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import ArrayLike
from scipy import stats

from catalog_enrichment.precision.certified_recall import (
    HeldOutDecision,
    PairedProducts,
    RecallDifference,
    certified_metrics,
    pair,
    recall_difference,
    units_to_decide,
)
from catalog_enrichment.records import Modality

MARGIN = 0.02

Row = tuple[int, tuple[str, ...], tuple[str, ...]]
"""Content group, true values, written values."""

RIGHT, WRONG, NOTHING = (("Red",), ("Red",)), (("Red",), ("Blue",)), (("Red",), ())


# --- one version ------------------------------------------------------------------------------------------------------


def decisions(rows: list[Row]) -> list[HeldOutDecision]:
    return [HeldOutDecision(f"p{n}", group, "color", *values, Modality.BOTH) for n, (group, *values) in enumerate(rows)]


def metrics(rows: list[Row], in_training: int = 0) -> dict[str, float]:
    return certified_metrics(decisions(rows), np.arange(len(rows)) < in_training)


def test_every_product_of_a_group_counts() -> None:
    row = metrics([(0, *RIGHT), (0, *RIGHT), (0, *WRONG), (1, *NOTHING), (2, *RIGHT)], in_training=2)
    assert (row["products"], row["accepted"], row["wrong"]) == (5, 4, 1)
    assert (row["precision"], row["recall"], row["near_duplicate_rate"]) == (0.75, 0.6, 0.4)


def test_a_product_is_wrong_if_any_of_its_values_is_and_recall_counts_values() -> None:
    row = metrics([(0, ("Wool", "Silk"), ("Wool", "Felt")), (1, ("Felt",), ("Felt",)), (2, ("Silk", "Felt"), ())])
    assert (row["accepted"], row["wrong"], row["precision"]) == (2, 1, 0.5)
    assert row["recall"] == pytest.approx(2 / 5)


def test_where_nothing_is_written_precision_and_recall_are_zero() -> None:
    row = metrics([(0, *NOTHING), (1, *NOTHING)])
    assert [row[name] for name in ("accepted", "precision", "precision_low", "precision_high")] == [0, 0, 0, 1]
    assert [row[name] for name in ("recall", "recall_low", "recall_high")] == [0, 0, 0]
    assert metrics([])["recall"] == 0


def test_products_without_an_error_do_not_prove_a_precision_of_one() -> None:
    row = metrics([(n, *RIGHT) for n in range(60)])
    interval = stats.binomtest(60, 60).proportion_ci()
    assert (row["precision_low"], row["precision_high"]) == pytest.approx((interval.low, interval.high))


def test_groups_that_are_right_or_wrong_together_have_wider_intervals() -> None:
    outcomes = [RIGHT] * 45 + [WRONG] * 5 + [NOTHING] * 50
    alone = metrics([(n, *outcome) for n, outcome in enumerate(outcomes)])
    together = metrics([(n // 5, *outcome) for n, outcome in enumerate(outcomes)], in_training=50)
    for name in ("precision", "recall"):
        assert together[name] == alone[name]
        width, narrower = (row[f"{name}_high"] - row[f"{name}_low"] for row in (together, alone))
        assert width > 1.5 * narrower
    assert together["near_duplicate_rate_low"] < 0.4 < together["near_duplicate_rate_high"]


outcomes = st.sampled_from([RIGHT, WRONG, NOTHING, (("Red", "Blue"), ("Red",)), (("Red", "Blue"), ("Red", "Green"))])


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), outcomes), min_size=1, max_size=40))
def test_certified_recall_is_what_the_promotion_gate_compares(drawn: list[tuple[int, Row]]) -> None:
    found = decisions([(group, *outcome) for group, outcome in drawn])  # type: ignore[misc]
    row = certified_metrics(found, np.zeros(len(found)))
    assert row["recall"] == pytest.approx(recall_difference(pair(found, found, "color"), 0.95).candidate)
    assert 0 <= row["precision_low"] <= row["precision_high"] <= 1
    assert row["recall_low"] <= row["recall"] <= row["recall_high"]


# --- two versions -----------------------------------------------------------------------------------------------------


def as_pairs(groups: ArrayLike, positives: ArrayLike, candidate: ArrayLike, reference: ArrayLike) -> PairedProducts:
    return PairedProducts(*(np.asarray(column, dtype=np.int64) for column in (groups, positives, candidate, reference)))


def decision(product: str, true: str, written: str, group: int = 0, attribute: str = "color") -> HeldOutDecision:
    return HeldOutDecision(product, group, attribute, tuple(true.split()), tuple(written.split()), Modality.BOTH)


def simulated(
    rng: np.random.Generator, n: int, difference: float, *, disagree: float = 0.1, group_size: int = 1
) -> PairedProducts:
    """Return products of which the reference writes 40% rightly and the candidate ``difference`` more; members of a
    group behave alike with probability 0.7."""
    groups = np.repeat(np.arange(n // group_size), group_size)
    shared, own = rng.random(len(groups))[groups], rng.random(len(groups))
    u = np.where(rng.random(len(groups)) < (0.7 if group_size > 1 else 0.0), shared, own)
    both = 0.4 - (disagree - difference) / 2
    gained, lost = (disagree + difference) / 2, (disagree - difference) / 2
    candidate = u < both + gained
    reference = (u < both) | ((u >= both + gained) & (u < both + gained + lost))
    return as_pairs(groups, np.ones(len(groups)), candidate, reference)


def rates(n: int, difference: float, **kind: float) -> tuple[float, float]:
    """Return the shares of draws that pass (lower bound >= -margin) and that are refused (upper bound < -margin)."""
    rng = np.random.default_rng(1)
    drawn = [recall_difference(simulated(rng, n, difference, **kind), 0.95) for _ in range(1000)]  # type: ignore[arg-type]
    passed, refused = [d.lower >= -MARGIN for d in drawn], [d.upper < -MARGIN for d in drawn]
    return float(np.mean(passed)), float(np.mean(refused))


@pytest.mark.parametrize("n", [172, 1000])
@pytest.mark.parametrize("disagree", [0.06, 0.2])
@pytest.mark.parametrize("group_size", [1, 5])
def test_a_candidate_five_points_worse_hardly_ever_passes(n: int, disagree: float, group_size: int) -> None:
    assert rates(n, -0.05, disagree=disagree, group_size=group_size)[0] <= 0.02


@pytest.mark.parametrize(("n", "group_size"), [(172, 1), (1000, 1), (1000, 5)])
def test_a_candidate_at_the_margin_passes_in_about_five_percent(n: int, group_size: int) -> None:
    assert rates(n, -MARGIN, group_size=group_size)[0] <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 1000)


@pytest.mark.parametrize("n", [172, 1000])
def test_an_equal_candidate_is_not_refused_and_passes_where_there_are_enough_products(n: int) -> None:
    passed, refused = rates(n, 0.0)
    assert refused <= 0.01
    assert passed > (0.6 if n == 1000 else 0.1)


def test_with_enough_products_a_candidate_five_points_worse_is_refused() -> None:
    assert rates(1000, -0.05)[1] > 0.85


def test_as_many_products_as_are_said_to_decide_let_an_equal_candidate_pass() -> None:
    rng = np.random.default_rng(2)
    assert units_to_decide(recall_difference(simulated(rng, 5000, 0.0), 0.95), MARGIN) is None  # they are enough
    wanted = units_to_decide(recall_difference(simulated(rng, 1000, 0.0, disagree=0.5), 0.95), MARGIN)
    assert wanted is not None
    assert 6000 < wanted < 9000
    assert rates(wanted, 0.0, disagree=0.5)[0] == pytest.approx(0.8, abs=0.05)


def difference(**changes: float) -> RecallDifference:
    values = {"units": 400, "candidate": 0.4, "reference": 0.4, "lower": -0.1, "upper": 0.1}
    return RecallDifference(**(values | {"standard_error": 0.007, "quantile": 1.645} | changes))  # type: ignore[arg-type]


def test_units_to_decide_where_an_equal_candidate_would_have_passed_already() -> None:
    # 1.645 standard errors of 0.007 are 0.0115, and the distance to -0.02 is 0.01: 1.15 squared times as many
    assert units_to_decide(difference(candidate=0.37), MARGIN) == 531
    assert units_to_decide(difference(candidate=0.38), MARGIN) is None  # no number decides exactly at the margin
    assert units_to_decide(difference(units=0), MARGIN) is None
    assert units_to_decide(difference(candidate=0.25, reference=0.5), 0.25) is None  # exactly, in binary


def test_only_products_of_both_test_folds_are_paired_with_the_candidates_labels_and_groups() -> None:
    candidate = [
        decision("p1", "Red", "Red", group=7),
        decision("p2", "Blue Red", "Blue Green", group=8),
        decision("p3", "Red", "Red"),
        decision("p1", "Wool", "Wool", attribute="material"),
    ]
    reference = [
        decision("p2", "Blue", "Red Blue", group=1),
        decision("p1", "Blue", "Blue", group=2),
        decision("p4", "Red", "Red"),
        decision("p3", "Silk", "Silk", attribute="material"),
    ]
    pairs = pair(candidate, reference, "color")
    assert pairs.groups.tolist() == [7, 8]
    assert pairs.positives.tolist() == [1, 2]
    assert pairs.candidate.tolist() == [1, 1]
    assert pairs.reference.tolist() == [0, 2]


def test_recall_counts_true_values_and_not_products() -> None:
    found = recall_difference(as_pairs([0, 1, 2], [1, 2, 3], [1, 0, 3], [1, 1, 1]), 0.95)
    assert (found.candidate, found.reference, found.units) == (4 / 6, 3 / 6, 3)
    assert found.estimate == pytest.approx(1 / 6)
    assert -1 <= found.lower < found.estimate < found.upper <= 1


def test_the_bounds_are_of_groups_weighted_by_their_true_values() -> None:
    """Two groups of 3 and 1 true values, the candidate ahead by 1 in the first; their average size is 2."""
    found = recall_difference(as_pairs([0, 0, 1], [2, 1, 1], [2, 1, 0], [1, 1, 0]), 0.95)
    x, p = np.array([1, 0, 2, -2]), np.array([3, 1, 2, 2])
    center = x.sum() / p.sum()
    error = np.sqrt(4 / 3 * ((x - center * p) ** 2).sum()) / p.sum()
    assert found.standard_error == pytest.approx(error)
    assert found.quantile == pytest.approx(6.3138, abs=1e-4)  # one degree of freedom
    assert found.upper == min(1.0, center + found.quantile * error)


def test_bounds_of_single_products_are_those_of_bonett_and_price() -> None:
    """n = 100, 8 only the candidate has right, 4 only the reference: (b - c) / (n + 2) and its standard error."""
    right = np.array([1] * 40 + [1] * 8 + [0] * 4 + [0] * 48)
    reference = np.array([1] * 40 + [0] * 8 + [1] * 4 + [0] * 48)
    found = recall_difference(as_pairs(np.arange(100), np.ones(100), right, reference), 0.95)
    gained, lost = 9 / 102, 5 / 102
    error = np.sqrt((gained + lost - (gained - lost) ** 2) / 101)
    assert found.standard_error == pytest.approx(error)
    assert found.lower == pytest.approx(gained - lost - found.quantile * error)
    assert found.quantile == pytest.approx(1.6604, abs=1e-4)


@pytest.mark.parametrize("n", [0, 1])
def test_fewer_than_two_groups_show_nothing(n: int) -> None:
    found = recall_difference(as_pairs(np.zeros(n), np.ones(n), np.ones(n), np.ones(n)), 0.95)
    assert (found.lower, found.upper, found.units) == (-1, 1, n)
    assert found.quantile == np.inf
    assert found.candidate == found.reference == float(n)
    assert units_to_decide(found, MARGIN) is None
