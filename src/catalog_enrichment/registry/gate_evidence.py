"""The evidence of the promotion gate: what versions recorded when they were registered, and how two of them differ.

The statistics are in :mod:`catalog_enrichment.precision.certified_recall`.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from catalog_enrichment.precision.certificate import CertificateBasis
from catalog_enrichment.precision.certified_recall import (
    HeldOutDecision,
    RecallDifference,
    pair,
    recall_difference,
    units_to_decide,
)
from catalog_enrichment.records import Modality

if TYPE_CHECKING:
    from catalog_enrichment.precision.certificate import Certificate

AttributePath = tuple[str, Modality]
"""An attribute and a modality path: the subject of a certificate."""

_TAGS = {Modality.BOTH: "evidence", Modality.TEXT_ONLY: "evidence.text_only"}
"""Version tag with the results of each modality path, by attribute."""

_WARNINGS = "modality_warnings"


@dataclass(frozen=True, kw_only=True, slots=True)
class PathEvidence:
    """Results of a version for one attribute on one modality path."""

    certified: bool
    certified_recall: float | None
    """On the path's products of the test fold, at the certified threshold; None without such products."""
    written_precision: float | None
    """On the same products; None if nothing would have been written."""
    expires_at: str
    """When the certificate expires, ISO."""
    target: float
    """The precision that the certificate promises."""
    delta: float
    """The probability with which the promise may be wrong."""
    certificate_id: str
    basis: str
    """The labels that the certificate rests on (CertificateBasis)."""
    accept_rate: float
    """Share of the unlabelled products that the certificate lets write."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """Results of a version, by attribute and modality path."""

    version: str
    """The version; empty before it is registered."""
    paths: dict[AttributePath, PathEvidence]
    warnings: tuple[str, ...] = ()
    """Training's warnings about modalities that the version hardly uses."""

    @property
    def certified(self) -> set[AttributePath]:
        """Return what the version may publish."""
        return {path for path, results in self.paths.items() if results.certified}

    @classmethod
    def from_certificates(
        cls, certificates: Sequence[Certificate], held_out: Sequence[HeldOutDecision], warnings: Sequence[str]
    ) -> Evidence:
        """Return the evidence of a version's certificates and of what they would write on its test fold."""
        paths = {}
        for certificate in certificates:
            name, modality = certificate.attribute, certificate.modality
            recall, precision = _recall_and_precision(
                [row for row in held_out if row.attribute == name and row.modality is modality]
            )
            paths[name, modality] = PathEvidence(
                certified=certificate.threshold is not None,
                certified_recall=recall,
                written_precision=precision,
                expires_at=certificate.expires_at.isoformat(),
                target=certificate.target,
                delta=certificate.delta,
                certificate_id=certificate.certificate_id,
                basis=certificate.basis.value,
                accept_rate=certificate.accept_rate,
            )
        return cls("", paths, tuple(warnings))

    def of_attributes(self, names: Collection[str]) -> Evidence:
        """Return the results of these attributes alone."""
        return replace(self, paths={path: results for path, results in self.paths.items() if path[0] in names})

    def to_tags(self) -> dict[str, str]:
        """Return tags of the model version, one per modality path, because a tag's length is limited."""
        tags = {_WARNINGS: json.dumps(self.warnings)}
        for modality, tag in _TAGS.items():
            of_path = {
                name: asdict(results) for (name, path), results in sorted(self.paths.items()) if path is modality
            }
            tags[tag] = json.dumps(of_path)
        return tags

    @classmethod
    def from_tags(cls, version: str, tags: Mapping[str, str]) -> Evidence | None:
        """Read what :meth:`to_tags` wrote; None if the version has no such tags."""
        if _WARNINGS not in tags:
            return None
        paths = {
            (name, modality): PathEvidence(**results)
            for modality, tag in _TAGS.items()
            for name, results in json.loads(tags[tag]).items()
        }
        return cls(version, paths, tuple(json.loads(tags[_WARNINGS])))


def _recall_and_precision(decisions: Sequence[HeldOutDecision]) -> tuple[float | None, float | None]:
    """Return the share of the true (product, value) pairs that are written, and the share of the written products
    without a wrong value; None where there is nothing to divide by."""
    true = sum(len(row.true_values) for row in decisions)
    right = sum(row.right for row in decisions)
    written = [row for row in decisions if row.written_values]
    correct = sum(set(row.written_values) <= set(row.true_values) for row in written)
    return (right / true if true else None), (correct / len(written) if written else None)


def best_recall(versions: Sequence[Evidence], path: AttributePath) -> Evidence | None:
    """Return the version with the best recorded certified recall of ``path``, among those certified for it."""
    certified = [version for version in versions if path in version.certified]
    return max(certified, key=lambda version: version.paths[path].certified_recall or 0.0, default=None)


@dataclass(frozen=True, slots=True)
class AcceptRates:
    """Shares of the unlabelled products that two versions may write.

    They are compared in place of recall where the candidate's certificate rests on verdicts: merchants' labels do not
    measure it then.
    """

    candidate: float
    reference: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """The candidate against one version, for one attribute and modality path."""

    attribute: str
    modality: Modality
    version: str
    """The champion, or the former champion with the best recorded recall."""
    measured: RecallDifference | AcceptRates

    def as_dict(self, margin: float) -> dict[str, Any]:
        """Return the numbers for the job's summary and the history; ``units_needed`` is None where it is not known."""
        summary = {"attribute": self.attribute, "modality": self.modality.value, "version": self.version}
        measured = self.measured
        if isinstance(measured, AcceptRates):
            numbers = {"candidate_accept_rate": measured.candidate, "accept_rate": measured.reference}
            counts: dict[str, Any] = {"units": 0, "units_needed": None}
        else:
            numbers = {"candidate_recall": measured.candidate, "recall": measured.reference}
            numbers |= {"difference": measured.estimate, "lower": measured.lower, "upper": measured.upper}
            counts = {"units": measured.units, "units_needed": units_to_decide(measured, margin)}
        return summary | counts | {name: round(number, 4) for name, number in numbers.items()}


@dataclass(frozen=True, slots=True)
class References:
    """The versions that a candidate is compared with, before and after it is certified."""

    champion: Evidence
    former: Sequence[Evidence]
    """Former champions that were not demoted."""
    decisions: Mapping[str, Sequence[HeldOutDecision]]
    """Version -> what it would write on its test fold."""

    def comparisons(
        self,
        path: AttributePath,
        candidate: Sequence[HeldOutDecision],
        confidence: float,
        results: PathEvidence | None = None,
    ) -> list[Comparison]:
        """Compare a candidate with ``candidate`` decisions with the champion and the former champion with the best
        recorded recall of ``path``, on the products that are on the modality path in both trainings.

        ``results``: those of the candidate, where they are known. A certificate that rests on verdicts is compared by
        the share of the unlabelled products that it lets write. A version that has the candidate's own certificate is
        not compared where the candidate has no decisions: its files are the same.
        """
        attribute, modality = path
        best = best_recall(self.former, path)
        comparisons = []
        for reference in [self.champion] if best is None else [self.champion, best]:
            of_reference = reference.paths[path]
            if results is not None and results.certificate_id == of_reference.certificate_id and not candidate:
                continue
            measured: RecallDifference | AcceptRates
            if results is not None and results.basis == CertificateBasis.VERDICTS:
                measured = AcceptRates(results.accept_rate, of_reference.accept_rate)
            else:
                own, other = (
                    [row for row in decisions if row.modality is modality]
                    for decisions in (candidate, self.decisions[reference.version])
                )
                measured = recall_difference(pair(own, other, attribute), confidence)
            comparisons.append(
                Comparison(attribute=attribute, modality=modality, version=reference.version, measured=measured)
            )
        return comparisons
