"""The promotion gate: whether a candidate may become the champion.

Compares recorded evidence by a policy (mlflow/promotion.v1.toml); reads and changes nothing in the registry.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from catalog_enrichment.config import strict
from catalog_enrichment.errors import ConfigError
from catalog_enrichment.records import Modality

if TYPE_CHECKING:
    from catalog_enrichment.precision.certificate import Certificate


@dataclass(frozen=True, kw_only=True, slots=True)
class Policy:
    """Each rule is explained in the policy file."""

    min_certified_attributes: int
    allow_lost_attributes: bool
    max_recall_drop: float
    min_written_precision: float

    def __post_init__(self) -> None:
        for name in ("max_recall_drop", "min_written_precision"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in [0, 1], not {getattr(self, name)!r}")


@dataclass(frozen=True, kw_only=True, slots=True)
class AttributeEvidence:
    """Results of a version for one attribute, on the modality path with text and picture."""

    certified: bool
    certified_recall: float | None
    """On the test fold, at the certified threshold; None if no threshold is certified."""
    written_precision: float | None
    """On the test fold; None if nothing would have been written."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """Results of a version, by attribute."""

    version: str
    """Empty before the version is registered."""
    attributes: dict[str, AttributeEvidence]

    @property
    def certified(self) -> set[str]:
        """The attributes that the version may publish."""
        return {name for name, results in self.attributes.items() if results.certified}

    @classmethod
    def from_certificates(
        cls, version: str, certificates: Sequence[Certificate], metrics: Mapping[str, float]
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
                )
        return cls(version, attributes)

    def to_json(self) -> str:
        """The attributes as JSON, for a tag of the model version."""
        return json.dumps({name: asdict(results) for name, results in sorted(self.attributes.items())})

    @classmethod
    def from_json(cls, version: str, text: str) -> Evidence:
        """Reads what :meth:`to_json` wrote."""
        return cls(version, {name: AttributeEvidence(**results) for name, results in json.loads(text).items()})


@dataclass(frozen=True, slots=True)
class GateResult:
    passed: bool
    reasons: tuple[str, ...]
    """Every rule that the candidate breaks; if it passed, what it was compared with."""


def load_policy(path: Path) -> Policy:
    """Read a policy file. Raises ConfigError for broken TOML, a missing or unknown rule or a wrong type."""
    content = strict.read_toml(path)
    if set(content) != {"gate"}:
        raise ConfigError(f"{path}: a promotion policy has one section, [gate], not {sorted(content)}")
    return strict.build(Policy, content["gate"], where=str(path))


def gate(champion: Evidence | None, candidate: Evidence, policy: Policy) -> GateResult:
    """Whether ``candidate`` may replace ``champion`` (None if there is no champion)."""
    if champion is not None and champion.version == candidate.version:
        return GateResult(True, (f"version {candidate.version} is the champion already",))
    problems = _below_minimum(candidate, policy)
    if champion is not None:
        problems += _worse_than_champion(champion, candidate, policy)
    if problems:
        return GateResult(False, tuple(problems))
    against = f"version {champion.version}" if champion else "no champion"
    return GateResult(True, (f"certified for {sorted(candidate.certified)}, compared with {against}",))


def _below_minimum(candidate: Evidence, policy: Policy) -> list[str]:
    problems = []
    if len(candidate.certified) < policy.min_certified_attributes:
        problems.append(
            f"certified for {len(candidate.certified)} attributes, fewer than min_certified_attributes = "
            f"{policy.min_certified_attributes}"
        )
    for name in sorted(candidate.certified):
        precision = candidate.attributes[name].written_precision
        if precision is not None and precision < policy.min_written_precision:
            problems.append(
                f"{name}: precision of what it would write is {precision:.3f} on the test fold, below "
                f"min_written_precision = {policy.min_written_precision:g}"
            )
    return problems


def _worse_than_champion(champion: Evidence, candidate: Evidence, policy: Policy) -> list[str]:
    problems = []
    lost = sorted(champion.certified - candidate.certified)
    if lost and not policy.allow_lost_attributes:
        problems.append(f"not certified for {lost}, which champion version {champion.version} is certified for")
    for name in sorted(champion.certified & candidate.certified):
        before = champion.attributes[name].certified_recall or 0.0
        now = candidate.attributes[name].certified_recall or 0.0
        if now < before - policy.max_recall_drop:
            problems.append(
                f"{name}: certified recall {now:.3f} is more than max_recall_drop = {policy.max_recall_drop:g} below "
                f"the champion's {before:.3f}"
            )
    return problems
