"""The decision about one product and attribute: publish, suggest or abstain, and why.

Pure Python without arrays: it runs for every scored product.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from catalog_enrichment.precision.certificate import Certificate, ScoredBy, Standard
from catalog_enrichment.precision.units import Candidate
from catalog_enrichment.records import Decision, Modality, Reason


@dataclass(frozen=True, kw_only=True, slots=True)
class DecisionInputs:
    """Inputs of a decision in addition to the scores."""

    certificate: Certificate | None
    """For this attribute and the product's modality path."""
    merchant_values: Sequence[str] = ()
    human_value_present: bool = False
    modality: Modality
    picture_outage: bool = False
    """No picture could be used, but one could not be reached, or an older value of the same content, which stands, was
    decided with one."""
    category: str | None
    language: str | None
    now: datetime
    scored_by: ScoredBy
    standard: Standard
    """What the writer's config requires of a certificate."""


class CandidateDecision(NamedTuple):
    """The decision about one candidate; ``certificate_id`` and ``threshold`` are the certificate's."""

    value: str
    rank: int
    score: float
    decision: Decision
    reason: Reason
    certificate_id: str | None
    threshold: float | None


_TOO_LOW = (Decision.ABSTAIN, Reason.BELOW_THRESHOLD)


def decide(candidates: Sequence[Candidate], inputs: DecisionInputs) -> list[CandidateDecision]:
    """One row per candidate, in order. Raises ValueError without candidates, so that no product is lost (I7).

    In this order: with a merchant value at most a suggestion (I1); with a human value an abstention; without a valid
    certificate an abstention (I2); else the score decides.
    """
    if not candidates:
        raise ValueError("a scored product must have at least one candidate per attribute, not none")
    certificate = inputs.certificate
    identity = (None, None) if certificate is None else (certificate.certificate_id, certificate.threshold)
    problem = _problem(inputs)
    return [CandidateDecision(c.value, c.rank, c.score, *_decide(c, inputs, problem), *identity) for c in candidates]


def _problem(inputs: DecisionInputs) -> Reason | None:
    if inputs.picture_outage:
        return Reason.PICTURE_OUTAGE
    if inputs.certificate is None:
        return Reason.NO_CERTIFICATE
    return inputs.certificate.rejection_reason(
        scored_by=inputs.scored_by,
        standard=inputs.standard,
        modality=inputs.modality,
        now=inputs.now,
        category=inputs.category,
        language=inputs.language,
    )


def _decide(candidate: Candidate, inputs: DecisionInputs, problem: Reason | None) -> tuple[Decision, Reason]:
    if len(inputs.merchant_values) and candidate.value in inputs.merchant_values:
        return Decision.ABSTAIN, Reason.AGREES_WITH_MERCHANT
    if inputs.human_value_present and not len(inputs.merchant_values):
        return Decision.ABSTAIN, Reason.HUMAN_VALUE_STANDS
    certificate = inputs.certificate
    if problem is not None or certificate is None or certificate.threshold is None:
        return Decision.ABSTAIN, problem or Reason.NO_CERTIFICATE
    certified = candidate.score >= certificate.threshold
    in_pool = candidate.value in certificate.pool
    if len(inputs.merchant_values):
        # a suggestion against a merchant value needs a value and a score that could have been published
        if not certified:
            return _TOO_LOW
        if not in_pool:
            return Decision.ABSTAIN, Reason.VALUE_NOT_IN_POOL
        return Decision.SUGGEST, Reason.DISAGREES_WITH_MERCHANT
    suggestible = certificate.suggest_from is not None and candidate.score >= certificate.suggest_from
    if not suggestible:
        return _TOO_LOW
    if not in_pool:
        return Decision.SUGGEST, Reason.VALUE_NOT_IN_POOL
    return (Decision.PUBLISH, Reason.CERTIFIED) if certified else (Decision.SUGGEST, Reason.NEAR_MISS)
