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
from catalog_enrichment.training.dataset import Labels
from catalog_enrichment.training.fit import Fitted, check_buildable
from catalog_enrichment.training.loop import Progress
from catalog_enrichment.training.scoring import temperatures
from catalog_enrichment.training.task import Split, Task, modalities_used, settings_of, task_of


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
        """Make the tasks. Raises ConfigError if a network of a member cannot be built."""
        recipes = recipes_of(recipe)
        tasks = [task_of(split, labels, member.model) for member in recipes]
        for member, task in zip(recipes, tasks, strict=True):
            check_buildable(member, task)
        return cls(recipe, tasks)

    @property
    def named(self) -> list[Recipe]:
        """The recipes with the names of their fits in progress lines and checkpoints: numbered for a vote."""
        recipes = recipes_of(self.recipe)
        if len(recipes) == 1:
            return list(recipes)
        return [replace(member, name=f"{member.name} {number}") for number, member in enumerate(recipes)]

    @property
    def multimodal(self) -> bool:
        """True where the members, taken together, use texts and pictures."""
        return modalities_used(member.model for member in recipes_of(self.recipe)) == "both"

    def fit(self, fit: Callable[[Recipe, Task], Fitted], progress: Progress) -> None:
        """Fit every member; a line of progress begins each fit of a vote."""
        self.fitted = []
        for number, (member, task) in enumerate(zip(self.named, self.tasks, strict=True), start=1):
            if len(self.tasks) > 1:
                progress(f"{member.name}: model {number} of {len(self.tasks)}")
            self.fitted.append(fit(member, task))

    def save(self, folder: Path) -> None:
        """Write the model version's folder, all but its certificates."""
        recipes = recipes_of(self.recipe)
        vote = isinstance(self.recipe, Ensemble)
        folders = [folder / artifact.MEMBERS / f"{number:02d}" for number in range(len(recipes))] if vote else [folder]
        for member_folder, member, task, fitted in zip(folders, recipes, self.tasks, self.fitted, strict=True):
            artifact.save(member_folder, fitted.network, task.tokenizers, member, temperatures(fitted, task))
        if vote:
            artifact.save_ensemble(folder, self.recipe.name, folders)

    def unseen(self, split: Split) -> Bools:
        """(N,): no fit has seen a product of the content group."""
        adapted = zip(recipes_of(self.recipe), self.tasks, strict=True)
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
