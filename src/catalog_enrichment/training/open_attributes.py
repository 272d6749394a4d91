"""The attributes without a closed list of values: the fit of their extractor, and the labels that judge it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from catalog_enrichment import resources
from catalog_enrichment.config.schema import Config
from catalog_enrichment.models import artifact
from catalog_enrichment.models.extraction.extractor import Extractor
from catalog_enrichment.models.extraction.recipe import ExtractionRecipe, load_extraction_recipe
from catalog_enrichment.models.spec import Head
from catalog_enrichment.training.dataset import Dataset
from catalog_enrichment.training.evaluation import ModelScores
from catalog_enrichment.training.extraction_fit import check_buildable, fit_extractor
from catalog_enrichment.training.labels import Labels, judged
from catalog_enrichment.training.loop import Progress
from catalog_enrichment.training.task import Split, not_learned, settings_of


@dataclass(slots=True)
class OpenAttributes:
    """The open attributes of a training that can be learned, and the extractor that is fitted to them."""

    recipe: ExtractionRecipe
    labels: Mapping[str, Labels]
    """The attributes; at least one."""
    extractor: Extractor | None = None

    @classmethod
    def of(cls, config: Config, split: Split, labels: Mapping[str, Labels]) -> OpenAttributes | None:
        """Return the open attributes of ``labels`` that can be learned; None if there are none.

        Raises ConfigError for an unusable recipe, and for an encoder that cannot be loaded.
        """
        why_not = not_learned(labels, split.folds.train)
        learned = {name: label for name, label in labels.items() if label.is_open and name not in why_not}
        if not learned:
            return None
        recipe = recipe_of(config)
        check_buildable(recipe)
        return cls(recipe, learned)

    @property
    def heads(self) -> dict[str, Head]:
        """A head per attribute."""
        return {name: Head(label.cardinality, label.values) for name, label in self.labels.items()}

    def fit(self, split: Split, progress: Progress) -> None:
        """Fit the extractor to the train fold; the choosing fold gives the epoch and the temperature."""
        dataset, folds = split.dataset, split.folds
        merchants_only = {name: label.people_only_in(folds.train) for name, label in self.labels.items()}
        self.extractor = fit_extractor(
            self.recipe,
            dataset.titles,
            dataset.descriptions,
            {name: [(value,) if value else None for value in label.right] for name, label in merchants_only.items()},
            {name: dataset.dictionary[name].rule() for name in self.labels},
            train=folds.train,
            validation=folds.choosing,
            progress=progress,
        )

    def save(self, folder: Path) -> None:
        """Write the extractor into the model version's folder, which has the network already, if there is one."""
        assert self.extractor is not None, "fit comes first"
        folder.mkdir(parents=True, exist_ok=True)
        self.extractor.save(folder / artifact.EXTRACTION)
        artifact.add_extractor(folder, list(self.labels))

    def params(self) -> dict[str, Any]:
        """Return the recipe as plain data."""
        return {"extraction": self.recipe.to_plain()}


def recipe_of(config: Config) -> ExtractionRecipe:
    """Return `training.extraction`. Raises ConfigError for an unusable recipe."""
    return load_extraction_recipe(resources.locate(settings_of(config).extraction, config.path(".")))


def max_chars(config: Config) -> int:
    """Return the characters of a title, and of a description, that the extractor reads."""
    return recipe_of(config).text.max_chars


def judged_by(scores: ModelScores, labels: Mapping[str, Labels], dataset: Dataset) -> dict[str, Labels]:
    """Return the labels, those of open attributes :func:`labels.judged` for what ``scores`` propose."""
    found = dict(labels)
    for name, values in scores.proposed.items():
        proposed = [""] * len(dataset)
        for product, value in zip(scores.index.tolist(), values, strict=True):
            proposed[product] = value
        gold = [answers.get(name) for answers in dataset.gold]
        found[name] = judged(labels[name], dataset.dictionary[name], proposed, gold)
    return found
