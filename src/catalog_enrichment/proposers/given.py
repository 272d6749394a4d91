"""Proposals that were made elsewhere, as rows of scores: the same for models and tables."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from catalog_enrichment.inference.forward import ScoredCandidate
from catalog_enrichment.precision.units import NOTHING, as_scores
from catalog_enrichment.proposers.answers import Proposal


@dataclass(frozen=True, slots=True)
class Calibration:
    """A strictly increasing map of scores to probabilities: the logistic curve of the score's logit (Platt 1999)."""

    slope: float
    """Positive."""
    intercept: float

    def __call__(self, score: float) -> float:
        """Return a score in [0, 1] as a probability; 0 and 1 stay. One number at a time, so that certification and runs
        get the same bits."""
        if score in (0.0, 1.0):
            return score
        exponent = self.slope * (math.log(score) - math.log1p(-score)) + self.intercept
        low = math.exp(-abs(exponent))
        return float(as_scores(1 / (1 + low) if exponent > 0 else low / (1 + low)))


Calibrations = Mapping[str, Calibration]
"""Attribute -> its calibration; an attribute without one keeps the scores as they are."""


def candidates(
    attribute: str, proposals: Sequence[Proposal], calibration: Calibration | None
) -> Iterator[ScoredCandidate]:
    """Yield a product's candidates for an attribute, best first; without a proposal that nothing is proposed.

    A score of 0 proposes nothing: no certificate could tell it from a product without a proposal.
    """
    kept = [proposal for proposal in proposals if proposal.candidate.score > 0]
    if not kept:
        yield ScoredCandidate(attribute, NOTHING, 1, 0.0)
    for rank, proposal in enumerate(kept, start=1):
        value, given, _, *_ = proposal.candidate
        score = given if calibration is None else calibration(given)
        yield ScoredCandidate(attribute, value, rank, score, evidence=proposal.evidence)
