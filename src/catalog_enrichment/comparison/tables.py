"""The metrics, rankings, tables, warnings and summary of a comparison, computed from the fitted models' scores. numpy
only.

Every metric has a bootstrap interval, and two models are compared by the paired difference, over content groups. With
several seeds a metric is the mean over the models of all seeds, and its interval is that of the mean: it says how the
metric varies between samples of products. The standard deviation over the seeds is reported beside it. The p-values of
the rankings are not corrected for the number of models that the best model was chosen from.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from catalog_enrichment.comparison.compared_models import VIEWS, FitResult, FittedModels, ModelResults
from catalog_enrichment.config.comparison import REFERENCES, CompareConfig, CompareTable, Metric
from catalog_enrichment.precision import bootstrap
from catalog_enrichment.precision.bootstrap import Difference, Measure, Resamples
from catalog_enrichment.precision.units import Floats
from catalog_enrichment.training.evaluation import BOTH, Evaluation, collapse_warnings, measures

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
SUMMARY_METRICS: dict[str, Metric] = {"r_at_p95": "r_at_p95_micro", "macro_f1": "f1_macro", "accuracy": "accuracy"}
"""Key of the job's JSON summary -> metric."""
ALL_MODELS_COLUMNS: tuple[Metric, ...] = ("accuracy", "f1_macro", "r_at_p95_micro")
MASKED_METRIC: Metric = "r_at_p95_micro"
"""Metric of the table of masked inputs and of the collapse warnings."""
RANKED_BY: tuple[Metric, ...] = ("r_at_p95_micro", "f1_macro")
"""The measures that name a best model; the first is the measure that certification profits from."""


# --- measurements ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class MetricEstimate:
    """A metric with its 95% bootstrap interval by content group."""

    estimate: float
    low: float
    high: float
    spread: float | None = None
    """Standard deviation over the seeds; None for a single seed."""


class MetricKey(NamedTuple):
    """The key of a model's metric."""

    model: str
    attribute: str
    metric: str
    label_share: float | None = None
    """The share of the labels that the model was fitted with; None for the fit with all of them."""
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
            spread = float(np.std([measure.estimate for measure in by_seed], ddof=1)) if len(by_seed) > 1 else None
            self._estimates[key] = MetricEstimate(interval.estimate, interval.low, interval.high, spread)
        return self._estimates[key]

    def difference(self, key: MetricKey, baseline: str) -> Difference:
        """Return the metric less the same metric of the model ``baseline``."""
        model, base = (_mean(self._measures(measured)) for measured in (key, key._replace(model=baseline)))
        return bootstrap.difference(model, base, self._resamples_of(key.attribute))

    def mlflow_metrics(self, model: str) -> dict[float | None, dict[str, float]]:
        """Return share of the labels (None: all) -> MLflow's metric name -> value, of every estimate so far."""
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
        """Return a measure per seed."""
        labels, index = self._fitted.labels[key.attribute], self._fitted.labelled(key.attribute)
        scores = [fit.scores[key.view] for fit in self._fitted.results(key.model, key.label_share).fits]
        return [measures(of_seed.at(labels.attribute, index), labels, index)[key.metric] for of_seed in scores]

    def _resamples_of(self, attribute: str) -> Resamples:
        return Resamples(self._fitted.groups[self._fitted.labelled(attribute)], self._resamples)


def _mean(by_seed: Sequence[Measure]) -> Measure:
    """Return the mean of one metric over several models."""
    if len(by_seed) == 1:
        return by_seed[0]

    def mean(weights: bootstrap.Counts) -> Floats:
        return np.asarray(np.mean([measure(weights) for measure in by_seed], axis=0), dtype=np.float64)

    return Measure(by_seed[0].products, mean)


# --- rankings ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Ranking:
    """The models in the order of a measure, for an attribute."""

    attribute: str
    metric: Metric
    estimates: dict[str, MetricEstimate]
    """Model -> its estimate, the best first; equal models in the order of the config."""
    lead: Difference | None
    """The best less the next; None if there is only one model."""
    best_network: str
    best_reference: str
    """The best of TF-IDF, colour histogram and both; either is "" if there is none."""
    network_lead: Difference | None
    """The best network less the best reference; None if either is missing."""

    @property
    def best(self) -> str:
        return next(iter(self.estimates))

    @property
    def next_best(self) -> str:
        """The second; "" if there is only one model."""
        return next(iter(list(self.estimates)[1:]), "")


def _ranking(attribute: str, metric: Metric, fitted: FittedModels, measurements: Measurements) -> Ranking:
    keys = {name: MetricKey(name, attribute, metric) for name in fitted.models}
    unsorted = {name: measurements.estimate(key) for name, key in keys.items()}
    names = sorted(unsorted, key=lambda name: -unsorted[name].estimate)  # stable: equal models keep their order
    network = next((name for name in names if name not in REFERENCES), "")
    reference = next((name for name in names if name in REFERENCES), "")
    return Ranking(
        attribute=attribute,
        metric=metric,
        estimates={name: unsorted[name] for name in names},
        lead=measurements.difference(keys[names[0]], names[1]) if len(names) > 1 else None,
        best_network=network,
        best_reference=reference,
        network_lead=measurements.difference(keys[network], reference) if network and reference else None,
    )


# --- tables ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class TableRow:
    """The row of a model. The keys of both mappings are the table's columns."""

    name: str
    modalities_used: str
    seconds: float
    """Mean over the seeds."""
    estimates: Mapping[str, MetricEstimate]
    differences: Mapping[str, Difference] = field(default_factory=dict)
    """This model less the baseline, on the same products; empty for the baseline."""
    notes: tuple[str, ...] = ()
    """Substitutes for the paper's data or models, and hyperparameters that were chosen on the choosing fold."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ComparisonTable:
    """A table about an attribute."""

    asked: CompareTable
    """Title, kind, paper, baseline and note."""
    attribute: str
    columns: Mapping[str, str]
    """Key -> heading."""
    rows: Sequence[TableRow]
    products: int
    """Number of labelled products that the models are evaluated on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """The metrics of all models, for the report, the JSON summary and MLflow."""

    tables: Sequence[ComparisonTable]
    warnings: Sequence[str]
    summary: Mapping[str, Mapping[str, dict[str, float] | float]]
    """Model -> attribute -> r_at_p95 (micro), macro_f1, accuracy; and model -> `seconds`."""
    metrics: Mapping[str, dict[str, float]]
    """Model -> `attribute/metric` of every estimate, `_low`, `_high` and, of several seeds, `_spread`; `seconds`."""
    at_shares: Mapping[str, Mapping[float, Mapping[str, float]]]
    """Model -> share of the labels -> the same keys, without `seconds`."""
    rankings: Sequence[Ranking]
    """The best model per attribute and measure."""


def build_comparison(fitted: FittedModels, settings: CompareConfig) -> Comparison:
    """Build, per attribute, a table of all models, every table of the config, and a table of masked inputs."""
    measurements = Measurements(fitted, settings.resamples)
    rankings = [_ranking(name, metric, fitted, measurements) for name in fitted.labels for metric in RANKED_BY]
    tables = list(_tables(fitted, settings, measurements))
    summary = {name: _summary(results, fitted, measurements) for name, results in fitted.models.items()}
    warnings = [f"{name}: could not be fitted: {error}" for name, error in fitted.failed.items()]
    warnings += _collapse_warnings(fitted, measurements)
    metrics, at_shares = {}, {}
    for name, results in fitted.models.items():
        by_share = measurements.mlflow_metrics(name)
        metrics[name] = by_share.get(None, {}) | {"seconds": results.seconds}
        at_shares[name] = {share: values for share, values in by_share.items() if share is not None}
    return Comparison(
        tables=tables,
        warnings=warnings,
        summary=summary,
        metrics=metrics,
        at_shares=at_shares,
        rankings=rankings,
    )


def _tables(fitted: FittedModels, settings: CompareConfig, measurements: Measurements) -> Iterable[ComparisonTable]:
    all_models = CompareTable(
        title="All models", kind="modalities", recipes=list(fitted.models), metrics=list(ALL_MODELS_COLUMNS)
    )
    configured = [table for asked in settings.tables if (table := _without_failed(asked, fitted.failed))]
    shares = sorted(set(settings.label_shares))
    for attribute in fitted.labels:
        builder = _TableBuilder(attribute, fitted, measurements)
        for asked in (all_models, *configured):
            if asked.kind == "label_shares":
                yield from (builder.label_shares(asked, metric, shares) for metric in asked.metrics)
            else:
                yield builder.metrics(asked)
        if any(_has_masked_views(results) for results in fitted.models.values()):
            yield builder.masked_inputs()


def _without_failed(asked: CompareTable, failed: Mapping[str, str]) -> CompareTable | None:
    """Return the table without the models that could not be fitted; None if no model is left."""
    recipes = [name for name in asked.recipes if name not in failed]
    if recipes == asked.recipes or not recipes:
        return asked if recipes else None
    baseline = "" if asked.baseline in failed else asked.baseline
    kind = "plain" if asked.kind == "mergers" and not baseline else asked.kind
    missing = ", ".join(name for name in asked.recipes if name in failed)
    note = f"{asked.note} Missing because it could not be fitted: {missing}.".strip()
    return replace(asked, recipes=recipes, baseline=baseline, kind=kind, note=note)


@dataclass(frozen=True, slots=True)
class _TableBuilder:
    """Builds the tables of one attribute."""

    attribute: str
    fitted: FittedModels
    measurements: Measurements

    def metrics(self, asked: CompareTable) -> ComparisonTable:
        """Build a column per metric."""
        keys = {str(metric): MetricKey("", self.attribute, metric) for metric in asked.metrics}
        rows = [self._row(name, keys, asked.baseline) for name in asked.recipes]
        return self._table(asked, {metric: HEADINGS[metric] for metric in asked.metrics}, rows)

    def label_shares(self, asked: CompareTable, metric: str, shares: Sequence[float]) -> ComparisonTable:
        """Build a column per share of the labels; the seconds are the sum over the shares."""
        keys = {repr(share): MetricKey("", self.attribute, metric, share) for share in shares}
        rows = []
        for name in asked.recipes:
            seconds = sum(self.fitted.by_label_share[name, share].seconds for share in shares)
            rows.append(replace(self._row(name, keys, asked.baseline), seconds=seconds))
        asked = replace(asked, title=f"{asked.title}: {HEADINGS[metric]} at shares of the labels")
        return self._table(asked, {repr(share): f"{100 * share:g}%" for share in shares}, rows)

    def masked_inputs(self) -> ComparisonTable:
        """Build a column per view, and a row per model that uses both modalities."""
        keys = {view: MetricKey("", self.attribute, MASKED_METRIC, view=view) for view in VIEWS}
        names = [name for name, results in self.fitted.models.items() if _has_masked_views(results)]
        asked = CompareTable(
            title="One input masked",
            paper="De la Comble et al. 2022, section 4.2: modality collapse",
            recipes=names,
            metrics=[MASKED_METRIC],
        )
        columns = {BOTH: HEADINGS[MASKED_METRIC], "image_masked": "picture masked", "text_masked": "text masked"}
        return self._table(asked, columns, [self._row(name, keys, "") for name in names])

    def _row(self, name: str, keys: Mapping[str, MetricKey], baseline: str) -> TableRow:
        """Build the row of a model. ``keys``: column -> metric; ``baseline``: "" for a table without differences."""
        results, keys = self.fitted.models[name], {column: key._replace(model=name) for column, key in keys.items()}
        differences = {}
        if baseline and name != baseline:
            differences = {column: self.measurements.difference(key, baseline) for column, key in keys.items()}
        return TableRow(
            name=name,
            modalities_used=results.modalities_used,
            seconds=results.seconds,
            estimates={column: self.measurements.estimate(key) for column, key in keys.items()},
            differences=differences,
            notes=tuple(filter(None, (results.note, _chosen(results, self.attribute)))),
        )

    def _table(self, asked: CompareTable, columns: Mapping[str, str], rows: list[TableRow]) -> ComparisonTable:
        products = len(self.fitted.labelled(self.attribute))
        return ComparisonTable(asked=asked, attribute=self.attribute, columns=columns, rows=rows, products=products)


def _has_masked_views(results: ModelResults) -> bool:
    """Return True for a model of both modalities that was also scored with either masked."""
    return results.modalities_used == "both" and set(VIEWS) <= set(results.fits[0].scores)


def _chosen(results: ModelResults, attribute: str) -> str:
    """Name the values that were chosen on the choosing fold for ``attribute`` or for the whole model, seed by seed."""
    parts = []
    for key in results.fits[0].chosen:
        chosen_for, slash, name = key.rpartition("/")
        if not slash or chosen_for == attribute:
            values = ", ".join(f"{result.chosen[key]:g}" for result in results.fits if key in result.chosen)
            parts.append(f"{name} {values}")
    return f"chosen on the choosing fold: {'; '.join(parts)}" if parts else ""


def _summary(
    results: ModelResults, fitted: FittedModels, measurements: Measurements
) -> dict[str, dict[str, float] | float]:
    """Return the model's part of the job's JSON summary."""
    by_attribute: dict[str, dict[str, float] | float] = {
        attribute: {
            key: round(measurements.estimate(MetricKey(results.name, attribute, metric)).estimate, 4)
            for key, metric in SUMMARY_METRICS.items()
        }
        for attribute in fitted.labels
    }
    return by_attribute | {"seconds": round(results.seconds, 2)}


def _collapse_warnings(fitted: FittedModels, measurements: Measurements) -> list[str]:
    """Warn of modality collapse. The baselines are the first model of the text alone and of the image alone."""
    unimodal = {
        f"{modality}_only": results.name
        for modality in ("text", "image")
        for results in reversed(list(fitted.models.values()))
        if results.modalities_used == modality and results.members
    }
    warnings = []
    for name, results in fitted.models.items():
        if not _has_masked_views(results):
            continue
        rows = []
        for attribute in fitted.labels:
            keys = {view: MetricKey(name, attribute, MASKED_METRIC, view=view) for view in VIEWS}
            keys |= {view: MetricKey(baseline, attribute, MASKED_METRIC) for view, baseline in unimodal.items()}
            rows += [
                {"attribute": attribute, "modality": view, MASKED_METRIC: measurements.estimate(key).estimate}
                for view, key in keys.items()
            ]
        attention = _attention(results.fits[0], fitted)
        warnings += [f"{name}: {warning}" for warning in collapse_warnings(rows, attention)]
    return warnings


def _attention(result: FitResult, fitted: FittedModels) -> dict[str, dict[str, list[float]]]:
    """Return attribute -> histogram of the weight on the text."""
    evaluation = Evaluation()
    for attribute in fitted.labels:
        evaluation.add_attention(attribute, result.scores[BOTH].weights(attribute, fitted.evaluation_index))
    return evaluation.curves.get("attention", {})
