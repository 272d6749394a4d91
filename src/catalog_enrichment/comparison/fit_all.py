"""Fit every model of `[compare]` on the same data and score it on the same evaluation products.

The result is scores; :mod:`catalog_enrichment.comparison.tables` computes metrics from them. Nothing is certified and
the certification fold is not used, so that the model that is chosen can still be certified on it.
"""

from __future__ import annotations

import glob
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from catalog_enrichment.comparison.compared_models import (
    VIEWS,
    ComparedModel,
    FitResult,
    FittedModels,
    ModelResults,
    compare_settings,
    compared_models,
    seeded,
)
from catalog_enrichment.comparison.reference import MODALITIES, Reference
from catalog_enrichment.config.comparison import CompareConfig
from catalog_enrichment.config.schema import Config
from catalog_enrichment.dictionary import Dictionary
from catalog_enrichment.errors import DataContractError
from catalog_enrichment.inputs.square import Square
from catalog_enrichment.models.fusion.base import majority
from catalog_enrichment.models.spec import ModelSpec, Recipe
from catalog_enrichment.monitoring.stages import Stages
from catalog_enrichment.records import EarlierUses, stable_hash
from catalog_enrichment.training.dataset import Dataset
from catalog_enrichment.training.distributed import Fitter
from catalog_enrichment.training.evaluation import BOTH, ModelScores
from catalog_enrichment.training.fit import check_buildable, fit, set_threads
from catalog_enrichment.training.folds import Division, Folds, GroupedProducts, Index, near_duplicate_rate, where
from catalog_enrichment.training.labels import Labels
from catalog_enrichment.training.loop import Progress
from catalog_enrichment.training.scoring import MaskedInput, score, scorer_of
from catalog_enrichment.training.task import (
    Split,
    Task,
    checkpoint_folder,
    labels_of,
    load,
    modalities_used,
    settings_of,
    split_of,
    task_of,
)

if TYPE_CHECKING:
    import pyarrow as pa

MIN_LABELS = 20
"""Smallest number of labelled products that a share of the labels may leave."""

FitKey = tuple[str, float]
"""(model name, share of the train fold's labels); the share 1.0 is the fit with all labels."""


# --- data --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CatalogProducts:
    """The products of the catalog that a comparison reads."""

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
        """Return the task of a model of the config."""
        return self.tasks[_spec_hash(model)]


def load_data(
    source: CatalogProducts, dictionary: Dictionary, config: Config, workdir: Path, stages: Stages
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
        compared_on = np.concatenate([getattr(split.folds, name) for name in settings.folds])
        evaluation_index = with_picture(split, np.setdiff1d(compared_on, fit_folds.choosing))
        if not len(evaluation_index):
            raise DataContractError(f"no product of {settings.folds} has a picture: there is nothing to evaluate on")
        for share in settings.label_shares:
            if (count := round(share * len(split.folds.train))) < MIN_LABELS:
                raise DataContractError(
                    f"compare.label_shares: {share:g} of the train fold is {count} products, fewer than {MIN_LABELS}"
                )
        labels = labels_of(first, settings_of(config))
        tasks = {
            key: task_of(replace(split, dataset=datasets[model.image.square], folds=fit_folds), labels, model)
            for key, model in {_spec_hash(recipe.model): recipe.model for recipe in recipes}.items()
        }
    return ComparisonData(split=split, tasks=tasks, evaluation_index=evaluation_index)


def with_picture(split: Split, index: Index) -> Index:
    """Return the products at ``index`` that have a picture, ascending."""
    return np.sort(where(index, split.dataset.has_image))


def with_label_share(task: Task, share: float, seed: int) -> Task:
    """Return ``task`` with the labels of a ``share`` of the train fold; the other products count as unlabelled.

    A larger share includes every smaller share.
    """
    if share == 1:
        return task
    ids, train = task.examples.dataset.ids, task.folds.train.tolist()
    order = sorted(train, key=lambda product: stable_hash("label share", seed, ids[product]))
    kept = np.array(sorted(order[: round(share * len(order))]), dtype=np.int64)
    return replace(task, folds=replace(task.folds, train=kept))


def lineage(data: ComparisonData, settings: CompareConfig) -> dict[str, Any]:
    """Return counts of the products, folds and learned values, for the report and the benchmarks."""
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
    """Return square -> the products with pictures fitted into it; the products are the same in all."""
    by_square: dict[Square, list[Recipe]] = {}
    for recipe in recipes:
        by_square.setdefault(recipe.model.image.square, []).append(recipe)
    datasets = {}
    for square, sharing in by_square.items():
        folder = workdir / f"products-{square.side}{'-trimmed' * square.trim}"
        datasets[square] = load(products(), dictionary, config, sharing, folder)
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


# --- fits --------------------------------------------------------------------------------------------------------


def fit_all(data: ComparisonData, config: Config, workdir: Path, stages: Stages, fit: Fitter = fit) -> FittedModels:
    """Fit and score every model of `[compare]` and the references.

    ``workdir`` gets the stages that models share, unless the config has a folder `training.checkpoints`. ``fit``: in
    this process, or by several. Raises ConfigError before anything is fitted if a network cannot be built. A model
    whose fit raises DataContractError is left out of the results and named in ``failed``.
    """
    settings = compare_settings(config)
    set_threads(settings_of(config).threads)
    with stages("fit") as stage:
        models = compared_models(config)
        for recipe in (member for model in models for member in model.members):
            check_buildable(recipe, data.task(recipe.model))
        checkpoints = _Checkpoints(checkpoint_folder(config, workdir), keep=bool(settings_of(config).checkpoints))
        fitter = _ModelFitter(data, fit, stages.say, checkpoints)
        results, failed = _fit_models(models, settings, fitter)
        stage.rows_in = len(data.evaluation_index)
    with stages("reference"):
        references = fit_references(data)
    return FittedModels(
        models={model.name: results[model.name, 1.0] for model in models if model.name not in failed} | references,
        by_label_share={key: results[key] for key in _label_share_keys(settings) if key in results},
        labels=data.labels,
        evaluation_index=data.evaluation_index,
        groups=data.split.groups,
        failed=failed,
        lineage=lineage(data, settings) | {"seconds": stages.seconds},
    )


def fit_references(data: ComparisonData) -> dict[str, ModelResults]:
    """Fit the reference models on the same labels as the others."""
    results = {}
    started = time.perf_counter()
    reference = Reference.of(data.split.dataset, data.labels, data.train)
    for name, modalities in MODALITIES.items():
        scores = reference.scores(name, data.evaluation_index)
        now = time.perf_counter()
        results[name] = ModelResults(name, modalities, (FitResult({BOTH: scores}, now - started),))
        started = now
    return results


def _fit_models(
    models: list[ComparedModel], settings: CompareConfig, fitter: _ModelFitter
) -> tuple[dict[FitKey, ModelResults], dict[str, str]]:
    """Return the results of the models that were fitted with every seed and label share, and the errors of the others
    by name.

    The outer loop is over the seeds, because models of one seed share stages.
    """
    by_name = {model.name: model for model in models}
    fits: dict[FitKey, list[FitResult]] = {(model.name, 1.0): [] for model in models}
    fits |= {key: [] for key in _label_share_keys(settings)}
    failed: dict[str, str] = {}
    for seed in settings.seeds:
        for (name, label_share), results in fits.items():
            if name in failed:
                continue
            try:
                results.append(fitter.fit_model(by_name[name], seed, label_share))
            except DataContractError as problem:  # the fits of the other models are kept
                failed[name] = str(problem)
                fitter.progress(f"{name}: failed, and is left out: {problem}")
        fitter.end_seed()
    fitted = {}
    for (name, label_share), results in fits.items():
        if name not in failed:
            model = by_name[name]
            modalities = modalities_used(member.model for member in model.members)
            fitted[name, label_share] = ModelResults(name, modalities, tuple(results), model.note, model.members)
    return fitted, failed


def _label_share_keys(settings: CompareConfig) -> list[FitKey]:
    return [(name, share) for share in sorted(set(settings.label_shares)) for name in settings.label_share_recipes]


class _ModelFitter:
    """Fits and scores models on the shared data. A recipe that several models have is fitted once per seed."""

    def __init__(self, data: ComparisonData, fit: Fitter, progress: Progress, checkpoints: _Checkpoints) -> None:
        self.progress = progress
        self._data, self._fit, self._checkpoints = data, fit, checkpoints
        self._by_recipe: dict[str, FitResult | DataContractError] = {}

    def fit_model(self, model: ComparedModel, seed: int, label_share: float) -> FitResult:
        """Fit the members and vote. Raises DataContractError if a member cannot be fitted."""
        members = [self._fit_member(model.name, seeded(recipe, seed), seed, label_share) for recipe in model.members]
        result = members[0] if len(members) == 1 else self._vote(members)
        self.progress(f"{model.name}: seed {seed}, {label_share:.0%} of the labels, {result.seconds:.0f} s")
        return result

    def end_seed(self) -> None:
        """Discard the fits, and delete the checkpoints that the models of one seed share."""
        self._by_recipe.clear()
        self._checkpoints.clear()

    def _fit_member(self, model: str, recipe: Recipe, seed: int, label_share: float) -> FitResult:
        """Fit ``recipe``, or return the result (or raise the error) of an earlier fit of the same recipe."""
        key = stable_hash(asdict(replace(recipe, name="")), label_share)
        if key not in self._by_recipe:
            views = VIEWS if label_share == 1 else {BOTH: VIEWS[BOTH]}
            task = with_label_share(self._data.task(recipe.model), label_share, seed)
            try:
                # no stage has a name that starts with "model "
                self._by_recipe[key] = self._fit_and_score(replace(recipe, name=f"model {model}"), task, views)
            except DataContractError as problem:
                self._by_recipe[key] = problem
        result = self._by_recipe[key]
        if isinstance(result, DataContractError):
            raise result
        return result

    def _fit_and_score(self, recipe: Recipe, task: Task, views: Mapping[str, MaskedInput]) -> FitResult:
        started = time.perf_counter()
        fitted = self._fit(recipe, task, self.progress, self._checkpoints.folder)
        self._checkpoints.delete_model(recipe.name)
        predictor = scorer_of(fitted, task, recipe)
        scores = {
            view: score(predictor, task.examples.dataset, self._data.evaluation_index, self.progress, masked)
            for view, masked in views.items()
        }
        return FitResult(scores, time.perf_counter() - started, fitted.chosen, fitted.history, fitted.search)

    def _vote(self, members: list[FitResult]) -> FitResult:
        """Return the majority vote of the members' scores, view by view."""
        scores = {}
        for view in members[0].scores:
            votes = {}
            for name, labels in self._data.labels.items():
                stacked = np.stack([member.scores[view].probabilities[name] for member in members])  # (members, n, V)
                votes[name] = majority(torch.from_numpy(stacked), labels.cardinality).numpy()
            scores[view] = ModelScores(self._data.evaluation_index, votes)
        return FitResult(scores, sum(member.seconds for member in members))


@dataclass(frozen=True, slots=True)
class _Checkpoints:
    """The folder of the stages' checkpoints, which the models of one seed share."""

    folder: Path
    keep: bool
    """Delete nothing: an interrupted comparison resumes from the folder `training.checkpoints`."""

    def delete_model(self, name: str) -> None:
        """Delete the checkpoints of the whole fit ``name``: no other model uses them, and they are three times as
        large as the model."""
        if not self.keep:
            for file in self.folder.glob(f"{glob.escape(name.replace('/', '-').replace(' ', '-'))}-*"):
                file.unlink()

    def clear(self) -> None:
        if not self.keep:
            shutil.rmtree(self.folder, ignore_errors=True)
