"""The comparison report: the best models, charts and tables as one self-contained HTML file; the same as Markdown,
without the charts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catalog_enrichment.comparison.verdicts import (
    BEST_NOTE,
    BarChart,
    Verdict,
    bar_chart,
    difference_text,
    estimate_text,
    verdict,
)
from catalog_enrichment.report.html import environment, write_html

if TYPE_CHECKING:
    from catalog_enrichment.comparison.tables import Comparison, ComparisonTable

LEGEND = (
    "Shares in per cent. In brackets the 95% bootstrap interval over content groups (listings that show the same thing "
    "count as one); ± is the standard deviation over seeds. A difference is paired: both models on the same products "
    "and resamples; p is its two-sided bootstrap p-value. R@P95 is a recall over all true values: a value that is not "
    "predicted counts as missed. Seconds are of one model, without the stages that an earlier model had fitted."
)


@dataclass(frozen=True, slots=True)
class TextTable:
    """A table whose cells are text, as both reports print it."""

    title: str
    lines: Sequence[str]
    """The paper, substitutes for its data and models, number of products."""
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str]
    """One per model that has a note."""


def write_comparison(folder: Path, comparison: Comparison, about: Mapping[str, Any]) -> tuple[Path, Path]:
    """Write comparison.html and comparison.md into ``folder``, which is created; return both paths.

    ``about``: name -> value of facts about the data and settings, printed at the top.
    """
    tables: dict[str, list[TextTable]] = {}
    for table in comparison.tables:
        tables.setdefault(table.attribute, []).append(text_table(table))
    folder.mkdir(parents=True, exist_ok=True)
    html, markdown = folder / "comparison.html", folder / "comparison.md"
    best: dict[str, list[Verdict]] = {}
    charts: dict[str, list[BarChart]] = {}
    for ranking in comparison.rankings:
        best.setdefault(ranking.attribute, []).append(verdict(ranking))
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
    write_html(html, environment().get_template("comparison.html.j2").render(view))
    markdown.write_text("\n".join(_markdown(view)) + "\n", encoding="utf-8")
    return html, markdown


def text_table(table: ComparisonTable) -> TextTable:
    """The table as text, cell by cell."""
    headings, has_baseline = ["model"], bool(table.baseline)
    if table.kind == "modalities":
        headings.append("inputs")
    for heading in table.columns.values():
        headings += [heading, f"less {table.baseline}"] if has_baseline else [heading]
    rows = []
    for row in table.rows:
        cells = [row.name] + ([row.modalities_used] if table.kind == "modalities" else [])
        for key in table.columns:
            cells.append(estimate_text(row.estimates[key]))
            if has_baseline:
                cells.append(difference_text(row.differences[key]) if key in row.differences else "")
        rows.append([*cells, f"{row.seconds:,.0f}" if row.seconds >= 10 else f"{row.seconds:.1f}"])
    products = f"Evaluated on {table.products:,} labelled products."
    return TextTable(
        title=table.title,
        lines=[line for line in (table.paper, table.note, products) if line],
        headings=[*headings, "seconds"],
        rows=rows,
        notes=[f"{row.name}: {note}" for row in table.rows for note in row.notes],
    )


def _markdown(view: Mapping[str, Any]) -> Iterator[str]:
    yield "# Comparison of models"
    yield ""
    yield "## Best models"
    yield ""
    for attribute, verdicts in view["best"].items():
        for one in verdicts:
            reference = f"**{one.reference}**" if one.reference_wins else one.reference
            texts = " ".join(text for text in (one.best, one.lead, reference) if text)
            yield f"- **{attribute}**, {one.measure}: {texts}"
    yield ""
    yield view["best_note"]
    yield ""
    yield "## Data and settings"
    yield ""
    for name, value in view["about"].items():
        yield f"- {name}: {value}"
    yield ""
    yield view["legend"]
    for attribute, tables in view["tables"].items():
        yield ""
        yield f"## {attribute}"
        for table in tables:
            yield from _markdown_table(table)
    if view["warnings"]:
        yield ""
        yield "## Warnings"
        yield ""
        yield from (f"- {warning}" for warning in view["warnings"])


def _markdown_table(table: TextTable) -> Iterator[str]:
    yield ""
    yield f"### {table.title}"
    yield ""
    yield "  \n".join(table.lines)
    yield ""
    yield _markdown_row(table.headings)
    yield _markdown_row(["---"] + ["---:"] * (len(table.headings) - 1))
    yield from map(_markdown_row, table.rows)
    if table.notes:
        yield ""
        yield from (f"- {note}" for note in table.notes)


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
