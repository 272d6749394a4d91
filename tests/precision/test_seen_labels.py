"""Products from before a model was made against later ones: what was learned by heart is noticed, and little else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from catalog_enrichment.precision.seen_labels import SIGNIFICANT, EarlierAgainstLater, earlier_against_later


def compared(**columns: Any) -> EarlierAgainstLater:
    """Compare products, all with the score 1, of one category and alone in their groups unless columns say more."""
    right = np.asarray(columns["right"], dtype=bool)
    products = len(right)
    return earlier_against_later(
        right,
        np.asarray(columns["earlier"], dtype=bool),
        np.asarray(columns.get("scores", np.ones(products))),
        columns.get("categories", ["Apparel"] * products),
        np.asarray(columns.get("groups", np.arange(products))),
    )


def drawn(seed: int, learned: float = 0.0, per_group: int = 1, tilt: float = 0.0) -> EarlierAgainstLater:
    """Compare 2,000 generated products. ``learned``: share of the errors at earlier products that are none, because the
    model knows the label. ``tilt``: how much more often earlier products are of an easier category and score higher."""
    random = np.random.default_rng(seed)
    groups = np.arange(2_000) // per_group
    count = groups[-1] + 1
    earlier = random.random(count) < 0.6
    easy = random.random(count) < 0.5 + tilt * np.where(earlier, 0.5, -0.5)
    scores = np.round(random.beta(8, 2, count) * 0.5 + 0.5 * easy, 3)
    wrong = random.random(count) < np.where(easy, 0.03, 0.12)
    wrong &= ~(earlier & (random.random(count) < learned))
    categories = np.where(easy, "Apparel", "Toys")
    return compared(
        right=~wrong[groups],
        earlier=earlier[groups],
        scores=scores[groups],
        categories=categories[groups].tolist(),
        groups=groups,
    )


@pytest.mark.parametrize(("per_group", "tilt"), [(1, 0.0), (5, 0.0), (1, 0.6)])
def test_a_model_that_has_seen_nothing_is_rarely_accused(per_group: int, tilt: float) -> None:
    alarms = sum(drawn(seed, per_group=per_group, tilt=tilt).seen for seed in range(300))
    assert 0 < alarms <= stats.binom.isf(0.001, 300, SIGNIFICANT)


@pytest.mark.parametrize(("earlier", "error_rate"), [(50, 0.01), (15, 0.03), (500, 0.01)])
def test_few_errors_accuse_nobody(earlier: int, error_rate: float) -> None:
    alarms = 0
    for seed in range(300):
        wrong = np.random.default_rng(seed).random(1_000) < error_rate
        alarms += compared(right=~wrong, earlier=np.arange(1_000) < earlier).seen
    assert alarms <= stats.binom.isf(0.001, 300, SIGNIFICANT)


def test_a_model_that_learned_the_labels_is_noticed() -> None:
    found = [drawn(seed, learned=0.9) for seed in range(20)]
    assert all(one.seen for one in found)
    assert all(one.wrong_earlier < one.expected / 2 for one in found)


def test_the_comparison_is_within_strata() -> None:
    # Apparel: 0 of 2 wrong against 1 of 2; Toys: 1 of 2 against 2 of 2
    right = [True, True, True, False, True, False, False, False]
    earlier = [True, True, False, False, True, True, False, False]
    found = compared(right=right, earlier=earlier, categories=["Apparel"] * 4 + ["Toys"] * 4)
    assert (found.earlier, found.later, found.wrong_earlier, found.expected) == (4, 4, 1, 2.0)
    assert found.p_value == pytest.approx(1 / 2 * 1 / 2)  # 0 of 1 error in Apparel, 1 of 3 in Toys


def test_in_a_single_stratum_it_is_fishers_exact_test() -> None:
    found = compared(right=[True] * 38 + [False] * 2 + [True] * 50 + [False] * 10, earlier=[True] * 40 + [False] * 60)
    assert found.p_value == pytest.approx(stats.fisher_exact([[2, 38], [10, 50]], alternative="less").pvalue)


def test_scores_are_held_equal() -> None:
    earlier = [True] * 9 + [False] + [True] + [False] * 9
    right = [True] * 10 + [False] * 10
    assert compared(right=right, earlier=earlier).seen
    found = compared(right=right, earlier=earlier, scores=[0.9] * 10 + [0.1] * 10)
    assert (found.earlier, found.later, found.wrong_earlier, found.expected) == (10, 10, 1, 1.0)
    assert found.p_value == pytest.approx(1)


def test_more_errors_at_earlier_products_accuse_nobody() -> None:
    assert compared(right=[False] * 50 + [True] * 50, earlier=[True] * 50 + [False] * 50).p_value == pytest.approx(1)


def test_twins_are_no_more_evidence_than_one_of_them() -> None:
    right, earlier = [True] * 6 + [True, True, False] * 2, [True] * 6 + [False] * 6
    alone = compared(right=right, earlier=earlier)
    twins = compared(right=right * 20, earlier=earlier * 20, groups=np.tile(np.arange(12), 20))
    assert twins == alone
    assert compared(right=right * 20, earlier=earlier * 20).seen


@pytest.mark.parametrize("earlier", [[True] * 4, [False] * 4, [True, True, False, False]])
def test_where_nothing_can_be_compared_nobody_is_accused(earlier: list[bool]) -> None:
    found = compared(right=[True, True, False, False], earlier=earlier, categories=["a", "a", None, None])
    assert (found.earlier, found.later, found.wrong_earlier, found.expected, found.p_value) == (0, 0, 0, 0.0, 1.0)
    assert compared(right=[True] * 4, earlier=earlier).p_value == 1
    assert compared(right=[], earlier=[]).p_value == 1
