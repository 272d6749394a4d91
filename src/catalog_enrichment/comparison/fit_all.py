"""Fit every model of `[compare]` on the same data and score it on the same evaluation products.

The result is scores; :mod:`catalog_enrichment.comparison.tables` computes metrics from them. Nothing is certified and
the certification fold is not used, so that the model that is chosen can still be certified on it.
"""

from __future__ import annotations

import glob
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch

from catalog_enrichment.comparison.data import ComparisonData, lineage, with_label_share
from catalog_enrichment.comparison.models import ComparedModel, compare_settings, compared_models, seeded
from catalog_enrichment.comparison.reference import MODALITIES, Reference
from catalog_enrichment.comparison.results import VIEWS, FitResult, FittedModels, ModelResults
from catalog_enrichment.config.comparison import CompareConfig
from catalog_enrichment.config.schema import Config
from catalog_enrichment.errors import DataContractError
from catalog_enrichment.models.predictor import Predictor
from catalog_enrichment.models.spec import Recipe
from catalog_enrichment.models.vote import majority
from catalog_enrichment.monitoring.stages import Stages
from catalog_enrichment.records import stable_hash
from catalog_enrichment.training.distributed import Fitter
from catalog_enrichment.training.evaluation import BOTH, ModelScores
from catalog_enrichment.training.fit import check_buildable, fit, set_threads
from catalog_enrichment.training.loop import Progress
from catalog_enrichment.training.scoring import MaskedInput, score, temperatures
from catalog_enrichment.training.single_encoder import device, modalities_used
from catalog_enrichment.training.task import Task, settings_of

FitKey = tuple[str, float]
"""(model name, share of the train fold's labels); the share 1.0 is the fit with all labels."""


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
        fitter = _ModelFitter(data, fit, stages.say, _Checkpoints.of(config, workdir))
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
        ids=data.split.dataset.ids,
        failed=failed,
        lineage=lineage(data, settings) | {"seconds": stages.seconds},
    )


def fit_references(data: ComparisonData) -> dict[str, ModelResults]:
    """The reference models by name, fitted on the same labels as the others."""
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
    """Results of the models that were fitted with every seed and label share, and the errors of the others by name.

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
    return {
        (name, label_share): _model_results(by_name[name], results)
        for (name, label_share), results in fits.items()
        if name not in failed
    }, failed


def _label_share_keys(settings: CompareConfig) -> list[FitKey]:
    return [(name, share) for share in sorted(set(settings.label_shares)) for name in settings.label_share_recipes]


def _model_results(model: ComparedModel, fits: list[FitResult]) -> ModelResults:
    modalities = modalities_used(member.model for member in model.members)
    return ModelResults(model.name, modalities, tuple(fits), model.note, model.members)


class _ModelFitter:
    """Fits and scores models on the shared data. A recipe that several models have is fitted once per seed."""

    def __init__(
        self,
        data: ComparisonData,
        fit: Fitter,
        progress: Progress,
        checkpoints: _Checkpoints,
    ) -> None:
        self.progress = progress
        self._data, self._fit, self._checkpoints = data, fit, checkpoints
        self._by_recipe: dict[str, FitResult | DataContractError] = {}

    def fit_model(self, model: ComparedModel, seed: int, label_share: float) -> FitResult:
        """Raises DataContractError if a member cannot be fitted."""
        members = [self._fit_member(model.name, seeded(recipe, seed), seed, label_share) for recipe in model.members]
        result = members[0] if len(members) == 1 else self._vote(members)
        self.progress(f"{model.name}: seed {seed}, {label_share:.0%} of the labels, {result.seconds:.0f} s")
        return result

    def end_seed(self) -> None:
        """Forget the fits and delete the checkpoints that the models of one seed share."""
        self._by_recipe.clear()
        self._checkpoints.clear()

    def _fit_member(self, model: str, recipe: Recipe, seed: int, label_share: float) -> FitResult:
        """Fit ``recipe``, or return the result (or raise the error) of an earlier fit of the same recipe."""
        key = stable_hash(asdict(replace(recipe, name="")), label_share)
        if key not in self._by_recipe:
            views = VIEWS if label_share == 1 else {BOTH: VIEWS[BOTH]}
            task = with_label_share(self._data.task(recipe.model), self._data.split.dataset.ids, label_share, seed)
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
        temperature_by_attribute = temperatures(fitted, task)
        predictor = Predictor(fitted.network, task.tokenizers, recipe.model, temperature_by_attribute, device())
        scores = {
            view: score(predictor, task.examples.dataset, self._data.evaluation_index, self.progress, masked)
            for view, masked in views.items()
        }
        return FitResult(scores, time.perf_counter() - started, fitted.chosen, fitted.history, fitted.search)

    def _vote(self, members: list[FitResult]) -> FitResult:
        """The majority vote of the members' scores, view by view."""
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

    @classmethod
    def of(cls, config: Config, workdir: Path) -> _Checkpoints:
        configured = settings_of(config).checkpoints
        return cls(config.path(configured), keep=True) if configured else cls(workdir / "stages", keep=False)

    def delete_model(self, name: str) -> None:
        """Delete the checkpoints of the whole fit ``name``: no other model uses them, and they are three times as
        large as the model."""
        if not self.keep:
            for file in self.folder.glob(f"{glob.escape(name.replace('/', '-').replace(' ', '-'))}-*"):
                file.unlink()

    def clear(self) -> None:
        if not self.keep:
            shutil.rmtree(self.folder, ignore_errors=True)
