"""The models of a comparison: the recipes of `[compare]`, with at most `max_epochs` per stage. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from catalog_enrichment import resources
from catalog_enrichment.config.comparison import CompareConfig, CompareRecipe
from catalog_enrichment.config.schema import Config
from catalog_enrichment.errors import ConfigError
from catalog_enrichment.models.recipe_files import load_model_recipe
from catalog_enrichment.models.spec import Ensemble, FitSpec, Recipe


@dataclass(frozen=True, slots=True)
class ComparedModel:
    """One model of the comparison, before it is fitted."""

    name: str
    members: tuple[Recipe, ...]
    """One recipe, or several whose predictions are combined by majority vote."""
    note: str = ""


def compare_settings(config: Config) -> CompareConfig:
    """The section [compare]. Raises ConfigError if there is none."""
    if config.compare is None:
        raise ConfigError("the config has no [compare] section: compare_models does not know which recipes to train")
    return config.compare


def compared_models(config: Config) -> list[ComparedModel]:
    """Every model of `[compare]`, in the order of the config. Raises ConfigError for a recipe that cannot be used."""
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
    """``recipe`` with at most ``max_epochs`` epochs in every stage; 0: unchanged."""
    if not max_epochs:
        return recipe

    def limited(fit: FitSpec) -> FitSpec:
        return replace(
            fit, epochs=min(fit.epochs, max_epochs), max_epochs=min(fit.max_epochs or max_epochs, max_epochs)
        )

    return _each_fit(recipe, limited)


def seeded(recipe: Recipe, seed: int) -> Recipe:
    """``recipe`` with ``seed`` added to the seed of every stage."""
    return _each_fit(recipe, lambda fit: replace(fit, seed=fit.seed + seed))


def _load_recipes(listed: CompareRecipe, config: Config) -> tuple[Recipe, ...]:
    """The recipe file of one model, as one recipe or as the members of an ensemble."""
    file = listed.recipe or (config.training.recipe if config.training else "")
    if not file:
        raise ConfigError(f"compare.recipes: {listed.name} names no recipe, and there is no training.recipe either")
    try:
        recipe = load_model_recipe(resources.locate(file, config.path(".")), listed.set)
    except ConfigError as problem:
        raise ConfigError(f"compare.recipes: {listed.name}: {problem}") from None
    return recipe.members if isinstance(recipe, Ensemble) else (recipe,)


def _each_fit(recipe: Recipe, change: Callable[[FitSpec], FitSpec]) -> Recipe:
    """``recipe`` with ``change`` applied to the fit of every stage that it has."""
    changed: dict[str, Any] = {}
    for name in ("fit", "text", "image"):
        if (fit := getattr(recipe, name)) is not None:
            changed[name] = change(fit)
    for name in ("adapt", "noise", "destruction"):
        if (stage := getattr(recipe, name)) is not None:
            changed[name] = replace(stage, fit=change(stage.fit))
    return replace(recipe, **changed)
