"""Certificates keep their promise: exact tables, folds that stay apart, and a simulation of the claim (I2)."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog_enrichment.config.schema import PrecisionConfig
from catalog_enrichment.precision import certify
from catalog_enrichment.precision.certify import CalibrationScores, CertificateBinding, CertificationScores, Pool
from catalog_enrichment.precision.metrics import operating_point, p_not_certified
from catalog_enrichment.precision.units import Units
from catalog_enrichment.records import Cardinality, Modality

RULE = PrecisionConfig()
ISSUE = CertificateBinding(
    modality=Modality.BOTH,
    weights_hash="w",
    numeric_path="fp32",
    preprocessing_hash="p",
    label_set_hash="l",
    use_count=1,
    data_window="all",
    issued_at=datetime(2026, 1, 2, tzinfo=UTC),
)
LABELS = ("red", "green", "blue")


@pytest.mark.parametrize(("errors", "smallest"), [(0, 59), (1, 93), (2, 124), (3, 153), (5, 208), (10, 336), (20, 577)])
def test_smallest_n_that_certifies(errors: int, smallest: int) -> None:
    assert p_not_certified(smallest, errors, 0.95) <= 0.05
    assert p_not_certified(smallest - 1, errors, 0.95) > 0.05


def drawn(n: int, seed: int, skill: float = 0.97) -> tuple[np.ndarray, np.ndarray]:
    """Scores and truth of n products with three values: mostly right at high scores; "blue" is always wrong."""
    rng = np.random.default_rng(seed)
    top, score = rng.choice(3, n, p=[0.6, 0.3, 0.1]), rng.beta(6, 1, n)
    probabilities = np.tile(((1 - score) / 2)[:, None], 3)
    probabilities[np.arange(n), top] = score
    right = (rng.random(n) < np.minimum(1, score + skill - 0.9)) & (top != 2)
    return probabilities, np.eye(3, dtype=bool)[np.where(right, top, (top + 1) % 3)]


def calibration(n: int = 800, seed: int = 1) -> CalibrationScores:
    probabilities, truth = drawn(n, seed)
    groups = np.arange(n) - n  # never shared with certification
    return CalibrationScores(
        attribute="color", labels=LABELS, cardinality=Cardinality.ONE,
        probabilities=probabilities, truth=truth, groups=groups,
    )  # fmt: skip


def certification(n: int = 2000, seed: int = 2, skill: float = 0.97) -> CertificationScores:
    probabilities, truth = drawn(n, seed, skill)
    return CertificationScores(
        attribute="color", labels=LABELS, cardinality=Cardinality.ONE, probabilities=probabilities, truth=truth,
        groups=np.arange(n), categories=["shoes", None] * (n // 2), languages=["en"] * n,
    )  # fmt: skip


def test_a_value_that_is_wrong_on_calibration_stays_out_of_the_pool() -> None:
    pool = certify.select_pool(calibration(), RULE)
    assert pool.values == ("red", "green")
    assert pool.calibration_threshold is not None
    blue = pool.value_counts[2]
    assert (blue.value, blue.right, blue.in_pool) == ("blue", 0, False)


def test_a_value_with_little_support_stays_out_of_the_pool() -> None:
    fold = calibration()
    pool = certify.select_pool(fold, RULE, min_support=300)
    assert pool.values == ("red",)
    assert certify.select_pool(fold, RULE, min_support=10_000).values == ()


def test_an_empty_calibration_fold_gives_an_empty_pool() -> None:
    assert certify.select_pool(calibration(n=0), RULE).values == ()


def test_the_pool_cannot_be_chosen_on_certification_labels() -> None:
    """One type per fold, and a pool remembers which content groups chose it."""
    chosen_on = certify.select_pool.__annotations__["calibration"]
    assert chosen_on == "CalibrationScores"
    assert not issubclass(CertificationScores, CalibrationScores)
    fold = certification()
    smuggled = CalibrationScores(
        **{
            name: getattr(fold, name)
            for name in ("attribute", "labels", "cardinality", "probabilities", "truth", "groups")
        }
    )
    with pytest.raises(ValueError, match="2000 content groups are in both the calibration and the certification fold"):
        certify.certify_attribute(certify.select_pool(smuggled, RULE), fold, fold.probabilities, RULE, ISSUE)


def test_a_content_group_counts_once() -> None:
    fold = certification(n=4)
    with pytest.raises(ValueError, match="each content group must have one product"):
        replace(fold, groups=np.array([1, 2, 2, 3]))


def test_folds_of_other_labels_are_refused() -> None:
    pool = certify.select_pool(calibration(), RULE)
    other = replace(certification(), labels=("red", "blue", "green"))
    with pytest.raises(ValueError, match=r"pool is for color \(.*, the certification fold for color"):
        certify.certify_attribute(pool, other, other.probabilities, RULE, ISSUE)


def issue_one(
    fold: CertificationScores, issue: CertificateBinding = ISSUE, pool: Pool | None = None
) -> certify.Certificate:
    unlabelled, _ = drawn(5000, 3)
    return certify.certify_attribute(pool or certify.select_pool(calibration(), RULE), fold, unlabelled, RULE, issue)


def test_a_good_attribute_earns_a_certificate_that_says_everything() -> None:
    fold = certification()
    certificate = issue_one(fold)
    assert certificate.threshold is not None
    units = certify.units_from(fold.probabilities, fold.truth, fold.cardinality, np.array([True, True, False]))
    assert units.counts(certificate.threshold) == (certificate.accepted, certificate.wrong)
    assert certificate.lower_bound >= 0.95
    assert certificate.values == ("red", "green")
    assert certificate.expires_at == ISSUE.issued_at + timedelta(days=90)
    assert (certificate.categories, certificate.languages) == (("", "shoes"), ("en",))
    assert 0 < certificate.accept_rate < 1
    assert sum(certificate.histogram) == 5000
    assert [step.passed for step in certificate.steps[:-1]] == [True] * (len(certificate.steps) - 1)
    assert "at least 95.0% are right" in certificate.claim
    json.dumps(certificate.to_dict(), allow_nan=False)


def test_a_later_candidate_on_the_same_labels_is_tested_at_a_smaller_delta() -> None:
    once, often = issue_one(certification()), issue_one(certification(), replace(ISSUE, use_count=20))
    assert often.threshold is None or (once.threshold is not None and often.threshold >= once.threshold)
    assert often.steps[0].lower_bound < once.steps[0].lower_bound
    with pytest.raises(ValueError, match="use_count"):
        replace(ISSUE, use_count=0)


def test_all_candidates_on_the_same_labels_spend_at_most_one_and_a_half_deltas() -> None:
    spent = [certify.spent_delta(0.05, number) for number in range(1, 1000)]
    assert spent[:3] == pytest.approx([0.05, 0.05 / 6, 0.05 / 12])
    assert 0.0749 < sum(spent) <= 0.075
    with pytest.raises(ValueError, match="at least 1, not 0"):
        certify.LabelUse(0, epoch=0)


def test_a_poor_attribute_abstains_and_says_why() -> None:
    poor = issue_one(certification(skill=0.6))
    assert poor.threshold is None
    assert "wrong at the first threshold" in poor.why_abstains
    assert (poor.accepted, poor.wrong, poor.lower_bound, poor.accept_rate) == (0, 0, 0.0, 0.0)
    few = issue_one(certification(n=40))
    assert "too few products" in few.why_abstains
    nothing = issue_one(certification(), pool=certify.select_pool(calibration(n=0), RULE))
    assert "no value" in nothing.why_abstains
    assert issue_one(certification(n=0)).threshold is None


def test_no_unlabelled_products_give_no_grid_and_so_no_certificate() -> None:
    pool = certify.select_pool(calibration(), RULE)
    certificate = certify.certify_attribute(pool, certification(), np.empty((0, 3)), RULE, ISSUE)
    assert certificate.threshold is None
    assert sum(certificate.histogram) == 0


def test_the_grid_has_the_expected_accepted_counts() -> None:
    scores = np.random.default_rng(0).random(100_000)
    grid = certify.threshold_grid(scores, 1000)
    expected = [1000 * (scores >= t).mean() for t in grid]
    np.testing.assert_allclose(expected[:-1], 150 * 1.05 ** np.arange(len(grid) - 1), rtol=1e-3)
    assert expected[-1] == 1000


def test_the_grid_starts_at_the_floor_where_little_can_be_accepted() -> None:
    scores = np.random.default_rng(0).random(10_000)
    assert 100 * (scores >= certify.threshold_grid(scores, 100)[0]).mean() == pytest.approx(59, abs=0.1)
    assert len(certify.threshold_grid(scores, 58)) == 0
    rare = np.where(np.arange(10_000) < 1000, scores, -np.inf)  # a tenth can be accepted at all
    assert 1000 * (rare >= certify.threshold_grid(rare, 1000)[0]).mean() == pytest.approx(59, abs=0.1)
    assert len(certify.threshold_grid(rare, 500)) == 0
    assert len(certify.threshold_grid([], 1000)) == 0
    assert len(certify.threshold_grid(scores, 0)) == 0


@given(st.lists(st.sampled_from([0.1, 0.5, 0.9, 1.0, -np.inf]), max_size=200), st.integers(0, 2000))
def test_the_grid_is_finite_and_strictly_decreasing(scores: list[float], n_units: int) -> None:
    grid = certify.threshold_grid(scores, n_units)
    assert np.isfinite(grid).all()
    assert (np.diff(grid) < 0).all()


def test_the_sequence_stops_at_the_first_failure() -> None:
    """What lies below a failure is not looked at, however good it is."""
    accept = np.repeat([0.9, 0.8, 0.7], [100, 100, 5000])
    error = np.where(np.arange(5200) < 1, accept, -np.inf)
    error[100:120] = 0.8
    steps = certify.fixed_sequence(Units(accept, error), np.array([0.9, 0.8, 0.7]), 0.95, 0.05)
    assert [(s.threshold, s.accepted, s.wrong, s.passed) for s in steps] == [(0.9, 100, 1, True), (0.8, 200, 21, False)]
    best = certify.last_passed(steps)
    assert best is not None
    assert best.threshold == 0.9
    assert certify.last_passed(steps[1:]) is None
    with pytest.raises(ValueError, match="strictly decreasing"):
        certify.fixed_sequence(Units(accept, error), np.array([0.8, 0.9]), 0.95, 0.05)


def test_certified_thresholds_keep_the_promise_where_plain_ones_break_it() -> None:
    """PRECISION's simulation, smaller: P(correct | s) = s^1.3, s ~ Beta(3, 1); precision above t is known exactly."""
    rng, draws, n = np.random.default_rng(11), 400, 2000
    support = np.sort(rng.beta(3, 1, 400_000))[::-1]
    true_precision = np.cumsum(support**1.3) / np.arange(1, len(support) + 1)

    def precision_above(t: float) -> float:
        return float(true_precision[max(int(np.searchsorted(-support, -t, side="right")) - 1, 0)])

    certified_below = plain_below = certified = 0
    for _ in range(draws):
        scores = rng.beta(3, 1, n)
        right = rng.random(n) < scores**1.3
        grid = certify.threshold_grid(rng.beta(3, 1, 5000), n)
        steps = certify.fixed_sequence(Units(scores, np.where(right, -np.inf, scores)), grid, 0.95, 0.05)
        if best := certify.last_passed(steps):
            certified += 1
            certified_below += precision_above(best.threshold) < 0.95
        plain = operating_point(scores, right, int(right.sum()), 0.95).threshold
        plain_below += plain is not None and precision_above(plain) < 0.95
    assert certified > 0.4 * draws
    assert certified_below <= 0.05 * draws
    assert plain_below > 0.4 * draws


def test_what_is_suggested_is_judged_without_what_is_written() -> None:
    """1,000 right pairs above .9 must not excuse wrong ones below: from .6 on 9 in 10 are right, below 1 in 10."""
    scores = np.concatenate([np.full(1000, 0.95), np.linspace(0.6, 0.8, 100), np.linspace(0.1, 0.5, 100)])
    right = np.concatenate([np.ones(1000, bool), np.arange(100) % 10 != 0, np.arange(100) % 10 == 0])
    fold = certify.CalibrationScores(
        attribute="color",
        labels=("red", "green"),
        cardinality=Cardinality.ONE,
        probabilities=np.column_stack([scores, np.zeros_like(scores)]),
        truth=np.column_stack([right, ~right]),
        groups=np.arange(len(scores)),
    )
    actual = certify.suggest_threshold(fold, 0.8, below=0.9)
    assert actual is not None
    assert 0.4 < actual <= 0.6
    assert certify.suggest_threshold(fold, 0.8, below=None) == pytest.approx(0.1, abs=0.05)
