"""The models of a comparison: the recipes of `[compare]`, with at most `max_epochs` per stage, and their results.
Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from catalog_enrichment import resources
from catalog_enrichment.config.comparison import CompareConfig, CompareRecipe
from catalog_enrichment.config.schema import Config
from catalog_enrichment.errors import ConfigError
from catalog_enrichment.models.recipe_files import load_model_recipe
from catalog_enrichment.models.spec import Ensemble, FitSpec, Recipe
from catalog_enrichment.precision.units import Ints
from catalog_enrichment.training.evaluation import BOTH, ModelScores
from catalog_enrichment.training.folds import Index, where
from catalog_enrichment.training.labels import Labels

if TYPE_CHECKING:
    from catalog_enrichment.training.scoring import MaskedInput
    from catalog_enrichment.training.task import ModalitiesUsed

VIEWS: dict[str, MaskedInput] = {BOTH: "nothing", "image_masked": "image", "text_masked": "text"}
"""View -> the input that is masked when the model is scored."""


# --- before the fit ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ComparedModel:
    """A model of the comparison, before it is fitted."""

    name: str
    members: tuple[Recipe, ...]
    """A recipe, or several whose predictions are combined by majority vote."""
    note: str = ""


def compare_settings(config: Config) -> CompareConfig:
    """Return the section [compare]. Raises ConfigError if there is none."""
    if config.compare is None:
        raise ConfigError("the config has no [compare] section: compare_models does not know which recipes to train")
    return config.compare


def compared_models(config: Config) -> list[ComparedModel]:
    """Return every model of `[compare]`, in the order of the config. Raises ConfigError for a recipe that cannot be
    used."""
    settings = compare_settings(config)
    members = {listed.name: _load_recipes(listed, config) for listed in settings.recipes if not listed.members}
    members |= {
        listed.name: tuple(recipe for name in listed.members for recipe in members[name])
        for listed in settings.recipes
        if listed.members
    }
    return [
        ComparedModel(
            listed.name,
            tuple(with_max_epochs(recipe, settings.max_epochs) for recipe in members[listed.name]),
            listed.note,
        )
        for listed in settings.recipes
    ]


def with_max_epochs(recipe: Recipe, max_epochs: int) -> Recipe:
    """Return ``recipe`` with at most ``max_epochs`` epochs in every stage; 0: unchanged."""
    if not max_epochs:
        return recipe

    def limited(fit: FitSpec) -> FitSpec:
        return replace(
            fit, epochs=min(fit.epochs, max_epochs), max_epochs=min(fit.max_epochs or max_epochs, max_epochs)
        )

    return _each_fit(recipe, limited)


def seeded(recipe: Recipe, seed: int) -> Recipe:
    """Return ``recipe`` with ``seed`` added to the seed of every stage."""
    return _each_fit(recipe, lambda fit: replace(fit, seed=fit.seed + seed))


def _load_recipes(listed: CompareRecipe, config: Config) -> tuple[Recipe, ...]:
    """Load the recipe file of a model: one recipe, or the members of an ensemble."""
    file = listed.recipe or (config.training.recipe if config.training else "")
    if not file:
        raise ConfigError(f"compare.recipes: {listed.name} names no recipe, and there is no training.recipe either")
    try:
        recipe = load_model_recipe(resources.locate(file, config.path(".")), listed.set)
    except ConfigError as problem:
        raise ConfigError(f"compare.recipes: {listed.name}: {problem}") from None
    return recipe.members if isinstance(recipe, Ensemble) else (recipe,)


def _each_fit(recipe: Recipe, change: Callable[[FitSpec], FitSpec]) -> Recipe:
    """Return ``recipe`` with ``change`` applied to the fit of every stage that it has."""
    changed: dict[str, Any] = {}
    for name in ("fit", "text", "image"):
        if (fit := getattr(recipe, name)) is not None:
            changed[name] = change(fit)
    for name in ("adapt", "noise", "destruction"):
        if (stage := getattr(recipe, name)) is not None:
            changed[name] = replace(stage, fit=change(stage.fit))
    return replace(recipe, **changed)


# --- after the fit -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FitResult:
    """A model fitted with a seed."""

    scores: Mapping[str, ModelScores]
    """By view, a key of VIEWS. A reference and a fit with a share of the labels have the view `both` only."""
    seconds: float
    """The seconds of fit and scoring, summed over the members, without the stages that an earlier model had fitted."""
    chosen: Mapping[str, float] = field(default_factory=dict)
    """Values chosen on the choosing fold; this and the next two fields as of
    :class:`catalog_enrichment.training.fit.Fitted`."""
    history: list[dict[str, float]] = field(default_factory=list)
    search: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class ModelResults:
    """A model of the comparison, with a fit per seed."""

    name: str
    modalities_used: ModalitiesUsed
    fits: tuple[FitResult, ...]
    """In the order of `compare.seeds`; a reference has a single fit."""
    note: str = ""
    members: tuple[Recipe, ...] = ()
    """The recipes that were fitted; several for a vote, none for a reference."""

    @property
    def seconds(self) -> float:
        """Mean over the seeds."""
        return float(np.mean([result.seconds for result in self.fits]))


@dataclass(frozen=True, kw_only=True, slots=True)
class FittedModels:
    """The fitted models, and the products that they are evaluated on."""

    models: Mapping[str, ModelResults]
    """By name: the recipes in the order of the config, then the references."""
    by_label_share: Mapping[tuple[str, float], ModelResults]
    """(name, share of the train fold's labels) -> the same recipe, fitted with that share."""
    labels: Mapping[str, Labels]
    """The learned attributes."""
    evaluation_index: Index
    """Products with a picture that no model was fitted on."""
    groups: Ints
    """(N,) content group."""
    failed: Mapping[str, str] = field(default_factory=dict)
    """Name of a model that could not be fitted -> the error. Such a model is in neither of the mappings above."""
    lineage: dict[str, Any]
    """Counts of the data, and the seconds of each stage."""

    def results(self, name: str, label_share: float | None = None) -> ModelResults:
        """Return the results of a model; ``label_share`` None: of the fit with all labels."""
        return self.models[name] if label_share is None else self.by_label_share[name, label_share]

    def labelled(self, attribute: str) -> Index:
        """Return the evaluation products that are labelled for ``attribute``."""
        return where(self.evaluation_index, self.labels[attribute].labelled)
