"""The decision about one product and attribute: publish, suggest or abstain, and why.

:func:`outcome` is the rule. A served model asks it through :func:`decide`, product by product; a run by column
(:mod:`catalog_enrichment.enrichment.decided_rows`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

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


class Facts(NamedTuple):
    """All that the decision about a candidate rests on."""

    answered: bool
    """The proposer has said something about the attribute."""
    has_merchant_value: bool
    agrees_with_merchant: bool
    human_value_present: bool
    proposed: bool
    """The candidate is a value, and not that there is none."""
    certified: bool
    """The score reaches the certificate's threshold."""
    suggestible: bool
    """The score reaches the certificate's ``suggest_from``."""
    listed: bool
    """The dictionary lists the value."""
    in_pool: bool
    """The certificate is about the label."""
    rejection: Reason | None
    """Why the certificate must not be used (:func:`rejection_reason`)."""


def decide(candidates: Sequence[Candidate], inputs: DecisionInputs) -> list[CandidateDecision]:
    """Return a row per candidate, in order. Raises ValueError without candidates, so that no product is lost (I7)."""
    if not candidates:
        raise ValueError("a scored product must have at least one candidate per attribute, not none")
    certificate = inputs.certificate
    identity = (None, None) if certificate is None else (certificate.certificate_id, certificate.threshold)
    rejection = rejection_reason(
        certificate,
        picture_outage=inputs.picture_outage,
        scored_by=inputs.scored_by,
        standard=inputs.standard,
        modality=inputs.modality,
        now=inputs.now,
        category=inputs.category,
        language=inputs.language,
    )
    return [
        CandidateDecision(c.value, c.rank, c.score, *outcome(_facts(c, inputs, rejection)), *identity)
        for c in candidates
    ]


def rejection_reason(certificate: Certificate | None, *, picture_outage: bool, **product: Any) -> Reason | None:
    """Return why values of a product must not be written under ``certificate``, whatever the scores are; None if they
    may be. ``product``: the arguments of :meth:`Certificate.rejection_reason`."""
    if picture_outage:
        return Reason.PICTURE_OUTAGE
    return Reason.NO_CERTIFICATE if certificate is None else certificate.rejection_reason(**product)


def outcome(facts: Facts) -> tuple[Decision, Reason]:
    """Return the decision and why.

    In this order: without an answer of the proposer an abstention; with a merchant value at most a suggestion (I1);
    with a human value an abstention; without a valid certificate an abstention (I2); else the score decides.
    """
    if not facts.answered:
        return Decision.ABSTAIN, Reason.NO_ANSWER
    if facts.agrees_with_merchant:
        return Decision.ABSTAIN, Reason.AGREES_WITH_MERCHANT
    if facts.human_value_present and not facts.has_merchant_value:
        return Decision.ABSTAIN, Reason.HUMAN_VALUE_STANDS
    if facts.rejection is not None:
        return Decision.ABSTAIN, facts.rejection
    if not facts.proposed:
        return Decision.ABSTAIN, Reason.NO_PROPOSAL
    if not facts.listed:
        return Decision.ABSTAIN, Reason.VALUE_REMOVED
    if facts.has_merchant_value:
        # a suggestion against a merchant value needs a value and a score that could have been published
        if not facts.certified:
            return Decision.ABSTAIN, Reason.BELOW_THRESHOLD
        if not facts.in_pool:
            return Decision.ABSTAIN, Reason.VALUE_NOT_IN_POOL
        return Decision.SUGGEST, Reason.DISAGREES_WITH_MERCHANT
    if not facts.suggestible:
        return Decision.ABSTAIN, Reason.BELOW_THRESHOLD
    if not facts.in_pool:
        return Decision.SUGGEST, Reason.VALUE_NOT_IN_POOL
    return (Decision.PUBLISH, Reason.CERTIFIED) if facts.certified else (Decision.SUGGEST, Reason.NEAR_MISS)


def _facts(candidate: Candidate, inputs: DecisionInputs, rejection: Reason | None) -> Facts:
    certificate = inputs.certificate

    def reaches(bound: float | None) -> bool:
        return bound is not None and candidate.score >= bound

    return Facts(
        answered=candidate.rank > 0,
        has_merchant_value=len(inputs.merchant_values) > 0,
        agrees_with_merchant=candidate.value in inputs.merchant_values,
        human_value_present=inputs.human_value_present,
        proposed=candidate.value != NOTHING,
        certified=certificate is not None and reaches(certificate.threshold),
        suggestible=certificate is not None and reaches(certificate.suggest_from),
        listed=candidate.listed,
        in_pool=certificate is not None and certificate.covers(candidate.label or candidate.value),
        rejection=rejection,
    )
