"""Metrics of a model on held-out products. numpy only.

There are two kinds (PRECISION, "Reporting"). Metrics of the scores (F1, R@P95, curves) are over all products of the
fold with text and picture, so that the whole model, one with a masked input and the unimodal baselines are compared on
the same products. Certified metrics (recall and precision at the certified thresholds) are over all labelled products
of the fold, with and without a picture (:mod:`catalog_enrichment.precision.certified_metrics`).

True values that are not learned count in every denominator. Shapes: n products, V learned values.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalog_enrichment.precision import bootstrap, classification_metrics, metrics
from catalog_enrichment.precision.classification_metrics import Bools, Floats, Ints, ratio
from catalog_enrichment.precision.units import pairs_from
from catalog_enrichment.training.dataset import Labels
from catalog_enrichment.training.folds import Index
from catalog_enrichment.training.modality_collapse import collapse_warnings

BOTH = "both"
ATTENTION_BINS = 20
ATTENTION_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
WORST_PAIRS = 20


@dataclass(frozen=True, slots=True)
class ModelScores:
    """One model's scores of n products."""

    index: Index
    """Positions of n products, ascending."""
    probabilities: Mapping[str, NDArray[Any]]
    """Attribute -> (n, V)."""
    attention: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    """Attribute -> (n,) attention weight on the text; missing if the fusion has none, NaN where it is not defined."""
    vectors: NDArray[np.float32] = field(default_factory=lambda: np.empty((0, 0), dtype=np.float32))
    """(n, D): the encoders' vectors; empty where nobody needs them."""

    def at(self, attribute: str, index: Index) -> NDArray[Any]:
        """(n, V) probabilities of the products at ``index``; all of them must have been scored."""
        return self.probabilities[attribute][np.searchsorted(self.index, index)]

    def vectors_at(self, index: Index) -> NDArray[np.float32]:
        """(n, D) vectors of the products at ``index``; all of them must have been scored."""
        return self.vectors[np.searchsorted(self.index, index)]

    def weights(self, attribute: str, index: Index) -> NDArray[Any] | None:
        """(n,) weight on the text of the products at ``index``; None if the fusion has none."""
        weights = self.attention.get(attribute)
        return None if weights is None else weights[np.searchsorted(self.index, index)]


@dataclass(slots=True)
class Evaluation:
    """All that is reported about a model, as plain data for MLflow and the training page."""

    metrics: dict[str, float] = field(default_factory=dict)
    """``attribute/metric`` for the whole model, ``attribute/modality/metric`` for masked inputs and baselines."""
    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """`modalities`, `values`, `certified`, `confusions`: lists of rows."""
    curves: dict[str, dict[str, Any]] = field(default_factory=dict)
    """`precision_recall` by attribute and modality, `reliability` and `attention` by attribute: lists of numbers."""
    warnings: list[str] = field(default_factory=list)
    """Messages for the person who trained the model; filled by :meth:`check_modality_collapse`."""

    def add_modality(
        self, modality: str, labels: Labels, scores: ModelScores, index: Index, groups: Ints | None = None
    ) -> None:
        """Add the metrics of one attribute and modality, over the labelled products of ``index``.

        ``groups`` (N,): content group of every product of the data set; the intervals of the whole model resample
        groups. None: every product is a group.
        """
        index = index[labels.labelled[index]]
        probabilities = scores.at(labels.attribute, index)
        row = attribute_metrics(probabilities, labels, index)
        prefix = labels.attribute if modality == BOTH else f"{labels.attribute}/{modality}"
        self.metrics |= {f"{prefix}/{name}": value for name, value in row.items()}
        self._table("modalities").append({"attribute": labels.attribute, "modality": modality, **row})
        curve = _curve(probabilities, labels, index)
        self.curves.setdefault("precision_recall", {}).setdefault(labels.attribute, {})[modality] = curve
        if modality == BOTH:
            self._table("values").extend(metrics_by_value(probabilities, labels, index))
            self._table("confusions").extend(confusions(probabilities, labels, index))
            self.curves.setdefault("reliability", {})[labels.attribute] = _reliability(probabilities, labels, index)
            self._attention(labels.attribute, scores.weights(labels.attribute, index))
            for name, interval in intervals(probabilities, labels, index, groups).items():
                self.metrics |= {f"{prefix}/{name}_low": interval.low, f"{prefix}/{name}_high": interval.high}

    def add_certified(self, attribute: str, row: Mapping[str, float]) -> None:
        """Add what the certificates of ``attribute`` would write on the test fold; ``row`` as of
        :func:`catalog_enrichment.precision.certified_metrics.certified_metrics`."""
        self.metrics |= {f"{attribute}/certified_{name}": value for name, value in row.items()}
        self._table("certified").append({"attribute": attribute, **row})

    def check_modality_collapse(self) -> list[str]:
        """Fill and return ``warnings``. Call it after every attribute and modality was added, baselines included."""
        self.warnings = collapse_warnings(self.tables.get("modalities", []), self.curves.get("attention", {}))
        return self.warnings

    def _attention(self, attribute: str, weights: NDArray[Any] | None) -> None:
        if weights is None or not np.isfinite(weights).any():
            return
        known = weights[np.isfinite(weights)].astype(np.float64)
        counts, edges = np.histogram(known, bins=ATTENTION_BINS, range=(0.0, 1.0))
        self.curves.setdefault("attention", {})[attribute] = {
            "edges": edges.tolist(),
            "counts": counts.tolist(),
            "quantiles": np.quantile(known, ATTENTION_QUANTILES).tolist(),
        }
        self.metrics[f"{attribute}/attention_text_mean"] = float(known.mean())

    def _table(self, name: str) -> list[dict[str, Any]]:
        return self.tables.setdefault(name, [])


def attribute_metrics(probabilities: NDArray[Any], labels: Labels, index: Index) -> dict[str, float]:
    """Accuracy, F1 and R@P95 of one attribute; (n, V) probabilities of the products at ``index``.

    Values that are not learned are one class that is never predicted; it counts in accuracy, in micro and weighted F1
    and in the denominator of the micro R@P95. The macro averages are over the learned values; head and tail (Chen et
    al. 2022) divide these by their number of labelled products in the whole data set.
    """
    predicted = classification_metrics.predictions(probabilities, labels.cardinality)
    truth, unlearned = labels.truth[index], labels.unlearned[index]
    all_predicted, all_true = _with_unlearned(predicted, truth, unlearned)
    overall, known = classification_metrics.f1(all_predicted, all_true), classification_metrics.f1(predicted, truth)
    head, tail = classification_metrics.f1_head_tail(predicted, truth, labels.truth.sum(axis=0))
    pairs = pairs_from(probabilities, truth, labels.cardinality)
    pooled = replace(pairs, positives=np.append(pairs.positives, unlearned.sum()))
    return {
        "products": float(len(index)),
        "accuracy": classification_metrics.accuracy(all_predicted, all_true),
        "f1_micro": overall.micro,
        "f1_macro": known.macro,
        "f1_weighted": overall.weighted,
        "f1_head": head,
        "f1_tail": tail,
        "r_at_p95_micro": metrics.r_at_p_micro(pooled).recall,
        "r_at_p95_macro": metrics.r_at_p_macro(pairs),
    }


def measures(probabilities: NDArray[Any], labels: Labels, index: Index) -> dict[str, bootstrap.Measure]:
    """The metrics of :func:`attribute_metrics`, by the same names, in a form that can be resampled."""
    predicted = classification_metrics.predictions(probabilities, labels.cardinality)
    truth, unlearned = labels.truth[index], labels.unlearned[index]
    all_predicted, all_true = _with_unlearned(predicted, truth, unlearned)
    head = classification_metrics.head_labels(labels.truth.sum(axis=0))
    return {
        "accuracy": bootstrap.accuracy(all_predicted, all_true),
        "f1_micro": bootstrap.f1_micro(all_predicted, all_true),
        "f1_macro": bootstrap.f1_macro(predicted, truth),
        "f1_weighted": bootstrap.f1_weighted(all_predicted, all_true),
        "f1_head": bootstrap.f1_macro(predicted[:, head], truth[:, head]),
        "f1_tail": bootstrap.f1_macro(predicted[:, ~head], truth[:, ~head]),
        "r_at_p95_micro": bootstrap.r_at_p_micro(probabilities, truth, labels.cardinality, unlearned),
        "r_at_p95_macro": bootstrap.r_at_p_macro(probabilities, truth, labels.cardinality),
    }


def intervals(
    probabilities: NDArray[Any], labels: Labels, index: Index, groups: Ints | None = None
) -> dict[str, bootstrap.Interval]:
    """95% bootstrap intervals of :func:`measures`; ``groups`` (N,) as in :meth:`Evaluation.add_modality`."""
    group_of_product = np.arange(len(index)) if groups is None else groups[index]
    return bootstrap.intervals(measures(probabilities, labels, index), bootstrap.Resamples(group_of_product))


def metrics_by_value(probabilities: NDArray[Any], labels: Labels, index: Index) -> list[dict[str, Any]]:
    """Support, precision, recall, F1 and R@P95 of every learned value, most frequent first."""
    truth = labels.truth[index]
    predicted = classification_metrics.predictions(probabilities, labels.cardinality)
    hits, support = (predicted & truth).sum(axis=0), truth.sum(axis=0)
    precision, recall = ratio(hits, predicted.sum(axis=0)), ratio(hits, support)
    f1 = classification_metrics.f1(predicted, truth).per_label
    pairs = pairs_from(probabilities, truth, labels.cardinality)
    rows = [
        {
            "attribute": labels.attribute,
            "value": value,
            "support": int(support[column]),
            "precision": float(precision[column]),
            "recall": float(recall[column]),
            "f1": float(f1[column]),
            "r_at_p95": metrics.operating_point(*pairs.of(column), 0.95).recall,
        }
        for column, value in enumerate(labels.values)
    ]
    return sorted(rows, key=lambda row: -row["support"])


def confusions(probabilities: NDArray[Any], labels: Labels, index: Index) -> list[dict[str, Any]]:
    """The most frequent pairs of a true value and a wrong prediction (`said`). A wrong prediction is paired with every
    true value of the product that was not predicted."""
    predicted = classification_metrics.predictions(probabilities, labels.cardinality)
    truth = labels.truth[index]
    pairs: Counter[tuple[str, str]] = Counter()
    for product in np.flatnonzero((predicted & ~truth).any(axis=1)):
        missed = [labels.values[column] for column in np.flatnonzero(truth[product] & ~predicted[product])]
        for column in np.flatnonzero(predicted[product] & ~truth[product]):
            pairs.update((true, labels.values[column]) for true in missed or ["(a value not learned)"])
    return [
        {"attribute": labels.attribute, "true": true, "said": predicted, "products": count}
        for (true, predicted), count in pairs.most_common(WORST_PAIRS)
    ]


def _with_unlearned(predicted: Bools, truth: Bools, unlearned: Ints) -> tuple[Bools, Bools]:
    """Predictions and truth, (n, V + 1) each: the last column stands for all values that are not learned."""
    never = np.zeros(len(predicted), dtype=bool)
    return np.column_stack([predicted, never]), np.column_stack([truth, unlearned > 0])


def _curve(probabilities: NDArray[Any], labels: Labels, index: Index) -> dict[str, list[float]]:
    pairs = pairs_from(probabilities, labels.truth[index], labels.cardinality)
    positives = int(pairs.positives.sum() + labels.unlearned[index].sum())
    curve = metrics.precision_recall_curve(pairs.scores, pairs.correct, positives)
    return {
        "thresholds": _floats(curve.thresholds),
        "precision": _floats(curve.precision),
        "recall": _floats(curve.recall),
    }


def _reliability(probabilities: NDArray[Any], labels: Labels, index: Index) -> dict[str, Any]:
    pairs = pairs_from(probabilities, labels.truth[index], labels.cardinality)
    bins = metrics.reliability(pairs.scores, pairs.correct)
    return {
        "confidence": _floats(bins.confidence),
        "accuracy": _floats(bins.accuracy),
        "count": bins.count.tolist(),
        "expected_error": bins.expected_error,
    }


def _floats(values: Floats) -> list[float]:
    return [float(value) for value in values]
