"""The scores of every fitted model: what :mod:`fit_all` returns and :mod:`tables` reads. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from catalog_enrichment.models.spec import Recipe
from catalog_enrichment.training.dataset import Labels
from catalog_enrichment.training.evaluation import BOTH, ModelScores
from catalog_enrichment.training.folds import Index

if TYPE_CHECKING:
    from catalog_enrichment.training.scoring import MaskedInput
    from catalog_enrichment.training.single_encoder import ModalitiesUsed

VIEWS: dict[str, MaskedInput] = {BOTH: "nothing", "image_masked": "image", "text_masked": "text"}
"""View -> the input that is masked when the model is scored."""


@dataclass(frozen=True, slots=True)
class FitResult:
    """One model fitted with one seed."""

    scores: Mapping[str, ModelScores]
    """By view, a key of VIEWS. A reference and a fit with a share of the labels have the view `both` only."""
    seconds: float
    """To fit and to score, summed over the members. A stage that an earlier model has already fitted is not counted."""
    chosen: Mapping[str, float] = field(default_factory=dict)
    """Values chosen on the choosing fold; see :class:`catalog_enrichment.training.fit.Fitted`."""
    history: list[dict[str, float]] = field(default_factory=list)
    """Losses per epoch; see the same class."""
    search: list[dict[str, Any]] = field(default_factory=list)
    """One row per value of kl_lambda that was tried."""


@dataclass(frozen=True, slots=True)
class ModelResults:
    """One model of the comparison, with one fit per seed."""

    name: str
    modalities_used: ModalitiesUsed
    fits: tuple[FitResult, ...]
    """In the order of `compare.seeds`; a reference has one."""
    note: str = ""
    members: tuple[Recipe, ...] = ()
    """The recipes that were fitted; several for a vote, none for a reference."""

    @property
    def seconds(self) -> float:
        """Mean over the seeds."""
        return float(np.mean([result.seconds for result in self.fits]))


@dataclass(frozen=True, kw_only=True, slots=True)
class FittedModels:
    """All fitted models, and the products that they are evaluated on."""

    models: Mapping[str, ModelResults]
    """By name: the recipes in the order of the config, then the references."""
    by_label_share: Mapping[tuple[str, float], ModelResults]
    """(name, share of the train fold's labels) -> the same recipe, fitted with that share."""
    labels: Mapping[str, Labels]
    """The learned attributes."""
    evaluation_index: Index
    """Products with a picture that no model was fitted on."""
    groups: NDArray[np.int64]
    """(N,) content group."""
    ids: Sequence[str]
    """(N,) product id."""
    failed: Mapping[str, str] = field(default_factory=dict)
    """Name of a model that could not be fitted -> the error. Such a model is in neither of the mappings above."""
    lineage: dict[str, Any]
    """Counts of the data, and the seconds of each stage."""

    def results(self, name: str, label_share: float | None = None) -> ModelResults:
        """``label_share`` None: the fit with all labels. Raises KeyError for a model that was not fitted."""
        return self.models[name] if label_share is None else self.by_label_share[name, label_share]

    def labelled(self, attribute: str) -> Index:
        """The evaluation products that are labelled for ``attribute``."""
        return self.evaluation_index[self.labels[attribute].labelled[self.evaluation_index]]
