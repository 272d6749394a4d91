"""Every metric, interval and difference against a plain recomputation."""

from __future__ import annotations

import numpy as np
import pytest

from catalog_enrichment.comparison.measurements import measure_of
from catalog_enrichment.comparison.results import FittedModels
from catalog_enrichment.comparison.tables import Comparison
from catalog_enrichment.config.comparison import REFERENCES
from catalog_enrichment.precision.bootstrap import Resamples
from catalog_enrichment.training.evaluation import attribute_metrics

from .comparison_samples import METRICS, labelled_products, plain_metric, table


@pytest.mark.parametrize("attribute", ["color", "material"])
@pytest.mark.parametrize("metric", METRICS)
def test_an_estimate_is_the_mean_over_the_seeds_of_the_plain_metric(
    fitted: FittedModels, comparison: Comparison, metric: str, attribute: str
) -> None:
    for row in table(comparison, "Modalities", attribute).rows:
        scores_by_seed = [result.scores["both"] for result in fitted.models[row.name].fits]
        each = [
            plain_metric(metric, scores, fitted, attribute, labelled_products(fitted, attribute))
            for scores in scores_by_seed
        ]
        shown = row.estimates[metric]
        assert shown.estimate == pytest.approx(np.mean(each))
        if row.name in REFERENCES:
            assert shown.spread is None
        else:
            assert shown.spread == pytest.approx(np.std(each, ddof=1))


@pytest.mark.parametrize("metric", ["accuracy", "f1_micro", "f1_tail"])
def test_intervals_and_differences_are_those_of_resampled_content_groups(
    fitted: FittedModels, comparison: Comparison, metric: str
) -> None:
    """Every resample is written out as a list of products, and both models are measured on that list."""
    index = labelled_products(fitted, "material")
    values = {"text": [], "attention": []}
    for block in Resamples(fitted.groups[index], 200):
        for weights in block:
            drawn = np.repeat(index, weights)
            for name, resampled in values.items():
                each = [result.scores["both"] for result in fitted.models[name].fits]
                resampled.append(np.mean([plain_metric(metric, one, fitted, "material", drawn) for one in each]))
    rows = {row.name: row for row in table(comparison, "Modalities", "material").rows}
    estimate, difference = rows["attention"].estimates[metric], rows["attention"].differences[metric]
    assert (estimate.low, estimate.high) == pytest.approx(tuple(np.quantile(values["attention"], [0.025, 0.975])))
    apart = np.array(values["attention"]) - np.array(values["text"])
    assert (difference.low, difference.high) == pytest.approx(tuple(np.quantile(apart, [0.025, 0.975])))
    assert difference.estimate == pytest.approx(estimate.estimate - rows["text"].estimates[metric].estimate)
    assert len(np.unique(fitted.groups[index])) < len(index), "the toy catalog has twins, which are resampled together"


def test_the_better_model_has_the_positive_difference(comparison: Comparison) -> None:
    """The pictures show every colour, the titles name every second one."""
    rows = {row.name: row for row in table(comparison, "Modalities").rows}
    assert rows["attention"].differences["accuracy"].estimate > 0
    assert rows["reference_both"].differences["accuracy"].low > 0
    assert rows["reference_both"].differences["accuracy"].p_value < 0.05
    assert not rows["text"].differences


@pytest.mark.parametrize("metric", METRICS)
def test_every_metric_of_a_table_equals_the_one_that_training_reports(fitted: FittedModels, metric: str) -> None:
    for labels in fitted.labels.values():
        index = labelled_products(fitted, labels.attribute)
        scores = fitted.models["reference_text"].fits[0].scores["both"]
        expected = attribute_metrics(scores.at(labels.attribute, index), labels, index)[metric]
        assert measure_of(metric, scores, labels, index).estimate == pytest.approx(expected)
