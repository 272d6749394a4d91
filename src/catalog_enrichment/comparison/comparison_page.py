"""The comparison page: the best models in words, charts and tables as a self-contained HTML file; the same as
Markdown, without the charts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from catalog_enrichment.comparison.tables import HEADINGS, Comparison, ComparisonTable, MetricEstimate, Ranking
from catalog_enrichment.config.comparison import REFERENCES
from catalog_enrichment.precision.bootstrap import Difference
from catalog_enrichment.web import pages

SIGNIFICANCE = 0.05
"""A difference with a smaller p-value is called significant."""

BEST_NOTE = (
    f"A difference is called significant where p < {SIGNIFICANCE}. p is not corrected for the number of models: the "
    "best of many seems better than it is. A reference is TF-IDF of the title, a colour histogram of the picture, or "
    "both, with logistic regression and without a network."
)

LEGEND = (
    "Shares in per cent. In brackets the 95% bootstrap interval over content groups (listings that show the same thing "
    "count as one); ± is the standard deviation over seeds. A difference is paired: both models on the same products "
    "and resamples; p is its two-sided bootstrap p-value. R@P95 is a recall over all true values: a value that is not "
    "predicted counts as missed. Seconds are of one model, without the stages that an earlier model had fitted."
)


@dataclass(frozen=True, slots=True)
class TextTable:
    """A table whose cells are text, as HTML and Markdown print it."""

    title: str
    lines: Sequence[str]
    """The paper, substitutes for its data and models, number of products."""
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str]
    """A note per model that has any."""


def write_comparison(folder: Path, comparison: Comparison, about: Mapping[str, Any]) -> tuple[Path, Path]:
    """Write comparison.html and comparison.md into ``folder``, which is created; return both paths.

    ``about``: name -> value of facts about the data and settings, printed at the top.
    """
    tables: dict[str, list[TextTable]] = {}
    for table in comparison.tables:
        tables.setdefault(table.attribute, []).append(text_table(table))
    folder.mkdir(parents=True, exist_ok=True)
    html, markdown = folder / "comparison.html", folder / "comparison.md"
    best: dict[str, list[BestModel]] = {}
    charts: dict[str, list[BarChart]] = {}
    for ranking in comparison.rankings:
        best.setdefault(ranking.attribute, []).append(best_model(ranking))
        charts.setdefault(ranking.attribute, []).append(bar_chart(ranking))
    view = {
        "best": best,
        "best_note": BEST_NOTE,
        "charts": charts,
        "tables": tables,
        "warnings": comparison.warnings,
        "about": about,
        "legend": LEGEND,
    }
    pages.write(html, pages.render("report/templates", "comparison.html.j2", view))
    markdown.write_text(_markdown(view), encoding="utf-8")
    return html, markdown


def text_table(table: ComparisonTable) -> TextTable:
    """Return the table as text, cell by cell."""
    asked, has_baseline = table.asked, bool(table.asked.baseline)
    headings = ["model", "inputs"] if asked.kind == "modalities" else ["model"]
    for heading in table.columns.values():
        headings += [heading, f"less {asked.baseline}"] if has_baseline else [heading]
    rows = []
    for row in table.rows:
        cells = [row.name, row.modalities_used] if asked.kind == "modalities" else [row.name]
        for key in table.columns:
            cells.append(estimate_text(row.estimates[key]))
            if has_baseline:
                cells.append(difference_text(row.differences[key]) if key in row.differences else "")
        rows.append([*cells, f"{row.seconds:,.0f}" if row.seconds >= 10 else f"{row.seconds:.1f}"])
    products = f"Evaluated on {table.products:,} labelled products."
    return TextTable(
        title=asked.title,
        lines=[line for line in (asked.paper, asked.note, products) if line],
        headings=[*headings, "seconds"],
        rows=rows,
        notes=[f"{row.name}: {note}" for row in table.rows for note in row.notes],
    )


def _markdown(view: Mapping[str, Any]) -> str:
    best = []
    for attribute, of_attribute in view["best"].items():
        for found in of_attribute:
            reference = f"**{found.reference}**" if found.reference_wins else found.reference
            sentences = " ".join(filter(None, (found.best, found.lead, reference)))
            best.append(f"- **{attribute}**, {found.measure}: {sentences}")
    facts = [f"- {name}: {value}" for name, value in view["about"].items()]
    blocks = ["# Comparison of models", "## Best models", "\n".join(best), BEST_NOTE]
    blocks += ["## Data and settings", "\n".join(facts), LEGEND]
    for attribute, tables in view["tables"].items():
        blocks.append(f"## {attribute}")
        for table in tables:
            rows = [table.headings, ["---"] + ["---:"] * (len(table.headings) - 1), *table.rows]
            blocks += [f"### {table.title}", "  \n".join(table.lines), "\n".join(map(_markdown_row, rows))]
            blocks += ["\n".join(f"- {note}" for note in table.notes)] if table.notes else []
    if view["warnings"]:
        blocks += ["## Warnings", "\n".join(f"- {warning}" for warning in view["warnings"])]
    return "\n\n".join(blocks) + "\n"


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


# --- best models -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class BestModel:
    """The best model by a measure, in sentences, for an attribute."""

    measure: str
    best: str
    lead: str
    """The difference to the next model; "" if there is none."""
    reference: str
    """The best network against the best reference; "" if either is missing."""
    reference_wins: bool
    """The best reference is significantly better than every network."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Bar:
    """The bar of a model. The lengths are in per cent of the chart's width."""

    name: str
    text: str
    length: float
    low: float
    high: float
    reference: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class BarChart:
    measure: str
    bars: Sequence[Bar]
    """The best first."""
    scale_end: str
    """The value at the right end."""


def best_model(ranking: Ranking) -> BestModel:
    """Compare the best model with the next, and the networks with the references."""
    measure, best = HEADINGS[ranking.metric], ranking.estimates[ranking.best]
    lead = ranking.network_lead
    if best.estimate == 0:
        nothing = f"{measure} is 0 for every model: there is no best model."
        return BestModel(measure=measure, best=nothing, lead="", reference="", reference_wins=False)
    return BestModel(
        measure=measure,
        best=f"{ranking.best} is best: {estimate_text(best)}.",
        lead=_lead(ranking),
        reference=_against_reference(ranking),
        reference_wins=lead is not None and lead.estimate < 0 and _significant(lead),
    )


def _significant(difference: Difference) -> bool:
    return difference.p_value < SIGNIFICANCE


def _lead(ranking: Ranking) -> str:
    if ranking.lead is None:
        return ""
    found = "is significant" if _significant(ranking.lead) else "is not significant"
    return f"The difference to the next, {ranking.next_best}, {found}: {difference_text(ranking.lead)}."


def _against_reference(ranking: Ranking) -> str:
    lead, network, reference = ranking.network_lead, ranking.best_network, ranking.best_reference
    if lead is None:
        return ""
    if not _significant(lead):
        told = f"No network is significantly better than {reference}"
    elif lead.estimate < 0:
        told = f"{reference} is better than every network"
    else:
        told = f"{network} is better than the best reference, {reference}"
    if {network, reference} == {ranking.best, ranking.next_best}:  # the difference was given with the best
        return f"{told}."
    return f"{told}: the difference of {network} is {difference_text(lead)}."


def bar_chart(ranking: Ranking) -> BarChart:
    """Draw a bar per model with its interval; the longest interval ends at the right end."""
    end = max(estimate.high for estimate in ranking.estimates.values()) or 1.0
    bars = [
        Bar(
            name=name,
            text=estimate_text(metric),
            length=100 * metric.estimate / end,
            low=100 * metric.low / end,
            high=100 * metric.high / end,
            reference=name in REFERENCES,
        )
        for name, metric in ranking.estimates.items()
    ]
    return BarChart(measure=HEADINGS[ranking.metric], bars=bars, scale_end=f"{end:.0%}")


def estimate_text(metric: MetricEstimate) -> str:
    """Write in per cent: 44.2 [41.0, 47.5] ± 0.8"""
    spread = "" if metric.spread is None else f" ± {100 * metric.spread:.1f}"
    return f"{100 * metric.estimate:.1f} [{100 * metric.low:.1f}, {100 * metric.high:.1f}]{spread}"


def difference_text(difference: Difference) -> str:
    """Write in percentage points: +3.1 [+0.2, +6.0], p 0.030"""
    low, high = 100 * difference.low, 100 * difference.high
    return f"{100 * difference.estimate:+.1f} [{low:+.1f}, {high:+.1f}], p {difference.p_value:.3f}"
