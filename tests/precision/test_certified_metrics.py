"""Certified recall, written precision and twins of the test fold, by the decisions that the promotion gate compares."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog_enrichment.precision.certified_metrics import certified_metrics
from catalog_enrichment.precision.metrics import binomial_interval
from catalog_enrichment.precision.paired_recall import HeldOutDecision, pair, recall_difference

Row = tuple[int, tuple[str, ...], tuple[str, ...]]
"""Content group, true values, written values."""


def decisions(rows: list[Row]) -> list[HeldOutDecision]:
    return [HeldOutDecision(f"p{n}", group, "color", *values) for n, (group, *values) in enumerate(rows)]


def metrics(rows: list[Row], twins: int = 0) -> dict[str, float]:
    return certified_metrics(decisions(rows), np.arange(len(rows)) < twins)


RIGHT, WRONG, NOTHING = (("Red",), ("Red",)), (("Red",), ("Blue",)), (("Red",), ())


def test_every_product_of_a_group_counts() -> None:
    row = metrics([(0, *RIGHT), (0, *RIGHT), (0, *WRONG), (1, *NOTHING), (2, *RIGHT)], twins=2)
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
    assert (row["precision_low"], row["precision_high"]) == pytest.approx(binomial_interval(60, 60))


def test_groups_that_are_right_or_wrong_together_have_wider_intervals() -> None:
    outcomes = [RIGHT] * 45 + [WRONG] * 5 + [NOTHING] * 50
    alone = metrics([(n, *outcome) for n, outcome in enumerate(outcomes)])
    rows = [(n // 5, *outcome) for n, outcome in enumerate(outcomes)]
    together = metrics(rows, twins=50)
    for name in ("precision", "recall"):
        assert together[name] == alone[name]
        width, narrower = (row[f"{name}_high"] - row[f"{name}_low"] for row in (together, alone))
        assert width > 1.5 * narrower
    assert together["near_duplicate_rate_low"] < 0.4 < together["near_duplicate_rate_high"]


outcomes = st.sampled_from([RIGHT, WRONG, NOTHING, (("Red", "Blue"), ("Red",)), (("Red", "Blue"), ("Red", "Green"))])


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), outcomes), min_size=1, max_size=40))
def test_certified_recall_is_the_one_that_the_promotion_gate_compares(drawn: list[tuple[int, Row]]) -> None:
    found = decisions([(group, *outcome) for group, outcome in drawn])  # type: ignore[misc]
    row = certified_metrics(found, np.zeros(len(found)))
    assert row["recall"] == pytest.approx(recall_difference(pair(found, found, "color"), 0.95).candidate)
    assert 0 <= row["precision_low"] <= row["precision_high"] <= 1
    assert row["recall_low"] <= row["recall"] <= row["recall_high"]
