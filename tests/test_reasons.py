"""Every reason has a sentence that says why and what would change it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from catalog_enrichment import reasons
from catalog_enrichment.reasons import Case, Reason

from .sample_certificate import abstention, certificate

PRODUCT = Case(attribute="color", value="Red", score=0.71, products="with text and picture", certificate=certificate())
MANY = replace(PRODUCT, value=None, score=None)


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
        (Reason.NO_CERTIFICATE, {"certificate": None, "products": "without a usable picture"},
         "is not written for products without a usable picture: this version has no certificate for it"),
        (Reason.NO_CERTIFICATE, {"certificate": abstention(why_abstains="about 219 more such labelled products")},
         "is not written for products with text and picture: about 219 more such labelled products"),
        (Reason.UNSEEN_SLICE, {"unseen": "abstains: category Home had no labelled product"},
         "color of this product abstains: category Home had no labelled product"),
        (Reason.UNSEEN_SLICE, {}, "color of this product abstains: its category or language was not certified"),
        (Reason.CERTIFICATE_MISMATCH, {"differing": ["compute type (certificate a, run b)"]},
         "differ in compute type (certificate a, run b); run"),
        (Reason.DISAGREES_WITH_MERCHANT, {"merchant_values": ["Blue"]}, "the merchant gave 'Blue'"),
        (Reason.VALUE_NOT_IN_POOL, {}, "'Red' is not among the certified values"),
        (Reason.NOT_APPLICABLE, {"category": "Home"}, "color does not apply to category Home"),
        (Reason.SHOP_DISABLED, {"shop": "s1"}, "shop s1 is in enrich.disabled_shops"),
        (Reason.SCORING_FAILED, {"detail": "OSError"}, "could not score it (OSError)"),
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


def test_one_value_or_several_wait() -> None:
    assert reasons.waiting("color", 1).startswith("1 value waits under the provisional cap of color: audit")
    assert reasons.waiting("color", 12345).startswith("12,345 values wait")


NOT_WRITTEN = {
    "drift": {
        "pauses": [{"attribute": "color", "stratum": "both/en/Apparel", "why": "accept rate 9.0% instead of 50%"}]
    },
    "paused": [
        "stratum color both/en/Apparel is paused: accept rate 9.0% instead of 50%",
        "shop <shop-7> is off: asked by mail",
    ],
    "unseen": {"color": {"category Toys/Puzzles": 1200}, "material": {"Finnish": 3, "category Hats": 1}},
}
LINES = [
    "color both/en/Apparel is paused: accept rate 9.0% instead of 50%",
    "not on: shop <shop-7> is off: asked by mail",
    "color is not certified for: category Toys/Puzzles (1,200 products)",
    "material is not certified for: Finnish (3 products), category Hats (1 products)",
]


def test_what_a_run_did_not_write_is_named_once() -> None:
    assert [*reasons.drifted(NOT_WRITTEN), *reasons.not_covered(NOT_WRITTEN)] == LINES
    assert [*reasons.drifted({}), *reasons.not_covered({})] == []
