"""The decision about one product and attribute: publish, suggest or abstain, and why.

Pure Python without arrays: it runs for every scored product.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from catalog_enrichment.precision.certificate import Certificate, ScoredBy, Standard
from catalog_enrichment.precision.units import NOTHING, Candidate
from catalog_enrichment.reasons import Reason
from catalog_enrichment.records import Decision, Modality


@dataclass(frozen=True, kw_only=True, slots=True)
class DecisionInputs:
    """Inputs of a decision in addition to the scores."""

    certificate: Certificate | None
    """The certificate for this attribute and the product's modality path."""
    merchant_values: Sequence[str] = ()
    human_value_present: bool = False
    modality: Modality
    picture_outage: bool = False
    """No picture could be used, but a picture could not be reached, or an active older value of the same content was
    decided with a picture."""
    category: str | None
    language: str | None
    now: datetime
    scored_by: ScoredBy
    standard: Standard
    """The requirements of the writer's config."""


class CandidateDecision(NamedTuple):
    """The decision about one candidate; ``certificate_id`` and ``threshold`` are the certificate's."""

    value: str
    rank: int
    score: float
    decision: Decision
    reason: Reason
    certificate_id: str | None
    threshold: float | None


def decide(candidates: Sequence[Candidate], inputs: DecisionInputs) -> list[CandidateDecision]:
    """Return a row per candidate, in order. Raises ValueError without candidates, so that no product is lost (I7).

    In this order: without an answer of the proposer an abstention; with a merchant value at most a suggestion (I1);
    with a human value an abstention; without a valid certificate an abstention (I2); else the score decides.
    """
    if not candidates:
        raise ValueError("a scored product must have at least one candidate per attribute, not none")
    certificate = inputs.certificate
    identity = (None, None) if certificate is None else (certificate.certificate_id, certificate.threshold)
    rejection = _rejection_reason(inputs)
    return [CandidateDecision(c.value, c.rank, c.score, *_decide(c, inputs, rejection), *identity) for c in candidates]


def _rejection_reason(inputs: DecisionInputs) -> Reason | None:
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


def _decide(candidate: Candidate, inputs: DecisionInputs, rejection: Reason | None) -> tuple[Decision, Reason]:
    has_merchant_value = len(inputs.merchant_values) > 0
    if not candidate.rank:
        return Decision.ABSTAIN, Reason.NO_ANSWER
    if has_merchant_value and candidate.value in inputs.merchant_values:
        return Decision.ABSTAIN, Reason.AGREES_WITH_MERCHANT
    if inputs.human_value_present and not has_merchant_value:
        return Decision.ABSTAIN, Reason.HUMAN_VALUE_STANDS
    certificate = inputs.certificate
    if rejection is not None or certificate is None or certificate.threshold is None:
        return Decision.ABSTAIN, rejection or Reason.NO_CERTIFICATE
    if candidate.value == NOTHING:
        return Decision.ABSTAIN, Reason.NO_PROPOSAL
    certified = candidate.score >= certificate.threshold
    if not candidate.listed:
        return Decision.ABSTAIN, Reason.VALUE_REMOVED
    in_pool = (candidate.label or candidate.value) in certificate.pool
    if has_merchant_value:
        # a suggestion against a merchant value needs a value and a score that could have been published
        if not certified:
            return Decision.ABSTAIN, Reason.BELOW_THRESHOLD
        if not in_pool:
            return Decision.ABSTAIN, Reason.VALUE_NOT_IN_POOL
        return Decision.SUGGEST, Reason.DISAGREES_WITH_MERCHANT
    suggestible = certificate.suggest_from is not None and candidate.score >= certificate.suggest_from
    if not suggestible:
        return Decision.ABSTAIN, Reason.BELOW_THRESHOLD
    if not in_pool:
        return Decision.SUGGEST, Reason.VALUE_NOT_IN_POOL
    return (Decision.PUBLISH, Reason.CERTIFIED) if certified else (Decision.SUGGEST, Reason.NEAR_MISS)
