"""The promotion gate: whether a candidate may become the champion.

Applies a policy (mlflow/promotion.v2.toml) to recorded results; reads and changes nothing in the registry. The
statistics are in :mod:`catalog_enrichment.precision.paired_recall`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catalog_enrichment.config import strict
from catalog_enrichment.errors import ConfigError
from catalog_enrichment.precision.paired_recall import RecallDifference, units_to_decide
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


@dataclass(frozen=True, kw_only=True, slots=True)
class AttributeEvidence:
    """Results of a version for one attribute, on the modality path with text and picture."""

    certified: bool
    certified_recall: float | None
    """On the test fold, at the certified threshold; None if no threshold is certified."""
    written_precision: float | None
    """On the test fold; None if nothing would have been written."""
    expires_at: str | None = None
    """When the certificate expires, ISO; None where it was not recorded (release 0.1.0)."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """Results of a version, by attribute."""

    version: str
    """Empty before the version is registered."""
    attributes: dict[str, AttributeEvidence]
    warnings: tuple[str, ...] = ()
    """Training's warnings about modalities that the version hardly uses."""

    @property
    def certified(self) -> set[str]:
        """The attributes that the version may publish."""
        return {name for name, results in self.attributes.items() if results.certified}

    @classmethod
    def from_certificates(
        cls, certificates: Sequence[Certificate], metrics: Mapping[str, float], warnings: Sequence[str]
    ) -> Evidence:
        """From the certificates of the path with text and picture, and the metrics of the test fold."""
        attributes = {}
        for certificate in certificates:
            if certificate.modality is Modality.BOTH:
                name = certificate.attribute
                accepted = metrics.get(f"{name}/certified_accepted")
                attributes[name] = AttributeEvidence(
                    certified=certificate.threshold is not None,
                    certified_recall=metrics.get(f"{name}/certified_recall"),
                    written_precision=metrics.get(f"{name}/certified_precision") if accepted else None,
                    expires_at=certificate.expires_at.isoformat(),
                )
        return cls("", attributes, tuple(warnings))

    def to_tags(self) -> dict[str, str]:
        """As tags of the model version."""
        attributes = {name: asdict(results) for name, results in sorted(self.attributes.items())}
        return {"evidence": json.dumps(attributes), "modality_warnings": json.dumps(self.warnings)}

    @classmethod
    def from_tags(cls, version: str, tags: Mapping[str, str]) -> Evidence | None:
        """Reads what :meth:`to_tags` wrote, also of release 0.1.0; None if the version has no such tags."""
        if "evidence" not in tags:
            return None
        attributes = json.loads(tags["evidence"])
        return cls(
            version,
            {name: AttributeEvidence(**results) for name, results in attributes.items()},
            tuple(json.loads(tags.get("modality_warnings", "[]"))),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """The candidate against one version, for one attribute."""

    attribute: str
    version: str
    """The champion, or the former champion with the best recorded recall."""
    difference: RecallDifference | None
    """None if the versions cannot be compared, because one of them recorded no decisions on its test fold."""

    def as_dict(self, margin: float) -> dict[str, Any]:
        """For the job's summary and the history; ``units_needed`` is None where no number is known."""
        summary: dict[str, Any] = {"attribute": self.attribute, "version": self.version}
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


def best_recall(versions: Sequence[Evidence], attribute: str) -> Evidence | None:
    """The version with the best recorded certified recall of ``attribute``, of those certified for it."""
    certified = [version for version in versions if attribute in version.certified]
    return max(certified, key=lambda version: version.attributes[attribute].certified_recall or 0.0, default=None)


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
    return GateResult(
        Verdict.PASSED, (f"certified for {sorted(candidate.certified)}, compared with {against}",), comparisons
    )


def _below_minimum(case: Case, policy: Policy) -> list[str]:
    """The rules about the candidate alone that it breaks."""
    candidate, problems = case.candidate, []
    if len(candidate.certified) < policy.min_certified_attributes:
        problems.append(
            f"certified for {len(candidate.certified)} attributes, fewer than min_certified_attributes = "
            f"{policy.min_certified_attributes}"
        )
    for name in sorted(candidate.certified):
        results = candidate.attributes[name]
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
    lost = sorted(case.champion.certified - case.candidate.certified) if case.champion else []
    if case.champion and lost and not policy.allow_lost_attributes:
        problems.append(f"not certified for {lost}, which champion version {case.champion.version} is certified for")
    return problems


def significantly_worse(comparisons: Sequence[Comparison], policy: Policy) -> list[str]:
    """The comparisons that show the candidate to be more than the margin worse, in words."""
    return [_describe(comparison, policy, "is") for comparison in comparisons if _worse(comparison, policy)]


def _good_enough(comparison: Comparison, policy: Policy) -> bool:
    return comparison.difference is not None and comparison.difference.lower >= -policy.recall_margin


def _worse(comparison: Comparison, policy: Policy) -> bool:
    return comparison.difference is not None and comparison.difference.upper < -policy.recall_margin


def _describe(comparison: Comparison, policy: Policy, verb: str) -> str:
    """Why the candidate ``verb`` (is, may be) worse, in words."""
    difference, version = comparison.difference, comparison.version
    if difference is None:
        return f"{comparison.attribute}: version {version} recorded nothing on its test fold that can be compared"
    text = (
        f"{comparison.attribute}: certified recall {verb} more than recall_margin = {policy.recall_margin:g} below "
        f"that of version {version}: {difference.candidate:.3f} against {difference.reference:.3f} "
        f"on {difference.units} test products, difference {difference.estimate:+.3f} "
        f"({difference.lower:+.3f} to {difference.upper:+.3f})"
    )
    needed = units_to_decide(difference, policy.recall_margin)
    return text if verb == "is" or needed is None else f"{text}; about {needed} test products would decide"
