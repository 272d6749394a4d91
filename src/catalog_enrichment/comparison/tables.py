"""The tables, warnings and summary of a comparison, computed from the fitted models' scores. numpy only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from catalog_enrichment.comparison.measurements import HEADINGS, Measurements, MetricEstimate, MetricKey
from catalog_enrichment.comparison.rankings import Ranking, rank_models
from catalog_enrichment.comparison.results import VIEWS, FitResult, FittedModels, ModelResults
from catalog_enrichment.config.comparison import CompareConfig, CompareTable, Metric
from catalog_enrichment.precision.bootstrap import Difference
from catalog_enrichment.training.evaluation import ATTENTION_BINS, BOTH
from catalog_enrichment.training.modality_collapse import collapse_warnings

SUMMARY_METRICS: dict[str, Metric] = {"r_at_p95": "r_at_p95_micro", "macro_f1": "f1_macro", "accuracy": "accuracy"}
"""Key of the job's JSON summary -> metric."""
ALL_MODELS_COLUMNS: tuple[Metric, ...] = ("accuracy", "f1_macro", "r_at_p95_micro")
MASKED_METRIC: Metric = "r_at_p95_micro"
"""Metric of the table of masked inputs and of the collapse warnings."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TableRow:
    """One model. The keys of both mappings are the table's columns."""

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
    """One table about one attribute."""

    title: str
    attribute: str
    columns: Mapping[str, str]
    """Key -> heading."""
    rows: Sequence[TableRow]
    products: int
    """Number of labelled products that the models are evaluated on."""
    kind: str = "plain"
    paper: str = ""
    baseline: str = ""
    note: str = ""


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
    """Per attribute: a table of all models, every table of the config, and a table of masked inputs."""
    measurements = Measurements(fitted, settings.resamples)
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
        rankings=rank_models(fitted, measurements),
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
    """The table without the models that could not be fitted; None if no model is left."""
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
        """A column per metric."""
        rows = []
        for name in asked.recipes:
            keys: dict[str, MetricKey] = {m: MetricKey(name, self.attribute, m) for m in asked.metrics}
            rows.append(self._row(keys, asked.baseline, self.fitted.models[name].seconds))
        return self._table(asked, {metric: HEADINGS[metric] for metric in asked.metrics}, rows)

    def label_shares(self, asked: CompareTable, metric: str, shares: Sequence[float]) -> ComparisonTable:
        """A column per share of the labels; the seconds are the sum over the shares."""
        rows = []
        for name in asked.recipes:
            keys = {repr(share): MetricKey(name, self.attribute, metric, share) for share in shares}
            seconds = sum(self.fitted.by_label_share[name, share].seconds for share in shares)
            rows.append(self._row(keys, asked.baseline, seconds))
        asked = replace(asked, title=f"{asked.title}: {HEADINGS[metric]} at shares of the labels")
        return self._table(asked, {repr(share): f"{100 * share:g}%" for share in shares}, rows)

    def masked_inputs(self) -> ComparisonTable:
        """A column per view, and a row per model that uses both modalities."""
        rows = []
        for name, results in self.fitted.models.items():
            if _has_masked_views(results):
                keys = {view: MetricKey(name, self.attribute, MASKED_METRIC, view=view) for view in VIEWS}
                rows.append(self._row(keys, "", results.seconds))
        asked = CompareTable(
            title="One input masked",
            paper="De la Comble et al. 2022, section 4.2: modality collapse",
            recipes=[row.name for row in rows],
            metrics=[MASKED_METRIC],
        )
        columns = {BOTH: HEADINGS[MASKED_METRIC], "image_masked": "picture masked", "text_masked": "text masked"}
        return self._table(asked, columns, rows)

    def _row(self, keys: Mapping[str, MetricKey], baseline: str, seconds: float) -> TableRow:
        """``keys``: column -> what is measured, all of one model. ``baseline``: "" for a table without differences."""
        results = self.fitted.models[next(iter(keys.values())).model]
        differences = {}
        if baseline and results.name != baseline:
            differences = {column: self.measurements.difference(key, baseline) for column, key in keys.items()}
        return TableRow(
            name=results.name,
            modalities_used=results.modalities_used,
            seconds=seconds,
            estimates={column: self.measurements.estimate(key) for column, key in keys.items()},
            differences=differences,
            notes=tuple(filter(None, (results.note, _chosen(results, self.attribute)))),
        )

    def _table(self, asked: CompareTable, columns: Mapping[str, str], rows: list[TableRow]) -> ComparisonTable:
        return ComparisonTable(
            title=asked.title,
            attribute=self.attribute,
            columns=columns,
            rows=rows,
            products=len(self.fitted.labelled(self.attribute)),
            kind=asked.kind,
            paper=asked.paper,
            baseline=asked.baseline,
            note=asked.note,
        )


def _has_masked_views(results: ModelResults) -> bool:
    """True for a model of both modalities that was also scored with either masked."""
    return results.modalities_used == "both" and set(VIEWS) <= set(results.fits[0].scores)


def _chosen(results: ModelResults, attribute: str) -> str:
    """The values that were chosen on the choosing fold for ``attribute`` or for the whole model, seed by seed."""
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
    """One model's part of the job's JSON summary."""
    by_attribute: dict[str, dict[str, float] | float] = {
        attribute: {
            key: round(measurements.estimate(MetricKey(results.name, attribute, metric)).estimate, 4)
            for key, metric in SUMMARY_METRICS.items()
        }
        for attribute in fitted.labels
    }
    return by_attribute | {"seconds": round(results.seconds, 2)}


def _collapse_warnings(fitted: FittedModels, measurements: Measurements) -> list[str]:
    """Modality collapse of each model. The baselines are the first model of the text alone and of the image alone."""
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
        attention = _attention_histograms(results.fits[0], fitted)
        warnings += [f"{name}: {warning}" for warning in collapse_warnings(rows, attention)]
    return warnings


def _attention_histograms(result: FitResult, fitted: FittedModels) -> dict[str, dict[str, list[float]]]:
    """Attribute -> histogram of the weight on the text, as :func:`collapse_warnings` takes it."""
    histograms = {}
    for attribute in fitted.labels:
        weights = result.scores[BOTH].weights(attribute, fitted.evaluation_index)
        if weights is not None and np.isfinite(weights).any():
            counts, edges = np.histogram(weights[np.isfinite(weights)], bins=ATTENTION_BINS, range=(0.0, 1.0))
            histograms[attribute] = {"edges": edges.tolist(), "counts": counts.tolist()}
    return histograms
