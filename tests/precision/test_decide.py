"""The decision: merchants are untouchable (I1), no certificate means no write (I2), one decision each (I7)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog_enrichment.precision.certificate import Certificate
from catalog_enrichment.precision.decide import CandidateDecision, DecisionInputs, decide
from catalog_enrichment.precision.units import Candidate
from catalog_enrichment.records import Decision, Modality, Reason

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


def one(value: str, score: float, **changes: Any) -> tuple[Decision, Reason]:
    (row,) = decide([Candidate(value, score, 1)], case(**changes))
    return row.decision, row.reason


def test_a_picture_outage_abstains_whatever_the_certificate() -> None:
    assert one("red", 0.95, picture_outage=True) == (Decision.ABSTAIN, Reason.PICTURE_OUTAGE)
    assert one("red", 0.95, picture_outage=True, certificate=None) == (Decision.ABSTAIN, Reason.PICTURE_OUTAGE)


PUBLISH, SUGGEST, ABSTAIN = Decision.PUBLISH, Decision.SUGGEST, Decision.ABSTAIN


@pytest.mark.parametrize(
    ("value", "score", "expected"),
    [
        ("red", 0.9, (PUBLISH, Reason.CERTIFIED)),  # at the threshold is above it
        ("red", 0.8999, (SUGGEST, Reason.NEAR_MISS)),
        ("red", 0.7, (SUGGEST, Reason.NEAR_MISS)),
        ("red", 0.6999, (ABSTAIN, Reason.BELOW_THRESHOLD)),
        ("blue", 0.99, (SUGGEST, Reason.VALUE_NOT_IN_POOL)),
        ("blue", 0.5, (ABSTAIN, Reason.BELOW_THRESHOLD)),
        ("red", float("nan"), (ABSTAIN, Reason.BELOW_THRESHOLD)),
    ],
)
def test_the_score_decides(value: str, score: float, expected: tuple[Decision, Reason]) -> None:
    assert one(value, score) == expected


def test_without_a_suggestion_threshold_nothing_below_the_threshold_is_suggested() -> None:
    silent = certificate(suggest=None)
    assert one("red", 0.89, certificate=silent) == (ABSTAIN, Reason.BELOW_THRESHOLD)
    assert one("blue", 0.95, certificate=silent) == (SUGGEST, Reason.VALUE_NOT_IN_POOL)


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
def test_a_merchant_value_leaves_at_most_a_suggestion_i1(
    value: str, score: float, expected: tuple[Decision, Reason]
) -> None:
    assert one(value, score, merchant_values=("green",)) == expected


def test_a_human_value_stands() -> None:
    assert one("red", 0.99, human_value_present=True) == (ABSTAIN, Reason.HUMAN_VALUE_STANDS)


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
    ],
)
def test_no_valid_certificate_no_write_i2(changes: dict[str, Any], reason: Reason) -> None:
    assert one("red", 0.99, **changes) == (ABSTAIN, reason)
    assert one("red", 0.99, merchant_values=("green",), **changes) == (ABSTAIN, reason)


def test_rows_below_the_threshold_stay_beside_a_published_one() -> None:
    rows = decide([Candidate("red", 0.95, 1), Candidate("green", 0.75, 2), Candidate("blue", 0.1, 3)], case())
    assert [(row.rank, row.decision) for row in rows] == [(1, PUBLISH), (2, SUGGEST), (3, ABSTAIN)]


def test_every_row_names_the_certificate_consulted_i6() -> None:
    consulted = certificate()
    (row,) = decide([Candidate("red", 0.1, 1)], case(certificate=consulted))
    assert (row.certificate_id, row.threshold) == (consulted.certificate_id, 0.9)
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
def test_published_means_certified_and_nobody_else_has_spoken_i1_i2(
    candidates: list[Candidate], one_case: DecisionInputs
) -> None:
    rows = decide(candidates, one_case)
    assert [(row.value, row.rank, row.score) for row in rows] == found_rows(candidates)
    for row in rows:
        assert (row.decision is PUBLISH) == (row.reason is Reason.CERTIFIED)
        if row.decision is PUBLISH:
            held = one_case.certificate
            assert held is not None
            assert not one_case.merchant_values
            assert not one_case.human_value_present
            assert one_case.scored_by == held.scored_by
            assert one_case.modality is held.modality
            assert one_case.now < held.expires_at
            assert row.value in held.values
            assert held.threshold is not None
            assert row.score >= held.threshold
            assert row.certificate_id == held.certificate_id


@given(candidate_lists, cases)
def test_a_certified_value_is_published_where_nothing_forbids_it(
    candidates: list[Candidate], one_case: DecisionInputs
) -> None:
    free = not one_case.merchant_values and not one_case.human_value_present
    held = one_case.certificate
    usual = one_case.modality is Modality.BOTH and one_case.category is None and one_case.scored_by == SCORED_BY
    if free and usual and held is not None and held.threshold is not None and held.expires_at > NOW:
        for row in decide(candidates, one_case):
            assert (row.decision is PUBLISH) == (row.score >= held.threshold and row.value in held.values)


def found_rows(candidates: Sequence[Candidate]) -> list[tuple[str, int, float]]:
    return [(candidate.value, candidate.rank, candidate.score) for candidate in candidates]


def test_a_hundred_thousand_decisions_take_seconds_not_minutes() -> None:
    held, candidates = certificate(), [Candidate("red", 0.95, 1)]
    started = time.perf_counter()
    rows: list[CandidateDecision] = []
    for _ in range(100_000):
        rows = decide(candidates, case(certificate=held))
    assert rows[0].decision is PUBLISH
    assert time.perf_counter() - started < 20
