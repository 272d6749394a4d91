"""Certification without a fit, from proposals to a version that can be registered. Does not use Spark or MLflow.

The folds are those of a training but for train, which has the labelled products that the proposer has seen: they
certify nothing. Choosing gives the calibration and the pool, certification tests the thresholds, test gives the
reported metrics.

Shapes: N products of the data set, n products with proposals, V values of an attribute.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalog_enrichment.config.proposer import ProposerConfig
from catalog_enrichment.config.schema import Config
from catalog_enrichment.errors import ConfigError
from catalog_enrichment.models import version_files
from catalog_enrichment.models.compute_types import GIVEN
from catalog_enrichment.monitoring.stages import Stages
from catalog_enrichment.precision.certificate import ScoredBy
from catalog_enrichment.precision.certified_recall import HeldOutDecision, certified_metrics
from catalog_enrichment.precision.units import NOTHING, Bools, Floats, Ints
from catalog_enrichment.proposers.given import Calibration, Calibrations
from catalog_enrichment.proposers.protocol import Proposer
from catalog_enrichment.records import EarlierUses, flatten_keys
from catalog_enrichment.registry.trained_model import MADE_ELSEWHERE, TrainedModel
from catalog_enrichment.training import held_out, reviewed_labels, seen_products, version_facts
from catalog_enrichment.training.alikeness import Populations
from catalog_enrichment.training.certification import Certifier, EarlierCandidates
from catalog_enrichment.training.dataset import Dataset
from catalog_enrichment.training.evaluation import BOTH, Evaluation, ModelScores
from catalog_enrichment.training.folds import (
    CertificationRound,
    Folds,
    GroupedProducts,
    Index,
    content_groups,
    empty_folds,
    folds_of_round,
    where,
)
from catalog_enrichment.training.labels import Labels
from catalog_enrichment.training.open_attributes import judged_by
from catalog_enrichment.training.scoring import products_to_score
from catalog_enrichment.training.task import MIN_LABELLED, Split, attributes_of, stratified_by

TEXT_DIMENSIONS = 64
"""Components of the text vectors with which labelled and unlabelled products are compared."""

NO_VECTORS = np.empty((0, 0), dtype=np.float32)

FEWEST_TO_CALIBRATE = 50
"""With fewer proposals of the choosing fold, or all of them right or all wrong, scores stay as they are."""


@dataclass(frozen=True, slots=True)
class Proposed:
    """The proposals about n products, uncalibrated."""

    index: Index
    """(n,) positions in the data set, ascending."""
    proposals: Sequence[Sequence[tuple[str, str, float]]]
    """Per product: attribute, value, score; the value NOTHING where no value is proposed, and no row for an attribute
    about which there is no answer."""
    counts: Mapping[str, Any]
    """What could not be used of the answers, by attribute; and products that could not be scored."""


Propose = Callable[[Sequence[str]], tuple[Mapping[str, Sequence[tuple[str, str, float]]], Mapping[str, Any]]]
"""Product ids -> product id -> its proposals, and the counts of :class:`Proposed`."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """The proposer that is certified."""

    name: str
    declared: seen_products.Declaration
    made_at: datetime
    """When the model was made, or the first answer was given."""
    propose: Propose
    save: Callable[[Path, Calibrations], Proposer]
    """Writes the version's folder with the calibrations; returns its proposer."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Facts about the proposer, which are logged with the version."""


def certify(
    dataset: Dataset, config: Config, source: Source, workdir: Path, earlier: EarlierCandidates, stages: Stages
) -> TrainedModel:
    """Certify the proposals of ``source`` by the labels of ``dataset`` that it has not seen.

    The version's folder is written to ``workdir``. ``earlier``: the models before this one, and where the use of
    certification labels is recorded.
    """
    settings, folder, say = settings_of(config), workdir / "artifact", stages.say
    with stages("split"):
        labels = {name: dataset.labels(name, 0) for name in attributes_of(settings, dataset.dictionary)}
        groups = content_groups(dataset.titles, dataset.pictures, dataset.dictionary.words())
        seen = seen_products.seen(source.declared, dataset, groups)
        split = split_of(dataset, labels, settings, groups, seen, earlier.uses)
        if line := seen_products.matched(source.declared, dataset):
            say(line)
        if split.certification_round.reason:
            say(f"certification labels: {split.certification_round.reason}")
    with stages("propose") as stage:
        index = products_to_score(split, labels)
        proposed = proposals_of(dataset, index, source.propose)
        stage.rows_in = len(index)
    with stages("calibrate"):
        labels = {name: answered_only(label, proposed) for name, label in labels.items()}
        uncalibrated = scores_of(proposed, labels, {})
        labels = judged_by(uncalibrated, labels, dataset)
        calibrations = {} if settings.calibration == "none" else fitted(uncalibrated, split, labels)
        proposer = source.save(folder, calibrations)
        vectors = text_vectors(dataset, proposed.index)
        scores = scores_of(proposed, labels, calibrations, vectors)
    with stages("certify"):
        leaks = {name: seen_products.leak_check(label, scores, split, source.made_at) for name, label in labels.items()}
        refused = {name: leak.refusal for name, leak in leaks.items() if leak.refusal}
        for name, leak in leaks.items():
            say(f"{'warning: ' if leak.refusal else ''}{name}: {leak.refusal or leak.note}")
        certifier = Certifier(
            split=split,
            scores=scores,
            rule=config.precision,
            scored_by=ScoredBy(
                weights_hash=proposer.weights_hash,
                preprocessing_hash=proposer.preprocessing_hash,
                max_image_bytes=config.images.max_bytes,
                max_image_pixels=config.images.max_pixels,
                scaled_side=config.images.copy_side,
                compute_type=GIVEN,
            ),
            earlier=earlier,
            issued_at=datetime.now(UTC),
            populations=Populations(split, ~seen, with_heads=False),
            refused=refused,
            trained_on=seen_products.sentence(source.declared),
        )
        certificates = certifier.certify_all(labels)
        version_files.write_certificates(folder, [certificate.to_dict() for certificate in certificates])
        reference = version_facts.drift_reference(dataset, labels, scores, certificates, None)
        version_files.write_drift(folder, reference)
    with stages("evaluate"):
        decisions = held_out.held_out_decisions(split, labels, scores, certificates)
        evaluation = evaluated(split, labels, scores, decisions)
    mistakes = held_out.mistakes(split, labels, scores, decisions, config.report.samples)
    return TrainedModel(
        artifact=folder,
        certificates=certificates,
        metrics=evaluation.metrics,
        params=flatten_keys(
            {"recipe": source.name, "proposer": asdict(settings), "precision": asdict(config.precision)}
        ),
        tables=evaluation.tables
        | {"judged_errors": reviewed_labels.judged_errors(split, labels, scores), "mistakes": mistakes},
        curves=evaluation.curves,
        history=[],
        warnings=list(refused.values()),
        held_out=decisions,
        pictures=held_out.pictures_of(dataset, [row["product_id"] for row in mistakes]),
        lineage=version_facts.lineage(split, labels, certificates)
        | {MADE_ELSEWHERE: dict(source.facts), "proposals": dict(proposed.counts)},
        about=f"Proposals of {source.name}, which was not trained here. {seen_products.sentence(source.declared)}.",
        labelled=version_facts.labelled_products(dataset, list(labels)),
        seconds=stages.seconds,
    )


def settings_of(config: Config) -> ProposerConfig:
    """Return the section [proposer]. Raises ConfigError if there is none."""
    if config.proposer is None:
        raise ConfigError("the config has no section [proposer]: it names the model or the answers to certify")
    return config.proposer


def split_of(
    dataset: Dataset,
    labels: Mapping[str, Labels],
    settings: ProposerConfig,
    groups: Ints,
    seen: Bools,
    earlier: EarlierUses,
) -> Split:
    """Return the folds; the labelled products that were seen are the train fold. ``groups``, ``seen``: (N,).

    Where too few labelled products are left, the other folds are empty: every certificate abstains then, and people's
    verdicts can certify.
    """
    labelled = np.flatnonzero(np.any([label.labelled for label in labels.values()], axis=0))
    fresh = labelled[~seen[labelled]].astype(np.int64)
    nothing = np.empty(0, dtype=np.int64)
    folds, certification_round = Folds(nothing, nothing, nothing, nothing), CertificationRound()
    if len(fresh) >= MIN_LABELLED:
        products = GroupedProducts(dataset.ids, groups, stratified_by(labels))
        found, certification_round = folds_of_round(fresh, products, settings, list(labels), earlier)
        folds = folds if empty_folds(found, settings.folds) else found
    rest = np.setdiff1d(labelled, folds.held_out) if len(folds.held_out) else labelled
    masks = [label.labelled for label in labels.values()]
    folds = replace(folds.without_twins_of(dataset.asked, groups, masks), train=rest.astype(np.int64))
    return Split(dataset, groups, folds, certification_round)


def proposals_of(dataset: Dataset, index: Index, propose: Propose) -> Proposed:
    """Return the proposals about the products at ``index``; none about a product that could not be scored."""
    found, counts = propose([dataset.ids[product] for product in index.tolist()])
    return Proposed(index, [found.get(dataset.ids[product], ()) for product in index.tolist()], counts)


def answered_only(labels: Labels, proposed: Proposed) -> Labels:
    """Return the labels without the products about which there is no answer: nothing is written to them, and the
    certificate is not about them."""
    answered = np.zeros(len(labels.labelled), dtype=bool)
    for product, proposals in zip(proposed.index.tolist(), proposed.proposals, strict=True):
        answered[product] = any(name == labels.attribute for name, *_ in proposals)
    gold = None if labels.gold is None else labels.gold & answered
    return replace(labels, labelled=labels.labelled & answered, unlabelled=labels.unlabelled & answered, gold=gold)


def scores_of(
    proposed: Proposed,
    labels: Mapping[str, Labels],
    calibrations: Calibrations,
    vectors: NDArray[np.float32] | None = None,
) -> ModelScores:
    """Return the proposals as scores: 0 for a value that is not proposed. ``vectors``: (n, D) of the texts."""
    columns = {name: {value: column for column, value in enumerate(label.values)} for name, label in labels.items()}
    found = {name: np.zeros((len(proposed.index), len(label.values))) for name, label in labels.items()}
    open_values = {name: [""] * len(proposed.index) for name, label in labels.items() if label.is_open}
    for row, proposals in enumerate(proposed.proposals):
        for name, value, score in proposals:
            is_open = name in open_values and value != NOTHING
            if name in found and (column := 0 if is_open else columns[name].get(value)) is not None:
                calibration = calibrations.get(name)
                own = score if calibration is None else calibration(score)
                if is_open and own <= found[name][row, 0]:
                    continue  # a product has one value, the best
                found[name][row, column] = own
                if is_open:
                    open_values[name][row] = value
    return ModelScores(proposed.index, found, vectors=NO_VECTORS if vectors is None else vectors, proposed=open_values)


def fitted(scores: ModelScores, split: Split, labels: Mapping[str, Labels]) -> dict[str, Calibration]:
    """Return attribute -> the calibration that is fitted on the choosing fold's proposals (Platt 1999), where there is
    one that keeps every order and difference of the scores."""
    found = {}
    for name, label in labels.items():
        index = where(split.folds.choosing, label.labelled)
        given = scores.at(name, index)
        proposed = (given > 0) & (given < 1)
        calibration = _platt(given[proposed], label.truth[index][proposed])
        if calibration is not None and keeps_apart(calibration, scores.probabilities[name]):
            found[name] = calibration
    return found


def _platt(scores: Floats, right: Bools) -> Calibration | None:
    from sklearn.linear_model import LogisticRegression

    if len(scores) < FEWEST_TO_CALIBRATE or right.all() or not right.any():
        return None
    logits = np.log(scores) - np.log1p(-scores)
    if not np.ptp(logits):
        return None
    model = LogisticRegression(C=1e6, max_iter=1000).fit(logits[:, None], right)
    slope, intercept = float(model.coef_[0, 0]), float(model.intercept_[0])
    return Calibration(slope, intercept) if slope > 0 else None


def keeps_apart(calibration: Calibration, scores: NDArray[Any]) -> bool:
    """Return whether different scores stay different, in the precision in which scores are compared."""
    mapped = [calibration(score) for score in np.unique(scores).tolist()]
    return all(low < high for low, high in itertools.pairwise(mapped))


def text_vectors(dataset: Dataset, index: Index) -> NDArray[np.float32]:
    """(n, D): the texts of the products at ``index`` as TF-IDF of words, reduced to their largest components.

    A proposer that was made elsewhere has no vectors of its own by which labelled and unlabelled products could be told
    apart.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.utils.extmath import randomized_svd

    texts = [f"{dataset.titles[product]} {dataset.descriptions[product]}" for product in index.tolist()]
    try:
        words = TfidfVectorizer(min_df=2, max_features=50_000, sublinear_tf=True, dtype=np.float32).fit_transform(texts)
    except ValueError:  # no word is in two texts
        return np.zeros((len(index), 1), dtype=np.float32)
    left, lengths, _ = randomized_svd(words, min(TEXT_DIMENSIONS, *words.shape), random_state=0)
    return np.asarray(left * lengths, dtype=np.float32)


def evaluated(
    split: Split, labels: Mapping[str, Labels], scores: ModelScores, decisions: Sequence[HeldOutDecision]
) -> Evaluation:
    """Return the metrics on the test fold; none of an attribute without a labelled product there."""
    evaluation = Evaluation()
    for name, label in labels.items():
        if not len(where(split.folds.test, label.labelled)):
            continue
        evaluation.add_modality(BOTH, label, scores, split.folds.test, split.groups)
        own = [row for row in decisions if row.attribute == name]
        in_training = np.isin([row.group for row in own], split.groups[split.folds.train])
        evaluation.add_certified(name, certified_metrics(own, in_training))
    return evaluation
