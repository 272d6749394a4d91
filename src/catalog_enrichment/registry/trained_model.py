"""What training hands to the registry: a model version's folder and everything that is recorded beside it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from catalog_enrichment.precision.certificate import Certificate


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainedModel:
    artifact: Path
    """The model version's folder, certificates included."""
    certificates: list[Certificate]
    """One per attribute and modality path; an abstention is one."""
    metrics: dict[str, float]
    """See :class:`Evaluation`; names are MLflow's kind of names."""
    params: dict[str, Any]
    """The recipe and the settings that made the model, flat."""
    tables: dict[str, list[dict[str, Any]]]
    curves: dict[str, dict[str, Any]]
    history: list[dict[str, float]]
    """See :class:`Fitted`; of a vote, its first member's."""
    warnings: list[str]
    """In words: a modality that the model hardly uses."""
    lineage: dict[str, Any]
    """What it was made from: counts, folds, groups, twins, label set, dictionary."""
    seconds: dict[str, float]
    """Per stage."""
