"""Proposals that were made elsewhere, as rows of scores: the same for models and tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from catalog_enrichment.inference.forward import ScoredCandidate
from catalog_enrichment.precision.units import NOTHING, Floats, as_scores
from catalog_enrichment.proposers.answers import Proposal


@dataclass(frozen=True, slots=True)
class Calibration:
    """A strictly increasing map of scores to probabilities: the logistic curve of the score's logit (Platt 1999)."""

    slope: float
    """Positive."""
    intercept: float

    def __call__(self, scores: ArrayLike) -> Floats:
        """Return the scores (n,) in [0, 1] as probabilities, by the same arithmetic wherever they are computed; 0 and 1
        stay."""
        given = np.asarray(scores, dtype=np.float64)
        with np.errstate(divide="ignore"):
            logits = np.log(given) - np.log1p(-given)
        return as_scores(1 / (1 + np.exp(-(self.slope * logits + self.intercept))))


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
        return
    given = [proposal.candidate.score for proposal in kept]
    scores = given if calibration is None else calibration(given).tolist()
    for rank, (proposal, score) in enumerate(zip(kept, scores, strict=True), start=1):
        yield ScoredCandidate(attribute, proposal.candidate.value, rank, score, evidence=proposal.evidence)
