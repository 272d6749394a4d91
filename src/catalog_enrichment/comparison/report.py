"""A comparison as people read it: the same tables as one HTML file that stands alone, and as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catalog_enrichment.report.html import environment

if TYPE_CHECKING:
    from catalog_enrichment.comparison.tables import Comparison, Figure, Table
    from catalog_enrichment.precision.bootstrap import Difference

LEGEND = (
    "Shares in per cent. In brackets the 95% bootstrap interval over content groups (listings that show the same thing "
    "count as one); ± is the standard deviation over seeds. A difference is paired: both models on the same products "
    "and resamples; p is its two-sided bootstrap p-value. R@P95 counts every true value: what is not said is missed. "
    "Seconds are a model's own: a stage that an earlier model had fitted already is not counted again."
)


@dataclass(frozen=True, slots=True)
class Grid:
    """A table in words: what both kinds of report print."""

    title: str
    lines: Sequence[str]
    """Paper, stand-ins, what it was measured on."""
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str]
    """Of single models."""


def write_comparison(folder: Path, comparison: Comparison, about: Mapping[str, Any]) -> tuple[Path, Path]:
    """Write comparison.html and comparison.md into ``folder``, which is made; returns both paths.

    ``about``: what was compared on what, shown at the top as it is.
    """
    grids: dict[str, list[Grid]] = {}
    for table in comparison.tables:
        grids.setdefault(table.attribute, []).append(grid(table))
    folder.mkdir(parents=True, exist_ok=True)
    html, markdown = folder / "comparison.html", folder / "comparison.md"
    view = {"grids": grids, "warnings": comparison.warnings, "about": about, "legend": LEGEND}
    html.write_text(environment().get_template("comparison.html.j2").render(view), encoding="utf-8")
    markdown.write_text("\n".join(_markdown(view)) + "\n", encoding="utf-8")
    return html, markdown


def grid(table: Table) -> Grid:
    """The table as text, cell by cell."""
    headings, compared = ["model"], bool(table.baseline)
    if table.kind == "modalities":
        headings.append("sees")
    for heading in table.columns.values():
        headings += [heading, f"less {table.baseline}"] if compared else [heading]
    rows = []
    for row in table.rows:
        cells = [row.name] + ([row.sees] if table.kind == "modalities" else [])
        for key in table.columns:
            cells.append(figure_text(row.figures[key]))
            if compared:
                cells.append(difference_text(row.differences[key]) if key in row.differences else "")
        rows.append([*cells, f"{row.seconds:,.0f}" if row.seconds >= 10 else f"{row.seconds:.1f}"])
    on = f"Judged on {table.products:,} labelled products."
    return Grid(
        title=table.title,
        lines=[line for line in (table.paper, table.note, on) if line],
        headings=[*headings, "seconds"],
        rows=rows,
        notes=[f"{row.name}: {note}" for row in table.rows for note in row.notes],
    )


def figure_text(figure: Figure) -> str:
    """44.2 [41.0, 47.5] ± 0.8"""
    spread = "" if figure.spread is None else f" ± {100 * figure.spread:.1f}"
    return f"{100 * figure.estimate:.1f} [{100 * figure.low:.1f}, {100 * figure.high:.1f}]{spread}"


def difference_text(found: Difference) -> str:
    """+3.1 [+0.2, +6.0], p 0.030"""
    return f"{100 * found.estimate:+.1f} [{100 * found.low:+.1f}, {100 * found.high:+.1f}], p {found.p_value:.3f}"


def _markdown(view: Mapping[str, Any]) -> Iterator[str]:
    yield "# Comparison of models"
    yield ""
    for name, value in view["about"].items():
        yield f"- {name}: {value}"
    yield ""
    yield view["legend"]
    for attribute, grids in view["grids"].items():
        yield ""
        yield f"## {attribute}"
        for one in grids:
            yield from _markdown_grid(one)
    if view["warnings"]:
        yield ""
        yield "## Warnings"
        yield ""
        yield from (f"- {warning}" for warning in view["warnings"])


def _markdown_grid(one: Grid) -> Iterator[str]:
    yield ""
    yield f"### {one.title}"
    yield ""
    yield "  \n".join(one.lines)
    yield ""
    yield _markdown_row(one.headings)
    yield _markdown_row(["---"] + ["---:"] * (len(one.headings) - 1))
    yield from map(_markdown_row, one.rows)
    if one.notes:
        yield ""
        yield from (f"- {note}" for note in one.notes)


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
