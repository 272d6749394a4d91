"""Metrics of the fitted models with bootstrap intervals, and paired differences between two models. numpy only.

With several seeds a metric is the mean over the models of all seeds, and its interval is that of the mean: it says how
the metric varies between samples of products. The standard deviation over the seeds is reported beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from catalog_enrichment.comparison.results import FittedModels
from catalog_enrichment.precision import bootstrap
from catalog_enrichment.precision.bootstrap import Difference, Measure, Resamples
from catalog_enrichment.precision.classification_metrics import Floats
from catalog_enrichment.training.dataset import Labels
from catalog_enrichment.training.evaluation import BOTH, ModelScores, measures
from catalog_enrichment.training.folds import Index

HEADINGS: dict[str, str] = {
    "accuracy": "accuracy",
    "f1_micro": "micro-F1",
    "f1_macro": "macro-F1",
    "f1_weighted": "weighted F1",
    "f1_head": "macro-F1 of the head",
    "f1_tail": "macro-F1 of the tail",
    "r_at_p95_micro": "R@P95 micro",
    "r_at_p95_macro": "R@P95 macro",
}
"""Metric -> its heading in a table. All metrics are shares, 0..1."""


@dataclass(frozen=True, slots=True)
class MetricEstimate:
    """A metric with its 95% bootstrap interval by content group."""

    estimate: float
    low: float
    high: float
    spread: float | None = None
    """Standard deviation over the seeds; None for one seed."""


class MetricKey(NamedTuple):
    """What is measured: one metric of one model."""

    model: str
    attribute: str
    metric: str
    label_share: float | None = None
    """None: the fit with all labels."""
    view: str = BOTH


class Measurements:
    """Every metric is computed once; all models are measured on the same products and resamples."""

    def __init__(self, fitted: FittedModels, resamples: int) -> None:
        self._fitted, self._resamples = fitted, resamples
        self._estimates: dict[MetricKey, MetricEstimate] = {}

    def estimate(self, key: MetricKey) -> MetricEstimate:
        if key not in self._estimates:
            by_seed = self._measures(key)
            interval = bootstrap.intervals({key.metric: _mean(by_seed)}, self._resamples_of(key.attribute))[key.metric]
            spread = float(np.std([one.estimate for one in by_seed], ddof=1)) if len(by_seed) > 1 else None
            self._estimates[key] = MetricEstimate(interval.estimate, interval.low, interval.high, spread)
        return self._estimates[key]

    def difference(self, key: MetricKey, baseline: str) -> Difference:
        """The metric less the same metric of the model ``baseline``."""
        model, base = (_mean(self._measures(one)) for one in (key, key._replace(model=baseline)))
        return bootstrap.difference(model, base, self._resamples_of(key.attribute))

    def mlflow_metrics(self, model: str) -> dict[float | None, dict[str, float]]:
        """Share of the labels (None: all) -> MLflow's metric name -> value, of every estimate that was asked for."""
        by_share: dict[float | None, dict[str, float]] = {}
        for key, estimate in self._estimates.items():
            if key.model != model or key.view != BOTH:
                continue
            name, values = f"{key.attribute}/{key.metric}", by_share.setdefault(key.label_share, {})
            values |= {name: estimate.estimate, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
            if estimate.spread is not None:
                values[f"{name}_spread"] = estimate.spread
        return by_share

    def _measures(self, key: MetricKey) -> list[Measure]:
        """One measure per seed."""
        labels, index = self._fitted.labels[key.attribute], self._fitted.labelled(key.attribute)
        fits = self._fitted.results(key.model, key.label_share).fits
        return [measure_of(key.metric, result.scores[key.view], labels, index) for result in fits]

    def _resamples_of(self, attribute: str) -> Resamples:
        return Resamples(self._fitted.groups[self._fitted.labelled(attribute)], self._resamples)


def measure_of(metric: str, scores: ModelScores, labels: Labels, index: Index) -> Measure:
    """``metric`` of one model on the labelled products at ``index``; see :func:`evaluation.attribute_metrics`.

    Raises KeyError for a metric that has no interval.
    """
    return measures(scores.at(labels.attribute, index), labels, index)[metric]


def _mean(by_seed: Sequence[Measure]) -> Measure:
    """The mean of one metric over several models."""
    if len(by_seed) == 1:
        return by_seed[0]

    def mean(weights: bootstrap.Counts) -> Floats:
        return np.asarray(np.mean([measure(weights) for measure in by_seed], axis=0), dtype=np.float64)

    return Measure(by_seed[0].products, mean)
