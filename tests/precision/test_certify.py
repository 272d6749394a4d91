"""Certificates keep their promise: folds that stay apart, the fixed sequence, the share of delta, the claim (I2)."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from math import ceil
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog_enrichment.config.schema import PrecisionConfig
from catalog_enrichment.precision import certify, claim
from catalog_enrichment.precision.certificate import Certificate, ThresholdTest
from catalog_enrichment.precision.certify import CertificateBinding, LabelUse, Sequencer, spent_delta
from catalog_enrichment.precision.cluster import AcceptedSample, products_needed
from catalog_enrichment.precision.grid import GridSize, threshold_grid
from catalog_enrichment.precision.metrics import operating_point, p_not_certified
from catalog_enrichment.precision.pool import Pool, select_pool
from catalog_enrichment.precision.scored_labels import CertificationScores
from catalog_enrichment.precision.strata import Cells, Population
from catalog_enrichment.precision.units import Units, accept_scores, units_from
from catalog_enrichment.records import Cardinality, Modality

from ..sample_certificate import SCORED_BY, STANDARD
from .folds import certification, choosing, drawn, unlabelled_products

RULE = PrecisionConfig()
STEP = ThresholdTest(0.9, 400, 8, 300, 1.2, 0.001, 0.9641, True)
BINDING = CertificateBinding(
    modality=Modality.BOTH,
    scored_by=SCORED_BY,
    label_set_hash="l",
    use=LabelUse(number=1, certification_round=1),
    data_window="all",
    issued_at=datetime(2026, 1, 2, tzinfo=UTC),
)


def issue(fold: CertificationScores, *, pool: Pool | None = None, use: int = 1, **changes: Any) -> Certificate:
    """The certificate of ``fold``; ``changes`` of the open products."""
    binding = replace(BINDING, use=LabelUse(number=use, certification_round=1))
    chosen = pool or select_pool(choosing(), RULE)
    return certify.certify_attribute(chosen, fold, unlabelled_products(**changes), RULE, binding)


def alike(n: int) -> Cells:
    """One cell: all weights are one."""
    one = Population(
        languages=["en"] * n, categories=[""] * n, group_sizes=np.ones(n, dtype=np.int64), counts=np.ones(n)
    )
    return Cells(one, one)


def sequencer(units: Units) -> Sequencer:
    """Groups of one product, weights of one."""
    return Sequencer(units, np.arange(len(units)), alike(len(units)), 1.0)


@pytest.mark.parametrize(("errors", "smallest"), [(0, 59), (1, 93), (2, 124), (3, 153), (5, 208), (10, 336), (20, 577)])
def test_smallest_n_that_certifies(errors: int, smallest: int) -> None:
    assert p_not_certified(smallest, errors, 0.95) <= 0.05
    assert p_not_certified(smallest - 1, errors, 0.95) > 0.05


def test_the_uses_of_a_label_set_share_delta() -> None:
    assert [spent_delta(0.05, k) for k in (1, 2, 3, 10)] == pytest.approx([0.05, 0.05 / 6, 0.05 / 12, 0.05 / 110])
    assert sum(spent_delta(0.05, k) for k in range(1, 10_000)) < 1.5 * 0.05
    with pytest.raises(ValueError, match="at least 1, not 0"):
        LabelUse(number=0, certification_round=1)


def test_the_pool_cannot_be_chosen_on_certification_labels() -> None:
    """A pool remembers which content groups chose it."""
    fold = certification()
    same_groups = choosing(n=2000, groups=fold.groups)
    with pytest.raises(ValueError, match="2000 content groups are in both the choosing and the certification fold"):
        issue(fold, pool=select_pool(same_groups, RULE))


def test_folds_of_other_labels_are_refused() -> None:
    with pytest.raises(ValueError, match=r"pool is for color \(.*, the certification fold for color"):
        issue(replace(certification(), labels=("red", "blue", "green")))


def test_a_good_attribute_earns_a_certificate_that_says_everything() -> None:
    fold = certification()
    certificate = issue(fold)
    assert certificate.threshold is not None
    units = units_from(fold.probabilities, fold.truth, fold.cardinality, np.array([True, True, False]))
    assert units.counts(certificate.threshold) == (certificate.accepted, certificate.wrong)
    assert (certificate.groups, certificate.unit) == (certificate.accepted, "product")
    assert certificate.lower_bound >= 0.95
    assert certificate.values == ("red", "green")
    assert certificate.expires_at == BINDING.issued_at + timedelta(days=90)
    assert (certificate.categories, certificate.languages) == (("", "shoes"), ("en",))
    assert [stratum.name for stratum in certificate.strata] == ["no category, groups of 1", "shoes, groups of 1"]
    assert (certificate.certification_products, certificate.unlabelled_products) == (2000, 5000)
    assert (certificate.certification_near_duplicate_rate, certificate.unlabelled_near_duplicate_rate) == (0.0, 0.5)
    assert (certificate.use_number, certificate.certification_round, certificate.tested_at) == (1, 1, 0.05)
    assert certificate.scored_by == SCORED_BY
    filled = unlabelled_products()
    accept = accept_scores(filled.probabilities, fold.cardinality, np.array([True, True, False]))
    assert (accept == certificate.threshold).any()  # a threshold is a score, which it accepts
    assert certificate.accept_rate == (accept >= certificate.threshold).mean()
    assert sum(certificate.histogram) == 5000
    assert [step.passed for step in certificate.steps[:-1]] == [True] * (len(certificate.steps) - 1)
    assert "at least 95.0% are right" in certificate.claim
    json.dumps(certificate.to_dict(), allow_nan=False)


def test_every_product_of_a_content_group_counts_and_groups_that_err_together_cost() -> None:
    """The same scores and labels, each product twice: alone, and as the pair of one content group."""
    fold = certification(n=1000)
    twice = np.repeat(np.arange(1000), 2)
    doubled = certification(
        n=2000, probabilities=fold.probabilities[twice], truth=fold.truth[twice], groups=twice,
        categories=["shoes"] * 2000, group_sizes=np.full(2000, 2),
    )  # fmt: skip
    filled = {"categories": ["shoes"] * 5000, "group_sizes": np.full(5000, 2)}
    paired, alone = issue(doubled, **filled), issue(replace(doubled, groups=np.arange(2000)), **filled)
    assert (paired.steps[0].accepted, paired.steps[0].wrong) == (alone.steps[0].accepted, alone.steps[0].wrong)
    assert paired.steps[0].groups * 2 == alone.steps[0].groups
    last = len(paired.steps) - 1
    assert paired.steps[last].wrong > 5
    assert paired.steps[last].p_value > alone.steps[last].p_value
    assert paired.steps[last].deff == pytest.approx(2.0, abs=0.1)
    assert alone.steps[last].deff == pytest.approx(1.0)


@pytest.mark.parametrize(("correlation", "deff"), [(0.0, 1.0), (0.25, 1.75), (1.0, 4.0)])
def test_the_test_uses_the_correlation_that_the_choosing_fold_shows(correlation: float, deff: float) -> None:
    """60 groups of 4 without an error."""
    units = Units(np.full(240, 0.9), np.full(240, -np.inf))
    sequence = Sequencer(units, np.arange(240) // 4, alike(240), correlation)
    assert sequence.test(0.9, 0.95, 0.05).deff == pytest.approx(deff)


def test_a_later_use_of_the_labels_spends_a_smaller_share_and_starts_with_more_products() -> None:
    once, tenth = issue(certification()), issue(certification(), use=10)
    assert (tenth.use_number, tenth.tested_at) == (10, pytest.approx(0.05 / 110))
    assert tenth.threshold is not None
    assert once.threshold is not None
    assert tenth.threshold > once.threshold
    assert all(step.p_value <= 0.05 / 110 for step in tenth.steps if step.passed)
    assert tenth.steps[0].accepted > once.steps[0].accepted
    assert tenth.lower_bound >= 0.95


def test_open_products_that_lean_to_the_weaker_category_are_certified_as_such() -> None:
    """A tenth of the bags is wrong; a quarter of the fold are bags, of the products to fill a quarter or most."""
    fold = certification(categories=["shoes"] * 1500 + ["bags"] * 500)
    product = np.arange(2000)
    wrong = (product >= 1500) & (product % 10 == 0)
    fold = replace(fold, truth=np.where(wrong[:, None], np.roll(fold.truth, 1, axis=1), fold.truth))
    as_fold = issue(fold, categories=(["shoes"] * 3 + ["bags"]) * 1250)
    tilted = issue(fold, categories=(["shoes"] + ["bags"] * 9) * 500)
    assert as_fold.threshold is not None
    assert tilted.threshold is None
    (first, tilted_first) = (as_fold.steps[0], tilted.steps[0])
    assert (first.accepted, first.wrong) == (tilted_first.accepted, tilted_first.wrong)
    assert tilted_first.deff > 1.3 > first.deff


def test_a_weak_category_with_too_little_evidence_does_not_stop_the_others() -> None:
    """Bags are always wrong. Down to the threshold where enough of them are accepted they are refused by name. The
    sequence starts above it, because the choosing fold has errors below."""
    fold = certification(categories=["shoes"] * 1800 + ["bags"] * 200)
    truth = np.where(np.arange(2000)[:, None] >= 1800, np.roll(fold.truth, 1, axis=1), fold.truth)
    chosen = select_pool(choosing(), RULE)
    below = chosen.units.accept < np.quantile(chosen.units.accept, 0.92)
    units = replace(chosen.units, error=np.where(below, chosen.units.accept, -np.inf))
    categories = (["shoes"] * 9 + ["bags"]) * 500
    certificate = issue(replace(fold, truth=truth), pool=replace(chosen, units=units), categories=categories)
    assert certificate.threshold is not None
    assert [row.category for row in certificate.refused_categories] == ["bags"]
    assert not certificate.steps[-1].passed


def test_a_category_with_too_few_accepted_products_is_refused_in_the_certificate_and_its_claim() -> None:
    fold = certification(categories=["shoes"] * 1985 + ["toys/dolls"] * 15)
    certificate = issue(fold, categories=["shoes"] * 4000 + ["toys/dolls"] * 1000)
    (toys,) = certificate.refused_categories
    assert (toys.category, toys.unlabelled_products) == ("toys", 1000)
    assert "Nothing is claimed or written for toys (fewer than 20" in certificate.claim
    assert f"about {toys.labelled_missing:,} more labelled ones needed" in certificate.claim
    assert toys.labelled_missing > toys.missing / 0.22
    assert "refused" not in issue(certification()).claim
    wrong_toys = replace(fold, truth=np.where(np.arange(2000)[:, None] >= 1985, False, fold.truth))
    assert issue(wrong_toys, categories=["shoes"] * 5000).steps == issue(fold, categories=["shoes"] * 5000).steps


def test_the_claim_says_that_few_open_products_can_differ_from_their_population() -> None:
    few, many = issue(certification()), issue(certification(), n=5000, counts=np.full(5000, 4.0))
    assert "There are 5000 unlabelled products, fewer than 10 times the 2000 certification products" in few.claim
    assert many.unlabelled_products == 20_000
    assert "fewer than 10 times" not in many.claim


def allowed(certificate: Certificate, category: str, language: str = "en") -> bool:
    """Whether the certificate may be used for a product, the day it was issued."""
    problem = certificate.rejection_reason(
        scored_by=SCORED_BY, standard=STANDARD, modality=Modality.BOTH, now=BINDING.issued_at, category=category,
        language=language,
    )  # fmt: skip
    return problem is None


def test_open_products_of_another_language_are_not_represented() -> None:
    certificate = issue(certification(), languages=["en"] * 4000 + ["ja"] * 1000)
    assert certificate.unlabelled_products == 4000
    assert certificate.languages == ("en",)
    assert not allowed(certificate, "shoes", "ja")


@pytest.mark.parametrize("french", [15, 40])
def test_a_few_certification_products_of_a_language_do_not_admit_its_open_products(french: int) -> None:
    """Of 2,000 certification products 15 or 40 are French, of the open ones 80%: too few, or a weight above 20."""
    fold = certification(languages=["fr"] * french + ["en"] * (2000 - french), categories=["shoes"] * 2000)
    certificate = issue(fold, categories=["shoes"] * 5000, languages=["fr"] * 4000 + ["en"] * 1000)
    assert certificate.threshold is not None
    assert allowed(certificate, "shoes", "en")
    assert not allowed(certificate, "shoes", "fr")
    assert certificate.unlabelled_products == 1000
    refused = [row.language for row in (*certificate.refused_languages, *certificate.refused_categories)]
    assert refused == ["fr"]
    assert ("language fr" if french == 15 else "shoes in language fr") in certificate.claim


def test_a_missing_language_is_a_language_of_its_own() -> None:
    fold = certification(languages=[""] * 1000 + ["en"] * 1000, categories=["shoes"] * 2000)
    certificate = issue(fold, categories=["shoes"] * 5000, languages=["", "en"] * 2500)
    assert [stratum.name for stratum in certificate.strata] == [
        "no language: shoes, groups of 1", "en: shoes, groups of 1",
    ]  # fmt: skip
    assert allowed(certificate, "shoes", "")


def test_a_category_without_products_to_fill_is_not_certified_for_later_ones() -> None:
    """Half of the hats are wrong; nothing is written to hats until a certificate sees some to fill."""
    fold = certification(categories=["shoes"] * 1940 + ["hats"] * 60)
    certificate = issue(fold, categories=["shoes"] * 5000)
    assert certificate.threshold is not None
    assert (certificate.categories, allowed(certificate, "hats")) == (("shoes",), False)
    both = issue(replace(fold, languages=["en"] * 1970 + ["fr"] * 30), categories=["shoes"] * 4900 + ["hats"] * 100)
    assert both.categories == ("hats", "shoes")
    assert not allowed(both, "hats", "fr")  # in French there are none to fill


def test_a_poor_attribute_abstains_and_says_why() -> None:
    poor = issue(certification(skill=0.6))
    assert poor.threshold is None
    assert "wrong at the first threshold" in poor.why_abstains
    assert poor.why_abstains.endswith("the error rate itself is too high: a better model is needed")
    assert (poor.accepted, poor.wrong, poor.lower_bound, poor.accept_rate) == (0, 0, 0.0, 0.0)
    assert poor.steps
    few = issue(certification(n=40))
    assert "too few products: of 40 labelled ones" in few.why_abstains
    # all of red and green, 9 in 10, can be accepted: 36 of 40, 59 * deff are needed, and the fold holds 22%
    told = re.search(r"about (\d+) more labelled products would be enough to test it", few.why_abstains)
    assert told is not None
    enough = issue(certification(n=2 * ceil((40 + int(told[1]) * 0.22) / 2)))
    assert enough.steps
    bad = choosing()
    all_wrong = replace(bad, truth=np.roll(np.eye(3, dtype=bool)[bad.probabilities.argmax(axis=1)], 1, axis=1))
    nothing = issue(certification(), pool=select_pool(all_wrong, RULE))
    assert nothing.why_abstains == "every value was wrong too often on the choosing fold"
    assert issue(certification(n=0)).threshold is None


def test_a_failed_test_tells_how_many_labels_would_be_enough_at_the_same_error_rate() -> None:
    """4 of 100 wrong with a target of 95%: about where the exact binomial test passes."""
    first = replace(STEP, accepted=100, wrong=4)
    one = AcceptedSample.of(np.ones(100, dtype=bool), np.arange(100) < 4, np.arange(100))
    needed = products_needed(one, 0.95, 0.05, 1.0)
    assert p_not_certified(round(needed), round(0.04 * needed), 0.95) == pytest.approx(0.05, abs=0.005)
    text = claim.why_failed(first, needed, claim.CertificationFold(200, 0.22))
    assert text.endswith(f"about {ceil(200 * (needed / 100 - 1) / 0.22):,} more labelled products would be enough")
    hopeless = AcceptedSample.of(np.ones(100, dtype=bool), np.arange(100) < 5, np.arange(100))
    assert products_needed(hopeless, 0.95, 0.05, 1.0) == np.inf
    assert "error rate itself is too high" in claim.why_failed(first, np.inf, claim.CertificationFold(200, 0.22))
    nothing = claim.why_failed(replace(STEP, accepted=0, wrong=0), np.inf, claim.CertificationFold(200, 0.22))
    assert "error rate" not in nothing
    assert "label products that are like the unlabelled ones" in nothing


def test_no_products_to_fill_give_no_grid_and_so_no_certificate() -> None:
    certificate = issue(certification(), n=0)
    assert certificate.threshold is None
    assert "there are no unlabelled products" in certificate.why_abstains
    assert sum(certificate.histogram) == 0


def test_the_sequence_stops_at_the_first_failure() -> None:
    """What lies below a failure is not looked at, however good it is."""
    accept = np.repeat([0.9, 0.8, 0.7], [100, 100, 5000])
    error = np.where(np.arange(5200) < 1, accept, -np.inf)
    error[100:120] = 0.8
    sequence = sequencer(Units(accept, error))
    steps = sequence.fixed_sequence(np.array([0.9, 0.8, 0.7]), 0.95, 0.05)
    assert [(s.threshold, s.accepted, s.wrong, s.passed) for s in steps] == [(0.9, 100, 1, True), (0.8, 200, 21, False)]
    best = certify.last_passed(steps)
    assert best is not None
    assert best.threshold == 0.9
    assert certify.last_passed(steps[1:]) is None
    with pytest.raises(ValueError, match="strictly decreasing"):
        sequence.fixed_sequence(np.array([0.8, 0.9]), 0.95, 0.05)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(Cardinality))
def test_the_threshold_accepts_and_errs_from_itself_on(seed: int, cardinality: Cardinality) -> None:
    """score >= t on both sides: what the certificate counts is what a decision would write. Scores have many ties."""
    rng = np.random.default_rng(seed)
    probabilities = np.round(drawn(600, seed)[0], 1)
    truth = np.eye(3, dtype=bool)[probabilities.argmax(axis=1)] ^ (rng.random((600, 3)) < 0.005)
    fold = certification(n=600, probabilities=probabilities, truth=truth, cardinality=cardinality)
    chosen = select_pool(choosing(cardinality=cardinality), RULE)
    certificate = certify.certify_attribute(chosen, fold, unlabelled_products(600, seed + 1), RULE, BINDING)
    if certificate.threshold is None:
        return
    scores = probabilities.astype(np.float32).astype(np.float64)
    if cardinality is Cardinality.ONE:
        scores = np.where(np.eye(3, dtype=bool)[scores.argmax(axis=1)], scores, -1)
    written = (scores >= certificate.threshold) & chosen.mask
    assert certificate.accepted == written.any(axis=1).sum()
    assert certificate.wrong == (written & ~truth).any(axis=1).sum()


def test_certified_thresholds_keep_the_promise_where_plain_ones_break_it() -> None:
    """PRECISION's simulation, smaller: P(correct | s) = s^1.3, s ~ Beta(3, 1); precision above t is known exactly."""
    rng, draws, n = np.random.default_rng(11), 400, 2000
    support = np.sort(rng.beta(3, 1, 400_000))[::-1]
    true_precision = np.cumsum(support**1.3) / np.arange(1, len(support) + 1)
    size = GridSize(first=150, fewest=59, step=1.05)

    def precision_above(t: float) -> float:
        return float(true_precision[max(int(np.searchsorted(-support, -t, side="right")) - 1, 0)])

    certified_below = plain_below = certified = 0
    for _ in range(draws):
        scores = rng.beta(3, 1, n)
        right = rng.random(n) < scores**1.3
        grid = threshold_grid(rng.beta(3, 1, 5000), n, size)
        steps = sequencer(Units(scores, np.where(right, -np.inf, scores))).fixed_sequence(grid, 0.95, 0.05)
        if best := certify.last_passed(steps):
            certified += 1
            certified_below += precision_above(best.threshold) < 0.95
        plain = operating_point(scores, right, int(right.sum()), 0.95).threshold
        plain_below += plain is not None and precision_above(plain) < 0.95
    assert certified > 0.4 * draws
    assert certified_below <= 0.05 * draws
    assert plain_below > 0.4 * draws


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_mapie_computes_the_same_p_values(seed: int) -> None:
    """MAPIE's controller for precision: the p-values of the binomial test. Where its product n * (K / n) is rounded up
    they are at most those of one error more."""
    from mapie.risk_control import BinaryClassificationController

    rng = np.random.default_rng(seed)
    scores = rng.beta(6, 1, 1500)
    right = rng.random(1500) < np.minimum(scores + 0.05, 1)
    grid = threshold_grid(scores, 1500, GridSize(first=150, fewest=59, step=1.05))
    controller = BinaryClassificationController(
        predict_function=lambda x: np.column_stack([1 - x[:, 0], x[:, 0]]),
        risk="precision",
        target_level=0.95,
        confidence_level=0.95,
        list_predict_params=grid,
        fwer_method="bonferroni",
    ).calibrate(scores[:, None], right.astype(int))
    sequence = sequencer(Units(scores, np.where(right, -np.inf, scores)))
    ours = [sequence.test(threshold, 0.95, 0.05) for threshold in grid.tolist()]
    one_more = np.array([p_not_certified(test.accepted, test.wrong + 1, 0.95) for test in ours])
    p_values = np.array([test.p_value for test in ours])
    theirs = np.asarray(controller.p_values).ravel()
    assert np.isclose(theirs, p_values, rtol=1e-6).mean() > 0.5
    assert (theirs >= p_values * (1 - 1e-6)).all()
    assert (theirs <= one_more * (1 + 1e-6)).all()
