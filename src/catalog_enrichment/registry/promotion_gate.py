"""The promotion gate: whether a candidate may become the champion.

Applies a policy (mlflow/promotion.v2.toml) to recorded results; reads and changes nothing in the registry. The
statistics are in :mod:`catalog_enrichment.precision.paired_recall`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catalog_enrichment.config import strict
from catalog_enrichment.errors import ConfigError
from catalog_enrichment.precision.claim import PATHS
from catalog_enrichment.precision.paired_recall import HeldOutDecision, RecallDifference, units_to_decide
from catalog_enrichment.records import Modality

if TYPE_CHECKING:
    from catalog_enrichment.precision.certificate import Certificate


class Verdict(StrEnum):
    PASSED = "passed"
    REFUSED = "refused"
    INCONCLUSIVE = "inconclusive"
    """No rule is broken, but the test products cannot show that the candidate is good enough."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Policy:
    """Each rule is explained in the policy file."""

    min_certified_attributes: int
    allow_lost_attributes: bool
    allow_lost_values: bool
    allow_collapsed_modality: bool
    min_days_valid: int
    min_written_precision: float
    recall_margin: float
    confidence: float

    def __post_init__(self) -> None:
        for name in ("recall_margin", "min_written_precision"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in [0, 1], not {getattr(self, name)!r}")
        if not 0.5 <= self.confidence < 1:
            raise ValueError(f"confidence must lie in [0.5, 1), not {self.confidence!r}")


AttributePath = tuple[str, Modality]
"""An attribute and a modality path: what a certificate is about."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PathEvidence:
    """Results of a version for one attribute on one modality path."""

    certified: bool
    certified_recall: float | None
    """On the path's products of the test fold, at the certified threshold; None without such products."""
    written_precision: float | None
    """On the same products; None if nothing would have been written."""
    expires_at: str | None = None
    """When the certificate expires, ISO; None where it was not recorded (release 0.1.0)."""
    target: float | None = None
    """The precision that the certificate promises; None where it was not recorded."""
    delta: float | None = None
    """The probability with which the promise may be wrong; None where it was not recorded."""
    certificate_id: str | None = None
    basis: str | None = None
    """The labels that the certificate rests on (CertificateBasis); None where it was not recorded."""
    accept_rate: float | None = None
    """Share of the unlabelled products that the certificate lets write; None where it was not recorded."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """Results of a version, by attribute and modality path."""

    version: str
    """Empty before the version is registered."""
    paths: dict[AttributePath, PathEvidence]
    warnings: tuple[str, ...] = ()
    """Training's warnings about modalities that the version hardly uses."""

    @property
    def certified(self) -> set[AttributePath]:
        """What the version may publish."""
        return {path for path, results in self.paths.items() if results.certified}

    @classmethod
    def from_certificates(
        cls, certificates: Sequence[Certificate], held_out: Sequence[HeldOutDecision], warnings: Sequence[str]
    ) -> Evidence:
        """From a version's certificates and what they would write on its test fold."""
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

    def to_tags(self) -> dict[str, str]:
        """As tags of the model version: one per modality path, because a tag's length is limited."""
        tags = {"modality_warnings": json.dumps(self.warnings)}
        for modality, tag in _EVIDENCE.items():
            of_path = {
                name: asdict(results) for (name, path), results in sorted(self.paths.items()) if path is modality
            }
            tags[tag] = json.dumps(of_path)
        return tags

    @classmethod
    def from_tags(cls, version: str, tags: Mapping[str, str]) -> Evidence | None:
        """Reads what :meth:`to_tags` wrote; None if the version has no such tags.

        Versions of release 0.1.0 have evidence of the path with text and picture alone, without expiry date, target
        and delta.
        """
        if _EVIDENCE[Modality.BOTH] not in tags:
            return None
        paths = {
            (name, modality): PathEvidence(**results)
            for modality, tag in _EVIDENCE.items()
            for name, results in json.loads(tags.get(tag, "{}")).items()
        }
        return cls(version, paths, tuple(json.loads(tags.get("modality_warnings", "[]"))))


_EVIDENCE = {Modality.BOTH: "evidence", Modality.TEXT_ONLY: "evidence.text_only"}
"""Version tag with the results of each modality path, by attribute."""


def _recall_and_precision(decisions: Sequence[HeldOutDecision]) -> tuple[float | None, float | None]:
    """The share of the true (product, value) pairs that are written, and the share of the written products without a
    wrong value; None where there is nothing to divide by."""
    true = sum(len(row.true_values) for row in decisions)
    right = sum(len(set(row.true_values) & set(row.written_values)) for row in decisions)
    written = [row for row in decisions if row.written_values]
    correct = sum(set(row.written_values) <= set(row.true_values) for row in written)
    return (right / true if true else None), (correct / len(written) if written else None)


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """The candidate against one version, for one attribute and modality path."""

    attribute: str
    modality: Modality
    version: str
    """The champion, or the former champion with the best recorded recall."""
    difference: RecallDifference | None
    """None if the versions cannot be compared, because one of them recorded no decisions on its test fold."""
    accept_rates: tuple[float, float] | None = None
    """Shares of the unlabelled products that the candidate and the version may write. Compared in place of recall
    where the candidate's certificate rests on verdicts: merchants' labels do not measure it then."""

    def as_dict(self, margin: float) -> dict[str, Any]:
        """For the job's summary and the history; ``units_needed`` is None where no number is known."""
        summary: dict[str, Any] = {
            "attribute": self.attribute,
            "modality": self.modality.value,
            "version": self.version,
        }
        if self.accept_rates is not None:
            candidate, reference = self.accept_rates
            rates = {"candidate_accept_rate": round(candidate, 4), "accept_rate": round(reference, 4)}
            return summary | {"units": 0, "units_needed": None} | rates
        if self.difference is None:
            return summary | {"units": 0, "units_needed": None}
        numbers = {
            "candidate_recall": self.difference.candidate,
            "recall": self.difference.reference,
            "difference": self.difference.estimate,
            "lower": self.difference.lower,
            "upper": self.difference.upper,
        }
        needed = units_to_decide(self.difference, margin)
        rounded = {name: round(number, 4) for name, number in numbers.items()}
        return summary | {"units": self.difference.units, **rounded, "units_needed": needed}


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """All that the gate knows."""

    candidate: Evidence
    champion: Evidence | None
    """None if there is no champion."""
    comparisons: Sequence[Comparison] = ()
    label_differences: Sequence[str] = ()
    """What the champion's labels have and the candidate's have not (:func:`label_differences`)."""
    target: float
    """`precision.target` of the config."""
    delta: float
    """`precision.delta` of the config."""
    now: datetime


@dataclass(frozen=True, slots=True)
class GateResult:
    verdict: Verdict
    reasons: tuple[str, ...]
    """Every rule that the candidate breaks, or what could not be decided; if it passed, what it was compared with."""
    comparisons: tuple[dict[str, Any], ...] = ()
    """See :meth:`Comparison.as_dict`."""


def load_policy(path: Path) -> Policy:
    """Read a policy file. Raises ConfigError for broken TOML, a missing or unknown rule or a wrong type, and for a
    policy of version 1."""
    content = strict.read_toml(path)
    if set(content) != {"gate"}:
        raise ConfigError(f"{path}: a promotion policy has one section, [gate], not {sorted(content)}")
    if "max_recall_drop" in content["gate"]:
        raise ConfigError(
            f"{path} is a promotion policy of version 1. Copy policy:promotion.v2.toml, which explains every rule, and "
            "set recall_margin to what max_recall_drop was"
        )
    return strict.build(Policy, content["gate"], where=str(path))


def label_differences(champion: Mapping[str, Sequence[str]], candidate: Mapping[str, Sequence[str]]) -> list[str]:
    """What the candidate's labels (attribute -> values) lack of the champion's, in words."""
    lost = {name: sorted(set(champion[name]) - set(candidate[name])) for name in champion if name in candidate}
    return [f"{name}: the candidate cannot write {values}, the champion can" for name, values in lost.items() if values]


def lost_attributes(champion: Evidence, candidate: Iterable[AttributePath]) -> list[str]:
    """What the champion is certified for and the candidate is not, in words."""
    lost = sorted(champion.certified - set(candidate))
    names = ", ".join(named(*path) for path in lost)
    return [f"not certified for {names}, which champion version {champion.version} is certified for"] if lost else []


def named(attribute: str, modality: Modality) -> str:
    """An attribute and a modality path in words."""
    return f"{attribute} (products {PATHS[modality]})"


def best_recall(versions: Sequence[Evidence], path: AttributePath) -> Evidence | None:
    """The version with the best recorded certified recall of ``path``, of those certified for it."""
    certified = [version for version in versions if path in version.certified]
    return max(certified, key=lambda version: version.paths[path].certified_recall or 0.0, default=None)


def gate(case: Case, policy: Policy) -> GateResult:
    """Whether the candidate may replace the champion."""
    candidate, champion = case.candidate, case.champion
    if champion is not None and champion.version == candidate.version:
        return GateResult(Verdict.PASSED, (f"version {candidate.version} is the champion already",))
    comparisons = tuple(comparison.as_dict(policy.recall_margin) for comparison in case.comparisons)
    broken = _below_minimum(case, policy) + _lost(case, policy) + significantly_worse(case.comparisons, policy)
    if broken:
        return GateResult(Verdict.REFUSED, tuple(broken), comparisons)
    undecided = [comparison for comparison in case.comparisons if not _good_enough(comparison, policy)]
    if undecided:
        reasons = tuple(_describe(comparison, policy, "may be") for comparison in undecided)
        return GateResult(Verdict.INCONCLUSIVE, reasons, comparisons)
    versions = sorted({comparison.version for comparison in case.comparisons}, key=int)
    against = f"versions {', '.join(versions)}" if versions else "no version"
    names = ", ".join(named(*path) for path in sorted(candidate.certified))
    return GateResult(Verdict.PASSED, (f"certified for {names}, compared with {against}",), comparisons)


def _below_minimum(case: Case, policy: Policy) -> list[str]:
    """The rules about the candidate alone that it breaks."""
    candidate, problems = case.candidate, []
    attributes = {attribute for attribute, _ in candidate.certified}
    if len(attributes) < policy.min_certified_attributes:
        problems.append(
            f"certified for {len(attributes)} attributes, fewer than min_certified_attributes = "
            f"{policy.min_certified_attributes}"
        )
    for path in sorted(candidate.certified):
        results, name = candidate.paths[path], named(*path)
        problems += _promises_less(name, results, case)
        if results.written_precision is not None and results.written_precision < policy.min_written_precision:
            problems.append(
                f"{name}: precision of what it would write is {results.written_precision:.3f} on the test fold, below "
                f"min_written_precision = {policy.min_written_precision:g}"
            )
        needed = case.now + timedelta(days=policy.min_days_valid)
        if results.expires_at is None or datetime.fromisoformat(results.expires_at) < needed:
            problems.append(
                f"{name}: its certificate expires on {(results.expires_at or 'an unknown date')[:10]}, and "
                f"min_days_valid = {policy.min_days_valid}. Train again"
            )
    if not policy.allow_collapsed_modality:
        problems += candidate.warnings
    return problems


def _lost(case: Case, policy: Policy) -> list[str]:
    """What the champion can write and the candidate cannot, where the policy forbids it."""
    problems = [] if policy.allow_lost_values else list(case.label_differences)
    if case.champion and not policy.allow_lost_attributes:
        problems += lost_attributes(case.champion, case.candidate.certified)
    return problems


def _promises_less(name: str, results: PathEvidence, case: Case) -> list[str]:
    """Why the certificate of ``name`` promises less than the config asks for; no policy allows that."""
    asked = f"the config asks for precision.target = {case.target:g} with precision.delta = {case.delta:g}. Train again"
    if results.target is None or results.delta is None:
        return [f"{name}: it is not recorded what its certificate promises; {asked}"]
    if results.target >= case.target and results.delta <= case.delta:
        return []
    return [f"{name}: its certificate promises a precision of {results.target:g} with delta {results.delta:g}; {asked}"]


def significantly_worse(comparisons: Sequence[Comparison], policy: Policy) -> list[str]:
    """The comparisons that show the candidate to be more than the margin worse, in words."""
    return [_describe(comparison, policy, "is") for comparison in comparisons if _worse(comparison, policy)]


def _good_enough(comparison: Comparison, policy: Policy) -> bool:
    if comparison.accept_rates is not None:
        candidate, reference = comparison.accept_rates
        return candidate >= reference - policy.recall_margin
    return comparison.difference is not None and comparison.difference.lower >= -policy.recall_margin


def _worse(comparison: Comparison, policy: Policy) -> bool:
    return comparison.difference is not None and comparison.difference.upper < -policy.recall_margin


def _describe(comparison: Comparison, policy: Policy, verb: str) -> str:
    """Why the candidate ``verb`` (is, may be) worse, in words."""
    difference, version = comparison.difference, comparison.version
    name = named(comparison.attribute, comparison.modality)
    if comparison.accept_rates is not None:
        candidate, reference = comparison.accept_rates
        return (
            f"{name}: it may write {candidate:.1%} of the unlabelled products, version {version} {reference:.1%}: more "
            f"than recall_margin = {policy.recall_margin:g} less. Its certificate rests on verdicts, and merchants' "
            "labels do not measure its recall. More verdicts may certify a lower score"
        )
    if difference is None:
        return f"{name}: version {version} recorded nothing on its test fold that can be compared"
    text = (
        f"{name}: certified recall {verb} more than recall_margin = {policy.recall_margin:g} below "
        f"that of version {version}: {difference.candidate:.3f} against {difference.reference:.3f} "
        f"on {difference.units} test products, difference {difference.estimate:+.3f} "
        f"({difference.lower:+.3f} to {difference.upper:+.3f})"
    )
    needed = units_to_decide(difference, policy.recall_margin)
    return text if verb == "is" or needed is None else f"{text}; about {needed} test products would decide"
