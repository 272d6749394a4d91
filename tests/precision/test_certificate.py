"""A certificate travels as plain JSON, cannot be edited, and says when it may not be used (I2)."""

from __future__ import annotations

import json
import pickle
from dataclasses import asdict, replace
from datetime import datetime, timedelta, timezone
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog_enrichment import resources
from catalog_enrichment.errors import ModelContractError
from catalog_enrichment.precision.certificate import (
    Alikeness,
    Certificate,
    CertificateStatus,
    Standard,
    Stratum,
    ThresholdTest,
    UnseenSlice,
)
from catalog_enrichment.precision.units import ValueCount
from catalog_enrichment.reasons import Reason
from catalog_enrichment.records import Modality

from ..sample_certificate import ISSUED_AT, SCORED_BY, STANDARD, abstention, certificate
from .folds import REFUSED_CATEGORY, REFUSED_LANGUAGE

NOW = ISSUED_AT + timedelta(days=1)
STEP = ThresholdTest(0.9, 400, 8, 300, 1.2, 0.001, 0.9641, True)
STRATUM = Stratum("shoes, groups of 1", 900, 380, 0.7, 0.8)
UNSEEN = UnseenSlice("de", "shoes")
ALIKENESS = Alikeness(
    labelled=900, unlabelled=800, score_distance=0.1, score_p_value=0.5, auc=0.51, auc_p_value=0.4,
    noticeable_share=0.1, below_tenth=0.1, level=0.1,
)  # fmt: skip


def rejection(of: Certificate, **changes: Any) -> Reason | None:
    usual: dict[str, Any] = {
        "scored_by": SCORED_BY, "standard": STANDARD, "modality": Modality.BOTH, "now": NOW, "category": "shoes",
        "language": "en",
    }  # fmt: skip
    return of.rejection_reason(**(usual | changes))


texts = st.text(max_size=5)
counts = st.integers(0, 10**6)
shares = st.floats(0, 1)
certificates = st.builds(
    certificate,
    attribute=texts,
    values=st.lists(texts, max_size=3).map(tuple),
    threshold=shares,
    accepted=counts,
    deff=st.floats(1, 100),
    use_number=st.integers(1, 100),
    status=st.sampled_from(CertificateStatus),
    alikeness=st.sampled_from([None, ALIKENESS]),
    strata=st.lists(st.builds(Stratum, texts, counts, counts, shares, st.floats(0, 20)), max_size=3).map(tuple),
    refused_categories=st.lists(st.builds(replace, st.just(REFUSED_CATEGORY), accepted=counts), max_size=2).map(tuple),
    refused_languages=st.lists(st.just(REFUSED_LANGUAGE), max_size=1).map(tuple),
    unseen_slices=st.lists(st.just(UNSEEN), max_size=1).map(tuple),
    steps=st.lists(
        st.builds(ThresholdTest, shares, counts, counts, counts, st.floats(1, 9), shares, shares, st.booleans())
    ).map(tuple),
)


@given(st.one_of(certificates, st.just(abstention(suggest_threshold=None))))
def test_it_comes_back_from_strict_json_and_pickle(issued: Certificate) -> None:
    text = json.dumps(issued.to_dict(), allow_nan=False)
    back = Certificate.from_dict(json.loads(text))
    assert back == issued
    assert back.certificate_id == issued.certificate_id == pickle.loads(pickle.dumps(issued)).certificate_id
    assert json.dumps(back.to_dict()) == text


def test_the_id_covers_the_content_and_not_the_time_zone_it_is_written_in() -> None:
    issued = certificate()
    assert replace(issued, threshold=0.91).certificate_id != issued.certificate_id
    assert replace(issued, weights_hash="x").certificate_id != issued.certificate_id
    elsewhere = issued.issued_at.astimezone(timezone(timedelta(hours=9)))
    assert replace(issued, issued_at=elsewhere).certificate_id == issued.certificate_id


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"threshold": 0.5}, "was changed after it was issued"),
        ({"steps": [asdict(STEP)]}, "was changed"),
        ({"refused_categories": [asdict(REFUSED_CATEGORY)]}, "was changed"),
        ({"tested_at": 0.5}, "was changed"),
        ({"strata": [{"name": "shoes"}]}, "damaged"),
        ({"colour": 1}, "unknown: \\['colour'\\]"),
        ({"modality": "smell"}, "damaged"),
        ({"issued_at": "yesterday"}, "damaged"),
        ({"threshold": None}, "damaged"),
        ({"values": 3}, "damaged"),
        ({"contract": 2}, "contract version 2, this release reads version 1"),
    ],
)
def test_an_edited_certificate_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelContractError, match=message):
        Certificate.from_dict(certificate().to_dict() | change)


def test_a_truncated_certificate_is_refused() -> None:
    content = certificate().to_dict()
    del content["delta"]
    with pytest.raises(ModelContractError, match="delta"):
        Certificate.from_dict(content)


@pytest.mark.parametrize(
    "change",
    [
        {"threshold": float("nan")},
        {"lower_bound": float("inf")},
        {"issued_at": datetime(2026, 1, 1)},
        {"why_abstains": "x"},
    ],
)
def test_nonsense_cannot_be_certified(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="certificate for color"):
        certificate(**change)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, None),
        ({"scored_by": replace(SCORED_BY, weights_hash="other")}, Reason.CERTIFICATE_MISMATCH),
        ({"scored_by": replace(SCORED_BY, preprocessing_hash="other")}, Reason.CERTIFICATE_MISMATCH),
        ({"scored_by": replace(SCORED_BY, max_image_bytes=1)}, Reason.CERTIFICATE_MISMATCH),
        ({"scored_by": replace(SCORED_BY, max_image_pixels=1)}, Reason.CERTIFICATE_MISMATCH),
        ({"scored_by": replace(SCORED_BY, scaled_side=289)}, Reason.CERTIFICATE_MISMATCH),
        ({"scored_by": replace(SCORED_BY, scaled_side=None)}, Reason.CERTIFICATE_MISMATCH),
        ({"scored_by": replace(SCORED_BY, compute_type="fp32-cuda")}, Reason.CERTIFICATE_MISMATCH),
        ({"standard": replace(STANDARD, target=0.96)}, Reason.CERTIFICATE_MISMATCH),
        ({"standard": replace(STANDARD, target=0.94)}, None),
        ({"standard": replace(STANDARD, delta=0.04)}, Reason.CERTIFICATE_MISMATCH),
        ({"standard": replace(STANDARD, delta=0.1)}, None),
        ({"standard": replace(STANDARD, score_type="float64")}, Reason.CERTIFICATE_MISMATCH),
        ({"standard": replace(STANDARD, unit="content group")}, Reason.CERTIFICATE_MISMATCH),
        ({"modality": Modality.TEXT_ONLY}, Reason.NO_CERTIFICATE),
        ({"now": ISSUED_AT + timedelta(days=90)}, Reason.CERTIFICATE_EXPIRED),
        ({"now": ISSUED_AT + timedelta(days=90) - timedelta(seconds=1)}, None),
        ({"category": "hats"}, Reason.UNSEEN_SLICE),
        ({"category": None}, None),
        ({"category": "toys"}, Reason.UNSEEN_SLICE),
        ({"category": "toys/dolls"}, Reason.UNSEEN_SLICE),
        ({"category": "toyshop"}, None),
        ({"language": "ja"}, Reason.UNSEEN_SLICE),
        ({"language": None}, Reason.UNSEEN_SLICE),
    ],
)
def test_it_says_why_it_may_not_be_used_i2(change: dict[str, Any], reason: Reason | None) -> None:
    certified = ("", "shoes", "toys", "toys/dolls", "toyshop")
    assert rejection(certificate(categories=certified, refused_categories=(REFUSED_CATEGORY,)), **change) is reason


def test_an_abstention_allows_nothing_i2() -> None:
    assert rejection(abstention()) is Reason.NO_CERTIFICATE


def test_refused_products_without_a_category_do_not_refuse_the_others() -> None:
    issued = certificate(categories=("", "shoes"), refused_categories=(replace(REFUSED_CATEGORY, category=""),))
    assert rejection(issued, category=None) is Reason.UNSEEN_SLICE
    assert rejection(issued, category="shoes") is None


@pytest.mark.parametrize(
    ("language", "category", "allowed"),
    [
        ("en", "shoes", True),
        ("en", "toys", False),  # refused in English only
        ("de", "toys", True),
        ("de", "shoes", False),  # never seen together
        ("fr", "shoes", False),  # the whole language is refused
        ("fr", "toys", False),
    ],
)
def test_a_category_is_certified_in_its_languages_only_i2(language: str, category: str, allowed: bool) -> None:
    issued = certificate(
        languages=("de", "en", "fr"), categories=("shoes", "toys"), refused_categories=(REFUSED_CATEGORY,),
        refused_languages=(REFUSED_LANGUAGE,), unseen_slices=(UNSEEN,),
    )  # fmt: skip
    assert rejection(issued, language=language, category=category) is (None if allowed else Reason.UNSEEN_SLICE)


def test_the_contract_file_lists_every_field_of_a_certificate_and_its_rows() -> None:
    schema = json.loads(resources.locate("schemas:certificate.v1.json").read_text())
    rows = {
        "steps": STEP, "strata": STRATUM, "refused_categories": REFUSED_CATEGORY,
        "refused_languages": REFUSED_LANGUAGE, "unseen_slices": UNSEEN, "by_value": ValueCount("red", 210, 3),
    }  # fmt: skip
    full = certificate(
        alikeness=ALIKENESS, trained_on="It was declared", **{name: (row,) for name, row in rows.items()}
    )
    for issued in (full, abstention(suggest_threshold=None)):
        jsonschema.validate(issued.to_dict(), schema)
    assert set(schema["properties"]) == {*schema["required"], "by_value", "trained_on"} == set(full.to_dict())
    assert set(certificate().to_dict()) == set(schema["required"])
    assert Certificate.from_dict(full.to_dict()) == full
    for name, row in rows.items():
        items = schema["properties"][name]["items"]
        assert set(items["properties"]) == set(items["required"]) == set(asdict(row))
    for change in ({"threshold": "high"}, {"accepted": -1}, {"status": "maybe"}, {"contract": 2}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(full.to_dict() | change, schema)


def test_it_knows_the_standard_that_it_was_issued_by() -> None:
    issued = certificate(target=0.9, delta=0.1, score_type="half", unit="value")
    assert issued.standard == Standard(target=0.9, delta=0.1, score_type="half", unit="value")
    assert issued.standard.met_by(issued)
    assert not STANDARD.met_by(issued)


def test_the_lowest_suggested_score() -> None:
    assert certificate(threshold=0.9, suggest_threshold=0.7).suggest_from == 0.7
    assert certificate(threshold=0.6, suggest_threshold=0.7).suggest_from == 0.6
    assert abstention(suggest_threshold=0.7).suggest_from == 0.7
    assert abstention(suggest_threshold=None).suggest_from is None
