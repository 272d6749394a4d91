"""The versions that a candidate's certified recall is compared with: the champion, and the best former champion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from catalog_enrichment.precision.paired_recall import HeldOutDecision, pair, recall_difference
from catalog_enrichment.registry import promotion_gate
from catalog_enrichment.registry.promotion_gate import Comparison, Evidence, Policy


@dataclass(frozen=True, slots=True)
class References:
    champion: Evidence
    former: Sequence[Evidence]
    """Former champions that were not withdrawn and recorded what they would write on their test fold."""
    decisions: Mapping[str, Sequence[HeldOutDecision] | None]
    """Version -> what it would write on its test fold; None if it recorded nothing."""

    def comparisons(
        self, attribute: str, candidate: Sequence[HeldOutDecision] | None, policy: Policy
    ) -> list[Comparison]:
        """A candidate with ``candidate`` decisions against the champion and the former champion with the best recorded
        recall of ``attribute``."""
        best = promotion_gate.best_recall(self.former, attribute)
        comparisons = []
        for reference in [self.champion] if best is None else [self.champion, best]:
            other, difference = self.decisions[reference.version], None
            if candidate is not None and other is not None:
                difference = recall_difference(pair(candidate, other, attribute), policy.confidence)
            comparisons.append(Comparison(attribute=attribute, version=reference.version, difference=difference))
        return comparisons
