"""The promotion gate: whether a candidate may become the champion.

Applies a policy (mlflow/promotion.v1.toml) to recorded evidence; reads and changes nothing in the registry.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any

from catalog_enrichment.config import strict
from catalog_enrichment.errors import ConfigError
from catalog_enrichment.precision.certified_recall import HeldOutDecision, RecallDifference, units_to_decide
from catalog_enrichment.precision.claim import PATHS
from catalog_enrichment.records import Modality
from catalog_enrichment.registry.gate_evidence import AcceptRates, AttributePath, Comparison, Evidence, References


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
        strict.check_ranges("gate", self, recall_margin=(0, 1), min_written_precision=(0, 1))
        if not 0.5 <= self.confidence < 1:
            raise ValueError(f"gate.confidence must lie in [0.5, 1), not {self.confidence!r}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """Everything that the gate knows."""

    candidate: Evidence
    champion: Evidence | None
    """The champion's evidence; None if there is no champion."""
    comparisons: Sequence[Comparison] = ()
    label_differences: Sequence[str] = ()
    """Values of the champion's labels that the candidate's do not have (:func:`label_differences`)."""
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
    """Read a policy file. Raises ConfigError for broken TOML, a missing or unknown rule or a wrong type."""
    content = strict.read_toml(path)
    if set(content) != {"gate"}:
        raise ConfigError(f"{path}: a promotion policy has one section, [gate], not {sorted(content)}")
    return strict.build(Policy, content["gate"], where=str(path))


def gate(case: Case, policy: Policy) -> GateResult:
    """Decide whether the candidate may replace the champion."""
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


@dataclass(frozen=True, slots=True)
class EarlyGate:
    """The gate's answer about a model before its certification labels are used.

    Each method returns why the gate would refuse the model; "" if it would not, or if that is not known yet. Not asked:
    a collapsed modality, which is measured after certification, and `min_written_precision`, because the certified
    threshold is usually higher than the choosing fold's.
    """

    policy: Policy
    references: References | None
    """The champion's references; None if there is no champion."""
    champion_labels: Mapping[str, Sequence[str]]
    """Attribute -> the values that the champion can write."""

    def lost(self, labels: Mapping[str, Sequence[str]]) -> str:
        """Name attributes and values that a model with ``labels`` (attribute -> values) cannot write."""
        if self.references is None:
            return ""
        problems, champion = [], self.references.champion
        if not self.policy.allow_lost_values:
            problems += label_differences(self.champion_labels, labels)
        if not self.policy.allow_lost_attributes:
            learned = [(attribute, modality) for attribute in labels for modality in Modality]
            problems += lost_attributes(champion, learned)
        return "; ".join(problems)

    def worse(self, attribute: str, decisions: Sequence[HeldOutDecision]) -> str:
        """Describe a certified recall that is surely too low, for a model that would make ``decisions``, all on one
        modality path, on its test fold."""
        if self.references is None or not decisions:
            return ""
        path = (attribute, decisions[0].modality)
        if path not in self.references.champion.certified:
            return ""
        comparisons = self.references.comparisons(path, decisions, self.policy.confidence)
        problems = significantly_worse(comparisons, self.policy)
        return f"At the choosing fold's threshold: {'; '.join(problems)}" if problems else ""


def label_differences(champion: Mapping[str, Sequence[str]], candidate: Mapping[str, Sequence[str]]) -> list[str]:
    """Return in words the champion's labels (attribute -> values) that the candidate's do not have."""
    lost = {name: sorted(set(champion[name]) - set(candidate[name])) for name in champion if name in candidate}
    return [f"{name}: the candidate cannot write {values}, the champion can" for name, values in lost.items() if values]


def lost_attributes(champion: Evidence, candidate: Iterable[AttributePath]) -> list[str]:
    """Return in words what the champion is certified for and the candidate is not."""
    lost = sorted(champion.certified - set(candidate))
    names = ", ".join(named(*path) for path in lost)
    return [f"not certified for {names}, which champion version {champion.version} is certified for"] if lost else []


def significantly_worse(comparisons: Sequence[Comparison], policy: Policy) -> list[str]:
    """Return in words the comparisons that show the candidate to be more than the margin worse."""
    return [
        _describe(comparison, policy, "is")
        for comparison in comparisons
        if isinstance(comparison.measured, RecallDifference) and comparison.measured.upper < -policy.recall_margin
    ]


def named(attribute: str, modality: Modality) -> str:
    """Return an attribute and a modality path in words."""
    return f"{attribute} (products {PATHS[modality]})"


def _below_minimum(case: Case, policy: Policy) -> list[str]:
    """Return the rules about the candidate alone that it breaks."""
    candidate, problems = case.candidate, []
    attributes = {attribute for attribute, _ in candidate.certified}
    if len(attributes) < policy.min_certified_attributes:
        problems.append(
            f"certified for {len(attributes)} attributes, fewer than min_certified_attributes = "
            f"{policy.min_certified_attributes}"
        )
    for path in sorted(candidate.certified):
        results, name = candidate.paths[path], named(*path)
        if results.target < case.target or results.delta > case.delta:  # no policy allows that
            problems.append(
                f"{name}: its certificate promises a precision of {results.target:g} with delta {results.delta:g}; the "
                f"config asks for precision.target = {case.target:g} with precision.delta = {case.delta:g}. Train again"
            )
        if results.written_precision is not None and results.written_precision < policy.min_written_precision:
            problems.append(
                f"{name}: precision of what it would write is {results.written_precision:.3f} on the test fold, below "
                f"min_written_precision = {policy.min_written_precision:g}"
            )
        needed = case.now + timedelta(days=policy.min_days_valid)
        if datetime.fromisoformat(results.expires_at) < needed:
            problems.append(
                f"{name}: its certificate expires on {results.expires_at[:10]}, and min_days_valid = "
                f"{policy.min_days_valid}. Train again"
            )
    if not policy.allow_collapsed_modality:
        problems += candidate.warnings
    return problems


def _lost(case: Case, policy: Policy) -> list[str]:
    """Return what the champion can write and the candidate cannot, where the policy forbids it."""
    problems = [] if policy.allow_lost_values else list(case.label_differences)
    if case.champion and not policy.allow_lost_attributes:
        problems += lost_attributes(case.champion, case.candidate.certified)
    return problems


def _good_enough(comparison: Comparison, policy: Policy) -> bool:
    measured = comparison.measured
    if isinstance(measured, AcceptRates):
        return measured.candidate >= measured.reference - policy.recall_margin
    return measured.lower >= -policy.recall_margin


def _describe(comparison: Comparison, policy: Policy, verb: str) -> str:
    """Say why the candidate ``verb`` (is, may be) worse."""
    measured, version = comparison.measured, comparison.version
    name = named(comparison.attribute, comparison.modality)
    if isinstance(measured, AcceptRates):
        return (
            f"{name}: it may write {measured.candidate:.1%} of the unlabelled products, version {version} "
            f"{measured.reference:.1%}: more than recall_margin = {policy.recall_margin:g} less. Its certificate rests "
            "on verdicts, and merchants' labels do not measure its recall. More verdicts may certify a lower score"
        )
    text = (
        f"{name}: certified recall {verb} more than recall_margin = {policy.recall_margin:g} below "
        f"that of version {version}: {measured.candidate:.3f} against {measured.reference:.3f} "
        f"on {measured.units} test products, difference {measured.estimate:+.3f} "
        f"({measured.lower:+.3f} to {measured.upper:+.3f})"
    )
    needed = units_to_decide(measured, policy.recall_margin)
    return text if verb == "is" or needed is None else f"{text}; about {needed} test products would decide"
