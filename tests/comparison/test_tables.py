"""Tables, summary and MLflow metrics of the fitted comparison."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from catalog_enrichment.comparison.results import FittedModels
from catalog_enrichment.comparison.tables import Comparison, build_comparison
from catalog_enrichment.config.comparison import REFERENCES
from catalog_enrichment.config.schema import Config
from catalog_enrichment.training.evaluation import attribute_metrics

from .comparison_samples import labelled_products, plain_metric, table


def test_the_shares_table_has_a_column_per_share(fitted: FittedModels, comparison: Comparison) -> None:
    shown = table(comparison, "Shares", "material")
    assert list(shown.columns.values()) == ["50%", "100%"]
    (row,) = shown.rows
    for key, share in (("0.5", 0.5), ("1.0", 1.0)):
        scores_by_seed = [result.scores["both"] for result in fitted.by_label_share["text", share].fits]
        each = [
            plain_metric("accuracy", scores, fitted, "material", labelled_products(fitted, "material"))
            for scores in scores_by_seed
        ]
        assert row.estimates[key].estimate == pytest.approx(np.mean(each))
        assert comparison.at_shares["text"][share]["material/accuracy"] == pytest.approx(np.mean(each))


def test_a_masked_input_is_not_used(fitted: FittedModels, comparison: Comparison) -> None:
    """R@P95 with the other input alone; masking the picture changes nothing for a model of the text."""
    shown = table(comparison, "One input masked")
    assert [row.name for row in shown.rows] == ["attention", "vote"]
    fits = fitted.models["attention"].fits
    for view in ("both", "image_masked", "text_masked"):
        each = [
            plain_metric("r_at_p95_micro", result.scores[view], fitted, "color", labelled_products(fitted, "color"))
            for result in fits
        ]
        assert shown.rows[0].estimates[view].estimate == pytest.approx(np.mean(each))
    text = fitted.models["text"].fits[0].scores
    np.testing.assert_allclose(text["image_masked"].probabilities["color"], text["both"].probabilities["color"])
    assert not np.allclose(text["text_masked"].probabilities["color"], text["both"].probabilities["color"])


def test_the_json_summary_has_every_model_and_nothing_else(fitted: FittedModels, comparison: Comparison) -> None:
    assert list(comparison.summary) == ["text", "attention", "vote", *REFERENCES]
    index, labels = labelled_products(fitted, "color"), fitted.labels["color"]
    for name, summary in comparison.summary.items():
        assert set(summary) == {"color", "material", "seconds"}
        probabilities = [result.scores["both"].at("color", index) for result in fitted.models[name].fits]
        metrics_by_seed = [attribute_metrics(one_seed, labels, index) for one_seed in probabilities]
        names = {"r_at_p95": "r_at_p95_micro", "macro_f1": "f1_macro", "accuracy": "accuracy"}
        assert summary["color"] == {
            short: pytest.approx(np.mean([metrics[long] for metrics in metrics_by_seed]), abs=1e-4)
            for short, long in names.items()
        }
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
