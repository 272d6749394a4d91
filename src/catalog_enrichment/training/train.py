"""Training, from labelled products to a certified model version. Does not use Spark or MLflow.

Every fold has one purpose: train fits the weights, choosing gives the epoch, the temperature and the pool,
certification tests the thresholds, test gives the reported metrics.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from catalog_enrichment.config.schema import Config
from catalog_enrichment.dictionary import Dictionary
from catalog_enrichment.models import compute_types, version_files
from catalog_enrichment.monitoring.stages import Stages
from catalog_enrichment.registry.trained_model import TrainedModel
from catalog_enrichment.training import held_out, open_attributes, reviewed_labels, scoring, task, version_facts
from catalog_enrichment.training.alikeness import Populations
from catalog_enrichment.training.certification import EarlierCandidates, certifiers
from catalog_enrichment.training.distributed import Fitter
from catalog_enrichment.training.fit import fit, set_threads
from catalog_enrichment.training.loop import Progress
from catalog_enrichment.training.members import Members, recipe_of, recipes_of
from catalog_enrichment.training.open_attributes import OpenAttributes
from catalog_enrichment.training.word_experts import fit_title_words, shares_of

if TYPE_CHECKING:
    import pyarrow as pa


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
    stages, settings, folder = Stages(say=progress), task.settings_of(config), workdir / "artifact"
    numbers = compute_types.to_certify(settings.compute_types, compute_types.default_device())
    set_threads(settings.threads)
    recipe = recipe_of(config)
    fit_one = partial(fit, progress=progress, checkpoints=task.checkpoint_folder(config, workdir))

    with stages("load") as stage:
        dataset = task.load(
            products, dictionary, config, recipes_of(recipe), workdir, open_attributes.max_chars(config)
        )
        stage.rows_in, stage.rows_out = dataset.counts["products_read"], len(dataset)
    if dataset.unusable.by_reason:
        progress(f"warning: {dataset.unusable.sentence()}")
    with stages("split"):
        labels = task.labels_of(dataset, settings)
        split = task.resumable_split(dataset, config, recipe, earlier.uses)
        members, extraction = Members.of(recipe, split, labels), OpenAttributes.of(config, split, labels)
        heads = (members.tasks[0].heads if members.tasks else {}) | (extraction.heads if extraction else {})
    for name, why in task.not_learned(labels, split.folds.train).items():
        progress(f"warning: {name} is not learned: {why}")
    if split.certification_round.reason:
        progress(f"certification labels: {split.certification_round.reason}")
    if lost := earlier.lost({name: head.labels for name, head in heads.items()}):
        progress(f"warning: nothing will be certified, because the promotion gate would refuse the model. {lost}")
        earlier = replace(earlier, refusal=lambda *_: lost)

    with stages("fit"):
        members.fit(fit_one, progress)
        if extraction:
            extraction.fit(split, progress)
    with stages("calibrate"):
        members.save(folder)
        if extraction:
            extraction.save(folder)
        version = scoring.SavedVersion(folder, numbers, dataset)
    with stages("score") as stage:
        to_score = scoring.products_to_score(split, labels)
        version.score(to_score, progress)
        by_compute_type = [open_attributes.judged_by(scores, labels, dataset) for scores in version.scores]
        labels = by_compute_type[0]
        stage.rows_in = len(to_score)
    if members.title_words:
        with stages("title_words"):
            words = fit_title_words(dataset, split.folds, split.groups, members.tasks[0].labels, version.scores[0])
            progress(shares_of(words))
            version.add_title_words(words)
    with stages("has_value") as stage:
        populations = Populations(split, members.unseen(split), settings.has_value)
        version.add_heads(populations.heads(labels, version.scores[0]))
        stage.rows_out = len(version.heads)
    with stages("certify"):
        of_types = certifiers(split, config, version, populations, earlier)
        certificates = [each.certify_all(judged) for each, judged in zip(of_types, by_compute_type, strict=True)]
        issued = [certificate for of_type in certificates for certificate in of_type]
        version_files.write_certificates(folder, [certificate.to_dict() for certificate in issued])
        drift = version_facts.drift_references(version, certificates, labels, masking=members.multimodal)
        version_files.write_drift(folder, drift)

    scores, with_pictures = version.scores[0], members.multimodal and bool(dataset.has_image.any())
    with stages("evaluate"):
        decisions = held_out.held_out_decisions(split, labels, scores, certificates[0])
        scored = {name: labels[name] for name in heads}
        evaluation = scoring.evaluate(split, scored, version, decisions, with_masking=with_pictures)
    if settings.unimodal_baselines and with_pictures:
        with stages("baselines"):
            scoring.add_baselines(evaluation, recipes_of(recipe)[0], split, members.tasks[0], fit_one)
    differences = version_facts.compute_type_differences(version.scores, certificates, labels, dataset)
    collapsed = evaluation.check_modality_collapse() if with_pictures else []
    for warning in [*version_facts.compute_type_warnings(differences), *collapsed]:
        progress(f"warning: {warning}")
    mistakes = held_out.mistakes(split, labels, scores, decisions, config.report.samples)
    return TrainedModel(
        artifact=folder,
        certificates=issued,
        metrics=evaluation.metrics | {f"chosen/{name}": value for name, value in members.chosen.items()},
        params=version_facts.params(config, members, extraction),
        tables=evaluation.tables
        | members.tables()
        | ({"compute_types": differences} if differences else {})
        | {"mistakes": mistakes, "has_value": populations.head_table(version.heads, scores)}
        | {"judged_errors": reviewed_labels.judged_errors(split, labels, scores)}
        | {"seldom_given": version_facts.seldom_given(dataset, labels, of_types[0].represented)},
        curves=evaluation.curves,
        history=members.history,
        warnings=evaluation.warnings,
        held_out=decisions,
        pictures=held_out.pictures_of(dataset, [row["product_id"] for row in mistakes]),
        lineage=version_facts.lineage(split, labels, issued),
        labelled=version_facts.labelled_products(dataset, list(labels)),
        seconds=stages.seconds,
    )
