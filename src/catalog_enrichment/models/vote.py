"""Majority voting, with a score for ranking."""

from __future__ import annotations

import torch

from catalog_enrichment.records import Cardinality


def majority(votes: torch.Tensor, cardinality: Cardinality) -> torch.Tensor:
    """The vote of K classifiers (Bi et al. 2020, section 3.4); ``votes`` (K, B, V) are their probabilities.

    Returns (B, V): (votes for the value + mean probability) / (K + 1). More votes always rank higher, equal votes rank
    by mean probability. Sums to 1 over V for single-valued attributes.
    """
    if cardinality is Cardinality.ONE:
        counted = torch.zeros_like(votes).scatter(2, votes.argmax(dim=2, keepdim=True), 1.0)
    else:
        counted = (votes >= 0.5).to(votes.dtype)
    return (counted.sum(dim=0) + votes.mean(dim=0)) / (len(votes) + 1)
