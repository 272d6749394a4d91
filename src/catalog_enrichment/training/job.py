"""Training, top to bottom: labelled products in, a certified model version out. Knows neither Spark nor MLflow.

Every fold answers one question and no other: train and validation make the weights, calibration the temperature and
the pool, certification the threshold's right to be used, test what the report says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from catalog_enrichment import resources
from catalog_enrichment.config import Config, TrainingConfig
from catalog_enrichment.dictionary import Dictionary
from catalog_enrichment.errors import ConfigError, DataContractError
from catalog_enrichment.models import artifact, preprocess
from catalog_enrichment.models.encoders import build_tokenizer
from catalog_enrichment.models.predictor import Predictor
from catalog_enrichment.models.spec import FusionKind, Recipe, load_recipe
from catalog_enrichment.precision.certificate import Certificate
from catalog_enrichment.precision.certify import Issue
from catalog_enrichment.records import Cardinality, Modality, stable_hash
from catalog_enrichment.stages import Stages
from catalog_enrichment.training.certificates import Split, certify_all, data_window, label_set
from catalog_enrichment.training.dataset import Dataset, Labels, LoadOptions, load_dataset
from catalog_enrichment.training.evaluate import BOTH, Evaluation, ModelScores
from catalog_enrichment.training.examples import Examples
from catalog_enrichment.training.fit import Progress, Task, device, fit, set_threads
from catalog_enrichment.training.folds import Index, content_groups, split, twins_share
from catalog_enrichment.training.scoring import Hidden, score, temperatures

if TYPE_CHECKING:
    import pyarrow as pa

MIN_LABELLED = 100
"""With fewer labelled products the folds say nothing."""
BASELINES: tuple[FusionKind, ...] = ("text_only", "image_only")
"""Fusions that are fitted beside the recipe's, under these names."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainedModel:
    artifact: Path
    """The model version's folder, certificates included."""
    certificates: list[Certificate]
    """One per attribute and modality path; an abstention is one."""
    metrics: dict[str, float]
    """See :class:`Evaluation`; names are MLflow's kind of names."""
    params: dict[str, Any]
    """The recipe and the settings that made the model, flat."""
    tables: dict[str, list[dict[str, Any]]]
    curves: dict[str, dict[str, Any]]
    history: list[dict[str, float]]
    """See :class:`Fitted`."""
    lineage: dict[str, Any]
    """What it was made from: counts, folds, groups, twins, label set, dictionary."""
    seconds: dict[str, float]
    """Per stage."""


def train(
    products: Iterable[pa.RecordBatch],
    dictionary: Dictionary,
    config: Config,
    workdir: Path,
    label_set_uses: Callable[[str], int],
    progress: Progress,
) -> TrainedModel:
    """Train on the merchants' values, certify, evaluate. ``workdir`` gets the pictures and the artifact's folder.

    ``products``: rows of the contract `products`. ``label_set_uses(hash)``: how many models were certified on that
    label set before. Raises ConfigError for an unusable recipe or attribute, DataContractError for too little data.
    """
    stages, settings = Stages(say=progress), _settings(config)
    set_threads(settings.threads)
    recipe = load_recipe(resources.locate(settings.recipe, config.path(".")))
    with stages("load") as stage:
        dataset = _load(products, dictionary, config, recipe, workdir)
        stage.rows_in, stage.rows_out = dataset.counts["products_read"], len(dataset)
    with stages("split"):
        parts, labels = _split(dataset, settings), _labels(dataset, settings)
        task = _task(parts, labels, recipe)
    with stages("fit"):
        fitted = fit(recipe, task, progress)
    with stages("calibrate"):
        folder = workdir / "artifact"
        artifact.save(folder, fitted.network, task.tokenizer, recipe, temperatures(fitted, task))
        predictor = Predictor.load(folder, device())  # from here on, what the batch will score with
    with stages("score") as stage:
        scores = score(predictor, dataset, _to_score(parts, labels), progress)
        stage.rows_in = len(scores.index)
    with stages("certify"):
        issue = _issue(parts, folder, label_set_uses)
        certificates = certify_all(parts, labels, scores, config.precision, issue)
        artifact.write_certificates(folder, [certificate.to_dict() for certificate in certificates])
    with stages("evaluate"):
        evaluation = _evaluate(parts, task, predictor, scores, certificates)
    if settings.unimodal_baselines:
        with stages("baselines"):
            _add_baselines(evaluation, recipe, parts, task, progress)
    return TrainedModel(
        artifact=folder,
        certificates=certificates,
        metrics=evaluation.metrics,
        params=_params(config, recipe),
        tables=evaluation.tables,
        curves=evaluation.curves,
        history=fitted.history,
        lineage=_lineage(parts, labels, issue),
        seconds=stages.seconds,
    )


# --- data ---------------------------------------------------------------------------------------------------------


def _settings(config: Config) -> TrainingConfig:
    if config.training is None:
        raise ConfigError("the config has no section [training]: training needs at least training.recipe")
    return config.training


def _attributes(settings: TrainingConfig, dictionary: Dictionary) -> list[str]:
    names = settings.attributes or dictionary.enabled
    if unknown := [name for name in names if name not in dictionary.enabled]:
        raise ConfigError(
            f"training.attributes: {unknown} are not enabled in the dictionary. Enabled: {dictionary.enabled}"
        )
    return names


def _load(
    products: Iterable[pa.RecordBatch], dictionary: Dictionary, config: Config, recipe: Recipe, workdir: Path
) -> Dataset:
    settings = _settings(config)
    options = LoadOptions(
        attributes=_attributes(settings, dictionary),
        image_size=recipe.model.image.size,
        max_chars=recipe.model.text.max_chars,
        images=config.images,
        workdir=workdir,
        max_unlabelled=settings.max_unlabelled,
    )
    return load_dataset(products, dictionary, options)


def _labels(dataset: Dataset, settings: TrainingConfig) -> dict[str, Labels]:
    """Labels of every attribute asked for, also of those for which no value can be learned."""
    names = _attributes(settings, dataset.dictionary)
    return {name: dataset.labels(name, settings.min_label_count) for name in names}


def _split(dataset: Dataset, settings: TrainingConfig) -> Split:
    labels = _labels(dataset, settings).values()
    labelled = np.flatnonzero(np.any([label.labelled for label in labels], axis=0))
    if len(labelled) < MIN_LABELLED:
        counts = {label.attribute: int(label.labelled.sum()) for label in labels}
        raise DataContractError(
            f"{len(labelled)} of {dataset.counts['products_read']} products are labelled, training needs at least "
            f"{MIN_LABELLED} (per attribute: {counts}). Check source.mapping.attributes and attributes_when of the "
            "import, and that the dictionary's names are the ones of products.merchant_attributes"
        )
    groups = content_groups(dataset.titles, dataset.pictures, dataset.dictionary.words())
    folds = split(labelled, groups, dataset.ids, settings.folds)
    if empty := [name for name, size in folds.sizes().items() if not size]:
        raise DataContractError(
            f"{len(labelled)} labelled products make {len(np.unique(groups[labelled]))} content groups, and no group "
            f"is left for {empty}. Check that titles and pictures differ between products (one placeholder picture "
            "makes them one group), or label more"
        )
    return Split(dataset, groups, folds, settings.folds.seed)


def _task(parts: Split, labels: Mapping[str, Labels], recipe: Recipe) -> Task:
    """What is learned: the attributes with values enough, from texts tokenized with a vocabulary of these products."""
    learned = {name: label for name, label in labels.items() if _can_be_learned(label, parts.folds.train)}
    if not learned:
        raise DataContractError(
            "no attribute can be learned: every value has fewer labelled products than training.min_label_count. "
            "Check that the merchants' values are the dictionary's (the import counts what did not map)"
        )
    dataset = parts.dataset
    held_out = np.concatenate([parts.folds.calibration, parts.folds.certification, parts.folds.test])
    seen = np.setdiff1d(np.arange(len(dataset)), held_out)
    texts = (text for product in seen for text in (dataset.titles[product], dataset.descriptions[product]))
    tokenizer = build_tokenizer(recipe.model.text, texts)
    return Task(Examples.of(dataset, recipe.model, tokenizer), tokenizer, learned, parts.folds)


def _can_be_learned(labels: Labels, train: Index) -> bool:
    """One value alone is no choice for an attribute that has exactly one."""
    needed = 2 if labels.cardinality is Cardinality.ONE else 1
    return len(labels.values) >= needed and bool(labels.learnable[train].any())


# --- certificates and evaluation ---------------------------------------------------------------------------------


def _to_score(parts: Split, labels: Mapping[str, Labels]) -> Index:
    """The held-out folds, and every product with something to fill: the grid's and the drift reference's sample."""
    chosen = np.any([label.open for label in labels.values()], axis=0) & parts.dataset.has_image
    for index in (parts.folds.calibration, parts.folds.certification, parts.folds.test):
        chosen[index] = True
    return np.flatnonzero(chosen)


def _issue(parts: Split, folder: Path, label_set_uses: Callable[[str], int]) -> Issue:
    labels_hash = label_set(parts)
    tokenizer = {file.name: file.read_text() for file in (folder / artifact.TOKENIZER).iterdir()}
    return Issue(
        modality=Modality.BOTH,
        weights_hash=artifact.weights_hash(folder),
        numeric_path=Predictor.numeric_path,
        preprocessing_hash=stable_hash(preprocess.VERSION, tokenizer),
        label_set_hash=labels_hash,
        use_count=label_set_uses(labels_hash) + 1,
        data_window=data_window(parts.dataset, parts.folds.certification),
        issued_at=datetime.now(UTC),
    )


def _evaluate(
    parts: Split, task: Task, predictor: Predictor, scores: ModelScores, certificates: Sequence[Certificate]
) -> Evaluation:
    """The test fold, with text and picture and with either hidden; and what the certificates let through."""
    dataset, test = parts.dataset, parts.folds.test
    seen, units = test[dataset.has_image[test]], parts.units(test)
    views = {BOTH: scores} | {
        f"{hidden}_masked": score(predictor, dataset, seen, _silent, hidden) for hidden in get_args(Hidden)[1:]
    }
    evaluation = Evaluation()
    for modality, view in views.items():
        for label in task.labels.values():
            evaluation.describe(modality, label, view, seen)
    for certificate in certificates:
        if certificate.modality is Modality.BOTH and certificate.attribute in task.labels:
            evaluation.promise(certificate, task.labels[certificate.attribute], scores, units, dataset.has_image)
    return evaluation


def _add_baselines(evaluation: Evaluation, recipe: Recipe, parts: Split, task: Task, progress: Progress) -> None:
    """The same recipe with one modality only, fitted anew: what the other one adds is seen beside it."""
    test = parts.folds.test[parts.dataset.has_image[parts.folds.test]]
    for kind in BASELINES:
        model = replace(recipe.model, fusion=replace(recipe.model.fusion, kind=kind))
        baseline = replace(recipe, name=kind, model=model)
        fitted = fit(baseline, task, progress)
        predictor = Predictor(fitted.network, task.tokenizer, model, temperatures(fitted, task), device())
        scores = score(predictor, parts.dataset, test, progress)
        for label in task.labels.values():
            evaluation.describe(kind, label, scores, test)


# --- what is recorded ---------------------------------------------------------------------------------------------


def _params(config: Config, recipe: Recipe) -> dict[str, Any]:
    content = {"recipe": recipe.name, "model": asdict(recipe.model), "fit": asdict(recipe.fit)}
    return _flat(content | {"training": asdict(_settings(config)), "precision": asdict(config.precision)})


def _flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested tables as dotted names: what MLflow calls params."""
    flat: dict[str, Any] = {}
    for name, value in content.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat


def _lineage(parts: Split, labels: Mapping[str, Labels], issue: Issue) -> dict[str, Any]:
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
