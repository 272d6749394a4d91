"""Certificates keep their promise: folds that stay apart, the test of a threshold, the share of delta (I2)."""

from __future__ import annotations

import re
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from math import ceil
from typing import Any

import numpy as np
import pytest
from scipy import stats

from catalog_enrichment.config.schema import PrecisionConfig
from catalog_enrichment.precision import certify
from catalog_enrichment.precision.alike import AlikenessTest, side_of
from catalog_enrichment.precision.certificate import Certificate, CertificateBasis, CertificateStatus, UnseenSlice
from catalog_enrichment.precision.certify import CertificateBinding, FoldTest, score_histogram
from catalog_enrichment.precision.pool import Pool, select_pool
from catalog_enrichment.precision.strata import Cells
from catalog_enrichment.precision.units import (
    CertificationScores,
    StratifiedProducts,
    Units,
    ValueCount,
    accept_scores,
    units_from,
)
from catalog_enrichment.records import Cardinality, LabelUse, Modality

from ..sample_certificate import SCORED_BY, STANDARD, abstention
from .folds import certification, choosing, drawn, unlabelled_products

RULE = PrecisionConfig()
POOL = select_pool(choosing(), RULE)
BINDING = CertificateBinding(
    modality=Modality.BOTH,
    scored_by=SCORED_BY,
    label_set_hash="l",
    use=LabelUse(number=1, certification_round=1),
    data_window="all",
    issued_at=datetime(2026, 1, 2, tzinfo=UTC),
)


def issue(fold: CertificationScores, *, pool: Pool = POOL, use: int = 1, **changes: Any) -> Certificate:
    """Return the certificate of ``fold``; ``changes`` of the unlabelled products."""
    binding = replace(BINDING, use=LabelUse(number=use, certification_round=1))
    return certify.certify_attribute(pool, fold, unlabelled_products(**changes), RULE, binding)


def fold_test(units: Units, **changes: Any) -> FoldTest:
    """Return the test of groups of one product and weights of 1, with some fields changed."""
    n = len(units)
    products = StratifiedProducts(
        languages=["en"] * n, categories=[""] * n, group_sizes=np.ones(n, dtype=np.int64), counts=np.ones(n)
    )
    usual: dict[str, Any] = {"groups": np.arange(n), "correlation": 1.0, "target": 0.95, "delta": 0.05}
    return FoldTest(units=units, cells=Cells(products, products), **(usual | changes))


def test_the_pool_cannot_be_chosen_on_certification_labels() -> None:
    """A pool remembers which content groups and labels chose it."""
    fold = certification()
    same_groups = choosing(n=2000, groups=fold.groups)
    with pytest.raises(ValueError, match="2000 content groups are in both the choosing and the certification fold"):
        issue(fold, pool=select_pool(same_groups, RULE))
    with pytest.raises(ValueError, match=r"pool is for color \(.*, the certification fold for color"):
        issue(replace(fold, labels=("red", "blue", "green")))


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
    week = certify.certify_attribute(POOL, fold, unlabelled_products(), replace(RULE, valid_days=7), BINDING)
    assert week.expires_at == BINDING.issued_at + timedelta(days=7)
    assert (certificate.categories, certificate.languages) == (("", "shoes"), ("en",))
    assert [stratum.name for stratum in certificate.strata] == ["no category, groups of 1", "shoes, groups of 1"]
    assert (certificate.certification_products, certificate.unlabelled_products) == (2000, 5000)
    assert (certificate.certification_near_duplicate_rate, certificate.unlabelled_near_duplicate_rate) == (0.0, 0.5)
    assert (certificate.use_number, certificate.certification_round, certificate.tested_at) == (1, 1, 0.05)
    assert certificate.scored_by == SCORED_BY
    accept = accept_scores(unlabelled_products().probabilities, fold.cardinality, np.array([True, True, False]))
    assert (accept == certificate.threshold).any()  # a threshold is a score, which it accepts
    assert certificate.accept_rate == (accept >= certificate.threshold).mean()
    assert sum(certificate.histogram) == 5000
    assert "at least 95.0% are right" in certificate.claim


def test_the_accepted_values_are_counted_apart() -> None:
    """Values outside of the pool, scores below the threshold and products of weight 0 do not count."""
    certificate = issue(certification())
    assert [row.value for row in certificate.by_value] == ["red", "green"], "most accepted first; blue is not written"
    assert sum(row.accepted for row in certificate.by_value) == certificate.accepted
    assert sum(row.wrong for row in certificate.by_value) == certificate.wrong > 0
    fold = certification(n=4, probabilities=np.array([[0.9, 0.1, 0], [0.8, 0.2, 0], [0.1, 0.9, 0], [0.1, 0.1, 0.8]]),
                         truth=np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 1]], dtype=bool))  # fmt: skip
    counted = certify.values_counted(fold, POOL, float(np.float32(0.8)), np.array([True, True, False, True]))
    assert counted == (ValueCount("red", 2, 1),)
    several = replace(POOL, cardinality=Cardinality.MANY)
    counted = certify.values_counted(fold, several, float(np.float32(0.2)), np.ones(4, dtype=bool))
    assert counted == (ValueCount("green", 2, 1), ValueCount("red", 2, 1))
    assert abstention().by_value == ()


def test_every_product_of_a_content_group_counts_and_groups_that_err_together_cost() -> None:
    """The same scores and labels, each product twice: alone, and as the pair of one content group."""
    fold = certification(n=1000)
    twice = np.repeat(np.arange(1000), 2)
    doubled = certification(
        n=2000, probabilities=fold.probabilities[twice], truth=fold.truth[twice], groups=twice,
        categories=["shoes"] * 2000, group_sizes=np.full(2000, 2),
    )  # fmt: skip
    given = {"categories": ["shoes"] * 5000, "group_sizes": np.full(5000, 2)}
    paired, alone = issue(doubled, **given), issue(replace(doubled, groups=np.arange(2000)), **given)
    assert (paired.steps[0].accepted, paired.steps[0].wrong) == (alone.steps[0].accepted, alone.steps[0].wrong)
    assert paired.steps[0].groups * 2 == alone.steps[0].groups
    last = len(paired.steps) - 1
    assert paired.steps[last].wrong > 5
    assert paired.steps[last].p_value > alone.steps[last].p_value
    assert paired.steps[last].deff == pytest.approx(2.0, abs=0.1)


def test_the_test_uses_the_correlation_that_the_choosing_fold_shows() -> None:
    """60 groups of 4 without an error."""
    units = Units(np.full(240, 0.9), np.full(240, -np.inf))
    assert fold_test(units, groups=np.arange(240) // 4, correlation=0.25)(0.9).deff == pytest.approx(1.75)


def test_a_p_value_of_exactly_delta_passes() -> None:
    units = Units(np.full(100, 0.9), np.where(np.arange(100) < 1, 0.9, -np.inf))
    p_value = fold_test(units)(0.9).p_value
    assert fold_test(units, delta=p_value)(0.9).passed
    assert not fold_test(units, delta=p_value - 1e-9)(0.9).passed


def test_what_is_unexplained_counts_as_wrong_whatever_the_labels_say() -> None:
    """5 of 1,000 labelled products are wrong; 2% of the accepted unlabelled products are unexplained, or 6%."""
    units = Units(np.full(1000, 0.9), np.where(np.arange(1000) < 5, 0.9, -np.inf))
    test, hopeless = fold_test(units, unexplained=lambda _: 0.02), fold_test(units, unexplained=lambda _: 0.06)
    step = test(0.9)
    assert (step.passed, step.unexplained) == (True, pytest.approx(0.02))
    assert step.p_value == pytest.approx(float(stats.binom.cdf(5, 1000, 1 - 0.95 / 0.98)))
    assert step.lower_bound == pytest.approx(0.98 * fold_test(units)(0.9).lower_bound)
    assert (hopeless(0.9).p_value, hopeless(0.9).passed) == (1.0, False)
    assert (hopeless.needed(0.9), np.isfinite(test.needed(0.9))) == (np.inf, True)


def test_where_the_sides_differ_half_of_delta_is_for_the_test_and_half_for_the_unexplained() -> None:
    """300 of 5,000 unlabelled products have no value; their scores and the classifier's outputs are lower."""
    fold, none = certification(skill=1.0), np.arange(5000) < 300
    outputs = np.random.default_rng(0).standard_normal(7000)
    scores = drawn(5000, 3)[0].max(axis=1) * np.where(none, 0.8, 1.0)
    comparison = AlikenessTest(
        side_of(fold.probabilities.max(axis=1), outputs[:2000], np.arange(2000), np.ones(2000)),
        side_of(scores, outputs[2000:] - 3 * none, np.arange(2000, 7000), np.ones(5000)),
    )
    certificate = certify.certify_attribute(POOL, fold, unlabelled_products(), RULE, BINDING, comparison)
    assert certificate.threshold is not None
    assert certificate.alikeness == comparison.result
    assert 0.01 < certificate.unexplained == pytest.approx(comparison.unexplained(certificate.threshold, 0.025))
    last = certificate.steps[-1]
    assert (0.025 < last.p_value < 0.05, last.passed) == (True, False)


def test_answers_to_a_gold_sample_are_confirmed_and_have_weights_of_1() -> None:
    """Where merchants' labels would refuse toys, of which there are few, the sample represents them."""
    categories = {"categories": ["shoes"] * 1985 + ["toys"] * 15}
    binding = replace(BINDING, basis=CertificateBasis.GOLD_SAMPLE)
    fold, unlabelled = certification(uniform=True, **categories), unlabelled_products(2000, **categories)
    certificate = certify.certify_attribute(POOL, fold, unlabelled, RULE, binding)
    assert certificate.status is CertificateStatus.CONFIRMED
    assert (certificate.strata, certificate.refused_categories, certificate.unlabelled_products) == ((), (), 2000)
    assert issue(certification()).status is CertificateStatus.PROVISIONAL


def test_a_later_use_of_the_labels_spends_a_smaller_share_and_starts_with_more_products() -> None:
    once, tenth = issue(certification()), issue(certification(), use=10)
    assert (tenth.use_number, tenth.tested_at) == (10, pytest.approx(0.05 / 110))
    assert (tenth.threshold or 0) > (once.threshold or 1)
    assert all(step.p_value <= 0.05 / 110 for step in tenth.steps if step.passed)
    assert tenth.steps[0].accepted > once.steps[0].accepted
    assert tenth.lower_bound >= 0.95


def test_unlabelled_products_that_lean_to_the_weaker_category_are_certified_as_such() -> None:
    """A tenth of the bags is wrong; a quarter of the fold are bags, of the unlabelled a quarter or most."""
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
    below = POOL.units.accept < np.quantile(POOL.units.accept, 0.92)
    units = replace(POOL.units, error=np.where(below, POOL.units.accept, -np.inf))
    categories = (["shoes"] * 9 + ["bags"]) * 500
    certificate = issue(replace(fold, truth=truth), pool=replace(POOL, units=units), categories=categories)
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


def test_the_claim_says_that_few_unlabelled_products_can_differ_from_their_population() -> None:
    few, many = issue(certification()), issue(certification(), n=5000, counts=np.full(5000, 4.0))
    assert "There are 5000 unlabelled products, fewer than 10 times the 2000 certification products" in few.claim
    assert many.unlabelled_products == 20_000
    assert "fewer than 10 times" not in many.claim


def allowed(certificate: Certificate, category: str, language: str = "en") -> bool:
    """Return whether the certificate may be used for a product, the day it was issued."""
    rejection = certificate.rejection_reason(
        scored_by=SCORED_BY, standard=STANDARD, modality=Modality.BOTH, now=BINDING.issued_at, category=category,
        language=language,
    )  # fmt: skip
    return rejection is None


@pytest.mark.parametrize("french", [15, 40])
def test_a_few_certification_products_of_a_language_do_not_admit_its_unlabelled_products(french: int) -> None:
    """15 or 40 of 2,000 certification products are French, none is Japanese: too few, or a weight above 20."""
    fold = certification(languages=["fr"] * french + ["en"] * (2000 - french), categories=["shoes"] * 2000)
    certificate = issue(fold, categories=["shoes"] * 5000, languages=["fr"] * 4000 + ["en"] * 900 + ["ja"] * 100)
    assert certificate.threshold is not None
    assert allowed(certificate, "shoes", "en")
    assert not allowed(certificate, "shoes", "fr")
    assert not allowed(certificate, "shoes", "ja")
    assert (certificate.unlabelled_products, certificate.languages) == (900, ("en", "fr"))
    refused = [row.language for row in (*certificate.refused_languages, *certificate.refused_categories)]
    assert refused == ["fr"]
    assert ("language fr" if french == 15 else "shoes in language fr") in certificate.claim


def test_a_category_without_unlabelled_products_is_not_certified_for_later_ones() -> None:
    """Nothing is written to hats until a certificate sees unlabelled hats."""
    fold = certification(categories=["shoes"] * 1940 + ["hats"] * 60)
    certificate = issue(fold, categories=["shoes"] * 5000)
    assert certificate.threshold is not None
    assert (certificate.categories, allowed(certificate, "hats")) == (("shoes",), False)
    both = issue(replace(fold, languages=["en"] * 1970 + ["fr"] * 30), categories=["shoes"] * 4900 + ["hats"] * 100)
    assert both.categories == ("hats", "shoes")
    assert not allowed(both, "hats", "fr")  # no French hat is unlabelled


def test_a_poor_attribute_abstains_and_says_why() -> None:
    poor = issue(certification(skill=0.6))
    assert "wrong at the first threshold" in poor.why_abstains
    assert poor.why_abstains.endswith("the error rate itself is too high: a better model is needed")
    assert (poor.threshold, poor.accepted, poor.wrong, poor.lower_bound, poor.accept_rate) == (None, 0, 0, 0.0, 0.0)
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


def test_without_unlabelled_products_there_is_no_grid_and_so_no_certificate() -> None:
    certificate = issue(certification(), n=0)
    assert "there are no unlabelled products" in certificate.why_abstains
    assert sum(certificate.histogram) == 0


def test_an_abstention_claims_counts_and_lists_nothing() -> None:
    binding = replace(BINDING, use=LabelUse(number=2, certification_round=3), modality=Modality.TEXT_ONLY)
    given = certify.abstention("color", "poor", RULE, binding).to_dict()
    given.pop("certificate_id")
    empty = ("values", "strata", "refused_categories", "refused_languages", "unseen_slices", "categories", "languages")
    zero = (
        "accepted", "wrong", "groups", "certification_products", "unlabelled_products", "lower_bound", "accept_rate",
        "certification_near_duplicate_rate", "unlabelled_near_duplicate_rate",
    )  # fmt: skip
    assert given == {
        "contract": 1, "attribute": "color", "modality": "text_only", "threshold": None, "why_abstains": "poor",
        "score_type": "float64 of float32", "unit": "product", "status": "provisional",
        "basis": "merchant_labels", "deff": 1.0, "alikeness": None, "unexplained": 0.0,
        "suggest_threshold": None, "histogram": [0] * 20, "steps": [], **dict.fromkeys(zero, 0),
        **{name: [] for name in empty},
        "target": 0.95, "delta": 0.05, "use_number": 2, "certification_round": 3, "tested_at": 0.05 / 6,
        "claim": "Nothing is claimed: color is not written for products without a usable picture.",
        "label_set_hash": "l", "data_window": "all", **asdict(SCORED_BY),
        "issued_at": "2026-01-02T00:00:00.000000+00:00", "expires_at": "2026-04-02T00:00:00.000000+00:00",
    }  # fmt: skip


@pytest.mark.parametrize(("n", "use", "few"), [(40, 1, True), (100, 1, False), (2000, 1, False), (100, 10, True)])
def test_an_untestable_attribute_has_no_steps_and_the_reason_known_before(n: int, use: int, few: bool) -> None:
    fold = certification(n=n)
    why, issued = certify.why_untestable(POOL, fold, unlabelled_products(), RULE, use), issue(fold, use=use)
    assert ("too few products" in why) == few == bool(why)
    assert few == (issued.steps == ())
    assert not few or issued.why_abstains == why


def test_the_key_of_a_candidate_covers_weights_pool_grid_and_rule() -> None:
    def key(weights: str = "w", n: int = 2000, seed: int = 3, **changes: Any) -> str:
        pool = replace(POOL, **{name: changes.pop(name) for name in ("deff", "mask", "units") if name in changes})
        return certify.candidate_key(weights, pool, n, unlabelled_products(seed=seed), replace(RULE, **changes))

    keys = [
        key(), key("x"), key(n=1000), key(seed=9), key(target=0.9), key(delta=0.1), key(step=1.2), key(deff=2.0),
        key(units=replace(POOL.units, error=POOL.units.accept)), key(mask=np.array([True, False, False])),
    ]  # fmt: skip
    assert len(set(keys)) == len(keys)
    assert key() == key(valid_days=1)


def test_the_slices_are_sorted_and_slices_without_a_product_are_named() -> None:
    apart = {"languages": ["pl", "nl", "fr", "en"] * 500, "categories": ["d", "c", "b", "a"] * 500}
    issued = issue(certification(**apart), n=2000, **apart)
    assert (issued.languages, issued.categories) == (("en", "fr", "nl", "pl"), ("a", "b", "c", "d"))
    pairs = [(language, name) for language in ("en", "fr", "nl", "pl") for name in "abcd"]
    assert issued.unseen_slices == tuple(UnseenSlice(*pair) for number, pair in enumerate(pairs) if number % 5)


def test_the_histogram_counts_each_products_best_score_in_twentieths_of_0_to_1() -> None:
    assert score_histogram([0.0, 0.02, 0.05, 0.5, 0.99, 1.0]) == (2, 1, *[0] * 8, 1, *[0] * 8, 2)
    assert score_histogram([0.31, 0.56]) == (*[0] * 6, 1, *[0] * 4, 1, *[0] * 8)
    issued = issue(certification())
    assert issued.histogram == score_histogram(unlabelled_products().probabilities.astype(np.float32).max(axis=1))
