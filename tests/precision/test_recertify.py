"""New certificates from audited values: only at or above the old threshold, and right as often as promised."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from catalog_enrichment.config.schema import PrecisionConfig
from catalog_enrichment.precision.certificate import Certificate, CertificateStatus
from catalog_enrichment.precision.certify import LabelUse
from catalog_enrichment.precision.recertify import AuditedFold, grid, recertified, why_untestable
from catalog_enrichment.records import Cardinality

from ..sample_certificate import abstention, certificate

NOW = datetime(2026, 6, 1, tzinfo=UTC)
RULE = PrecisionConfig()
OLD = certificate(threshold=0.8, values=("red",), accept_rate=0.4)


def fold(scores: np.ndarray, wrong: np.ndarray) -> AuditedFold:
    ids = tuple(f"p{n}" for n in range(len(scores)))
    return AuditedFold(
        scores=scores,
        wrong_scores=np.where(wrong, scores, -np.inf),
        weights=np.ones(len(scores)),
        groups=np.arange(len(scores)),
        product_ids=ids,
        data_window="2026-05-01/2026-05-09",
    )


def over_confident(random: np.random.Generator, n: int = 800) -> AuditedFold:
    """Scores from 0.8 to 1; below 0.9 a quarter is wrong, above it one in a hundred."""
    scores = random.uniform(0.8, 1.0, n)
    return fold(scores, random.random(n) < np.where(scores < 0.9, 0.25, 0.01))


def certified(of: AuditedFold, number: int = 1, old: Certificate = OLD) -> Certificate:
    return recertified(old, of, RULE, LabelUse(number=number, certification_round=3), NOW)


def test_the_new_threshold_is_where_the_values_are_right() -> None:
    new = certified(over_confident(np.random.default_rng(1)))
    assert new.threshold is not None
    assert 0.88 < new.threshold < 0.93
    assert new.status is CertificateStatus.CONFIRMED
    assert new.lower_bound >= 0.95
    assert (new.accepted, new.wrong) == (new.steps[-2].accepted, new.steps[-2].wrong)
    assert new.accept_rate == pytest.approx(0.4 * (1 - new.threshold) / 0.2, abs=0.03)
    assert (new.values, new.languages, new.weights_hash) == (OLD.values, OLD.languages, OLD.weights_hash)
    assert (new.issued_at, new.data_window, new.certification_round) == (NOW, "2026-05-01/2026-05-09", 3)
    assert new.certificate_id != OLD.certificate_id
    assert f"scores >= {new.threshold:.6f}" in new.claim


def test_no_threshold_below_the_old_one_is_tested() -> None:
    scores = np.linspace(0.5, 1.0, 1000)
    right = fold(scores, np.zeros(1000, dtype=bool))
    thresholds = grid(OLD, right, RULE, 1)
    assert thresholds[-1] == 0.8 == certified(right).threshold
    assert (np.diff(thresholds) < 0).all()
    assert thresholds[0] == pytest.approx(1 - 0.5 * 0.15, abs=0.001), "the first one accepts 150"
    tenth = grid(OLD, right, RULE, 10)
    assert tenth[0] == pytest.approx(1 - 0.5 * 0.302, abs=0.001), "twice what a model without an error needs"


def test_where_no_threshold_passes_it_abstains_and_says_why() -> None:
    random = np.random.default_rng(2)
    bad = certified(fold(random.uniform(0.8, 1.0, 400), random.random(400) < 0.3))
    assert bad.threshold is None
    assert bad.status is CertificateStatus.PROVISIONAL
    assert "audited values are wrong at the first threshold" in bad.why_abstains
    few = fold(np.full(40, 0.9), np.zeros(40, dtype=bool))
    assert "40 uniformly drawn values were judged since the pause and at least 59" in certified(few).why_abstains
    assert certified(few).steps == ()
    assert why_untestable(OLD, fold(np.full(59, 0.9), np.zeros(59, dtype=bool)), RULE, 1) == ""
    assert "wrote nothing" in why_untestable(abstention(), few, RULE, 1)


def test_a_later_use_of_the_labels_spends_less() -> None:
    scores = np.full(70, 0.9)
    once, again = (certified(fold(scores, np.zeros(70, dtype=bool)), number) for number in (1, 2))
    assert once.threshold is not None
    assert again.threshold is None
    assert again.tested_at == pytest.approx(0.05 / 6)


def test_equal_listings_count_as_one_group() -> None:
    alone = fold(np.full(120, 0.9), np.zeros(120, dtype=bool))
    twins = replace(alone, groups=np.repeat(np.arange(20), 6))
    assert certified(alone).threshold is not None
    assert certified(twins).threshold is None


def test_the_precision_is_reached_as_often_as_promised() -> None:
    """True precision above t falls slowly with t: the certificate may be wrong with probability .05."""
    random, violated, issued = np.random.default_rng(3), 0, 0
    for _ in range(300):
        scores = random.uniform(0.8, 1.0, 500)
        wrong = random.random(500) < 0.35 * (1 - scores)
        new = certified(fold(scores, wrong))
        if new.threshold is not None:
            issued += 1
            violated += 0.35 * (1 - new.threshold) / 2 > 0.05
    assert issued > 150
    assert violated / 300 <= 0.05


def several_values(random: np.random.Generator, draws: int = 600) -> tuple[AuditedFold, np.ndarray, np.ndarray]:
    """2,000 products with one to three values, of which every value has the same chance to be drawn. Products with
    three values are wrong four times as often. Returns the fold, and (m,) scores and wrong scores of all products."""
    count = random.integers(1, 4, 2000)
    scores = random.uniform(0.8, 1.0, 2000)
    wrong = random.random(2000) < 0.12 * (1 - scores) / 0.1 * np.where(count == 3, 1.0, 0.25)
    wrong_scores = np.where(wrong, scores - random.uniform(0, 0.05, 2000), -np.inf)
    drawn = random.choice(np.repeat(np.arange(2000), count), draws, replace=False)
    of_drawn = AuditedFold(
        scores=scores[drawn],
        wrong_scores=wrong_scores[drawn],
        weights=1 / count[drawn],
        groups=np.unique(drawn, return_inverse=True)[1],
        product_ids=tuple(f"p{n}" for n in drawn),
        data_window="2026-05-01/2026-05-09",
        cardinality=Cardinality.MANY,
    )
    return of_drawn, scores, wrong_scores


def test_of_several_values_a_product_counts_with_all_of_them() -> None:
    random, violated, issued, shares = np.random.default_rng(4), 0, 0, []
    for _ in range(200):
        drawn, scores, wrong_scores = several_values(random)
        new = certified(drawn)
        if new.threshold is not None:
            accepted = scores >= new.threshold
            issued += 1
            violated += (wrong_scores >= new.threshold)[accepted].mean() > 0.05
            shares.append(new.accept_rate / 0.4 - accepted.mean())
    assert issued > 100
    assert violated / 200 <= 0.05
    assert np.mean(shares) == pytest.approx(0, abs=0.01), "by the weights, products with several values count once"


def test_a_wrong_value_below_the_threshold_is_not_written_and_does_not_count() -> None:
    low = replace(fold(np.full(100, 0.95), np.zeros(100, dtype=bool)), wrong_scores=np.full(100, 0.85))
    assert certified(low).threshold == pytest.approx(0.95)
    assert certified(replace(low, wrong_scores=np.full(100, 0.95))).threshold is None


def three_and_one(wrong: int, score_of_one: float = 0.95) -> AuditedFold:
    """All draws of 400 products with three values, which are right, and of 200 with one, of which ``wrong`` are."""
    draws = np.concatenate([np.repeat(np.arange(400), 3), np.arange(400, 600)])
    scores = np.where(draws < 400, 0.95, score_of_one)
    return AuditedFold(
        scores=scores,
        wrong_scores=np.where((draws >= 400) & (draws < 400 + wrong), scores, -np.inf),
        weights=np.where(draws < 400, 1 / 3, 1.0),
        groups=draws,
        product_ids=tuple(map(str, draws)),
        data_window="2026-05-01/2026-05-09",
        cardinality=Cardinality.MANY,
    )


def test_products_with_several_values_do_not_count_by_their_number() -> None:
    drawn = three_and_one(wrong=40)  # of 600 products: 6.7%; of the draws 2.9%
    assert certified(drawn).threshold is None
    assert certified(replace(drawn, weights=np.ones(1400))).threshold is not None
    apart = certified(three_and_one(wrong=200, score_of_one=0.85))
    assert apart.threshold == 0.95
    assert apart.accept_rate == pytest.approx(0.4 * 400 / 600)
