"""Certificates that people's verdicts give: on audited values, and on drawn proposals."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from catalog_enrichment.config.schema import PrecisionConfig
from catalog_enrichment.precision.certificate import Certificate, CertificateBasis, CertificateStatus, UnseenSlice
from catalog_enrichment.precision.verdict_certificates import (
    AuditedFold,
    UnlabelledPopulation,
    Verdicts,
    audited_thresholds,
    from_audit,
    from_proposals,
    same_evidence,
    why_untestable,
)
from catalog_enrichment.precision.verdict_test import DrawnProducts
from catalog_enrichment.records import Cardinality, LabelUse

from ..sample_certificate import certificate
from .folds import REFUSED_CATEGORY, REFUSED_LANGUAGE
from .test_verdict_test import both, drawn, result_of

NOW = datetime(2026, 6, 1, tzinfo=UTC)
RULE = PrecisionConfig()
OLD = certificate(
    threshold=0.8, values=("red",), accept_rate=0.4, histogram=(5,) * 20, unseen_slices=(UnseenSlice("fr", "hats"),),
    refused_categories=(REFUSED_CATEGORY,), refused_languages=(REFUSED_LANGUAGE,),
)  # fmt: skip


# --- audited values ---------------------------------------------------------------------------------------------------


def fold(scores: np.ndarray, wrong: np.ndarray, **columns: Any) -> AuditedFold:
    content: dict[str, Any] = {
        "scores": scores, "wrong_scores": np.where(wrong, scores, -np.inf), "weights": np.ones(len(scores)),
        "groups": np.arange(len(scores)), "product_ids": tuple(f"p{n}" for n in range(len(scores))),
        "data_window": "2026-05-01/2026-05-09",
    }  # fmt: skip
    return AuditedFold(**(content | columns))


def right(n: int) -> AuditedFold:
    """Return n right values with the score .9."""
    return fold(np.full(n, 0.9), np.zeros(n, dtype=bool))


def over_confident(random: np.random.Generator, n: int = 800) -> AuditedFold:
    """Return scores from 0.8 to 1; below 0.9 a quarter is wrong, above it 1 in 100."""
    scores = random.uniform(0.8, 1.0, n)
    return fold(scores, random.random(n) < np.where(scores < 0.9, 0.25, 0.01))


def certified(of: AuditedFold, number: int = 1) -> Certificate:
    return from_audit(OLD, of, RULE, LabelUse(number=number, certification_round=3), NOW)


def test_what_was_declared_stays() -> None:
    old, fold = replace(OLD, trained_on="It was declared"), over_confident(np.random.default_rng(1))
    new = from_audit(old, fold, RULE, LabelUse(number=1, certification_round=3), NOW)
    assert new.trained_on == old.trained_on
    assert new.claim.endswith("It was declared.")
    assert new.certificate_id != certified(fold).certificate_id
    judged = from_proposals(old, verdicts(drawn(np.full(120, 0.8))), POPULATION, MONTH, NOW)
    assert judged.trained_on == old.trained_on


def test_the_new_threshold_is_where_the_values_are_right() -> None:
    new = certified(over_confident(np.random.default_rng(1)))
    assert new.threshold is not None
    assert 0.88 < new.threshold < 0.93
    assert new.status is CertificateStatus.CONFIRMED
    assert new.lower_bound >= 0.95
    assert (new.accepted, new.wrong) == (new.steps[-2].accepted, new.steps[-2].wrong)
    assert new.accept_rate == pytest.approx(0.4 * (1 - new.threshold) / 0.2, abs=0.03)
    assert (new.scored_by, new.standard) == (OLD.scored_by, OLD.standard)
    for name in ("values", "histogram", "suggest_threshold", "unlabelled_products", "unlabelled_near_duplicate_rate"):
        assert getattr(new, name) == getattr(OLD, name)
    for name in ("categories", "languages", "refused_categories", "refused_languages", "unseen_slices"):
        assert getattr(new, name) == getattr(OLD, name) != ()
    assert (new.issued_at, new.data_window, new.certification_round) == (NOW, "2026-05-01/2026-05-09", 3)
    assert new.certificate_id != OLD.certificate_id
    assert f"scores >= {new.threshold:.6f}" in new.claim


def test_no_threshold_below_the_old_one_is_tested() -> None:
    scores = np.linspace(0.5, 1.0, 1000)
    spread = fold(scores, np.zeros(1000, dtype=bool))
    thresholds = audited_thresholds(OLD, spread, RULE, 1)
    assert thresholds[-1] == 0.8 == certified(spread).threshold
    assert (np.diff(thresholds) < 0).all()
    assert thresholds[0] == pytest.approx(1 - 0.5 * 0.15, abs=0.001), "the first accepts 150"
    tenth = audited_thresholds(OLD, spread, RULE, 10)
    assert tenth[0] == pytest.approx(1 - 0.5 * 0.302, abs=0.001), "twice what a model without an error needs"


def test_where_no_threshold_passes_it_abstains_and_says_why() -> None:
    random = np.random.default_rng(2)
    bad = certified(fold(random.uniform(0.8, 1.0, 400), random.random(400) < 0.3))
    assert bad.threshold is None
    assert bad.status is CertificateStatus.PROVISIONAL
    assert "audited values are wrong at the first threshold" in bad.why_abstains
    few = right(40)
    assert "40 uniformly drawn values were judged since the pause and at least 59" in certified(few).why_abstains
    assert certified(few).steps == ()
    assert why_untestable(right(59), RULE, 1) == ""
    several = why_untestable(replace(few, cardinality=Cardinality.MANY), RULE, 1)
    assert "40 uniformly drawn values, with all values of their products, were judged" in several


@pytest.mark.parametrize(("one_in", "drawn"), [(33, 198), (33, 231), (25, 300)])
def test_with_the_verdicts_that_it_advises_a_model_of_the_same_error_rate_passes(one_in: int, drawn: int) -> None:
    def of(count: int) -> AuditedFold:
        return fold(np.full(count, 0.9), np.arange(count) % one_in == 1)

    failed = certified(of(drawn))
    assert failed.threshold is None
    match = re.search(r"draw and judge about ([\d,]+) more, or train a better model", failed.why_abstains)
    assert match is not None
    more = int(match[1].replace(",", ""))
    assert certified(of((drawn + more) * 115 // 100), number=2).threshold is not None
    assert certified(of((drawn + more) * 85 // 100), number=2).threshold is None


def test_where_the_values_are_too_often_wrong_it_advises_no_verdicts() -> None:
    bad = certified(fold(np.full(400, 0.9), np.arange(400) % 10 == 1))
    assert bad.why_abstains.endswith("the error rate itself is too high: a better model is needed")


def test_a_later_use_of_the_labels_spends_less() -> None:
    once, again = (certified(right(70), number) for number in (1, 2))
    assert once.threshold is not None
    assert again.threshold is None
    assert again.tested_at == pytest.approx(0.05 / 6)


def test_equal_listings_count_as_one_group() -> None:
    assert certified(right(120)).threshold is not None
    assert certified(replace(right(120), groups=np.repeat(np.arange(20), 6))).threshold is None


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


def several_values(random: np.random.Generator) -> tuple[AuditedFold, np.ndarray, np.ndarray]:
    """Draw values of 2,000 products with one to three values, each with the same chance. Products with three values are
    wrong four times as often. Return the fold, and (m,) scores and wrong scores of all products."""
    count = random.integers(1, 4, 2000)
    scores = random.uniform(0.8, 1.0, 2000)
    wrong = random.random(2000) < 0.12 * (1 - scores) / 0.1 * np.where(count == 3, 1.0, 0.25)
    wrong_scores = np.where(wrong, scores - random.uniform(0, 0.05, 2000), -np.inf)
    draws = random.choice(np.repeat(np.arange(2000), count), 600, replace=False)
    audited = fold(
        scores[draws], wrong[draws], wrong_scores=wrong_scores[draws], weights=1 / count[draws],
        groups=np.unique(draws, return_inverse=True)[1], product_ids=tuple(f"p{n}" for n in draws),
        cardinality=Cardinality.MANY,
    )  # fmt: skip
    return audited, scores, wrong_scores


def test_of_several_values_a_product_counts_with_all_of_them() -> None:
    random, violated, issued, shares = np.random.default_rng(4), 0, 0, []
    for _ in range(200):
        audited, scores, wrong_scores = several_values(random)
        new = certified(audited)
        if new.threshold is not None:
            accepted = scores >= new.threshold
            issued += 1
            violated += (wrong_scores >= new.threshold)[accepted].mean() > 0.05
            shares.append(new.accept_rate / 0.4 - accepted.mean())
    assert issued > 100
    assert violated / 200 <= 0.05
    assert np.mean(shares) == pytest.approx(0, abs=0.01), "by the weights, products with several values count once"


def test_a_wrong_value_below_the_threshold_is_not_written_and_does_not_count() -> None:
    below, at = (certified(replace(right(100), wrong_scores=np.full(100, score))) for score in (0.85, 0.9))
    assert (below.threshold, at.threshold) == (pytest.approx(0.9), None)


def three_and_one(number_wrong: int, single_score: float = 0.95) -> AuditedFold:
    """Return all draws of 400 right products with three values, and of 200 with one value, of which some are wrong."""
    draws = np.concatenate([np.repeat(np.arange(400), 3), np.arange(400, 600)])
    scores = np.where(draws < 400, 0.95, single_score)
    wrong = (draws >= 400) & (draws < 400 + number_wrong)
    return fold(
        scores, wrong, weights=np.where(draws < 400, 1 / 3, 1.0), groups=draws, product_ids=tuple(map(str, draws)),
        cardinality=Cardinality.MANY,
    )  # fmt: skip


def test_products_with_several_values_do_not_count_by_their_number() -> None:
    audited = three_and_one(40)  # of 600 products: 6.7%; of the draws 2.9%
    assert certified(audited).threshold is None
    assert certified(replace(audited, weights=np.ones(1400))).threshold is not None
    apart = certified(three_and_one(200, single_score=0.85))
    assert apart.threshold == 0.95
    assert apart.accept_rate == pytest.approx(0.4 * 400 / 600)


# --- drawn proposals --------------------------------------------------------------------------------------------------

MONTH = PrecisionConfig(valid_days=30)
POPULATION = UnlabelledPopulation(
    products=1000, histogram=(50,) * 20, accept_rate=0.8, slices={("en", "A"), ("de", "B"), ("", "")}
)


def verdicts(of: DrawnProducts, **changes: Any) -> Verdicts:
    content: dict[str, Any] = {
        "drawn": of, "content_hashes": tuple(f"c{place // 2}" for place in range(len(of))), "test": result_of(of),
        "data_window": "2026-05-01/2026-05-02", "values": ("red", "green", "blue"), "cardinality": Cardinality.ONE,
    }  # fmt: skip
    return Verdicts(**(content | changes))


def issue(of: DrawnProducts, old: Certificate | None = None, **changes: Any) -> Certificate:
    return from_proposals(old or certificate(), verdicts(of, **changes), POPULATION, MONTH, NOW)


def test_the_certificate_of_a_threshold() -> None:
    old = certificate(unlabelled_near_duplicate_rate=0.4, suggest_threshold=0.7)
    of = drawn(np.full(120, 0.8), [10])
    new = issue(of, old)
    assert (new.threshold, new.accepted, new.wrong, new.groups, new.deff) == (0.8, 120, 1, 60, 1.0)
    assert (new.basis, new.status) == (CertificateBasis.VERDICTS, CertificateStatus.CONFIRMED)
    assert new.values == ("red", "green", "blue")
    assert (new.use_number, new.tested_at, new.certification_round) == (1, MONTH.delta, 0)
    assert (new.accept_rate, new.histogram, new.unlabelled_products) == (0.8, (50,) * 20, 1000)
    assert (new.languages, new.categories) == (("", "de", "en"), ("", "A", "B"))
    assert {(row.language, row.category) for row in new.unseen_slices} == {
        (language, category) for language in ("", "de", "en") for category in ("", "A", "B")
    } - {("en", "A"), ("de", "B"), ("", "")}
    assert new.expires_at == NOW + timedelta(days=30)
    assert (new.unlabelled_near_duplicate_rate, new.certification_near_duplicate_rate) == (0.4, 0.4)
    assert new.scored_by == old.scored_by
    assert new.suggest_threshold == 0.7
    assert new.lower_bound >= 0.95
    (only,) = new.steps
    assert only.passed
    assert only.p_value == pytest.approx(1 / result_of(of).steps[0].wealth)
    assert new.from_dict(new.to_dict()) == new
    for words in ("120 such products", "1 wrong", "0.800000", "95.0% are right", "with text and picture"):
        assert words in new.claim


def test_a_certificate_counts_only_what_was_judged() -> None:
    settled = np.arange(200) < 120
    of = drawn(np.full(200, 0.8), [10, 150], settled=settled)
    assert of.judged_at(0.8).tolist() == list(range(120))
    new = issue(of)
    assert (new.accepted, new.wrong, new.groups, new.certification_products) == (120, 1, 60, 120)
    assert new.steps[0].groups == 60
    later = drawn(np.full(200, 0.8), [10], settled=settled)  # a verdict behind the judged products is no evidence yet
    assert same_evidence(new, issue(later))


def test_suggestions_below_a_threshold_only() -> None:
    assert issue(drawn(np.full(120, 0.8)), certificate(suggest_threshold=0.85)).suggest_threshold is None


def test_a_second_sequence_says_its_share_of_delta() -> None:
    of = both(drawn(np.linspace(0.1, 0.6, 300), range(300)), drawn(np.full(140, 0.9)), lowest=0.8)
    new = issue(of)
    assert (new.use_number, new.tested_at) == (2, MONTH.delta / 6)
    assert "at most 0.00833" in new.claim


def test_the_same_verdicts_are_the_same_evidence_at_any_time() -> None:
    of = verdicts(drawn(np.full(120, 0.8), [10]))
    first = from_proposals(certificate(), of, POPULATION, MONTH, NOW)
    later = from_proposals(certificate(), of, POPULATION, MONTH, NOW + timedelta(days=1))
    assert first.certificate_id != later.certificate_id
    assert same_evidence(first, later)
    assert not same_evidence(first, issue(drawn(np.full(120, 0.8), [11])))
    assert not same_evidence(first, replace(first, basis=CertificateBasis.AUDIT))


def test_nothing_is_issued_for_a_threshold_that_is_not_certified() -> None:
    with pytest.raises(ValueError, match="no threshold is certified"):
        issue(drawn(np.full(20, 0.8)))


def test_the_claim_of_several_values_is_about_products() -> None:
    assert "products given values" in issue(drawn(np.full(120, 0.8)), cardinality=Cardinality.MANY).claim
