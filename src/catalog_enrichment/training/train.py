"""Training, from labelled products to a certified model version. Does not use Spark or MLflow.

Every fold has one purpose: train fits the weights, choosing gives the epoch, the temperature and the pool,
certification tests the thresholds, test gives the reported metrics.
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
from catalog_enrichment.errors import ConfigError
from catalog_enrichment.models import artifact, compute_types, ensemble
from catalog_enrichment.models.ensemble import Scorer
from catalog_enrichment.models.has_value import Heads
from catalog_enrichment.models.predictor import Predictor
from catalog_enrichment.models.recipe_files import load_model_recipe
from catalog_enrichment.models.spec import Ensemble, FusionSpec, Recipe, SearchSpec
from catalog_enrichment.monitoring.stages import Stages
from catalog_enrichment.precision.certificate import Certificate, ScoredBy
from catalog_enrichment.precision.certified_metrics import certified_metrics
from catalog_enrichment.precision.classification_metrics import Bools
from catalog_enrichment.precision.earlier_uses import EarlierUses
from catalog_enrichment.precision.paired_recall import HeldOutDecision
from catalog_enrichment.records import Modality, flatten_keys, stable_hash
from catalog_enrichment.registry.trained_model import TrainedModel
from catalog_enrichment.training import certification_rounds
from catalog_enrichment.training.alikeness import Populations
from catalog_enrichment.training.certification import Certifier, EarlierCandidates, data_window, label_set
from catalog_enrichment.training.compute_type_differences import compute_type_differences
from catalog_enrichment.training.dataset import Dataset, Labels
from catalog_enrichment.training.distributed import Fitter
from catalog_enrichment.training.drift_reference import ScoreMasked, drift_reference
from catalog_enrichment.training.evaluation import BOTH, Evaluation, ModelScores
from catalog_enrichment.training.fit import Fitted, check_buildable, fit, set_threads
from catalog_enrichment.training.folds import Index, near_duplicate_rate
from catalog_enrichment.training.held_out import held_out_decisions
from catalog_enrichment.training.loop import Progress
from catalog_enrichment.training.mistakes import mistakes, pictures_of
from catalog_enrichment.training.scoring import MaskedInput, score, temperatures, with_has_value
from catalog_enrichment.training.seldom_given import seldom_given
from catalog_enrichment.training.single_encoder import device, modalities_used
from catalog_enrichment.training.task import Split, Task, labels_of, load, settings_of, split_of, task_of

if TYPE_CHECKING:
    import pyarrow as pa

BASELINES: tuple[str, ...] = ("text_only", "image_only")
"""Unimodal fusions that are fitted for comparison; also their names in tables and metrics."""


def train(
    products: Iterable[pa.RecordBatch],
    dictionary: Dictionary,
    config: Config,
    workdir: Path,
    earlier: EarlierCandidates,
    progress: Progress,
    fit: Fitter = fit,
) -> TrainedModel:
    """Train on the merchants' values, certify, evaluate. Pictures and the artifact are written to ``workdir``.

    ``products``: rows of the contract `products`. ``earlier``: the models before this one, and where the use of
    certification labels is recorded. ``fit``: in this process or distributed. Raises ConfigError for an unusable recipe
    or attribute, DataContractError for too little data.
    """
    stages, settings = Stages(say=progress), settings_of(config)
    for numbers in settings.compute_types:
        if problem := compute_types.why_not(numbers, device()):
            raise ConfigError(f"training.compute_types: not {numbers} on this machine: {problem}")
    set_threads(settings.threads)
    recipe = load_model_recipe(resources.locate(settings.recipe, config.path(".")), settings.set)
    members = _members(recipe)
    fit_one = partial(fit, progress=progress, checkpoints=_checkpoint_folder(config, workdir))

    with stages("load") as stage:
        dataset = load(products, dictionary, config, members, workdir)
        stage.rows_in, stage.rows_out = dataset.counts["products_read"], len(dataset)
    if dataset.unusable.by_reason:
        progress(f"warning: {dataset.unusable.sentence()}")
    with stages("split"):
        labels = labels_of(dataset, settings)
        split = _split(dataset, config, recipe, earlier.uses)
        tasks = _tasks(split, labels, members)
    if split.certification_round.reason:
        progress(f"certification labels: {split.certification_round.reason}")
    if lost := earlier.lost({name: label.values for name, label in tasks[0].labels.items()}):
        progress(f"warning: nothing will be certified, because the promotion gate would refuse the model. {lost}")
        earlier = replace(earlier, refusal=lambda *_: lost)
    with stages("fit"):
        fitted = _fit_members(recipe, tasks, fit_one)
    with stages("calibrate"):
        folder = _save_artifact(workdir / "artifact", recipe, tasks, fitted)
        # everything below is scored as enrichment does
        predictors = [ensemble.load(folder, device(), numbers) for numbers in settings.compute_types]
    with stages("score") as stage:
        to_score = _products_to_score(split, labels)
        scores_by_path = [score(predictor, dataset, to_score, progress) for predictor in predictors]
        stage.rows_in = len(to_score)
    with stages("has_value") as stage:
        populations = Populations(split, _unseen(split, tasks, members))
        heads = populations.heads(labels, scores_by_path[0])
        stage.rows_out = len(heads)
        if heads:
            artifact.write_has_value(folder, heads)
            predictors = [ensemble.load(folder, device(), numbers) for numbers in settings.compute_types]
            scores_by_path = [with_has_value(scores, heads, dataset.has_image) for scores in scores_by_path]
    with stages("certify"):
        certifiers = _certifiers(split, config, folder, earlier, predictors, scores_by_path, populations, heads)
        certificates_by_path = [certifier.certify_all(labels) for certifier in certifiers]
        certificates = [certificate for issued in certificates_by_path for certificate in issued]
        artifact.write_certificates(folder, [certificate.to_dict() for certificate in certificates])
        multimodal, references = modalities_used(member.model for member in members) == "both", list[dict[str, Any]]()
        for predictor, scores, issued in zip(predictors, scores_by_path, certificates_by_path, strict=True):
            masking = _masking(predictor, dataset) if multimodal else None
            references += drift_reference(dataset, labels, scores, issued, masking)
        artifact.write_drift(folder, references)
    with stages("evaluate"):
        predictor, scores = predictors[0], scores_by_path[0]
        held_out = held_out_decisions(split, labels, scores, certificates_by_path[0])
        evaluation = _evaluate(split, tasks[0], predictor, scores, held_out, with_masking=multimodal)
    if settings.unimodal_baselines and multimodal:
        with stages("baselines"):
            _add_baselines(evaluation, members[0], split, tasks[0], fit_one)
    tables = _paths_table(scores_by_path, certificates_by_path, labels, split)
    for row in tables.get("compute_types", []):
        if row["max_difference"] > row["tolerance"]:
            progress(
                f"warning: scores of {row['attribute']} in {row['path']} differ by up to {row['max_difference']:.2f} "
                f"from those in {row['reference']}, more than {row['tolerance']}: compare the certificates"
            )
    for warning in evaluation.check_modality_collapse():
        progress(f"warning: {warning}")
    wrong = mistakes(split, labels, scores, held_out, config.report.samples)
    return TrainedModel(
        artifact=folder,
        certificates=certificates,
        metrics=evaluation.metrics | {f"chosen/{name}": value for name, value in fitted[0].chosen.items()},
        params=_params(config, recipe),
        tables=evaluation.tables
        | _fit_tables(recipe, fitted)
        | tables
        | {"mistakes": wrong, "has_value": populations.head_table(heads, scores_by_path[0])}
        | {"seldom_given": seldom_given(dataset, labels, certifiers[0].represented)},
        curves=evaluation.curves,
        history=fitted[0].history,
        warnings=evaluation.warnings,
        held_out=held_out,
        pictures=pictures_of(dataset, [row["product_id"] for row in wrong]),
        lineage=_lineage(split, labels, certificates),
        seconds=stages.seconds,
    )


# --- fitting and saving ------------------------------------------------------------------------------------------


def _members(recipe: Recipe | Ensemble) -> tuple[Recipe, ...]:
    """The recipes of a vote, or the only one."""
    return recipe.members if isinstance(recipe, Ensemble) else (recipe,)


def _tasks(split: Split, labels: Mapping[str, Labels], members: Sequence[Recipe]) -> list[Task]:
    """Each member's task. Raises ConfigError if one of its networks cannot be built."""
    tasks = [task_of(split, labels, member.model) for member in members]
    for member, task in zip(members, tasks, strict=True):
        check_buildable(member, task)
    return tasks


def _fit_members(
    recipe: Recipe | Ensemble, tasks: Sequence[Task], fit_one: Callable[[Recipe, Task], Fitted]
) -> list[Fitted]:
    return [
        fit_one(replace(member, name=name), task)
        for name, member, task in zip(_fit_names(recipe), _members(recipe), tasks, strict=True)
    ]


def _fit_names(recipe: Recipe | Ensemble) -> list[str]:
    """The name of each member's fit in progress lines and checkpoints; numbered for a vote."""
    members = _members(recipe)
    return [f"{member.name} {number}" for number, member in enumerate(members)] if len(members) > 1 else [recipe.name]


def _split(dataset: Dataset, config: Config, recipe: Recipe | Ensemble, earlier: EarlierUses) -> Split:
    """The folds; those of the epoch in which the same training was interrupted, if it was (`training.checkpoints`)."""
    settings = settings_of(config)
    checkpoints = config.path(settings.checkpoints) if settings.checkpoints else None
    by_people = (*filter(None, dataset.people), *filter(None, dataset.refused))
    of_products = stable_hash(dataset.ids, [sorted(values.items()) for values in (*dataset.merchant, *by_people)])
    chosen = (asdict(settings.folds), settings.attributes, settings.min_label_count)
    fingerprint = stable_hash(asdict(recipe), chosen, of_products)
    split = split_of(dataset, settings, certification_rounds.resumed(earlier, checkpoints, fingerprint))
    certification_rounds.remember(split.certification_round, checkpoints, fingerprint)
    return split


def _checkpoint_folder(config: Config, workdir: Path) -> Path:
    """`training.checkpoints`; otherwise a temporary folder, through which recipe and baselines share stages."""
    checkpoints = settings_of(config).checkpoints
    return config.path(checkpoints) if checkpoints else workdir / "stages"


def _save_artifact(folder: Path, recipe: Recipe | Ensemble, tasks: Sequence[Task], fitted: Sequence[Fitted]) -> Path:
    """Write the model version's folder, all but its certificates; returns ``folder``."""
    if isinstance(recipe, Recipe):
        _save_member(folder, recipe, tasks[0], fitted[0])
        return folder
    member_folders = [folder / ensemble.MEMBERS / f"{number:02d}" for number in range(len(fitted))]
    for member_folder, member, task, member_fit in zip(member_folders, recipe.members, tasks, fitted, strict=True):
        _save_member(member_folder, member, task, member_fit)
    ensemble.save(folder, recipe.name, member_folders)
    return folder


def _save_member(folder: Path, recipe: Recipe, task: Task, fitted: Fitted) -> None:
    artifact.save(folder, fitted.network, task.tokenizers, recipe, temperatures(fitted, task))


# --- certificates and evaluation ---------------------------------------------------------------------------------


def _products_to_score(split: Split, labels: Mapping[str, Labels]) -> Index:
    """The choosing, certification and test folds, and the products with an unlabelled attribute (for the threshold
    grid, the weights and the drift reference)."""
    selected = np.any([label.unlabelled for label in labels.values()], axis=0)
    for index in (split.folds.choosing, split.folds.certification, split.folds.test):
        selected[index] = True
    return np.flatnonzero(selected)


def _unseen(split: Split, tasks: Sequence[Task], members: Sequence[Recipe]) -> Bools:
    """(N,): the fit has seen no product of the content group."""
    seen = [split.folds.train]
    seen += [task.self_supervised for task, member in zip(tasks, members, strict=True) if member.adapt is not None]
    return ~np.isin(split.groups, split.groups[np.concatenate(seen)])


def _masking(predictor: Scorer, dataset: Dataset) -> ScoreMasked:
    """Scores products with one modality masked."""

    def score_masked(index: Index, name: str) -> ModelScores:
        masked: MaskedInput = "image" if name == "image" else "text"
        return score(predictor, dataset, index, _discard, masked)

    return score_masked


def _certifiers(
    split: Split,
    config: Config,
    folder: Path,
    earlier: EarlierCandidates,
    predictors: Sequence[Scorer],
    scores: Sequence[ModelScores],
    populations: Populations,
    heads: Heads,
) -> list[Certifier]:
    """One for every compute type. They use the labels once, and share the probability that a certificate is wrong."""
    rule = replace(config.precision, delta=config.precision.delta / len(predictors))
    earlier, now = earlier.used_once([predictor.compute_type for predictor in predictors]), datetime.now(UTC)
    return [
        Certifier(
            split,
            of_path,
            rule,
            _scored_by(folder, config, predictor),
            earlier,
            now,
            populations,
            heads,
            len(predictors),
        )
        for predictor, of_path in zip(predictors, scores, strict=True)
    ]


def _scored_by(folder: Path, config: Config, predictor: Scorer) -> ScoredBy:
    """What the scores of this model come from, beside the products."""
    return ScoredBy(
        weights_hash=artifact.weights_hash(folder),
        preprocessing_hash=artifact.preprocessing_hash(folder),
        max_image_bytes=config.images.max_bytes,
        max_image_pixels=config.images.max_pixels,
        compute_type=predictor.compute_type,
    )


def _evaluate(
    split: Split,
    task: Task,
    predictor: Scorer,
    scores: ModelScores,
    held_out: Sequence[HeldOutDecision],
    with_masking: bool,
) -> Evaluation:
    """Certified metrics and metrics of the model on the test fold; if ``with_masking``, also with each input masked."""
    dataset, test = split.dataset, split.folds.test
    test_with_image = test[dataset.has_image[test]]
    scores_by_modality = {BOTH: scores}
    for masked in get_args(MaskedInput)[1:] if with_masking else ():
        scores_by_modality[f"{masked}_masked"] = score(predictor, dataset, test_with_image, _discard, masked)
    evaluation = Evaluation()
    for modality, modality_scores in scores_by_modality.items():
        for label in task.labels.values():
            evaluation.add_modality(modality, label, modality_scores, test_with_image, split.groups)
    training_groups = split.groups[split.folds.train]
    for attribute in task.labels:
        decisions = [row for row in held_out if row.attribute == attribute]
        in_training = np.isin([row.group for row in decisions], training_groups)
        evaluation.add_certified(attribute, certified_metrics(decisions, in_training))
    return evaluation


def _add_baselines(
    evaluation: Evaluation, recipe: Recipe, split: Split, task: Task, fit_one: Callable[[Recipe, Task], Fitted]
) -> None:
    """Fit the recipe with one modality only and add its metrics, to show what the other modality contributes."""
    test = split.folds.test[split.dataset.has_image[split.folds.test]]
    for kind in BASELINES:
        model = replace(recipe.model, fusion=FusionSpec(kind=kind))
        fitted = fit_one(replace(recipe, name=kind, model=model, search=SearchSpec()), task)
        predictor = Predictor(fitted.network, task.tokenizers, model, temperatures(fitted, task), device())
        scores = score(predictor, split.dataset, test, _discard)
        for label in task.labels.values():
            evaluation.add_modality(kind, label, scores, test, split.groups)


# --- what is recorded ---------------------------------------------------------------------------------------------


def _fit_tables(recipe: Recipe | Ensemble, fitted: Sequence[Fitted]) -> dict[str, list[dict[str, Any]]]:
    """The tables `epochs`, every member's losses stage by stage, and `search`, their candidates for lambda, if any."""
    members = list(zip(_fit_names(recipe), fitted, strict=True))
    epochs = [{"recipe": name, **row} for name, member_fit in members for row in member_fit.stages]
    search = [{"recipe": name, **row} for name, member_fit in members for row in member_fit.search]
    return {"epochs": epochs} | ({"search": search} if search else {})


def _paths_table(
    scores: Sequence[ModelScores],
    certificates: Sequence[Sequence[Certificate]],
    labels: Mapping[str, Labels],
    split: Split,
) -> dict[str, list[dict[str, Any]]]:
    """The table `compute_types`: what each further compute type changes against the first; no table if there is one."""
    rows = [
        row
        for of_path, issued in zip(scores[1:], certificates[1:], strict=True)
        for row in compute_type_differences(scores[0], of_path, certificates[0], issued, labels, split.dataset)
    ]
    return {"compute_types": rows} if rows else {}


def _params(config: Config, recipe: Recipe | Ensemble) -> dict[str, Any]:
    """The recipe, [training] and [precision], as a flat mapping."""
    fields = asdict(recipe)
    content = {"recipe": fields.pop("name"), **fields}
    if isinstance(recipe, Ensemble):
        del content["members"]
        content |= {f"member_{number:02d}": asdict(member) for number, member in enumerate(recipe.members)}
    return flatten_keys(content | {"training": asdict(settings_of(config)), "precision": asdict(config.precision)})


def _lineage(split: Split, labels: Mapping[str, Labels], certificates: Sequence[Certificate]) -> dict[str, Any]:
    """Counts and hashes of the training data."""
    dataset, folds = split.dataset, split.folds
    unlabelled = np.setdiff1d(np.arange(len(dataset)), np.concatenate([index for _, index in folds.items()]))
    return {
        **dataset.counts,
        "with_image": int(dataset.has_image.sum()),
        "labelled_by_attribute": {name: int(label.labelled.sum()) for name, label in labels.items()},
        "learned_values": {name: len(label.values) for name, label in labels.items()},
        "folds": folds.sizes(),
        "fold_groups": {name: len(np.unique(split.groups[index])) for name, index in folds.items()},
        "content_groups": len(np.unique(split.groups)),
        "largest_group": int(np.bincount(split.groups).max()),
        "near_duplicate_rate_test": near_duplicate_rate(folds.test, folds.train, split.groups),
        "near_duplicate_rate_unlabelled": near_duplicate_rate(unlabelled, folds.train, split.groups),
        "data_window": data_window(dataset, folds.certification),
        "label_set_hash": label_set([dataset.ids[product] for product in folds.certification.tolist()]),
        "certification_round": split.certification_round.number,
        "certification_round_reason": split.certification_round.reason,
        "label_uses": _label_uses(certificates),
        "dictionary_hash": dataset.dictionary.hash(),
    }


def _label_uses(certificates: Sequence[Certificate]) -> dict[str, int]:
    """Attribute -> number of the use of its labels, of products with a picture; on any compute type."""
    of_both = [one for one in certificates if one.modality is Modality.BOTH]
    return {name: max(one.use_number for one in of_both if one.attribute == name) for name in _attributes(of_both)}


def _attributes(certificates: Sequence[Certificate]) -> list[str]:
    return list(dict.fromkeys(one.attribute for one in certificates))


def _discard(_line: str) -> None:
    """Progress of a short step is not reported."""
