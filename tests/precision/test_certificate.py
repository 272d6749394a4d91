"""A certificate travels as plain JSON, cannot be edited, and says when it may not be used (I2)."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from catalog_enrichment.errors import ModelContractError
from catalog_enrichment.precision.certificate import Certificate, CertificateStatus, ThresholdTest
from catalog_enrichment.records import Modality, Reason

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def certificate(**changes: Any) -> Certificate:
    content: dict[str, Any] = {
        "attribute": "color", "modality": Modality.BOTH, "values": ("red", "green"), "threshold": 0.9,
        "accepted": 400, "wrong": 8, "lower_bound": 0.9641, "target": 0.95, "delta": 0.05, "use_count": 1,
        "claim": "c", "label_set_hash": "l", "data_window": "all", "weights_hash": "w", "numeric_path": "fp32",
        "preprocessing_hash": "p", "issued_at": NOW - timedelta(days=1), "expires_at": NOW + timedelta(days=89),
        "suggest_threshold": 0.7, "categories": ("", "shoes"), "languages": ("en",), "accept_rate": 0.4,
        "histogram": (0,) * 20, "steps": (ThresholdTest(0.9, 400, 8, 0.001, 0.9641, True),),
    }  # fmt: skip
    return Certificate(**(content | changes))


def problem(one: Certificate, **changes: Any) -> Reason | None:
    usual: dict[str, Any] = {
        "weights_hash": "w", "numeric_path": "fp32", "modality": Modality.BOTH, "now": NOW, "category": "shoes",
        "language": "en",
    }  # fmt: skip
    return one.problem(**(usual | changes))


@pytest.mark.parametrize(
    "one",
    [
        certificate(),
        certificate(threshold=None, why_abstains="poor", accepted=0, wrong=0, lower_bound=0.0, suggest_threshold=None),
        certificate(status=CertificateStatus.CONFIRMED, steps=()),
    ],
)
def test_it_comes_back_from_strict_json_and_pickle(one: Certificate) -> None:
    text = json.dumps(one.to_dict(), allow_nan=False)
    back = Certificate.from_dict(json.loads(text))
    assert back == one
    assert back.certificate_id == one.certificate_id == pickle.loads(pickle.dumps(one)).certificate_id
    assert json.dumps(back.to_dict()) == text


def test_the_id_covers_the_content_and_not_the_time_zone_it_is_written_in() -> None:
    one = certificate()
    assert replace(one, threshold=0.91).certificate_id != one.certificate_id
    assert replace(one, weights_hash="x").certificate_id != one.certificate_id
    elsewhere = one.issued_at.astimezone(timezone(timedelta(hours=9)))
    assert replace(one, issued_at=elsewhere).certificate_id == one.certificate_id


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"threshold": 0.5}, "was changed after it was issued"),
        ({"steps": []}, "was changed"),
        ({"colour": 1}, "unknown: \\['colour'\\]"),
        ({"modality": "smell"}, "damaged"),
        ({"issued_at": "yesterday"}, "damaged"),
        ({"threshold": None}, "damaged"),
        ({"values": 3}, "damaged"),
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
        ({"weights_hash": "other"}, Reason.CERTIFICATE_MISMATCH),
        ({"numeric_path": "bf16"}, Reason.CERTIFICATE_MISMATCH),
        ({"modality": Modality.TEXT_ONLY}, Reason.NO_CERTIFICATE),
        ({"now": NOW + timedelta(days=89)}, Reason.CERTIFICATE_EXPIRED),
        ({"now": NOW + timedelta(days=89) - timedelta(seconds=1)}, None),
        ({"category": "hats"}, Reason.UNSEEN_SLICE),
        ({"category": None}, None),
        ({"language": "ja"}, Reason.UNSEEN_SLICE),
        ({"language": None}, Reason.UNSEEN_SLICE),
    ],
)
def test_it_says_why_it_may_not_be_used_i2(change: dict[str, Any], reason: Reason | None) -> None:
    assert problem(certificate(), **change) is reason


def test_an_abstention_allows_nothing_i2() -> None:
    assert problem(certificate(threshold=None, why_abstains="poor")) is Reason.NO_CERTIFICATE
