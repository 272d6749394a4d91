"""Every reason has a sentence that says why and what would change it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from catalog_enrichment.precision.certificate import RefusedCategory, RefusedLanguage
from catalog_enrichment.records import Modality, Reason
from catalog_enrichment.report import reasons
from catalog_enrichment.report.reasons import Case

from ..sample_certificate import abstention, certificate

PRODUCT = Case(attribute="color", value="Red", score=0.71, modality=Modality.BOTH, certificate=certificate())
MANY = replace(PRODUCT, value=None, score=None)
REFUSED = certificate(
    categories=("Apparel", "Footwear", "Footwear/Boots"),
    refused_categories=(RefusedCategory("Footwear", 3, 219, 800, language="en", labelled_missing=1500, why="few"),),
)
TWO_LANGUAGES = replace(
    REFUSED,
    languages=("en", "fr"),
    refused_languages=(
        RefusedLanguage("fr", accepted=3, missing=50, unlabelled_products=90, labelled_missing=300, why="few"),
    ),
)


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_has_a_sentence_with_and_without_facts(reason: Reason) -> None:
    bare = Case(attribute="color")
    for case in (bare, PRODUCT, MANY):
        text = reasons.sentence(reason, case)
        assert len(text) > 20
        assert not text.endswith(".")
        assert "None" not in text


@pytest.mark.parametrize(
    ("reason", "facts", "expected"),
    [
        (Reason.BELOW_THRESHOLD, {},
         "color of this product abstains: its score 0.710 is below the certified threshold 0.900; a better model, from "
         "more labelled products, may score it higher"),
        (Reason.CERTIFIED, {"score": 0.95},
         "'Red' is written: its score 0.950 is at or above the certified threshold 0.900"),
        (Reason.CERTIFICATE_EXPIRED, {}, "the certificate expired on 2026-05-30: train and promote a new version"),
        (Reason.NO_CERTIFICATE, {"certificate": None, "modality": Modality.TEXT_ONLY},
         "is not written for products without a usable picture: this version has no certificate for it"),
        (Reason.NO_CERTIFICATE, {"certificate": abstention(why_abstains="about 219 more such labelled products")},
         "is not written for products with text and picture: about 219 more such labelled products"),
        (Reason.UNSEEN_SLICE, {"certificate": REFUSED, "categories": ["Footwear/Boots"]},
         "about 1,500 more labelled products of Footwear are needed to certify it"),
        (Reason.UNSEEN_SLICE, {"certificate": REFUSED, "categories": ["Apparel", "Garden"], "languages": ["en"]},
         "category Garden had no labelled product"),
        (Reason.UNSEEN_SLICE, {"certificate": REFUSED, "categories": ["Apparel"], "languages": ["fr"]},
         "abstains: language fr had no labelled product"),
        (Reason.CERTIFICATE_MISMATCH, {"differing": ["compute type (certificate a, run b)"]},
         "differ in compute type (certificate a, run b); run"),
        (Reason.DISAGREES_WITH_MERCHANT, {"merchant_values": ["Blue"]}, "the merchant gave 'Blue'"),
        (Reason.VALUE_NOT_IN_POOL, {}, "'Red' is not among the certified values"),
        (Reason.NOT_APPLICABLE, {"categories": ["Home"]}, "color does not apply to category Home"),
        (Reason.SHOP_DISABLED, {"shop": "s1"}, "shop s1 is in enrich.disabled_shops"),
        (Reason.SCORING_FAILED, {"detail": "OSError"}, "could not score it (OSError)"),
        (Reason.UNSEEN_SLICE, {"certificate": TWO_LANGUAGES, "categories": ["Footwear"], "languages": ["en"]},
         "about 1,500 more labelled products of Footwear in language en are needed to certify it"),
        (Reason.UNSEEN_SLICE, {"certificate": TWO_LANGUAGES, "categories": ["Footwear"], "languages": ["fr"]},
         "is not written there: about 300 more labelled products in language fr are needed to certify it"),
        (Reason.UNSEEN_SLICE, {"certificate": REFUSED, "categories": ["Apparel"], "languages": ["en"]},
         "its category together with its language had no labelled product"),
        (Reason.IMAGE_UNREACHABLE, {}, "its attributes abstain and are tried again after 12 hours"),
        (Reason.SWITCHED_OFF, {}, "switched on again, the next run decides it again"),
        (Reason.PROVISIONAL_CAP, {}, "audit to confirm the certificate, or raise precision.provisional_cap"),
    ],
)  # fmt: skip
def test_the_sentence_names_the_facts(reason: Reason, facts: dict[str, Any], expected: str) -> None:
    assert expected in reasons.sentence(reason, replace(PRODUCT, **facts))


def test_a_sentence_about_many_products_names_no_score() -> None:
    text = reasons.sentence(Reason.BELOW_THRESHOLD, MANY)
    assert text.startswith("color abstains: the scores are below the certified threshold 0.900")


def test_what_a_mismatch_differs_in() -> None:
    issued = certificate()
    images = {"max_bytes": issued.max_image_bytes, "max_pixels": issued.max_image_pixels}
    assert reasons.differing_fields(issued, "fp32-cpu", images) == ["weights or preprocessing"]
    assert reasons.differing_fields(issued, None, {}) == ["weights or preprocessing"]
    assert reasons.differing_fields(issued, "bf16-cuda", images | {"max_bytes": 5, "max_pixels": 7}) == [
        "compute type (certificate fp32-cpu, run bf16-cuda)",
        "images.max_bytes (certificate 20000000, run 5)",
        "images.max_pixels (certificate 50000000, run 7)",
    ]


def test_the_numbers_of_a_certificate_are_explained() -> None:
    numbers = {one.name: one for one in reasons.certificate_numbers(certificate(use_number=2, tested_at=0.01))}
    shown = {name: one.value for name, one in numbers.items()}
    assert shown == {
        "threshold": "0.9000", "N": "400", "K": "8", "G": "300", "design effect": "1.20", "lower bound": "96.4%",
        "delta": "0.05", "use number": "2", "status": "provisional", "issued": "2026-03-01", "expires": "2026-05-30",
    }  # fmt: skip
    assert "confidence 99.0%" in numbers["lower bound"].meaning
    assert "0.01" in numbers["use number"].meaning
    assert "at most a limited number of values" in numbers["status"].meaning
    [status] = [one for one in reasons.certificate_numbers(certificate(), 12345) if one.name == "status"]
    assert "at most 12,345 values of the attribute may stand" in status.meaning


def test_one_value_or_several_wait() -> None:
    assert reasons.what_waits("color", 1).startswith("1 value waits under the provisional cap of color: audit")
    assert reasons.what_waits("color", 12345).startswith("12,345 values wait")
