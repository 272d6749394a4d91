"""The decision about one product and attribute: publish, suggest or abstain, and why. Pure, and light: it runs for
every scored product.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from catalog_enrichment.precision.certificate import Certificate
from catalog_enrichment.precision.units import Candidate
from catalog_enrichment.records import Decision, Modality, Reason


@dataclass(frozen=True, kw_only=True, slots=True)
class DecisionInputs:
    """What a decision looks at beside the scores."""

    certificate: Certificate | None
    """For this attribute and the product's modality path."""
    merchant_values: Sequence[str] = ()
    human_value_present: bool = False
    modality: Modality
    category: str | None
    language: str | None
    now: datetime
    weights_hash: str
    numeric_path: str


class CandidateDecision(NamedTuple):
    """The decision about one candidate; ``certificate_id`` and ``threshold`` are of the certificate consulted."""

    value: str
    rank: int
    score: float
    decision: Decision
    reason: Reason
    certificate_id: str | None
    threshold: float | None


_TOO_LOW = (Decision.ABSTAIN, Reason.BELOW_THRESHOLD)


def decide(candidates: Sequence[Candidate], case: DecisionInputs) -> list[CandidateDecision]:
    """One row per candidate, in order. Raises ValueError without a candidate: no product vanishes (I7).

    In this order: a merchant value leaves at most a suggestion (I1); a human value stands; without a valid
    certificate there is nothing to say (I2); then the score decides.
    """
    if not candidates:
        raise ValueError("a scored product has at least one candidate per attribute")
    certificate = case.certificate
    identity = (None, None) if certificate is None else (certificate.certificate_id, certificate.threshold)
    problem = _problem(case)
    return [CandidateDecision(c.value, c.rank, c.score, *_decide(c, case, problem), *identity) for c in candidates]


def _problem(case: DecisionInputs) -> Reason | None:
    if case.certificate is None:
        return Reason.NO_CERTIFICATE
    return case.certificate.problem(
        weights_hash=case.weights_hash,
        numeric_path=case.numeric_path,
        modality=case.modality,
        now=case.now,
        category=case.category,
        language=case.language,
    )


def _decide(candidate: Candidate, case: DecisionInputs, problem: Reason | None) -> tuple[Decision, Reason]:
    if len(case.merchant_values) and candidate.value in case.merchant_values:
        return Decision.ABSTAIN, Reason.AGREES_WITH_MERCHANT
    if case.human_value_present and not len(case.merchant_values):
        return Decision.ABSTAIN, Reason.HUMAN_VALUE_STANDS
    certificate = case.certificate
    if problem is not None or certificate is None or certificate.threshold is None:
        return Decision.ABSTAIN, problem or Reason.NO_CERTIFICATE
    certified = candidate.score >= certificate.threshold
    if len(case.merchant_values):
        # against a merchant's word only a score that could have been written is worth anybody's time
        return (Decision.SUGGEST, Reason.DISAGREES_WITH_MERCHANT) if certified else _TOO_LOW
    worth_saying = certificate.suggest_from is not None and candidate.score >= certificate.suggest_from
    if not worth_saying:
        return _TOO_LOW
    if candidate.value not in certificate.pool:
        return Decision.SUGGEST, Reason.VALUE_NOT_IN_POOL
    return (Decision.PUBLISH, Reason.CERTIFIED) if certified else (Decision.SUGGEST, Reason.NEAR_MISS)
