"""The versions that a candidate is compared with, before and after it is certified."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from catalog_enrichment.precision.certificate import CertificateBasis
from catalog_enrichment.precision.paired_recall import HeldOutDecision, pair, recall_difference
from catalog_enrichment.records import Modality
from catalog_enrichment.registry import promotion_gate
from catalog_enrichment.registry.promotion_gate import AttributePath, Comparison, Evidence, PathEvidence, Policy


@dataclass(frozen=True, slots=True)
class References:
    champion: Evidence
    former: Sequence[Evidence]
    """Former champions that were not withdrawn and recorded what they would write on their test fold."""
    decisions: Mapping[str, Sequence[HeldOutDecision] | None]
    """Version -> what it would write on its test fold; None if it recorded nothing."""

    def comparisons(
        self,
        path: AttributePath,
        candidate: Sequence[HeldOutDecision] | None,
        policy: Policy,
        results: PathEvidence | None = None,
    ) -> list[Comparison]:
        """A candidate with ``candidate`` decisions against the champion and the former champion with the best recorded
        recall of ``path``, on the products that are on the modality path in both trainings.

        ``results``: of the candidate, where they are known. A certificate that rests on verdicts is compared by the
        share of the unlabelled products that it lets write. A version that has the candidate's own certificate is not
        compared where the candidate has no decisions: its files are the same.
        """
        attribute, modality = path
        best = promotion_gate.best_recall(self.former, path)
        comparisons = []
        for reference in [self.champion] if best is None else [self.champion, best]:
            of_reference = reference.paths[path]
            if results is not None and _same_certificate(results, of_reference) and not candidate:
                continue
            compared = Comparison(attribute=attribute, modality=modality, version=reference.version, difference=None)
            other = self.decisions[reference.version]
            if accept_rates := _accept_rates(results, of_reference):
                compared = replace(compared, accept_rates=accept_rates)
            elif candidate is not None and other is not None:
                pairs = pair(_on_path(candidate, modality), _on_path(other, modality), attribute)
                compared = replace(compared, difference=recall_difference(pairs, policy.confidence))
            comparisons.append(compared)
        return comparisons


@dataclass(frozen=True, slots=True)
class EarlyGate:
    """What the promotion gate would say of a model before its certification labels are used.

    Each method returns why it would refuse the model; "" if it would not, or if that is not known yet. Not asked: a
    collapsed modality, which is measured after certification, and `min_written_precision`, because the certified
    threshold is usually higher than the choosing fold's.
    """

    policy: Policy
    references: References | None
    """None if there is no champion."""
    champion_labels: Mapping[str, Sequence[str]]
    """Attribute -> the values that the champion can write."""

    def lost(self, labels: Mapping[str, Sequence[str]]) -> str:
        """For a model that can write ``labels`` (attribute -> values): attributes and values that it cannot write."""
        if self.references is None:
            return ""
        problems, champion = [], self.references.champion
        if not self.policy.allow_lost_values:
            problems += promotion_gate.label_differences(self.champion_labels, labels)
        if not self.policy.allow_lost_attributes:
            learned = [(attribute, modality) for attribute in labels for modality in Modality]
            problems += promotion_gate.lost_attributes(champion, learned)
        return "; ".join(problems)

    def worse(self, attribute: str, decisions: Sequence[HeldOutDecision]) -> str:
        """For a model that would make ``decisions``, all on one modality path, on its test fold: a certified recall
        that is surely too low."""
        if self.references is None or not decisions or decisions[0].modality is None:
            return ""
        path = (attribute, decisions[0].modality)
        if path not in self.references.champion.certified:
            return ""
        comparisons = self.references.comparisons(path, decisions, self.policy)
        problems = promotion_gate.significantly_worse(comparisons, self.policy)
        return f"At the choosing fold's threshold: {'; '.join(problems)}" if problems else ""


def _same_certificate(candidate: PathEvidence, reference: PathEvidence) -> bool:
    """Return whether the version has the candidate's own certificate, and with it the same weights."""
    return candidate.certificate_id == reference.certificate_id is not None


def _accept_rates(candidate: PathEvidence | None, reference: PathEvidence) -> tuple[float, float] | None:
    """The accept rates of a candidate whose certificate rests on verdicts and of a version; else None."""
    if candidate is None or candidate.basis != CertificateBasis.VERDICTS:
        return None
    if candidate.accept_rate is None or reference.accept_rate is None:
        return None
    return candidate.accept_rate, reference.accept_rate


def _on_path(decisions: Sequence[HeldOutDecision], modality: Modality) -> list[HeldOutDecision]:
    """Those of products on the path, and of products whose path was not recorded."""
    return [row for row in decisions if row.modality in (modality, None)]
