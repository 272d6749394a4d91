"""The decision: merchants are untouchable (I1), no certificate means no write (I2), one decision each (I7)."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog_enrichment.precision.certificate import Certificate
from catalog_enrichment.precision.decide import DecisionInputs, decide
from catalog_enrichment.precision.units import NO_ANSWER, Candidate
from catalog_enrichment.reasons import Reason
from catalog_enrichment.records import Decision, Modality

from .. import sample_certificate
from ..sample_certificate import SCORED_BY, STANDARD

NOW = datetime(2026, 3, 1, tzinfo=UTC)
VALUES = ("red", "green", "blue")
OTHER = replace(SCORED_BY, weights_hash="other")


def certificate(threshold: float | None = 0.9, suggest: float | None = 0.7, days: int = 9) -> Certificate:
    return sample_certificate.certificate(
        threshold=threshold, why_abstains="" if threshold is not None else "poor", suggest_threshold=suggest,
        issued_at=NOW - timedelta(days=90), expires_at=NOW + timedelta(days=days),
    )  # fmt: skip


def case(**changes: Any) -> DecisionInputs:
    usual: dict[str, Any] = {
        "certificate": certificate(), "modality": Modality.BOTH, "category": None, "language": "en", "now": NOW,
        "scored_by": SCORED_BY, "standard": STANDARD,
    }  # fmt: skip
    return DecisionInputs(**(usual | changes))


def decided(value: str, score: float, **changes: Any) -> tuple[Decision, Reason]:
    (row,) = decide([Candidate(value, score, 1)], case(**changes))
    return row.decision, row.reason


def test_without_an_answer_nothing_is_decided() -> None:
    """Whatever else there is: the answer may come."""
    for changes in ({}, {"merchant_values": ("red",)}, {"certificate": None}, {"human_value_present": True}):
        (row,) = decide([NO_ANSWER], case(**changes))
        assert (row.decision, row.reason) == (Decision.ABSTAIN, Reason.NO_ANSWER)


PUBLISH, SUGGEST, ABSTAIN = Decision.PUBLISH, Decision.SUGGEST, Decision.ABSTAIN


@pytest.mark.parametrize(
    ("value", "score", "changes", "expected"),
    [
        ("red", 0.9, {}, (PUBLISH, Reason.CERTIFIED)),  # at the threshold is above it
        ("red", 0.8999, {}, (SUGGEST, Reason.NEAR_MISS)),
        ("red", 0.7, {}, (SUGGEST, Reason.NEAR_MISS)),
        ("red", 0.6999, {}, (ABSTAIN, Reason.BELOW_THRESHOLD)),
        ("blue", 0.99, {}, (SUGGEST, Reason.VALUE_NOT_IN_POOL)),
        ("blue", 0.5, {}, (ABSTAIN, Reason.BELOW_THRESHOLD)),
        ("red", float("nan"), {}, (ABSTAIN, Reason.BELOW_THRESHOLD)),
        ("", 0.0, {}, (ABSTAIN, Reason.NO_PROPOSAL)),
        ("", 0.0, {"merchant_values": ("red",)}, (ABSTAIN, Reason.NO_PROPOSAL)),
        ("", 0.0, {"certificate": None}, (ABSTAIN, Reason.NO_CERTIFICATE)),  # an older value stands
        ("", 0.0, {"certificate": certificate(days=-1)}, (ABSTAIN, Reason.CERTIFICATE_EXPIRED)),
        ("red", 0.89, {"certificate": certificate(suggest=None)}, (ABSTAIN, Reason.BELOW_THRESHOLD)),
        ("blue", 0.95, {"certificate": certificate(suggest=None)}, (SUGGEST, Reason.VALUE_NOT_IN_POOL)),
        ("red", 0.99, {"human_value_present": True}, (ABSTAIN, Reason.HUMAN_VALUE_STANDS)),
    ],
)
def test_the_score_decides(
    value: str, score: float, changes: dict[str, Any], expected: tuple[Decision, Reason]
) -> None:
    assert decided(value, score, **changes) == expected


@pytest.mark.parametrize(
    ("value", "score", "expected"),
    [
        ("red", 0.99, (SUGGEST, Reason.DISAGREES_WITH_MERCHANT)),
        ("red", 0.75, (ABSTAIN, Reason.BELOW_THRESHOLD)),
        ("red", 0.5, (ABSTAIN, Reason.BELOW_THRESHOLD)),
        ("blue", 0.99, (ABSTAIN, Reason.VALUE_NOT_IN_POOL)),
        ("blue", 0.5, (ABSTAIN, Reason.BELOW_THRESHOLD)),
        ("green", 0.99, (ABSTAIN, Reason.AGREES_WITH_MERCHANT)),
        ("green", 0.1, (ABSTAIN, Reason.AGREES_WITH_MERCHANT)),
    ],
)
def test_a_merchant_value_allows_a_suggestion_i1(value: str, score: float, expected: tuple[Decision, Reason]) -> None:
    assert decided(value, score, merchant_values=("green",)) == expected


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"certificate": None}, Reason.NO_CERTIFICATE),
        ({"certificate": certificate(threshold=None)}, Reason.NO_CERTIFICATE),
        ({"certificate": certificate(days=0)}, Reason.CERTIFICATE_EXPIRED),
        ({"scored_by": OTHER}, Reason.CERTIFICATE_MISMATCH),
        ({"modality": Modality.TEXT_ONLY}, Reason.NO_CERTIFICATE),
        ({"category": "hats"}, Reason.UNSEEN_SLICE),
        ({"language": "ja"}, Reason.UNSEEN_SLICE),
        ({"picture_outage": True}, Reason.PICTURE_OUTAGE),
        ({"picture_outage": True, "certificate": None}, Reason.PICTURE_OUTAGE),
    ],
)
def test_no_valid_certificate_no_write_i2(changes: dict[str, Any], reason: Reason) -> None:
    assert decided("red", 0.99, **changes) == (ABSTAIN, reason)
    assert decided("red", 0.99, merchant_values=("green",), **changes) == (ABSTAIN, reason)


def test_rows_below_the_threshold_stay_beside_a_published_one() -> None:
    rows = decide([Candidate("red", 0.95, 1), Candidate("green", 0.75, 2), Candidate("blue", 0.1, 3)], case())
    assert [(row.rank, row.decision) for row in rows] == [(1, PUBLISH), (2, SUGGEST), (3, ABSTAIN)]


def test_a_row_without_a_certificate_names_none_i6() -> None:
    (row,) = decide([Candidate("red", 0.1, 1)], case(certificate=None))
    assert (row.certificate_id, row.threshold) == (None, None)


def test_a_product_without_candidates_is_an_error_and_not_a_loss_i7() -> None:
    with pytest.raises(ValueError, match="at least one candidate"):
        decide([], case())


scores = st.floats(0, 1)
candidate_lists = st.lists(scores, min_size=1, max_size=3).map(
    lambda candidates: [Candidate(VALUES[i], s, i + 1) for i, s in enumerate(sorted(candidates, reverse=True))]
)
thresholds = st.none() | scores
certificates = st.none() | st.builds(certificate, thresholds, thresholds, st.integers(-3, 3))
cases = st.builds(
    case,
    certificate=certificates,
    merchant_values=st.lists(st.sampled_from([*VALUES, "mauve"]), max_size=2).map(tuple),
    human_value_present=st.booleans(),
    modality=st.sampled_from(Modality),
    category=st.sampled_from([None, "hats"]),
    scored_by=st.sampled_from([SCORED_BY, OTHER]),
)


@given(candidate_lists, cases)
def test_only_certified_values_are_published_i1_i2(candidates: list[Candidate], inputs: DecisionInputs) -> None:
    rows, held = decide(candidates, inputs), inputs.certificate
    assert [(row.value, row.rank, row.score) for row in rows] == [(c.value, c.rank, c.score) for c in candidates]
    valid = (
        held is not None
        and held.threshold is not None
        and not inputs.merchant_values
        and not inputs.human_value_present
        and inputs.scored_by == held.scored_by
        and inputs.modality is held.modality
        and inputs.category is None
        and inputs.now < held.expires_at
    )
    for row in rows:
        assert (row.decision is PUBLISH) == (row.reason is Reason.CERTIFIED)
        certified = valid and row.value in held.values and row.score >= held.threshold
        assert (row.decision is PUBLISH) == certified
        if held is not None:
            assert (row.certificate_id, row.threshold) == (held.certificate_id, held.threshold)
