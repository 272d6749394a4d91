"""A policy, and evidence of versions for the gate's tests."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from catalog_enrichment import resources
from catalog_enrichment.precision.certified_recall import RecallDifference
from catalog_enrichment.records import Modality
from catalog_enrichment.registry import promotion_gate
from catalog_enrichment.registry.gate_evidence import Comparison, Evidence, PathEvidence
from catalog_enrichment.registry.promotion_gate import Case

POLICY = promotion_gate.load_policy(resources.locate("policy:promotion.v1.toml"))
NOW = datetime(2026, 11, 22, tzinfo=UTC)
COLOR = ("color", Modality.BOTH)
NAMES = ("size", "color", "material", "brand", "fabric", "style", "collar", "sleeve")


def evidence(version: str, warnings: tuple[str, ...] = (), **recalls: float | None) -> Evidence:
    """Evidence with a certified recall per attribute, with text and picture; None: not certified."""
    return Evidence(
        version,
        {
            (name, Modality.BOTH): PathEvidence(
                certified=recall is not None,
                certified_recall=recall,
                written_precision=None if recall is None else 0.96,
                expires_at=(NOW + timedelta(days=90)).isoformat(),
                target=0.95,
                delta=0.05,
                certificate_id=f"certificate-{version}",
                basis="merchant_labels",
                accept_rate=0.5,
            )
            for name, recall in recalls.items()
        },
        warnings,
    )


def without_pictures(found: Evidence) -> Evidence:
    """The same evidence, for products without a usable picture."""
    paths = {(name, Modality.TEXT_ONLY): results for (name, _), results in found.paths.items()}
    return replace(found, paths=paths)


def both_paths(found: Evidence) -> Evidence:
    return replace(found, paths=found.paths | without_pictures(found).paths)


def comparison(
    lower: float, upper: float, version: str = "1", attribute: str = "color", modality: Modality = Modality.BOTH
) -> Comparison:
    difference = RecallDifference(
        units=172,
        candidate=0.4 + (lower + upper) / 2,
        reference=0.4,
        lower=lower,
        upper=upper,
        standard_error=(upper - lower) / 2 / 1.65,
        quantile=1.65,
    )
    return Comparison(attribute=attribute, modality=modality, version=version, measured=difference)


def case(champion: Evidence | None, candidate: Evidence, *comparisons: Comparison, **more: Any) -> Case:
    return Case(
        champion=champion, candidate=candidate, comparisons=comparisons, target=0.95, delta=0.05, now=NOW, **more
    )


ONE, TWO = evidence("1", color=0.4), evidence("2", color=0.4)
