"""Training, top to bottom: labelled products in, a certified model version out. Knows neither Spark nor MLflow.

Every fold answers one question and no other: train and validation make the weights, calibration the temperature and
the pool, certification the threshold's right to be used, test what the report says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from catalog_enrichment import resources
from catalog_enrichment.config.schema import Config
from catalog_enrichment.dictionary import Dictionary
from catalog_enrichment.models import artifact, ensemble
from catalog_enrichment.models.ensemble import Scorer
from catalog_enrichment.models.predictor import Predictor
from catalog_enrichment.models.recipe import load_model_recipe
from catalog_enrichment.models.spec import Ensemble, FusionSpec, Recipe, SearchSpec
from catalog_enrichment.precision.certificate import Certificate
from catalog_enrichment.precision.certify import CertificateBinding
from catalog_enrichment.records import Modality, flatten_keys
from catalog_enrichment.registry.trained_model import TrainedModel
from catalog_enrichment.stages import Stages
from catalog_enrichment.training.certification import certify_all, data_window, label_set
from catalog_enrichment.training.dataset import Labels
from catalog_enrichment.training.distributed import Fitter
from catalog_enrichment.training.evaluation import BOTH, Evaluation, ModelScores
from catalog_enrichment.training.fit import Fitted, check_buildable, fit, set_threads
from catalog_enrichment.training.folds import Index, twins_share
from catalog_enrichment.training.loop import Progress
from catalog_enrichment.training.scoring import MaskedInput, score, temperatures
from catalog_enrichment.training.single_encoder import device, modalities_used
from catalog_enrichment.training.task import Split, Task, labels_of, load, settings_of, split_of, task_of

if TYPE_CHECKING:
    import pyarrow as pa

BASELINES: tuple[str, ...] = ("text_only", "image_only")
"""Fusions that are fitted beside the recipe's, under these names."""


def train(
    products: Iterable[pa.RecordBatch],
    dictionary: Dictionary,
    config: Config,
    workdir: Path,
    label_set_uses: Callable[[str], int],
    progress: Progress,
    fit: Fitter = fit,
) -> TrainedModel:
    """Train on the merchants' values, certify, evaluate. ``workdir`` gets the pictures and the artifact's folder.

    ``products``: rows of the contract `products`. ``label_set_uses(hash)``: how many models were certified on that
    label set before. ``fit``: in this process, or by several. Raises ConfigError for an unusable recipe or attribute,
    DataContractError for too little data.
    """
    stages, settings = Stages(say=progress), settings_of(config)
    set_threads(settings.threads)
    recipe = load_model_recipe(resources.locate(settings.recipe, config.path(".")), settings.set)
    members = recipe.members if isinstance(recipe, Ensemble) else (recipe,)
    with stages("load") as stage:
        dataset = load(products, dictionary, config, members, workdir)
        stage.rows_in, stage.rows_out = dataset.counts["products_read"], len(dataset)
    with stages("split"):
        parts, labels = split_of(dataset, settings), labels_of(dataset, settings)
        tasks = [task_of(parts, labels, member.model) for member in members]
        for member, task in zip(members, tasks, strict=True):
            check_buildable(member, task)
    # without a folder of their own they serve this job alone: a baseline shares the stages of the model it is beside
    checkpoints = config.path(settings.checkpoints) if settings.checkpoints else workdir / "stages"
    with stages("fit"):
        names = [f"{one.name} {number}" for number, one in enumerate(members)] if len(members) > 1 else [recipe.name]
        fitted = [
            fit(replace(member, name=name), task, progress, checkpoints)
            for name, member, task in zip(names, members, tasks, strict=True)
        ]
    with stages("calibrate"):
        folder = _saved(workdir / "artifact", recipe, tasks, fitted)
        predictor = ensemble.load(folder, device())  # from here on, what the batch will score with
    with stages("score") as stage:
        scores = score(predictor, dataset, _to_score(parts, labels), progress)
        stage.rows_in = len(scores.index)
    with stages("certify"):
        issue = _issue(parts, folder, label_set_uses)
        certificates = certify_all(parts, labels, scores, config.precision, issue)
        artifact.write_certificates(folder, [certificate.to_dict() for certificate in certificates])
    with stages("evaluate"):
        both = modalities_used(member.model for member in members) == "both"
        evaluation = _evaluate(parts, tasks[0], predictor, scores, certificates, masked=both)
    if settings.unimodal_baselines and both:
        with stages("baselines"):
            fit_one = partial(fit, progress=progress, checkpoints=checkpoints)
            _add_baselines(evaluation, members[0], parts, tasks[0], fit_one)
    for warning in evaluation.check_modality_collapse():
        progress(f"warning: {warning}")
    search = [{"recipe": name, **row} for name, one in zip(names, fitted, strict=True) for row in one.search]
    return TrainedModel(
        artifact=folder,
        certificates=certificates,
        metrics=evaluation.metrics | {f"chosen/{name}": value for name, value in fitted[0].chosen.items()},
        params=_params(config, recipe),
        tables=evaluation.tables | ({"search": search} if search else {}),
        curves=evaluation.curves,
        history=fitted[0].history,
        warnings=evaluation.warnings,
        lineage=_lineage(parts, labels, issue),
        seconds=stages.seconds,
    )


# --- certificates and evaluation ---------------------------------------------------------------------------------


def _saved(folder: Path, recipe: Recipe | Ensemble, tasks: Sequence[Task], fitted: Sequence[Fitted]) -> Path:
    """The model version's folder, all but its certificates."""
    if isinstance(recipe, Recipe):
        _save_one(folder, recipe, tasks[0], fitted[0])
        return folder
    places = [folder / ensemble.MEMBERS / f"{number:02d}" for number in range(len(fitted))]
    for place, member, task, one in zip(places, recipe.members, tasks, fitted, strict=True):
        _save_one(place, member, task, one)
    ensemble.save(folder, recipe.name, places)
    return folder


def _save_one(folder: Path, recipe: Recipe, task: Task, fitted: Fitted) -> None:
    artifact.save(folder, fitted.network, task.tokenizers, recipe, temperatures(fitted, task))


def _to_score(parts: Split, labels: Mapping[str, Labels]) -> Index:
    """The held-out folds, and every product with something to fill: the grid's and the drift reference's sample."""
    chosen = np.any([label.open for label in labels.values()], axis=0) & parts.dataset.has_image
    for index in (parts.folds.calibration, parts.folds.certification, parts.folds.test):
        chosen[index] = True
    return np.flatnonzero(chosen)


def _issue(parts: Split, folder: Path, label_set_uses: Callable[[str], int]) -> CertificateBinding:
    labels_hash = label_set(parts)
    return CertificateBinding(
        modality=Modality.BOTH,
        weights_hash=artifact.weights_hash(folder),
        numeric_path=Predictor.numeric_path,
        preprocessing_hash=artifact.preprocessing_hash(folder),
        label_set_hash=labels_hash,
        use_count=label_set_uses(labels_hash) + 1,
        data_window=data_window(parts.dataset, parts.folds.certification),
        issued_at=datetime.now(UTC),
    )


def _evaluate(
    parts: Split, task: Task, predictor: Scorer, scores: ModelScores, certificates: Sequence[Certificate], masked: bool
) -> Evaluation:
    """The test fold, with text and picture and, if ``masked``, with either hidden; and what the certificates let
    through."""
    dataset, test = parts.dataset, parts.folds.test
    seen, units = test[dataset.has_image[test]], parts.units(test)
    views = {BOTH: scores}
    for hidden in get_args(MaskedInput)[1:] if masked else ():
        views[f"{hidden}_masked"] = score(predictor, dataset, seen, _silent, hidden)
    evaluation = Evaluation()
    for modality, view in views.items():
        for label in task.labels.values():
            evaluation.add_modality(modality, label, view, seen, parts.groups)
    for certificate in certificates:
        if certificate.modality is Modality.BOTH and certificate.attribute in task.labels:
            evaluation.add_certified(certificate, task.labels[certificate.attribute], scores, units, dataset.has_image)
    return evaluation


def _add_baselines(
    evaluation: Evaluation, recipe: Recipe, parts: Split, task: Task, fitted: Callable[[Recipe, Task], Fitted]
) -> None:
    """The same recipe with one modality only, fitted anew: what the other one adds is seen beside it."""
    test = parts.folds.test[parts.dataset.has_image[parts.folds.test]]
    for kind in BASELINES:
        model = replace(recipe.model, fusion=FusionSpec(kind=kind))
        found = fitted(replace(recipe, name=kind, model=model, search=SearchSpec()), task)
        predictor = Predictor(found.network, task.tokenizers, model, temperatures(found, task), device())
        scores = score(predictor, parts.dataset, test, _silent)
        for label in task.labels.values():
            evaluation.add_modality(kind, label, scores, test, parts.groups)


# --- what is recorded ---------------------------------------------------------------------------------------------


def _params(config: Config, recipe: Recipe | Ensemble) -> dict[str, Any]:
    plain = asdict(recipe)
    content = {"recipe": plain.pop("name"), **plain}
    if isinstance(recipe, Ensemble):
        del content["members"]
        content |= {f"member_{number:02d}": asdict(member) for number, member in enumerate(recipe.members)}
    return flatten_keys(content | {"training": asdict(settings_of(config)), "precision": asdict(config.precision)})


def _lineage(parts: Split, labels: Mapping[str, Labels], issue: CertificateBinding) -> dict[str, Any]:
    dataset, folds = parts.dataset, parts.folds
    unlabelled = np.setdiff1d(np.arange(len(dataset)), np.concatenate([index for _, index in folds.items()]))
    return {
        **dataset.counts,
        "with_image": int(dataset.has_image.sum()),
        "labelled_by_attribute": {name: int(label.labelled.sum()) for name, label in labels.items()},
        "learned_values": {name: len(label.values) for name, label in labels.items()},
        "folds": folds.sizes(),
        "fold_groups": {name: len(np.unique(parts.groups[index])) for name, index in folds.items()},
        "content_groups": len(np.unique(parts.groups)),
        "largest_group": int(np.bincount(parts.groups).max()),
        "twins_share_test": twins_share(folds.test, folds.train, parts.groups),
        "twins_share_unlabelled": twins_share(unlabelled, folds.train, parts.groups),
        "data_window": issue.data_window,
        "label_set_hash": issue.label_set_hash,
        "label_set_use": issue.use_count,
        "dictionary_hash": dataset.dictionary.hash(),
    }


def _silent(_line: str) -> None:
    """For what takes a moment only."""
