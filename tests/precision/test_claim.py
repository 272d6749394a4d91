"""Certificates in words: the claim, and what is missing where there is none."""

from __future__ import annotations

from dataclasses import replace
from math import ceil, inf

import numpy as np
import pytest
from scipy import stats

from catalog_enrichment.precision import certify, claim
from catalog_enrichment.precision.certificate import Certificate, CertificateBasis, ThresholdTest
from catalog_enrichment.precision.cluster import AcceptedSample, products_needed
from catalog_enrichment.precision.thresholds import plan_thresholds
from catalog_enrichment.records import Cardinality, Modality

from ..sample_certificate import abstention, certificate
from .folds import REFUSED_CATEGORY, REFUSED_LANGUAGE, certification, unlabelled_products
from .test_certify import POOL, RULE


@pytest.mark.parametrize("basis", [CertificateBasis.MERCHANT_LABELS, CertificateBasis.VERDICTS])
def test_the_claim_names_its_unit_by_the_cardinality(basis: CertificateBasis) -> None:
    single, several = (claim.in_words(certificate(basis=basis), cardinality) for cardinality in Cardinality)
    assert single.startswith("Of the values of color written at scores >= 0.900000 for products with text and picture")
    assert several.startswith("Of the products given values of color written at scores >= 0.900000")


def test_a_certificate_in_one_line() -> None:
    assert claim.tested(abstention()) == "abstains: poor"
    assert claim.tested(certificate()) == "8 of 400 accepted certification products wrong: at least 96.4% right"
    assert claim.nothing_claimed("size", Modality.BOTH) == (
        "Nothing is claimed: size is not written for products with text and picture."
    )


REFUSED = certificate(
    categories=("Apparel", "Footwear", "Footwear/Boots"),
    refused_categories=(replace(REFUSED_CATEGORY, category="Footwear", labelled_missing=1500),),
)
TWO_LANGUAGES = replace(REFUSED, languages=("en", "fr"), refused_languages=(REFUSED_LANGUAGE,))


@pytest.mark.parametrize(
    ("issued", "category", "language", "expected"),
    [
        (REFUSED, "Footwear/Boots", "", "about 1,500 more labelled products of Footwear are needed to certify it"),
        (REFUSED, "Garden", "en", "category Garden had no labelled product"),
        (REFUSED, "Apparel", "fr", "abstains: language fr had no labelled product"),
        (REFUSED, "Apparel", "en", "its category together with its language had no labelled product"),
        (TWO_LANGUAGES, "Footwear", "en",
         "about 1,500 more labelled products of Footwear in language en are needed to certify it"),
        (TWO_LANGUAGES, "Footwear", "fr",
         "is not written there: about 90 more labelled products in language fr are needed to certify it"),
    ],
)  # fmt: skip
def test_what_a_certificate_does_not_cover(issued: Certificate, category: str, language: str, expected: str) -> None:
    assert expected in claim.unseen(issued, [category], [language] if language else [])


def test_what_a_mismatch_differs_in() -> None:
    issued = certificate()
    images = {"max_bytes": issued.max_image_bytes, "max_pixels": issued.max_image_pixels}
    assert claim.differing_fields(issued, "fp32-cpu", images) == ["weights or preprocessing"]
    assert claim.differing_fields(issued, None, {}) == ["weights or preprocessing"]
    assert claim.differing_fields(issued, "bf16-cuda", images | {"max_bytes": 5, "max_pixels": 7}) == [
        "compute type (certificate fp32-cpu, run bf16-cuda)",
        "images.max_bytes (certificate 20000000, run 5)",
        "images.max_pixels (certificate 50000000, run 7)",
    ]
    copies = {"keep_scaled": True, "scaled_side": 448}
    assert claim.differing_fields(issued, None, copies) == ["images.scaled_side (certificate 288, run 448)"]
    without = certificate(scaled_side=None)
    assert claim.differing_fields(without, None, copies) == ["images.keep_scaled (certificate False, run True)"]


def test_the_numbers_of_a_certificate_are_explained() -> None:
    numbers = {number.name: number for number in claim.certificate_numbers(certificate(use_number=2, tested_at=0.01))}
    shown = {name: number.value for name, number in numbers.items()}
    assert shown == {
        "threshold": "0.9000", "N": "400", "K": "8", "G": "300", "design effect": "1.20", "lower bound": "96.4%",
        "delta": "0.05", "use number": "2", "status": "provisional",
        "issued": "2026-03-01 UTC", "expires": "2026-05-30 UTC",
    }  # fmt: skip
    assert "confidence 99.0%" in numbers["lower bound"].meaning
    assert "0.01" in numbers["use number"].meaning
    assert "at most a limited number of values" in numbers["status"].meaning
    [status] = [number for number in claim.certificate_numbers(certificate(), 12345) if number.name == "status"]
    assert "at most 12,345 values of the attribute may stand" in status.meaning


def test_how_many_labels_are_missing_for_a_test() -> None:
    """Half of the unlabelled products can be accepted, 59 times the pool's design effect are needed."""
    scores = np.full((5000, 3), 0.1)
    scores[np.arange(5000), np.arange(5000) % 2 * 2] = 0.8  # red, which is in the pool, or blue, which is not
    unlabelled = unlabelled_products(probabilities=scores)
    fewest = plan_thresholds(POOL, 40, unlabelled, RULE, RULE.delta).size.fewest
    why = certify.why_untestable(POOL, certification(n=40), unlabelled, RULE, 1)
    missing = ceil((fewest - 20) / (0.5 * 0.22))
    assert f"of 40 labelled ones in the certification fold about 20 could be accepted, {fewest:.0f} are" in why
    assert why.endswith(f"needed; about {missing:,} more labelled products would be enough to test it")


def test_where_nothing_can_be_accepted_no_number_of_labels_is_named() -> None:
    only_blue = unlabelled_products(probabilities=np.tile([0.1, 0.1, 0.8], (5000, 1)))
    fewest = plan_thresholds(POOL, 2000, only_blue, RULE, RULE.delta).size.fewest
    why = certify.why_untestable(POOL, certification(), only_blue, RULE, 1)
    assert why.endswith(f"about 0 could be accepted, {ceil(fewest)} are needed")


def test_a_failed_test_tells_how_many_labels_would_be_enough_at_the_same_error_rate() -> None:
    """4 of 100 wrong with a target of 95%: about where the exact binomial test passes."""
    first = ThresholdTest(0.9, 100, 4, 100, 1.0, 0.3, 0.9, False)
    fold = certification(n=200)
    sample = AcceptedSample.of(np.ones(100, dtype=bool), np.arange(100) < 4, np.arange(100))
    needed = products_needed(sample, 0.95, 0.05, 1.0)
    assert stats.binom.cdf(round(0.04 * needed), round(needed), 0.05) == pytest.approx(0.05, abs=0.005)
    missing = ceil(200 * (needed / 100 - 1) / 0.22)
    assert claim.why_failed(first, needed, fold).endswith(f"about {missing:,} more labelled products would be enough")
    assert "error rate itself is too high" in claim.why_failed(first, inf, fold)
    nothing = claim.why_failed(ThresholdTest(0.9, 0, 0, 0, 1.0, 1.0, 0.0, False), inf, fold)
    assert "error rate" not in nothing
    assert "label products that are like the unlabelled ones" in nothing


def test_a_gold_sample_asks_for_answers() -> None:
    sample = certification(n=40, uniform=True, fold_share=1.0)
    why = certify.why_untestable(POOL, sample, unlabelled_products(), RULE, 1)
    assert "too few products: of 40 answers" in why
    assert "more answers to gold samples would be enough" in why
