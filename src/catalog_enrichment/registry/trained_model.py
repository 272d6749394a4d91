"""TrainedModel: what training passes to the registry, a model version's folder and what is recorded with it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from catalog_enrichment.errors import ModelContractError
from catalog_enrichment.precision.certificate import Certificate
from catalog_enrichment.precision.paired_recall import HeldOutDecision
from catalog_enrichment.records import Modality


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainedModel:
    artifact: Path
    """The model version's folder, certificates included."""
    certificates: list[Certificate]
    """One per attribute and modality path, abstentions included."""
    metrics: dict[str, float]
    """See :class:`Evaluation`; every name is a valid MLflow metric name."""
    params: dict[str, Any]
    """The recipe and the settings, as a flat mapping with dotted keys."""
    tables: dict[str, list[dict[str, Any]]]
    """See :class:`Evaluation`. Also `epochs` (the losses of every stage), `search` (the candidates for lambda),
    `compute_types` and `mistakes` (:mod:`catalog_enrichment.training.mistakes`)."""
    curves: dict[str, dict[str, Any]]
    """See :class:`Evaluation`."""
    history: list[dict[str, float]]
    """See :class:`Fitted`; for a vote, the history of its first member."""
    warnings: list[str]
    """Messages about modalities that the model hardly uses."""
    held_out: list[HeldOutDecision]
    """What the certificates would write on the test fold; the promotion gate pairs it with another version's."""
    lineage: dict[str, Any]
    """The training data: counts, folds, content groups, label set, dictionary."""
    seconds: dict[str, float]
    """Stage -> seconds."""
    pictures: dict[str, bytes] = field(default_factory=dict)
    """Product id -> JPEG, of the products in the table `mistakes`."""


def require_certificates(heads: Collection[str], certificates: Sequence[Certificate]) -> None:
    """Raises ModelContractError unless every one of ``heads`` has a certificate for each modality path, in every
    number type; an abstention is one."""
    certified = {(one.attribute, one.modality, one.compute_type) for one in certificates}
    missing = [
        f"{name} ({path}{f', {compute_type}' if several else ''})"
        for compute_type, several in _numeric_paths(certificates)
        for name in heads
        for path in Modality
        if (name, path, compute_type) not in certified
    ]
    if missing or not heads:
        raise ModelContractError(
            f"not registered: the artifact has no certificate for {', '.join(missing) or 'any head'}. A head that "
            "always abstains needs one too."
        )


def _numeric_paths(certificates: Sequence[Certificate]) -> list[tuple[str, bool]]:
    """The compute types of the certificates, "" if there are none, each with whether there are several."""
    paths = sorted({one.compute_type for one in certificates}) or [""]
    return [(path, len(paths) > 1) for path in paths]
