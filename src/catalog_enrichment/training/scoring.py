"""Scores of a fitted model, from the predictor that enrichment uses too (I8), and its evaluation on the test fold."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from catalog_enrichment.inputs.product_batch import ProductBatch
from catalog_enrichment.models import artifact, compute_types, has_value
from catalog_enrichment.models.predictor import Predictor, Scorer, Scores, TitleWordsScorer, load_predictor
from catalog_enrichment.models.spec import FusionSpec, Recipe, SearchSpec
from catalog_enrichment.models.title_words import TitleWords
from catalog_enrichment.monitoring.stages import duration
from catalog_enrichment.precision.certified_recall import HeldOutDecision, certified_metrics
from catalog_enrichment.precision.classification_metrics import fit_temperature
from catalog_enrichment.training.dataset import Dataset
from catalog_enrichment.training.evaluation import BOTH, Evaluation, ModelScores
from catalog_enrichment.training.fit import Fitted
from catalog_enrichment.training.folds import Index, where
from catalog_enrichment.training.labels import Labels
from catalog_enrichment.training.loop import Progress, ignored
from catalog_enrichment.training.task import Split, Task
from catalog_enrichment.training.word_experts import fit_title_words

BASELINES: tuple[str, ...] = ("text_only", "image_only")
"""Unimodal fusions that are fitted for comparison; also their names in tables and metrics."""

MaskedInput = Literal["nothing", "image", "text"]
"""The input that is masked."""

_TOKENIZER_BATCH = 4096
_PROGRESS_SECONDS = 10.0


def temperatures(fitted: Fitted, task: Task) -> dict[str, float]:
    """Return attribute -> temperature, fitted to the choosing fold's labelled products with a picture; 1 without
    any."""
    index = where(task.folds.choosing, task.examples.has_image)
    temperature_by_attribute = dict.fromkeys(task.labels, 1.0)
    if not len(index):
        return temperature_by_attribute
    for name, logits in task.examples.outputs(fitted.network, index).logits.items():
        label = task.labels[name]
        labelled = label.labelled[index]
        temperature_by_attribute[name] = fit_temperature(
            logits.numpy()[labelled], label.truth[index][labelled], label.cardinality
        )
    return temperature_by_attribute


def scorer_of(fitted: Fitted, task: Task, recipe: Recipe) -> Scorer:
    """Return what scores as a version of ``recipe`` would that is not saved."""
    device, dataset = compute_types.default_device(), task.examples.dataset
    network = Predictor(fitted.network, task.tokenizers, recipe.model, temperatures(fitted, task), device)
    if not recipe.title_words:
        return network
    choosing = score(network, dataset, np.sort(task.folds.choosing), ignored)
    words = fit_title_words(dataset, task.folds, task.groups, task.labels, choosing)
    return network if words is None else TitleWordsScorer(network, words)


def products_to_score(split: Split, labels: Mapping[str, Labels]) -> Index:
    """Return the choosing, certification and test folds, and the products with an unlabelled attribute (for the
    threshold grid, the weights and the drift reference)."""
    selected = np.any([label.unlabelled for label in labels.values()], axis=0)
    selected[split.folds.held_out] = True
    return np.flatnonzero(selected)


class SavedVersion:
    """The folder of a model version, which is scored as enrichment does, in every number type to certify."""

    def __init__(self, folder: Path, numbers: Sequence[str], dataset: Dataset) -> None:
        self.folder, self.dataset, self._numbers = folder, dataset, numbers
        self.predictors = self._load()
        self.scores: list[ModelScores] = []
        """By number type, as the predictors."""
        self.heads: has_value.Heads = {}
        """The has-value heads that the scores are multiplied by."""

    def score(self, index: Index, progress: Progress) -> None:
        """Score the products at ``index``."""
        self.scores = [score(predictor, self.dataset, index, progress) for predictor in self.predictors]

    def add_title_words(self, words: TitleWords | None) -> None:
        """Write the experts of titles' words into the folder, and pool the scores with them, as
        :class:`TitleWordsScorer` does."""
        if words is None:
            return
        artifact.write_title_words(self.folder, words)
        self.predictors = self._load()
        cardinalities = {name: head.cardinality for name, head in self.predictors[0].heads.items()}
        for number, scores in enumerate(self.scores):
            titles = [self.dataset.titles[product] for product in scores.index.tolist()]
            pooled = words.pooled(scores.probabilities, cardinalities, titles)
            self.scores[number] = replace(scores, probabilities=pooled)

    def add_heads(self, heads: has_value.Heads) -> None:
        """Write has-value heads into the folder, and apply them to the scores, as :class:`HasValueScorer` does."""
        self.heads = heads
        if not heads:
            return
        artifact.write_has_value(self.folder, heads)
        self.predictors = self._load()
        for number, scores in enumerate(self.scores):
            pictured = self.dataset.has_image[scores.index]
            probabilities = {
                name: values * has_value.factors(heads, name, scores.vectors, pictured)[:, None]
                for name, values in scores.probabilities.items()
            }
            self.scores[number] = replace(scores, probabilities=probabilities)

    def _load(self) -> list[Scorer]:
        return [load_predictor(self.folder, compute_types.default_device(), numbers) for numbers in self._numbers]


def score(
    predictor: Scorer, dataset: Dataset, index: Index, progress: Progress, masked: MaskedInput = "nothing"
) -> ModelScores:
    """Score the products at ``index``, with the input ``masked`` masked.

    Products with texts of like length are scored together, as enrichment does: little is spent on padding.
    """
    order = _by_length(predictor, dataset, index)
    size = compute_types.ROWS[compute_types.device_of(predictor.compute_type)]
    with_text, with_image = masked != "text", masked != "image"
    scores = []
    for start in _reported(range(0, len(order), size), progress):
        rows = index[order[start : start + size]].tolist()
        batch = ProductBatch(
            [dataset.titles[row] if with_text else "" for row in rows],
            [dataset.descriptions[row] if with_text else "" for row in rows],
            [dataset.pixels[row] if with_image and dataset.pictures[row] else None for row in rows],
        )
        scores.append(predictor.predict(batch))
    as_given = np.argsort(order, kind="stable")
    widths = {name: len(head.labels) for name, head in predictor.heads.items()}
    return ModelScores(
        index,
        {
            name: np.concatenate([np.empty((0, width)), *(part.probabilities[name] for part in scores)])[as_given]
            for name, width in widths.items()
        },
        {name: np.concatenate([np.empty(0), *(part.attention[name] for part in scores)])[as_given] for name in widths},
        np.concatenate([part.vectors for part in scores])[as_given] if scores else np.empty((0, 0), dtype=np.float32),
        _proposed(scores, as_given),
    )


def _proposed(scores: Sequence[Scores], order: Index) -> dict[str, list[str]]:
    """Return attribute without a closed list -> the value that is proposed for each product, in ``order``."""
    names = scores[0].found if scores else {}
    best = {name: [found[0].value if found else "" for part in scores for found in part.found[name]] for name in names}
    return {name: [values[product] for product in order.tolist()] for name, values in best.items()}


def evaluate(
    split: Split,
    labels: Mapping[str, Labels],
    version: SavedVersion,
    held_out: Sequence[HeldOutDecision],
    with_masking: bool,
) -> Evaluation:
    """Return certified metrics and metrics of the version on the test fold, in its first number type; if
    ``with_masking``, also with each input masked. ``labels``: of the attributes that the version scores."""
    evaluation, test = Evaluation(), _compared(split)
    scores_by_modality = {BOTH: version.scores[0]}
    for masked in get_args(MaskedInput)[1:] if with_masking else ():
        scores_by_modality[f"{masked}_masked"] = score(version.predictors[0], split.dataset, test, ignored, masked)
    for modality, modality_scores in scores_by_modality.items():
        for label in labels.values():
            if modality == BOTH or not label.is_open:
                evaluation.add_modality(modality, label, modality_scores, test, split.groups)
    for attribute in labels:
        decisions = [row for row in held_out if row.attribute == attribute]
        in_training = np.isin([row.group for row in decisions], split.groups[split.folds.train])
        evaluation.add_certified(attribute, certified_metrics(decisions, in_training))
    return evaluation


def add_baselines(
    evaluation: Evaluation, recipe: Recipe, split: Split, task: Task, fit: Callable[[Recipe, Task], Fitted]
) -> None:
    """Fit the recipe with one modality only and add its metrics, to show what the other modality contributes."""
    test = _compared(split)
    for kind in BASELINES:
        alone = unimodal(recipe, kind)
        scores = score(scorer_of(fit(alone, task), task, alone), split.dataset, test, ignored)
        for label in task.labels.values():
            evaluation.add_modality(kind, label, scores, test, split.groups)


def unimodal(recipe: Recipe, kind: str) -> Recipe:
    """Return the recipe of the baseline ``kind``. The titles' words are part of the text."""
    model = replace(recipe.model, fusion=FusionSpec(kind=kind))
    title_words = recipe.title_words and kind == "text_only"
    return replace(recipe, name=kind, model=model, search=SearchSpec(), title_words=title_words)


def _compared(split: Split) -> Index:
    """Return the products of the test fold that the metrics of scores are about: those with a picture, and all where
    no product of the training data has a picture."""
    has_image = split.dataset.has_image
    return where(split.folds.test, has_image) if has_image.any() else split.folds.test


def _by_length(predictor: Scorer, dataset: Dataset, index: Index) -> Index:
    """Return positions in ``index``, shortest texts first."""
    lengths = [np.empty(0, dtype=np.int64)]
    for start in range(0, len(index), _TOKENIZER_BATCH):
        rows = index[start : start + _TOKENIZER_BATCH].tolist()
        texts = ([texts[row] for row in rows] for texts in (dataset.titles, dataset.descriptions))
        lengths.append(predictor.text_lengths(*texts))
    return np.asarray(np.argsort(np.concatenate(lengths), kind="stable"))


def _reported(starts: range, progress: Progress) -> Iterator[int]:
    """Yield the positions at which batches start; every ten seconds a progress line gives the number of products
    scored, the rate and an estimate of the end."""
    started = reported = time.perf_counter()
    for start in starts:
        now = time.perf_counter()
        if now - reported > _PROGRESS_SECONDS:
            rate, total = start / (now - started), starts.stop
            left = duration((total - start) / rate)
            progress(f"{start:,} of {total:,} products scored, {rate:,.0f} products/s, about {left} more")
            reported = now
        yield start
