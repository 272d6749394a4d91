"""The data that all compared models share: products, labels, folds, and a task per model spec."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from catalog_enrichment.comparison.models import compare_settings, compared_models
from catalog_enrichment.config.comparison import CompareConfig
from catalog_enrichment.config.schema import Config
from catalog_enrichment.dictionary import Dictionary
from catalog_enrichment.errors import DataContractError
from catalog_enrichment.inputs.square import Square
from catalog_enrichment.models.spec import ModelSpec, Recipe
from catalog_enrichment.monitoring.stages import Stages
from catalog_enrichment.precision.earlier_uses import EarlierUses
from catalog_enrichment.records import stable_hash
from catalog_enrichment.training.dataset import Dataset, Labels
from catalog_enrichment.training.folds import Division, Folds, GroupedProducts, Index, near_duplicate_rate
from catalog_enrichment.training.task import Split, Task, labels_of, load, settings_of, split_of, task_of

if TYPE_CHECKING:
    import pyarrow as pa

MIN_LABELS = 20
"""Smallest number of labelled products that a share of the labels may leave."""


@dataclass(frozen=True, slots=True)
class CatalogProducts:
    """What a comparison reads of the catalog."""

    scan: Callable[[], Iterable[pa.RecordBatch]]
    """A new iteration over all rows of the contract `products`; it is called once per picture size."""
    earlier_uses: EarlierUses = field(default_factory=EarlierUses)
    """Uses of certification labels by trainings."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ComparisonData:
    """Every task has the same products, labels and folds; picture size and tokenization depend on the model spec."""

    split: Split
    tasks: Mapping[str, Task]
    """Hash of the model spec -> its task."""
    evaluation_index: Index
    """The products that the models are scored on; all have a picture."""

    @property
    def labels(self) -> Mapping[str, Labels]:
        """The learned attributes."""
        return next(iter(self.tasks.values())).labels

    @property
    def train(self) -> Index:
        """The train fold's products with something to learn."""
        return next(iter(self.tasks.values())).train

    def task(self, model: ModelSpec) -> Task:
        """Raises KeyError for a model spec that is not in the config."""
        return self.tasks[_spec_hash(model)]


def load_data(
    source: CatalogProducts,
    dictionary: Dictionary,
    config: Config,
    workdir: Path,
    stages: Stages,
) -> ComparisonData:
    """Read, split and tokenize the products for every model of `[compare]`; ``workdir`` gets their pictures.

    The folds are those of the next training, so that no model is chosen on products that will certify it. The
    evaluation products are those of `compare.folds`; of the choosing fold half, and the fits see the other half
    (:func:`folds_of_fits`). Raises ConfigError for a recipe that cannot be used and
    DataContractError for too little data, or for products that change between two reads.
    """
    settings = compare_settings(config)
    recipes = [member for model in compared_models(config) for member in model.members]
    with stages("load") as stage:
        datasets = _datasets(source.scan, dictionary, config, recipes, workdir)
        first = next(iter(datasets.values()))
        stage.rows_in, stage.rows_out = first.counts["products_read"], len(first)
    with stages("split"):
        split = split_of(first, settings_of(config), source.earlier_uses)
        fit_folds = folds_of_fits(split, settings)
        evaluation_index = with_picture(split, _evaluation_products(split.folds, fit_folds, settings))
        if not len(evaluation_index):
            raise DataContractError(f"no product of {settings.folds} has a picture: there is nothing to evaluate on")
        _check_label_shares(split, settings)
        labels = labels_of(first, settings_of(config))
        tasks = {
            key: task_of(replace(split, dataset=datasets[model.image.square], folds=fit_folds), labels, model)
            for key, model in {_spec_hash(recipe.model): recipe.model for recipe in recipes}.items()
        }
    return ComparisonData(split=split, tasks=tasks, evaluation_index=evaluation_index)


def with_picture(split: Split, index: Index) -> Index:
    """The products at ``index`` that have a picture, ascending."""
    return np.sort(index[split.dataset.has_image[index]])


def kept_labels(train: Index, ids: list[str], share: float, seed: int) -> Index:
    """The products at ``train`` that keep their labels, ascending. A larger share includes every smaller one."""
    order = sorted(train.tolist(), key=lambda product: stable_hash("label share", seed, ids[product]))
    return np.array(sorted(order[: round(share * len(order))]), dtype=np.int64)


def with_label_share(task: Task, ids: list[str], share: float, seed: int) -> Task:
    """``task`` with the labels of a ``share`` of the train fold; the other products count as unlabelled."""
    if share == 1:
        return task
    return replace(task, folds=replace(task.folds, train=kept_labels(task.folds.train, ids, share, seed)))


def lineage(data: ComparisonData, settings: CompareConfig) -> dict[str, Any]:
    """Counts of the products, folds and learned values, for the report and the benchmarks."""
    dataset, folds, groups = data.split.dataset, data.split.folds, data.split.groups
    return {
        **dataset.counts,
        "certification_round": data.split.certification_round.number,
        "with_image": int(dataset.has_image.sum()),
        "folds": folds.sizes(),
        "chosen_on": len(next(iter(data.tasks.values())).folds.choosing),
        "judged_on": list(settings.folds),
        "judged": len(data.evaluation_index),
        "judged_groups": len(np.unique(groups[data.evaluation_index])),
        "content_groups": len(np.unique(groups)),
        "near_duplicate_rate_judged": near_duplicate_rate(data.evaluation_index, folds.train, groups),
        "learned_values": {name: len(labels.values) for name, labels in data.labels.items()},
        "dictionary_hash": dataset.dictionary.hash(),
    }


def _spec_hash(model: ModelSpec) -> str:
    return stable_hash(asdict(model))


def _datasets(
    products: Callable[[], Iterable[pa.RecordBatch]],
    dictionary: Dictionary,
    config: Config,
    recipes: Iterable[Recipe],
    workdir: Path,
) -> dict[Square, Dataset]:
    """Square -> the products with pictures fitted into it; the products are the same in all."""
    by_square: dict[Square, list[Recipe]] = {}
    for recipe in recipes:
        by_square.setdefault(recipe.model.image.square, []).append(recipe)
    datasets = {
        square: load(
            products(), dictionary, config, sharing, workdir / f"products-{square.side}{'-trimmed' * square.trim}"
        )
        for square, sharing in by_square.items()
    }
    if len({stable_hash(dataset.ids) for dataset in datasets.values()}) > 1:
        raise DataContractError("the catalog's products changed while they were read. Start the comparison again")
    return datasets


def folds_of_fits(split: Split, settings: CompareConfig) -> Folds:
    """Return the folds that the fits see. Where `compare.folds` has `choosing`, half of the choosing fold's content
    groups are evaluation products: they are in the test fold here, which no fit uses."""
    if "choosing" not in settings.folds:
        return split.folds
    products = GroupedProducts(split.dataset.ids, split.groups)
    division = Division(products, largest=len(split.folds.choosing), stratify=False, key=("compared on",))
    choosing, evaluated = division.parts(split.folds.choosing, np.array([0.5, 0.5]))
    return replace(split.folds, choosing=choosing, test=np.union1d(split.folds.test, evaluated))


def _evaluation_products(folds: Folds, fit_folds: Folds, settings: CompareConfig) -> Index:
    """Return the products of `compare.folds`, without those that the fits choose on."""
    products = np.concatenate([getattr(folds, name) for name in settings.folds])
    return np.setdiff1d(products, fit_folds.choosing)


def _check_label_shares(split: Split, settings: CompareConfig) -> None:
    for share in settings.label_shares:
        if (count := round(share * len(split.folds.train))) < MIN_LABELS:
            raise DataContractError(
                f"compare.label_shares: {share:g} of the train fold is {count} products, fewer than {MIN_LABELS}"
            )
