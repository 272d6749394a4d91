"""What a comparison says about the best model and the references, from plain estimates."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from catalog_enrichment.comparison.measurements import MetricEstimate
from catalog_enrichment.comparison.rankings import RANKED_BY, Ranking
from catalog_enrichment.comparison.results import FittedModels
from catalog_enrichment.comparison.tables import Comparison
from catalog_enrichment.comparison.verdicts import bar_chart, verdict
from catalog_enrichment.config.comparison import REFERENCES
from catalog_enrichment.precision.bootstrap import Difference

from .comparison_samples import labelled_products, plain_metric


def ranking(**changes: Any) -> Ranking:
    content: dict[str, Any] = {
        "attribute": "color", "metric": "r_at_p95_micro",
        "estimates": {"late": MetricEstimate(0.44, 0.40, 0.50), "reference_text": MetricEstimate(0.30, 0.25, 0.35)},
        "lead": Difference(0.14, 0.1, 0.18, 0.002), "best_network": "late", "best_reference": "reference_text",
        "network_lead": Difference(0.14, 0.1, 0.18, 0.002),
    }  # fmt: skip
    return Ranking(**content | changes)


def test_the_best_model_is_named_with_its_interval() -> None:
    assert verdict(ranking()).best == "late is best: 44.0 [40.0, 50.0]."
    assert verdict(ranking()).measure == "R@P95 micro"


@pytest.mark.parametrize(("p_value", "word"), [(0.049, "is significant"), (0.05, "is not significant")])
def test_the_difference_to_the_next_is_significant_or_not(p_value: float, word: str) -> None:
    said = verdict(ranking(lead=Difference(0.14, 0.1, 0.18, p_value))).lead
    assert said == f"The difference to the next, reference_text, {word}: +14.0 [+10.0, +18.0], p {p_value:.3f}."


def test_a_single_model_has_no_next() -> None:
    said = verdict(ranking(lead=None, network_lead=None, best_reference=""))
    assert (said.lead, said.reference) == ("", "")


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
    said = verdict(ranking(network_lead=lead))
    assert said.reference == sentence
    assert said.reference_wins is wins


def test_the_difference_to_a_reference_that_is_not_the_next_is_given() -> None:
    between = {"concat": MetricEstimate(0.35, 0.3, 0.4)}
    estimates = dict(list(ranking().estimates.items())[:1]) | between | dict(list(ranking().estimates.items())[1:])
    said = verdict(ranking(estimates=estimates)).reference
    assert said.endswith("reference_text: the difference of late is +14.0 [+10.0, +18.0], p 0.002.")


def test_models_that_all_find_nothing_have_no_best() -> None:
    nothing = dict.fromkeys(("late", "reference_text"), MetricEstimate(0.0, 0.0, 0.0))
    lost = Difference(-0.1, -0.2, -0.1, 0.001)
    said = verdict(ranking(estimates=nothing, network_lead=lost))
    assert said.best == "R@P95 micro is 0 for every model: there is no best one."
    assert (said.lead, said.reference, said.reference_wins) == ("", "", False)
    assert bar_chart(ranking(estimates=nothing)).bars[0].length == 0


def test_the_longest_interval_ends_at_the_right_end_and_references_are_marked() -> None:
    chart = bar_chart(ranking())
    first, second = chart.bars
    assert (first.length, first.low, first.high) == pytest.approx((88, 80, 100))
    assert (second.length, second.low, second.high) == pytest.approx((60, 50, 70))
    assert [bar.reference for bar in chart.bars] == [False, True]
    assert chart.scale_end == "50%"


def test_the_models_are_ranked_by_every_measure(fitted: FittedModels, comparison: Comparison) -> None:
    """The references have one fit, the others two, whose mean counts."""
    assert [(one.attribute, one.metric) for one in comparison.rankings] == [
        (attribute, metric) for attribute in ("color", "material") for metric in RANKED_BY
    ]
    for one in comparison.rankings:
        plain = {
            name: np.mean(
                [
                    plain_metric(
                        one.metric, fit.scores["both"], fitted, one.attribute, labelled_products(fitted, one.attribute)
                    )
                    for fit in results.fits
                ]
            )
            for name, results in fitted.models.items()
        }
        assert set(one.estimates) == set(plain)
        values = [one.estimates[name].estimate for name in one.estimates]
        assert values == pytest.approx([plain[name] for name in one.estimates])
        assert values == sorted(values, reverse=True)
        names = list(one.estimates)
        assert (one.best, one.next_best) == tuple(names[:2])
        assert one.lead is not None
        assert one.lead.estimate == pytest.approx(values[0] - values[1])
        assert one.best_reference == next(name for name in names if name in REFERENCES)
        assert one.best_network == next(name for name in names if name not in REFERENCES)
        assert one.network_lead is not None
        assert one.network_lead.estimate == pytest.approx(plain[one.best_network] - plain[one.best_reference])
