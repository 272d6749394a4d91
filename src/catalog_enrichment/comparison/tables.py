"""From the scores of several models to the papers' tables: figures with intervals, paired differences. numpy only.

With several seeds a figure is the mean of the models of all seeds, and its interval that of this mean: the resamples
say how it would move on other products, the spread beside it how it moves with the seed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from catalog_enrichment.classification_metrics import Floats
from catalog_enrichment.comparison.fit_all import Contest, Entry, Outcome
from catalog_enrichment.config.comparison import CompareConfig, CompareTable, Metric
from catalog_enrichment.precision import bootstrap
from catalog_enrichment.precision.bootstrap import Difference, Measure, Resamples
from catalog_enrichment.training.dataset import Labels
from catalog_enrichment.training.evaluation import ATTENTION_BINS, BOTH, ModelScores, measures
from catalog_enrichment.training.folds import Index
from catalog_enrichment.training.modality_collapse import collapse_warnings

SUMMARY: tuple[Metric, ...] = ("accuracy", "f1_macro", "r_at_p95_micro")
"""What is said of every model."""
MASKED: tuple[str, ...] = (BOTH, "image_masked", "text_masked")
"""Columns of the table of what a hidden input costs."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A metric with its 95% bootstrap interval by content group."""

    estimate: float
    low: float
    high: float
    spread: float | None = None
    """Standard deviation over the seeds; None for one seed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One model. The keys of both mappings are the table's columns."""

    name: str
    sees: str
    seconds: float
    """Mean over the seeds."""
    figures: Mapping[str, Figure]
    differences: Mapping[str, Difference] = field(default_factory=dict)
    """This model less the baseline, on the same products; empty for the baseline."""
    notes: tuple[str, ...] = ()
    """Stand-ins, and what the validation fold chose."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    title: str
    attribute: str
    columns: Mapping[str, str]
    """Key -> heading."""
    rows: Sequence[Row]
    products: int
    """Labelled products that the models are judged on."""
    kind: str = "plain"
    paper: str = ""
    baseline: str = ""
    note: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    tables: Sequence[Table]
    warnings: Sequence[str]
    summary: Mapping[str, Mapping[str, dict[str, float] | float]]
    """Model -> attribute -> r_at_p95 (micro), macro_f1, accuracy; and -> `seconds`."""
    metrics: Mapping[str, dict[str, float]]
    """Model -> `attribute/metric` of every figure, `_low`, `_high` and, of several seeds, `_spread`; `seconds`."""
    at_shares: Mapping[str, Mapping[float, Mapping[str, float]]]
    """Model -> share of the labels -> the same."""


def compare(contest: Contest, settings: CompareConfig) -> Comparison:
    """Every table that the config asks for, after one of all models and before one of what a hidden input costs."""
    judge = _Judge(contest, settings)
    wanted = [left for asked in settings.tables if (left := _without(asked, contest.failed))]
    tables: list[Table] = []
    for attribute in contest.labels:
        for asked in (_all_models(contest), *wanted):
            one = asked.kind != "label_shares"
            tables += [judge.table(attribute, asked)] if one else judge.shares(attribute, asked)
        tables += judge.masked(attribute)
    summary: dict[str, dict[str, dict[str, float] | float]] = {}
    for name, entry in contest.entries.items():
        summary[name] = {attribute: judge.in_short(entry, attribute) for attribute in contest.labels}
        summary[name]["seconds"] = round(_seconds(entry), 2)
    logged = {name: judge.logged(name) for name in contest.entries}
    return Comparison(
        tables=tables,
        warnings=[f"{name}: could not be fitted: {why}" for name, why in contest.failed.items()] + judge.warnings(),
        summary=summary,
        metrics={name: at.pop(None, {}) | {"seconds": _seconds(contest.entries[name])} for name, at in logged.items()},
        at_shares={name: {share: row for share, row in at.items() if share} for name, at in logged.items()},
    )


def measured(name: str, scores: ModelScores, labels: Labels, index: Index) -> Measure:
    """The metric ``name`` of one model on the labelled products at ``index``; see :func:`attribute_metrics`.

    Raises KeyError for a metric that has no interval.
    """
    return measures(scores.at(labels.attribute, index), labels, index)[name]


def _all_models(contest: Contest) -> CompareTable:
    return CompareTable(title="All models", kind="modalities", recipes=list(contest.entries), metrics=list(SUMMARY))


def _without(asked: CompareTable, failed: Mapping[str, str]) -> CompareTable | None:
    """The table without the models that could not be fitted; None if none is left."""
    left = [name for name in asked.recipes if name not in failed]
    if left == asked.recipes or not left:
        return asked if left else None
    baseline = "" if asked.baseline in failed else asked.baseline
    kind = "plain" if asked.kind == "mergers" and not baseline else asked.kind
    missing = ", ".join(name for name in asked.recipes if name in failed)
    note = f"{asked.note} Missing, for it could not be fitted: {missing}.".strip()
    return replace(asked, recipes=left, baseline=baseline, kind=kind, note=note)


class _Judge:
    """Measures, each made once."""

    def __init__(self, contest: Contest, settings: CompareConfig) -> None:
        self._contest, self._settings = contest, settings
        self._figures: dict[tuple[str, float, str, str, str], Figure] = {}

    def table(self, attribute: str, asked: CompareTable) -> Table:
        """A table with a column per metric."""
        names: list[str] = list(asked.metrics)
        rows = []
        for name in asked.recipes:
            entry = self._contest.entries[name]
            figures = {metric: self._figure(entry, attribute, metric) for metric in names}
            differences = {}
            if asked.baseline and name != asked.baseline:
                base = self._contest.entries[asked.baseline]
                differences = {metric: self._difference(entry, base, attribute, metric) for metric in names}
            rows.append(_row(entry, attribute, figures, differences))
        return self._table(attribute, asked, {metric: HEADINGS[metric] for metric in names}, rows)

    def shares(self, attribute: str, asked: CompareTable) -> list[Table]:
        """A table per metric, with a column per share of the labels."""
        columns = {f"{share!r}": f"{100 * share:g}%" for share in sorted(set(self._settings.label_shares))}
        found = []
        for metric in asked.metrics:
            rows = []
            for name in asked.recipes:
                mine = {key: self._contest.shares[name, float(key)] for key in columns}
                figures = {key: self._figure(entry, attribute, metric, float(key)) for key, entry in mine.items()}
                differences = {}
                if asked.baseline and name != asked.baseline:
                    base = {key: self._contest.shares[asked.baseline, float(key)] for key in columns}
                    differences = {key: self._difference(mine[key], base[key], attribute, metric) for key in columns}
                seconds = sum(_seconds(entry) for entry in mine.values())
                rows.append(_row(self._contest.entries[name], attribute, figures, differences, seconds))
            found.append(self._table(attribute, asked, columns, rows, f": {HEADINGS[metric]} at shares of the labels"))
        return found

    def masked(self, attribute: str) -> list[Table]:
        """What hiding an input costs every model that sees both, in R@P95; none where no model does."""
        rows = []
        for entry in self._contest.entries.values():
            if _has_masked(entry):
                figures = {view: self._figure(entry, attribute, "r_at_p95_micro", view=view) for view in MASKED}
                rows.append(_row(entry, attribute, figures))
        if not rows:
            return []
        columns = {BOTH: "R@P95 micro", "image_masked": "picture hidden", "text_masked": "text hidden"}
        asked = CompareTable(
            title="One input hidden",
            paper="De la Comble et al. 2022, section 4.2: modality collapse",
            recipes=[row.name for row in rows],
            metrics=["r_at_p95_micro"],
        )
        return [self._table(attribute, asked, columns, rows)]

    def in_short(self, entry: Entry, attribute: str) -> dict[str, float]:
        """What a script asks for."""
        named = {"r_at_p95": "r_at_p95_micro", "macro_f1": "f1_macro", "accuracy": "accuracy"}
        return {name: round(self._figure(entry, attribute, metric).estimate, 4) for name, metric in named.items()}

    def warnings(self) -> list[str]:
        """Modality collapse, model by model; the first model of one modality says what that one is worth alone."""
        alone = {
            f"{what}_only": entry
            for what in ("text", "image")
            for entry in reversed(list(self._contest.entries.values()))
            if entry.sees == what and entry.members
        }
        found = []
        for entry in self._contest.entries.values():
            if not _has_masked(entry):
                continue
            rows = [
                {"attribute": attribute, "modality": view, "r_at_p95_micro": figure.estimate}
                for attribute in self._contest.labels
                for view, figure in (
                    *((view, self._figure(entry, attribute, "r_at_p95_micro", view=view)) for view in MASKED),
                    *((only, self._figure(one, attribute, "r_at_p95_micro")) for only, one in alone.items()),
                )
            ]
            attention = _attention(entry.outcomes[0], self._contest)
            found += [f"{entry.name}: {line}" for line in collapse_warnings(rows, attention)]
        return found

    def logged(self, model: str) -> dict[float | None, dict[str, float]]:
        """Share of the labels, None for the model itself -> every figure made so far, by MLflow's names."""
        found: dict[float | None, dict[str, float]] = {}
        for (name, share, attribute, metric, view), figure in self._figures.items():
            if name != model or view != BOTH:
                continue
            place, numbers = f"{attribute}/{metric}", found.setdefault(share or None, {})
            numbers |= {place: figure.estimate, f"{place}_low": figure.low, f"{place}_high": figure.high}
            if figure.spread is not None:
                numbers[f"{place}_spread"] = figure.spread
        return found

    def _figure(self, entry: Entry, attribute: str, metric: str, share: float = 0.0, view: str = BOTH) -> Figure:
        """``share``: of the labels, 0 for the fit with all of them."""
        key = (entry.name, share, attribute, metric, view)
        if key not in self._figures:
            each = self._measures(entry, attribute, metric, view)
            found = bootstrap.intervals({metric: _mean(each)}, self._resamples(attribute))[metric]
            spread = float(np.std([one.estimate for one in each], ddof=1)) if len(each) > 1 else None
            self._figures[key] = Figure(found.estimate, found.low, found.high, spread)
        return self._figures[key]

    def _difference(self, entry: Entry, base: Entry, attribute: str, metric: str) -> Difference:
        ours, theirs = (_mean(self._measures(one, attribute, metric)) for one in (entry, base))
        return bootstrap.difference(ours, theirs, self._resamples(attribute))

    def _measures(self, entry: Entry, attribute: str, metric: str, view: str = BOTH) -> list[Measure]:
        labels, index = self._contest.labels[attribute], self._index(attribute)
        return [measured(metric, outcome.views[view], labels, index) for outcome in entry.outcomes]

    def _resamples(self, attribute: str) -> Resamples:
        return Resamples(self._contest.groups[self._index(attribute)], self._settings.resamples)

    def _index(self, attribute: str) -> Index:
        return self._contest.index[self._contest.labels[attribute].labelled[self._contest.index]]

    def _table(
        self, attribute: str, asked: CompareTable, columns: Mapping[str, str], rows: list[Row], more: str = ""
    ) -> Table:
        return Table(
            title=asked.title + more,
            attribute=attribute,
            columns=columns,
            rows=rows,
            products=len(self._index(attribute)),
            kind=asked.kind,
            paper=asked.paper,
            baseline=asked.baseline,
            note=asked.note,
        )


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
"""What people call each metric; all of them are shares."""


def _row(
    entry: Entry,
    attribute: str,
    figures: Mapping[str, Figure],
    differences: Mapping[str, Difference] | None = None,
    seconds: float | None = None,
) -> Row:
    return Row(
        name=entry.name,
        sees=entry.sees,
        seconds=_seconds(entry) if seconds is None else seconds,
        figures=figures,
        differences=differences or {},
        notes=tuple(filter(None, (entry.note, _chosen(entry, attribute)))),
    )


def _has_masked(entry: Entry) -> bool:
    """A model of both modalities that was also tried with either hidden."""
    return entry.sees == "both" and set(MASKED) <= set(entry.outcomes[0].views)


def _seconds(entry: Entry) -> float:
    return float(np.mean([outcome.seconds for outcome in entry.outcomes]))


def _chosen(entry: Entry, attribute: str) -> str:
    """What the validation fold chose, seed by seed, of what concerns this attribute."""
    parts = []
    for key in entry.outcomes[0].chosen:
        about, slash, name = key.rpartition("/")
        if not slash or about == attribute:
            values = ", ".join(f"{outcome.chosen[key]:g}" for outcome in entry.outcomes if key in outcome.chosen)
            parts.append(f"{name} {values}")
    return f"chosen on the validation fold: {'; '.join(parts)}" if parts else ""


def _mean(each: Sequence[Measure]) -> Measure:
    """The mean of one metric over several models."""
    if len(each) == 1:
        return each[0]

    def function(weights: bootstrap.Counts) -> Floats:
        return np.asarray(np.mean([one(weights) for one in each], axis=0), dtype=np.float64)

    return Measure(each[0].products, function)


def _attention(outcome: Outcome, contest: Contest) -> dict[str, dict[str, list[float]]]:
    """Attribute -> histogram of the weight on the text, as :func:`collapse_warnings` reads it."""
    found = {}
    for attribute in contest.labels:
        weights = outcome.views[BOTH].weights(attribute, contest.index)
        if weights is not None and np.isfinite(weights).any():
            counts, edges = np.histogram(weights[np.isfinite(weights)], bins=ATTENTION_BINS, range=(0.0, 1.0))
            found[attribute] = {"edges": edges.tolist(), "counts": counts.tolist()}
    return found
