"""The data that the compared models are fitted and evaluated on, and their fits: two recipes, a vote of both, two seeds
and shares of the labels on the toy catalog."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from catalog_enrichment.comparison.compared_models import FittedModels
from catalog_enrichment.comparison.fit_all import CatalogProducts, ComparisonData, load_data, with_label_share
from catalog_enrichment.comparison.tables import build_comparison
from catalog_enrichment.config.comparison import REFERENCES
from catalog_enrichment.config.schema import Config
from catalog_enrichment.errors import ConfigError, DataContractError
from catalog_enrichment.models.spec import Recipe
from catalog_enrichment.monitoring.stages import Stages
from catalog_enrichment.records import EarlierUses
from catalog_enrichment.training.fit import Fitted, fit
from catalog_enrichment.training.loop import Progress
from catalog_enrichment.training.task import Task

from ..training.toy import COLORS, DICTIONARY, batches, silent
from .comparison_samples import COMPARE, config, fit_models, load, table

ONE_MODEL = (
    "[[compare.recipes]]".join(COMPARE.split("[[compare.recipes]]")[:2])
    .replace("seeds = [0, 1]\nmax_epochs = 2", "max_epochs = 1")
    .replace('label_shares = [0.5, 1.0]\nlabel_share_recipes = ["text"]\n', "")
)
"""A single recipe and epoch, no share of the labels."""


@pytest.fixture(scope="module")
def data(settings: Config, rows: list[dict], tmp_path_factory) -> ComparisonData:
    return load(rows, settings, tmp_path_factory.mktemp("data"))


def test_no_product_that_is_fitted_or_evaluated_on_is_in_the_certification_fold(data: ComparisonData) -> None:
    """Nor does it share a content group with such a product; self-supervision reads the unlabelled products."""
    groups, folds = data.split.groups, data.split.folds
    certification = groups[folds.certification]
    assert len(certification)
    assert len({task.examples.dataset.pixels.shape[1] for task in data.tasks.values()}) == 2, "two picture sizes"
    for task in data.tasks.values():
        for index in (task.train, task.self_supervised, task.folds.choosing):
            assert not np.isin(groups[index], certification).any()
    assert not np.isin(groups[data.evaluation_index], certification).any()


def test_recipes_that_fit_pictures_differently_read_them_separately(rows: list[dict], tmp_path: Path) -> None:
    trimmed = '[[compare.recipes]]\nname = "trimmed"\nset = { "model.image.trim" = true }\n'
    settings = config(tmp_path, text=ONE_MODEL + trimmed)
    data = load(rows, settings, tmp_path / "d")
    folders = {Path(task.examples.dataset.pixels.filename).parent.name for task in data.tasks.values()}
    assert len(folders) == 2


def test_the_folds_are_those_of_the_next_training(rows: list[dict], tmp_path: Path, data: ComparisonData) -> None:
    """Otherwise a recipe could be chosen on products that certify it in a new round."""
    ids, folds = data.split.dataset.ids, data.split.folds
    certified = {ids[product]: 0 for product in folds.certification}
    earlier = EarlierUses(uses={"color": 5}, first_round=certified)
    later = load(rows, config(tmp_path, text=ONE_MODEL), tmp_path / "d", earlier).split
    assert (data.split.certification_round.number, later.certification_round.number) == (0, 1)
    assert not certified.keys() & {ids[product] for product in later.folds.certification}
    assert np.array_equal(later.folds.test, folds.test)


@pytest.mark.parametrize(
    ("fold", "compared_on"),
    [("certification", ["test"]), ("test", ["test"]), ("compared on", ["choosing", "test"])],
)
def test_labels_of_a_fold_that_is_not_fitted_on_change_no_score(
    rows: list[dict], tmp_path: Path, fold: str, compared_on: list[str]
) -> None:
    text = ONE_MODEL.replace("certification = 0.02", "certification = 0.1").replace("test = 0.28", "test = 0.2")
    settings = config(tmp_path, f"compare.folds={compared_on}", text=text)
    data = load(rows, settings, tmp_path / "d")
    ids = data.split.dataset.ids
    index = data.evaluation_index if fold == "compared on" else getattr(data.split.folds, fold)
    relabelled = {ids[product] for product in index}
    following = dict(zip(COLORS, [*list(COLORS)[1:], next(iter(COLORS))], strict=True))
    changed = []
    for row in rows:
        labels = dict(row["merchant_attributes"])
        if row["product_id"] in relabelled:
            labels["color"] = [following[color] for color in labels["color"]]
        changed.append(row | {"merchant_attributes": list(labels.items())})
    assert changed != rows
    before, after = fit_models(rows, settings, tmp_path / "a"), fit_models(changed, settings, tmp_path / "b")
    np.testing.assert_array_equal(before.evaluation_index, after.evaluation_index)
    for name, results in before.models.items():
        scores, scores_after = results.fits[0].scores["both"], after.models[name].fits[0].scores["both"]
        np.testing.assert_array_equal(scores.probabilities["color"], scores_after.probabilities["color"])


def test_shares_of_the_labels_are_nested_and_all_labels_is_the_plain_fit(
    fitted: FittedModels, data: ComparisonData
) -> None:
    task = next(iter(data.tasks.values()))
    small, large, whole = (set(with_label_share(task, share, 0).folds.train.tolist()) for share in (0.1, 0.4, 1.0))
    assert small < large < whole == set(task.folds.train.tolist())
    assert (len(small), len(large)) == (round(0.1 * len(whole)), round(0.4 * len(whole)))
    assert small != set(with_label_share(task, 0.1, 1).folds.train.tolist())
    whole, half = (fitted.by_label_share["text", share].fits[0].scores["both"] for share in (1.0, 0.5))
    plain_fit = fitted.models["text"].fits[0].scores["both"]
    np.testing.assert_array_equal(whole.probabilities["color"], plain_fit.probabilities["color"])
    assert not np.allclose(half.probabilities["color"], plain_fit.probabilities["color"])


def test_products_that_change_meanwhile_are_refused(settings: Config, rows: list[dict], tmp_path: Path) -> None:
    reads = iter([rows, rows[1:]])
    with pytest.raises(DataContractError, match="changed while they were read"):
        load_data(CatalogProducts(lambda: batches(next(reads))), DICTIONARY, settings, tmp_path, Stages(silent))


def test_with_the_choosing_fold_there_are_more_products_to_evaluate_on(
    fitted: FittedModels, rows: list[dict], tmp_path: Path
) -> None:
    settings = config(tmp_path, 'compare.folds=["choosing", "test"]', text=ONE_MODEL)
    of_both = fit_models(rows, settings, tmp_path / "w")
    both_folds, lineage = of_both.evaluation_index, of_both.lineage
    assert set(both_folds) > set(fitted.evaluation_index)
    assert fitted.lineage["chosen_on"] == lineage["folds"]["choosing"]  # compared on the test fold alone
    not_chosen_on = lineage["folds"]["choosing"] - lineage["chosen_on"]
    assert not_chosen_on == pytest.approx(lineage["folds"]["choosing"] / 2, abs=3)
    assert len(both_folds) == not_chosen_on + lineage["folds"]["test"] - (10 in both_folds)


def test_nothing_is_fitted_to_or_chosen_on_the_half_of_the_choosing_fold_that_is_compared_on(
    rows: list[dict], tmp_path: Path
) -> None:
    """The same holds for products of its content groups; the fits choose on the other half."""
    settings = config(tmp_path, 'compare.folds=["choosing"]', text=ONE_MODEL)
    data = load(rows, settings, tmp_path / "d")
    (task,) = data.tasks.values()
    groups, choosing = data.split.groups, set(data.split.folds.choosing.tolist())
    compared_on = set(data.evaluation_index.tolist())
    assert compared_on < choosing
    assert set(task.folds.choosing.tolist()) < choosing
    assert choosing - compared_on - set(task.folds.choosing.tolist()) <= {10}  # without a picture
    for index in (task.train, task.self_supervised, task.folds.choosing):
        assert len(index)
        assert not np.isin(groups[index], groups[data.evaluation_index]).any()


# --- fits --------------------------------------------------------------------------------------------------------


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
    assert (shown.asked.baseline, shown.asked.kind) == ("", "plain")
    assert "could not be fitted: attention, vote" in shown.asked.note
    assert {line.partition(":")[0] for line in comparison.warnings} >= {"attention", "vote"}
