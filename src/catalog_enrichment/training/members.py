"""The members of a vote, or the only recipe: each is fitted by itself, all are saved as an artifact."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from catalog_enrichment import resources
from catalog_enrichment.config.schema import Config
from catalog_enrichment.models import artifact
from catalog_enrichment.models.recipe_files import load_model_recipe
from catalog_enrichment.models.spec import Ensemble, Recipe
from catalog_enrichment.precision.units import Bools
from catalog_enrichment.training.fit import Fitted, check_buildable
from catalog_enrichment.training.labels import Labels
from catalog_enrichment.training.loop import Progress
from catalog_enrichment.training.scoring import temperatures
from catalog_enrichment.training.task import Split, Task, modalities_used, not_learned, settings_of, task_of


def recipe_of(config: Config) -> Recipe | Ensemble:
    """Return `training.recipe`, changed by `training.set`. Raises ConfigError for an unusable recipe."""
    settings = settings_of(config)
    return load_model_recipe(resources.locate(settings.recipe, config.path(".")), settings.set)


def recipes_of(recipe: Recipe | Ensemble) -> tuple[Recipe, ...]:
    """Return the recipes of a vote, or the only recipe."""
    return recipe.members if isinstance(recipe, Ensemble) else (recipe,)


@dataclass(slots=True)
class Members:
    """The recipes that are fitted, and their fits."""

    recipe: Recipe | Ensemble
    tasks: list[Task]
    """A task per member."""
    fitted: list[Fitted] = field(default_factory=list)

    @classmethod
    def of(cls, recipe: Recipe | Ensemble, split: Split, labels: Mapping[str, Labels]) -> Members:
        """Make the tasks; none where only attributes without a closed list can be learned, which need no network.

        Raises ConfigError if a network of a member cannot be built.
        """
        recipes, why_not = recipes_of(recipe), not_learned(labels, split.folds.train)
        learned = [label for name, label in labels.items() if name not in why_not]
        if learned and all(label.is_open for label in learned):
            return cls(recipe, [])
        tasks = [task_of(split, labels, member.model) for member in recipes]
        for member, task in zip(recipes, tasks, strict=True):
            check_buildable(member, task)
        return cls(recipe, tasks)

    @property
    def recipes(self) -> tuple[Recipe, ...]:
        """The recipes that are fitted; none without tasks."""
        return recipes_of(self.recipe) if self.tasks else ()

    @property
    def named(self) -> list[Recipe]:
        """The recipes with the names of their fits in progress lines and checkpoints: numbered for a vote."""
        if len(self.recipes) < 2:
            return list(self.recipes)
        return [replace(member, name=f"{member.name} {number}") for number, member in enumerate(self.recipes)]

    @property
    def multimodal(self) -> bool:
        """True where the members, taken together, use texts and pictures."""
        return bool(self.tasks) and modalities_used(member.model for member in self.recipes) == "both"

    @property
    def title_words(self) -> bool:
        """True where a recipe asks for experts of titles' words; those of a vote are pooled with the vote."""
        return any(member.title_words for member in self.recipes)

    def fit(self, fit: Callable[[Recipe, Task], Fitted], progress: Progress) -> None:
        """Fit every member; a line of progress begins each fit of a vote."""
        self.fitted = []
        for number, (member, task) in enumerate(zip(self.named, self.tasks, strict=True), start=1):
            if len(self.tasks) > 1:
                progress(f"{member.name}: model {number} of {len(self.tasks)}")
            self.fitted.append(fit(member, task))

    def save(self, folder: Path) -> None:
        """Write the model version's folder, all but its certificates and its extractor."""
        if not self.tasks:
            return
        recipes = recipes_of(self.recipe)
        vote = isinstance(self.recipe, Ensemble)
        folders = [folder / artifact.MEMBERS / f"{number:02d}" for number in range(len(recipes))] if vote else [folder]
        for member_folder, member, task, fitted in zip(folders, recipes, self.tasks, self.fitted, strict=True):
            artifact.save(member_folder, fitted.network, task.tokenizers, member, temperatures(fitted, task))
        if vote:
            artifact.save_ensemble(folder, self.recipe.name, folders)

    @property
    def chosen(self) -> Mapping[str, float]:
        """What the first fit chose; nothing without a fit."""
        return self.fitted[0].chosen if self.fitted else {}

    @property
    def history(self) -> list[dict[str, float]]:
        """The losses of the first fit; none without a fit."""
        return self.fitted[0].history if self.fitted else []

    def unseen(self, split: Split) -> Bools:
        """(N,): no fit has seen a product of the content group."""
        adapted = zip(self.recipes, self.tasks, strict=True)
        seen = [split.folds.train, *(task.self_supervised for member, task in adapted if member.adapt is not None)]
        return ~np.isin(split.groups, split.groups[np.concatenate(seen)])

    def tables(self) -> dict[str, list[dict[str, Any]]]:
        """Return the tables `epochs`, every member's losses stage by stage, and `search`, their candidates for lambda,
        if any."""
        members = list(zip(self.named, self.fitted, strict=True))
        epochs = [{"recipe": member.name, **row} for member, fitted in members for row in fitted.stages]
        search = [{"recipe": member.name, **row} for member, fitted in members for row in fitted.search]
        return {"epochs": epochs} | ({"search": search} if search else {})

    def params(self) -> dict[str, Any]:
        """Return the recipe, or the recipes of all members, as plain data."""
        if isinstance(self.recipe, Recipe):
            fields = asdict(self.recipe)
            return {"recipe": fields.pop("name"), **fields}
        members = {f"member_{number:02d}": asdict(member) for number, member in enumerate(self.recipe.members)}
        return {"recipe": self.recipe.name, **members}
