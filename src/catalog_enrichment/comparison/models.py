"""Who takes part in a comparison: the recipes that `[compare]` lists, within the budget. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from catalog_enrichment import resources
from catalog_enrichment.config.comparison import CompareConfig, CompareRecipe
from catalog_enrichment.config.schema import Config
from catalog_enrichment.errors import ConfigError
from catalog_enrichment.models.recipe import load_model_recipe
from catalog_enrichment.models.spec import Ensemble, FitSpec, Recipe


@dataclass(frozen=True, slots=True)
class Entrant:
    """One model of the comparison."""

    name: str
    members: tuple[Recipe, ...]
    """One, or those whose votes are counted."""
    note: str = ""


def compare_settings(config: Config) -> CompareConfig:
    """The section [compare]. Raises ConfigError if there is none."""
    if config.compare is None:
        raise ConfigError("the config has no [compare] section: compare_models does not know which recipes to train")
    return config.compare


def entrants_of(config: Config) -> list[Entrant]:
    """Every model of `[compare]`, in its order. Raises ConfigError for a recipe that cannot be used."""
    settings = compare_settings(config)
    own = {entry.name: _members(entry, config) for entry in settings.recipes if not entry.members}
    voters = {
        entry.name: tuple(recipe for name in entry.members for recipe in own[name])
        for entry in settings.recipes
        if entry.members
    }
    return [
        Entrant(
            entry.name,
            tuple(budgeted(recipe, settings.max_epochs) for recipe in (own | voters)[entry.name]),
            entry.note,
        )
        for entry in settings.recipes
    ]


def budgeted(recipe: Recipe, max_epochs: int) -> Recipe:
    """``recipe`` with no stage longer than ``max_epochs``; 0: as it is."""
    if not max_epochs:
        return recipe
    return _each_fit(recipe, lambda fit: replace(fit, epochs=min(fit.epochs, max_epochs)))


def seeded(recipe: Recipe, seed: int) -> Recipe:
    """``recipe`` with ``seed`` added to the seed of every stage."""
    return _each_fit(recipe, lambda fit: replace(fit, seed=fit.seed + seed))


def _members(entry: CompareRecipe, config: Config) -> tuple[Recipe, ...]:
    reference = entry.recipe or (config.training.recipe if config.training else "")
    if not reference:
        raise ConfigError(f"compare.recipes: {entry.name} names no recipe, and there is no training.recipe either")
    try:
        found = load_model_recipe(resources.locate(reference, config.path(".")), entry.set)
    except ConfigError as problem:
        raise ConfigError(f"compare.recipes: {entry.name}: {problem}") from None
    return found.members if isinstance(found, Ensemble) else (found,)


def _each_fit(recipe: Recipe, change: Callable[[FitSpec], FitSpec]) -> Recipe:
    """``change`` in every stage that the recipe has."""
    changed: dict[str, Any] = {}
    for name in ("fit", "text", "image"):
        if (fit := getattr(recipe, name)) is not None:
            changed[name] = change(fit)
    for name in ("adapt", "noise", "destruction"):
        if (stage := getattr(recipe, name)) is not None:
            changed[name] = replace(stage, fit=change(stage.fit))
    return replace(recipe, **changed)
