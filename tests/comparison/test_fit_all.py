"""Two recipes, a vote of both, two seeds and shares of the labels on the toy catalog."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from catalog_enrichment.comparison.results import FittedModels
from catalog_enrichment.comparison.tables import build_comparison
from catalog_enrichment.config.comparison import REFERENCES
from catalog_enrichment.errors import ConfigError, DataContractError
from catalog_enrichment.models.spec import Recipe
from catalog_enrichment.training.fit import Fitted, fit
from catalog_enrichment.training.loop import Progress
from catalog_enrichment.training.task import Task

from ..training.toy import silent
from .comparison_samples import COMPARE, config, fit_models, table


def test_the_vote_is_that_of_its_members_scores(fitted: FittedModels) -> None:
    members = [fitted.models[name].fits[1].scores["both"].probabilities["color"] for name in ("text", "attention")]
    ballots = np.stack([np.eye(scores.shape[1])[scores.argmax(axis=1)] for scores in members]).sum(axis=0)
    expected = (ballots + np.mean(members, axis=0)) / 3
    np.testing.assert_allclose(fitted.models["vote"].fits[1].scores["both"].probabilities["color"], expected, rtol=1e-5)
    seconds = [fitted.models[name].fits[1].seconds for name in ("text", "attention", "vote")]
    assert seconds[2] == pytest.approx(seconds[0] + seconds[1])


def test_models_are_evaluated_on_products_that_none_was_fitted_on(fitted: FittedModels) -> None:
    assert fitted.lineage["judged_on"] == ["test"]
    assert fitted.lineage["near_duplicate_rate_judged"] == 0
    assert fitted.lineage["judged"] == len(fitted.evaluation_index) > 50
    assert 10 not in fitted.evaluation_index, "a product without a picture cannot compare models of the picture"
    assert {results.modalities_used for results in fitted.models.values()} == {"text", "image", "both"}
    for results in fitted.models.values():
        for result in results.fits:
            for scores in result.scores.values():
                np.testing.assert_array_equal(scores.index, fitted.evaluation_index)


def test_what_cannot_be_built_fails_before_anything_is_fitted(tmp_path: Path, rows: list[dict]) -> None:
    lines: list[str] = []
    broken = COMPARE.replace('"model.image.size" = 48', '"model.fusion.options" = { hiden = 3 }')
    with pytest.raises(ConfigError, match="hiden"):
        fit_models(rows, config(tmp_path, text=broken), tmp_path / "w", lines.append)
    few = config(tmp_path, text=COMPARE.replace("[0.5, 1.0]", "[0.01, 1.0]"))
    with pytest.raises(DataContractError, match="fewer than 20"):
        fit_models(rows, few, tmp_path / "v", lines.append)
    assert not [line for line in lines if "epoch" in line]


def test_an_interrupted_comparison_resumes_with_the_fitter_of_the_training(tmp_path: Path, rows: list[dict]) -> None:
    settings = config(tmp_path, text=COMPARE.replace("threads = 1", 'threads = 1\ncheckpoints = "kept"'))
    names: list[str] = []

    def two_fits(recipe: Recipe, task: Task, progress: Progress, checkpoints: Path | None = None) -> Fitted:
        if len(names) == 2:
            raise KeyboardInterrupt
        names.append(recipe.name)
        return fit(recipe, task, progress, checkpoints)

    with pytest.raises(KeyboardInterrupt):
        fit_models(rows, settings, tmp_path / "w", silent, two_fits)
    assert names == ["model text", "model attention"]
    lines: list[str] = []
    resumed = fit_models(rows, settings, tmp_path / "v", lines.append)
    assert [line.partition(":")[0] for line in lines if "continues after epoch 2" in line] == names
    again = fit_models(rows, settings, tmp_path / "u", lines.append)
    for name, results in resumed.models.items():
        first, second = results.fits[0].scores["both"], again.models[name].fits[0].scores["both"]
        np.testing.assert_array_equal(first.probabilities["color"], second.probabilities["color"])


def test_a_model_that_cannot_be_fitted_is_left_out_and_named(tmp_path: Path, rows: list[dict]) -> None:
    """The same for a vote with such a member; a table loses it as baseline; the other models are compared."""
    text = COMPARE.replace('name = "attention"\nset = {', 'name = "attention"\nset = { "fit.learning_rate" = 1e30,')
    settings = config(tmp_path, text=text.replace("seeds = [0, 1]", "seeds = [0]").replace("= 2", "= 1"))
    assert settings.compare is not None
    lines: list[str] = []
    fitted = fit_models(rows, settings, tmp_path / "w", lines.append)
    assert set(fitted.failed) == {"attention", "vote"}
    assert "the loss is not finite" in fitted.failed["attention"]
    assert [line for line in lines if line.startswith("attention: failed, and is left out")]
    assert list(fitted.models) == ["text", *REFERENCES]
    asked = settings.compare
    asked = replace(asked, tables=[replace(asked.tables[0], kind="mergers", baseline="attention"), *asked.tables[1:]])
    comparison = build_comparison(fitted, asked)
    shown = table(comparison, "Modalities")
    assert [row.name for row in shown.rows] == ["text", "reference_both"]
    assert (shown.baseline, shown.kind) == ("", "plain")
    assert "could not be fitted: attention, vote" in shown.note
    assert {line.partition(":")[0] for line in comparison.warnings} >= {"attention", "vote"}
