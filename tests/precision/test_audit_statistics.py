"""Alarms and bounds of audits, against simulations where the truth is known and numbers computed by hand."""

from __future__ import annotations

import numpy as np
import pytest

from catalog_enrichment.precision.audit_statistics import (
    ALARM,
    MOST_MISSING,
    NO_ROWS,
    AuditedRows,
    estimate,
    highest_error,
    lowest_error,
    right_rows_missing,
    wealth,
)

RATE = 0.05


def rows(wrong: list[int], unsure: list[int] | None = None, weight: list[float] | None = None) -> AuditedRows:
    n = len(wrong)
    weights = np.array(weight if weight is not None else np.ones(n), dtype=np.float64)
    return AuditedRows(
        np.array(wrong, dtype=bool),
        np.array(unsure if unsure is not None else np.zeros(n), dtype=bool),
        weights,
        np.full(n, max(weights, default=1.0)),
    )


def test_the_wealth_is_the_mean_of_four_bets() -> None:
    after_right = np.mean([1 - 1 * 0.05, 1 - 2 * 0.05, 1 - 4 * 0.05, 1 - 8 * 0.05])
    assert wealth([0], RATE).tolist() == pytest.approx([after_right])
    then_wrong = np.mean([(1 - bet * 0.05) * (1 + bet * 0.95) for bet in (1, 2, 4, 8)])
    assert wealth([0, 1], RATE).tolist() == pytest.approx([after_right, then_wrong])
    assert wealth([0, 1], RATE)[1] == pytest.approx(wealth([1, 0], RATE)[1])
    assert wealth([1, 1], RATE)[-1] >= ALARM == 20 > wealth([1], RATE)[-1]


def test_no_bet_is_ruinous_at_a_lower_target() -> None:
    assert (wealth([0] * 40, 0.4) > 0).all()


def test_false_alarms_are_as_rare_as_promised() -> None:
    """PRECISION: 2.3% within 3,000 audits at exactly .95; never more than 5%."""
    random = np.random.default_rng(3)
    share = np.mean([(wealth(random.random(3000) >= 0.95, RATE) >= ALARM).any() for _ in range(1500)])
    assert 0.010 <= share <= 0.040


def test_bounds_of_rows_of_equal_weight() -> None:
    nothing = highest_error(np.zeros(0), np.zeros(0), 0.05)
    assert (nothing, lowest_error(np.zeros(0), 0.05)) == (1.0, 0.0)
    # with nothing wrong one bet of the share f alone gives (1 + f m / (1 - m))^n = 1 / alpha
    high = highest_error(np.zeros(200), np.ones(200), 0.05)
    alone = [(lambda odds: odds / (1 + odds))((20 ** (1 / 200) - 1) / fraction) for fraction in (0.9, 0.1)]
    assert alone[0] < high < alone[1]
    assert high == pytest.approx(0.0226, abs=0.002)
    assert lowest_error(np.zeros(200), 0.05) == 0.0
    assert lowest_error(np.ones(200), 0.05) > 0.9


def test_bounds_hold_at_every_look() -> None:
    """The most that a bound was ever violated in a thousand verdicts, where the truth is known."""
    random, violated_low, violated_high, truth = np.random.default_rng(5), 0, 0, 0.07
    for _ in range(300):
        wrong = (random.random(600) < truth).astype(np.float64)
        violated_high += highest_error(wrong, np.ones(600), 0.1) < truth
        violated_low += lowest_error(wrong, 0.1) > truth
    assert violated_high / 300 <= 0.1
    assert violated_low / 300 <= 0.1
    assert violated_high + violated_low > 0, "bounds that are never violated are wider than they need to be"


def _oversampled(random: np.random.Generator) -> tuple[AuditedRows, float]:
    """500 of 20,000 rows at random and 300 more of the 4,000 near the threshold, which are wrong more often."""
    near = np.arange(20_000) < 4000
    wrong = random.random(20_000) < np.where(near, 0.15, 0.02)
    uniform = random.permutation(20_000)[:500]
    others = np.setdiff1d(np.flatnonzero(near), uniform)
    drawn = np.concatenate([uniform, random.permutation(others)[:300]])
    share = 500 / 20_000
    probability = np.where(near[drawn], share + (1 - share) * 300 / len(others), share)
    drawn_order = random.permutation(len(drawn))
    weight = (len(drawn) / (20_000 * probability))[drawn_order]
    judged = wrong[drawn][drawn_order]
    return AuditedRows(judged, np.zeros(800, dtype=bool), weight, np.full(800, 800 / (20_000 * share))), wrong.mean()


def test_the_weighted_estimate_undoes_the_oversampling() -> None:
    random = np.random.default_rng(7)
    samples = [_oversampled(random) for _ in range(150)]
    found = [(estimate(drawn, 0.05), truth) for drawn, truth in samples]
    weighted = np.mean([audit.precision - (1 - truth) for audit, truth in found if audit.precision is not None])
    assert abs(weighted) < 0.003
    assert np.mean([1 - audit.wrong / audit.rows - (1 - truth) for audit, truth in found]) < -0.03
    assert np.mean([audit.lower > 1 - truth for audit, truth in found]) <= 0.05
    assert np.mean([audit.upper < 1 - truth for audit, truth in found]) <= 0.05
    assert np.mean([audit.lower for audit, _ in found]) > 0.92, "a bound that is too wide confirms nothing"


def test_who_cannot_tell_counts_against_the_value_in_both_bounds() -> None:
    certain, unsure = estimate(rows([0] * 300), 0.05), estimate(rows([0] * 300, [0] * 280 + [1] * 20), 0.05)
    assert unsure.lower < certain.lower
    assert unsure.upper == certain.upper == 1.0
    assert (unsure.precision, unsure.unsure, unsure.wrong) == (1.0, 20, 0)
    assert estimate(rows([0, 0], [1, 1]), 0.05).precision is None


def test_a_heavier_row_counts_more() -> None:
    assert estimate(rows([1, 0, 0], weight=[0.5, 1.0, 1.5]), 0.05).precision == pytest.approx(2.5 / 3)


@pytest.mark.parametrize("weight", [[0.0, 1.0], [-1.0, 1.0]])
def test_weights_are_positive(weight: list[float]) -> None:
    with pytest.raises(ValueError, match="positive"):
        rows([0, 0], weight=weight)


def test_arrays_of_other_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="one entry per row"):
        AuditedRows(np.zeros(2, dtype=bool), np.zeros(2, dtype=bool), np.ones(3), np.ones(2))


@pytest.mark.parametrize(
    ("judged", "target"),
    [
        (NO_ROWS, 0.95),
        (rows([0] * 20), 0.95),
        (rows([1, *[0] * 100]), 0.95),
        (rows([1, *[0] * 100], unsure=[0, 1, *[0] * 99]), 0.97),
        (rows([1, 0, 0, 0], weight=[0.4, 1.5, 1.5, 1.5]), 0.8),
    ],
)
def test_so_many_further_right_rows_bring_the_bound_to_the_target(judged: AuditedRows, target: float) -> None:
    missing = right_rows_missing(judged, target, 0.05)
    assert missing

    def lower_with(more: int) -> float:
        weight = float(judged.highest.mean()) if len(judged.highest) else 1.0
        further = rows([0] * more, weight=[weight] * more)
        names = ("wrong", "unsure", "weight", "highest")
        return estimate(
            AuditedRows(*(np.concatenate([getattr(judged, name), getattr(further, name)]) for name in names)), 0.05
        ).lower

    assert lower_with(missing) >= target - 1e-6
    assert lower_with(missing - 1) < target


def test_nothing_is_missing_at_the_target_and_very_many_rows_are_not_counted() -> None:
    assert right_rows_missing(rows([0] * 200), 0.95, 0.05) == 0
    assert right_rows_missing(rows([1] * 3000), 0.99, 0.05) is None
    assert right_rows_missing(rows([1] * 100), 0.99, 0.05) in range(1, MOST_MISSING + 1)
