"""Every metric, interval, difference, table, ranking and summary of the fitted comparison against a plain
recomputation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from catalog_enrichment.comparison.compared_models import FittedModels
from catalog_enrichment.comparison.tables import RANKED_BY, SUMMARY_METRICS, Comparison, build_comparison
from catalog_enrichment.config.comparison import REFERENCES
from catalog_enrichment.config.schema import Config
from catalog_enrichment.precision.bootstrap import Resamples

from .comparison_samples import METRICS, mean_metric, plain_metric, table


@pytest.mark.parametrize("attribute", ["color", "material"])
@pytest.mark.parametrize("metric", METRICS)
def test_an_estimate_is_the_mean_over_the_seeds_of_the_plain_metric(
    fitted: FittedModels, comparison: Comparison, metric: str, attribute: str
) -> None:
    index = fitted.labelled(attribute)
    for row in table(comparison, "Modalities", attribute).rows:
        scores_by_seed = [result.scores["both"] for result in fitted.models[row.name].fits]
        each = [plain_metric(metric, scores, fitted, attribute, index) for scores in scores_by_seed]
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
    index = fitted.labelled("material")
    values: dict[str, list[float]] = {"text": [], "attention": []}
    for block in Resamples(fitted.groups[index], 200):
        for weights in block:
            drawn = np.repeat(index, weights)
            for name, resampled in values.items():
                each = [result.scores["both"] for result in fitted.models[name].fits]
                resampled.append(np.mean([plain_metric(metric, scores, fitted, "material", drawn) for scores in each]))
    rows = {row.name: row for row in table(comparison, "Modalities", "material").rows}
    estimate, difference = rows["attention"].estimates[metric], rows["attention"].differences[metric]
    assert (estimate.low, estimate.high) == pytest.approx(tuple(np.quantile(values["attention"], [0.025, 0.975])))
    apart = np.array(values["attention"]) - np.array(values["text"])
    assert (difference.low, difference.high) == pytest.approx(tuple(np.quantile(apart, [0.025, 0.975])))
    assert difference.estimate == pytest.approx(estimate.estimate - rows["text"].estimates[metric].estimate)
    assert not rows["text"].differences, "it is the baseline"
    assert len(np.unique(fitted.groups[index])) < len(index), "the toy catalog has twins, which are resampled together"


def test_the_shares_table_has_a_column_per_share(fitted: FittedModels, comparison: Comparison) -> None:
    shown = table(comparison, "Shares", "material")
    assert list(shown.columns.values()) == ["50%", "100%"]
    (row,) = shown.rows
    for key, share in (("0.5", 0.5), ("1.0", 1.0)):
        expected = mean_metric("accuracy", fitted.by_label_share["text", share], fitted, "material")
        assert row.estimates[key].estimate == pytest.approx(expected)
        assert comparison.at_shares["text"][share]["material/accuracy"] == pytest.approx(expected)


def test_a_masked_input_is_not_used(fitted: FittedModels, comparison: Comparison) -> None:
    """R@P95 with the other input alone; masking the picture changes nothing for a model of the text."""
    shown = table(comparison, "One input masked")
    assert [row.name for row in shown.rows] == ["attention", "vote"]
    for view in ("both", "image_masked", "text_masked"):
        expected = mean_metric("r_at_p95_micro", fitted.models["attention"], fitted, "color", view)
        assert shown.rows[0].estimates[view].estimate == pytest.approx(expected)
    text = fitted.models["text"].fits[0].scores
    np.testing.assert_allclose(text["image_masked"].probabilities["color"], text["both"].probabilities["color"])
    assert not np.allclose(text["text_masked"].probabilities["color"], text["both"].probabilities["color"])


def test_the_json_summary_has_every_model_and_nothing_else(fitted: FittedModels, comparison: Comparison) -> None:
    assert list(comparison.summary) == ["text", "attention", "vote", *REFERENCES]
    assert SUMMARY_METRICS == {"r_at_p95": "r_at_p95_micro", "macro_f1": "f1_macro", "accuracy": "accuracy"}
    for name, summary in comparison.summary.items():
        assert set(summary) == {"color", "material", "seconds"}
        for short, metric in SUMMARY_METRICS.items():
            expected = mean_metric(metric, fitted.models[name], fitted, "color")
            assert summary["color"][short] == pytest.approx(expected, abs=1e-4)
        assert comparison.metrics[name]["color/accuracy"] == pytest.approx(summary["color"]["accuracy"], abs=1e-4)


def test_any_share_of_the_labels_has_its_column_and_its_metrics(
    settings: Config, fitted: FittedModels, comparison: Comparison
) -> None:
    third = 1 / 3
    results = {("text", share): fitted.by_label_share["text", 0.5] for share in (third, 0.004)}
    assert settings.compare is not None
    rebuilt = build_comparison(
        replace(fitted, by_label_share=results), replace(settings.compare, label_shares=[third, 0.004])
    )
    assert list(table(rebuilt, "Shares").columns.values()) == ["0.4%", "33.3333%"]
    assert set(rebuilt.at_shares["text"]) == {third, 0.004}
    assert rebuilt.metrics["text"]["color/accuracy"] == comparison.metrics["text"]["color/accuracy"]


def test_the_models_are_ranked_by_every_measure(fitted: FittedModels, comparison: Comparison) -> None:
    """The references have a single fit, the others two, whose mean counts."""
    expected = [(attribute, metric) for attribute in ("color", "material") for metric in RANKED_BY]
    assert [(ranking.attribute, ranking.metric) for ranking in comparison.rankings] == expected
    for ranking in comparison.rankings:
        models = fitted.models.items()
        plain = {name: mean_metric(ranking.metric, results, fitted, ranking.attribute) for name, results in models}
        assert set(ranking.estimates) == set(plain)
        values = [ranking.estimates[name].estimate for name in ranking.estimates]
        assert values == pytest.approx([plain[name] for name in ranking.estimates])
        assert values == sorted(values, reverse=True)
        names = list(ranking.estimates)
        assert (ranking.best, ranking.next_best) == tuple(names[:2])
        assert ranking.lead is not None
        assert ranking.lead.estimate == pytest.approx(values[0] - values[1])
        assert ranking.best_reference == next(name for name in names if name in REFERENCES)
        assert ranking.best_network == next(name for name in names if name not in REFERENCES)
        assert ranking.network_lead is not None
        assert ranking.network_lead.estimate == pytest.approx(
            plain[ranking.best_network] - plain[ranking.best_reference]
        )
