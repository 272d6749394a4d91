"""Three models compared on the toy catalog: the config, a function that fits it, and plain recomputed metrics."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from catalog_enrichment.comparison.compared_models import FittedModels, ModelResults
from catalog_enrichment.comparison.fit_all import CatalogProducts, ComparisonData, fit_all, load_data
from catalog_enrichment.comparison.tables import Comparison, ComparisonTable
from catalog_enrichment.config.load import load_config
from catalog_enrichment.config.schema import Config
from catalog_enrichment.monitoring.stages import Stages
from catalog_enrichment.precision import classification_metrics
from catalog_enrichment.precision.classification_metrics import pairs_from
from catalog_enrichment.records import Cardinality, EarlierUses
from catalog_enrichment.training.distributed import Fitter
from catalog_enrichment.training.evaluation import ModelScores
from catalog_enrichment.training.fit import fit
from catalog_enrichment.training.loop import Progress

from ..training.toy import DICTIONARY, batches, recipe_toml, silent

METRICS = ["accuracy", "f1_micro", "f1_macro", "f1_weighted", "f1_head", "f1_tail", "r_at_p95_micro", "r_at_p95_macro"]


COMPARE = f"""
[catalog]
path = "lake"
dictionary = "dictionary.json"
[mlflow]
tracking_uri = "sqlite:///mlflow.db"
[training]
recipe = "toy.toml"
attributes = ["color", "material"]
min_label_count = 5
threads = 1
[training.folds]
train = 0.5
choosing = 0.2
certification = 0.02
test = 0.28
[compare]
seeds = [0, 1]
max_epochs = 2
folds = ["test"]
label_shares = [0.5, 1.0]
label_share_recipes = ["text"]
resamples = 200
[[compare.recipes]]
name = "text"
set = {{ "model.fusion.kind" = "text_only" }}
[[compare.recipes]]
name = "attention"
set = {{ "model.image.size" = 48 }}
note = "test_convnext stands in"
[[compare.recipes]]
name = "vote"
members = ["text", "attention"]
[[compare.tables]]
title = "Modalities"
paper = "a paper, Table 2"
kind = "modalities"
recipes = ["text", "attention", "vote", "reference_both"]
metrics = {METRICS}
baseline = "text"
note = "a stand-in | named"
[[compare.tables]]
title = "Shares"
kind = "label_shares"
recipes = ["text"]
metrics = ["accuracy"]
"""


def config(folder: Path, *overrides: str, text: str = COMPARE) -> Config:
    (folder / "toy.toml").write_text(recipe_toml(epochs=3))
    (folder / "config.toml").write_text(text)
    return load_config(folder / "config.toml", list(overrides))


def load(rows: list[dict], config: Config, workdir: Path, earlier: EarlierUses = EarlierUses()) -> ComparisonData:  # noqa: B008
    source = CatalogProducts(lambda: batches(rows), earlier)
    return load_data(source, DICTIONARY, config, workdir, Stages(silent))


def fit_models(
    rows: list[dict], config: Config, workdir: Path, progress: Progress = silent, fit: Fitter = fit
) -> FittedModels:
    return fit_all(load(rows, config, workdir), config, workdir, Stages(progress), fit)


def table(comparison: Comparison, title: str, attribute: str = "color") -> ComparisonTable:
    """Return the only table of ``attribute`` whose title starts with ``title``."""
    (match,) = [t for t in comparison.tables if t.asked.title.startswith(title) and t.attribute == attribute]
    return match


def mean_metric(name: str, results: ModelResults, fitted: FittedModels, attribute: str, view: str = "both") -> float:
    """Return the mean over the seeds of :func:`plain_metric`, on the labelled evaluation products."""
    rows = fitted.labelled(attribute)
    return float(np.mean([plain_metric(name, fit.scores[view], fitted, attribute, rows) for fit in results.fits]))


def plain_metric(name: str, scores: ModelScores, fitted: FittedModels, attribute: str, rows: np.ndarray) -> float:
    """Return a metric of the products at ``rows`` (repeats allowed), without the code under test."""
    labels = fitted.labels[attribute]
    probability = np.stack([scores.probabilities[attribute][list(scores.index).index(row)] for row in rows.tolist()])
    truth, unlearned = labels.truth[rows], labels.unlearned[rows]
    if labels.cardinality is Cardinality.ONE:
        predicted = np.eye(truth.shape[1], dtype=bool)[probability.argmax(axis=1)]
    else:
        predicted = probability >= 0.5
    if name == "accuracy":
        return float(((predicted == truth).all(axis=1) & (unlearned == 0)).mean())
    if name == "f1_micro":
        return 2 * float((predicted & truth).sum()) / float(predicted.sum() + truth.sum() + (unlearned > 0).sum())
    if name == "f1_weighted":
        hits, occurs = (predicted & truth).sum(axis=0), predicted.sum(axis=0) + truth.sum(axis=0)
        total = sum(2 * hits[v] / occurs[v] * truth[:, v].sum() for v in range(truth.shape[1]) if occurs[v])
        return float(total) / float(truth.sum() + (unlearned > 0).sum())
    if name.startswith("f1"):
        f1_by_value = []
        support = labels.truth.sum(axis=0)
        head, head_support = set(), 0
        for value in sorted(range(len(support)), key=lambda value: -support[value]):
            if head_support < 0.8 * support.sum():
                head.add(value)
                head_support += support[value]
        for value in range(truth.shape[1]):
            counted = {"f1_macro": True, "f1_head": value in head, "f1_tail": value not in head}[name]
            occurs = predicted[:, value].sum() + truth[:, value].sum()
            if counted and occurs:
                f1_by_value.append(2 * (predicted[:, value] & truth[:, value]).sum() / occurs)
        return float(np.mean(f1_by_value)) if f1_by_value else 0.0
    pairs = pairs_from(probability, truth, labels.cardinality)
    if name == "r_at_p95_macro":
        return classification_metrics.r_at_p_macro(pairs)
    best = 0
    for threshold in pairs.scores:
        accepted = pairs.scores >= threshold
        hits = int(pairs.correct[accepted].sum())
        if hits / accepted.sum() >= 0.95:
            best = max(best, hits)
    return best / float(truth.sum() + unlearned.sum())
