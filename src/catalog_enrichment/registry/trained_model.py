"""TrainedModel: what training passes to the registry, a model version's folder and what is recorded with it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from catalog_enrichment.precision.certificate import Certificate
from catalog_enrichment.precision.paired_recall import HeldOutDecision


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
    `numeric_paths` and `mistakes` (:mod:`catalog_enrichment.training.mistakes`)."""
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
