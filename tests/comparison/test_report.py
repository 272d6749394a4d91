"""The HTML and the Markdown report have the same tables."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from catalog_enrichment.comparison.measurements import MetricEstimate
from catalog_enrichment.comparison.report import write_comparison
from catalog_enrichment.comparison.tables import Comparison, ComparisonTable
from catalog_enrichment.comparison.verdicts import difference_text, estimate_text, verdict
from catalog_enrichment.precision.bootstrap import Difference


def test_html_and_markdown_have_every_estimate_and_note(comparison: Comparison, tmp_path: Path) -> None:
    html, markdown = write_comparison(tmp_path / "deep" / "comparison", comparison, {"seeds": "0, 1"})
    page, text = html.read_text(), markdown.read_text()
    count = 0
    for table in comparison.tables:
        for row in table.rows:
            cells = [estimate_text(estimate) for estimate in row.estimates.values()]
            cells += [difference_text(difference) for difference in row.differences.values()]
            lines = _section(text, table).splitlines()
            (line,) = [line for line in lines if line.startswith(f"| {row.name} |")]
            assert all(f"| {cell} |" in line and f"<td>{cell}</td>" in page for cell in cells)
            count += len(cells)
    assert count > 100
    for report in (page, text):
        assert "a paper, Table 2" in report
        assert "a stand-in | named" in report
        assert "attention: test_convnext stands in" in report
        assert "reference_image" in report
        assert "Evaluated on" in report
        assert all(warning.split("(")[0] in report for warning in comparison.warnings)
    assert "//" not in page, "the page fetches nothing"
    assert "<script" not in page


def test_the_best_models_are_named_before_the_tables_and_drawn(comparison: Comparison, tmp_path: Path) -> None:
    html, markdown = (path.read_text() for path in write_comparison(tmp_path, comparison, {"seeds": "0, 1"}))
    for ranking in comparison.rankings:
        said = verdict(ranking)
        for report in (html, markdown):
            assert (
                report.index(f"{said.best} {said.lead}")
                < report.index("Data and settings")
                < report.index("All models")
            )
    bars = sum(len(ranking.estimates) for ranking in comparison.rankings)
    assert html.count('<div class="bar">') == html.count("<svg ") == bars > 0


def test_a_better_reference_is_said_aloud_and_names_are_escaped(comparison: Comparison, tmp_path: Path) -> None:
    ranking = replace(comparison.rankings[0], attribute="<b>color", network_lead=Difference(-0.1, -0.2, -0.05, 0.01))
    lost = replace(comparison, rankings=[ranking], tables=[])
    html, markdown = (path.read_text() for path in write_comparison(tmp_path, lost, {}))
    assert f'<span class="warn">{ranking.best_reference} is better than every network' in html
    assert f"**{ranking.best_reference} is better than every network" in markdown
    assert "&lt;b&gt;color" in html
    assert "<b>color" not in html


def _section(markdown: str, table: ComparisonTable) -> str:
    of_attribute = markdown.split(f"## {table.attribute}\n")[1].split("\n## ")[0]
    return of_attribute.split(f"### {table.title}\n")[1].split("\n### ")[0]


def test_signs_and_intervals_are_printed_in_per_cent() -> None:
    assert estimate_text(MetricEstimate(0.4421, 0.41, 0.475, 0.008)) == "44.2 [41.0, 47.5] ± 0.8"
    assert estimate_text(MetricEstimate(0.4421, 0.41, 0.475)) == "44.2 [41.0, 47.5]"
    assert difference_text(Difference(-0.031, -0.06, 0.002, 0.0301)) == "-3.1 [-6.0, +0.2], p 0.030"
