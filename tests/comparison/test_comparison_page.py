"""The best models in words and bars, from plain estimates; HTML and Markdown have the same tables."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from catalog_enrichment.comparison.comparison_page import (
    bar_chart,
    best_model,
    difference_text,
    estimate_text,
    write_comparison,
)
from catalog_enrichment.comparison.tables import Comparison, ComparisonTable, MetricEstimate, Ranking
from catalog_enrichment.precision.bootstrap import Difference


def ranking(**changes: Any) -> Ranking:
    content: dict[str, Any] = {
        "attribute": "color", "metric": "r_at_p95_micro",
        "estimates": {"late": MetricEstimate(0.44, 0.40, 0.50), "reference_text": MetricEstimate(0.30, 0.25, 0.35)},
        "lead": Difference(0.14, 0.1, 0.18, 0.002), "best_network": "late", "best_reference": "reference_text",
        "network_lead": Difference(0.14, 0.1, 0.18, 0.002),
    }  # fmt: skip
    return Ranking(**content | changes)


def test_the_best_model_is_named_with_its_interval() -> None:
    assert best_model(ranking()).best == "late is best: 44.0 [40.0, 50.0]."
    assert best_model(ranking()).measure == "R@P95 micro"


@pytest.mark.parametrize(("p_value", "word"), [(0.049, "is significant"), (0.05, "is not significant")])
def test_the_difference_to_the_next_is_significant_or_not(p_value: float, word: str) -> None:
    found = best_model(ranking(lead=Difference(0.14, 0.1, 0.18, p_value))).lead
    assert found == f"The difference to the next, reference_text, {word}: +14.0 [+10.0, +18.0], p {p_value:.3f}."


def test_a_single_model_has_no_next() -> None:
    found = best_model(ranking(lead=None, network_lead=None, best_reference=""))
    assert (found.lead, found.reference) == ("", "")


@pytest.mark.parametrize(
    ("lead", "sentence", "wins"),
    [
        (Difference(0.1, 0.05, 0.2, 0.01), "late is better than the best reference, reference_text.", False),
        (Difference(-0.1, -0.2, -0.05, 0.01), "reference_text is better than every network.", True),
        (Difference(-0.1, -0.2, 0.05, 0.2), "No network is significantly better than reference_text.", False),
        (Difference(0.1, -0.2, 0.3, 0.2), "No network is significantly better than reference_text.", False),
    ],
)
def test_the_networks_are_better_than_the_reference_or_not(lead: Difference, sentence: str, wins: bool) -> None:
    found = best_model(ranking(network_lead=lead))
    assert found.reference == sentence
    assert found.reference_wins is wins


def test_the_difference_to_a_reference_that_is_not_the_next_is_given() -> None:
    between = {"concat": MetricEstimate(0.35, 0.3, 0.4)}
    estimates = dict(list(ranking().estimates.items())[:1]) | between | dict(list(ranking().estimates.items())[1:])
    found = best_model(ranking(estimates=estimates)).reference
    assert found.endswith("reference_text: the difference of late is +14.0 [+10.0, +18.0], p 0.002.")


def test_models_that_all_find_nothing_have_no_best() -> None:
    nothing = dict.fromkeys(("late", "reference_text"), MetricEstimate(0.0, 0.0, 0.0))
    lost = Difference(-0.1, -0.2, -0.1, 0.001)
    found = best_model(ranking(estimates=nothing, network_lead=lost))
    assert found.best == "R@P95 micro is 0 for every model: there is no best model."
    assert (found.lead, found.reference, found.reference_wins) == ("", "", False)
    assert bar_chart(ranking(estimates=nothing)).bars[0].length == 0


def test_the_longest_interval_ends_at_the_right_end_and_references_are_marked() -> None:
    chart = bar_chart(ranking())
    first, second = chart.bars
    assert (first.length, first.low, first.high) == pytest.approx((88, 80, 100))
    assert (second.length, second.low, second.high) == pytest.approx((60, 50, 70))
    assert [bar.reference for bar in chart.bars] == [False, True]
    assert chart.scale_end == "50%"


# --- the page ----------------------------------------------------------------------------------------------------


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
        found = best_model(ranking)
        for report in (html, markdown):
            assert (
                report.index(f"{found.best} {found.lead}")
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
    return of_attribute.split(f"### {table.asked.title}\n")[1].split("\n### ")[0]


def test_signs_and_intervals_are_printed_in_per_cent() -> None:
    assert estimate_text(MetricEstimate(0.4421, 0.41, 0.475, 0.008)) == "44.2 [41.0, 47.5] ± 0.8"
    assert estimate_text(MetricEstimate(0.4421, 0.41, 0.475)) == "44.2 [41.0, 47.5]"
    assert difference_text(Difference(-0.031, -0.06, 0.002, 0.0301)) == "-3.1 [-6.0, +0.2], p 0.030"
