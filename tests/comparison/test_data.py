"""What the compared models are fitted and evaluated on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from catalog_enrichment.comparison.data import CatalogProducts, ComparisonData, kept_labels, load_data
from catalog_enrichment.comparison.results import FittedModels
from catalog_enrichment.config.schema import Config
from catalog_enrichment.errors import DataContractError
from catalog_enrichment.monitoring.stages import Stages
from catalog_enrichment.precision.earlier_uses import EarlierUses

from ..training.toy import COLORS, DICTIONARY, batches, silent
from .comparison_samples import COMPARE, config, fit_models

ONE_MODEL = (
    (
        COMPARE.split("[[compare.recipes]]")[0]
        + '[[compare.recipes]]\nname = "text"\nset = { "model.fusion.kind" = "text_only" }\n'
    )
    .replace("seeds = [0, 1]\nmax_epochs = 2", "max_epochs = 1")
    .replace("label_shares = [0.5, 1.0]\n", "")
    .replace('label_share_recipes = ["text"]\n', "")
)
"""One recipe, one epoch, no share of the labels."""


@pytest.fixture(scope="module")
def data(settings: Config, rows: list[dict], tmp_path_factory) -> ComparisonData:
    return load_data(
        CatalogProducts(lambda: batches(rows)), DICTIONARY, settings, tmp_path_factory.mktemp("data"), Stages(silent)
    )


def test_no_product_that_is_fitted_or_evaluated_on_is_in_the_certification_fold(data: ComparisonData) -> None:
    """Nor does it share a content group with one; `unlabelled` is what self-supervision sees."""
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
    data = load_data(CatalogProducts(lambda: batches(rows)), DICTIONARY, settings, tmp_path / "d", Stages(silent))
    folders = {Path(task.examples.dataset.pixels.filename).parent.name for task in data.tasks.values()}
    assert len(folders) == 2


def test_the_folds_are_those_of_the_next_training(rows: list[dict], tmp_path: Path, data: ComparisonData) -> None:
    """Otherwise a recipe could be chosen on products that certify it in a new epoch."""
    ids, folds = data.split.dataset.ids, data.split.folds
    certified = {ids[product]: 0 for product in folds.certification}
    earlier = EarlierUses(uses={"color": 5}, first_epoch=certified)
    source, settings = CatalogProducts(lambda: batches(rows), earlier), config(tmp_path, text=ONE_MODEL)
    next_epoch = load_data(source, DICTIONARY, settings, tmp_path / "d", Stages(silent)).split
    assert (data.split.certification_round.number, next_epoch.epoch.number) == (0, 1)
    assert not certified.keys() & {ids[product] for product in next_epoch.folds.certification}
    assert np.array_equal(next_epoch.folds.test, folds.test)


@pytest.mark.parametrize(
    ("fold", "compared_on"),
    [("certification", ["test"]), ("test", ["test"]), ("compared on", ["choosing", "test"])],
)
def test_labels_of_a_fold_that_is_not_fitted_on_change_no_score(
    rows: list[dict], tmp_path: Path, fold: str, compared_on: list[str]
) -> None:
    text = ONE_MODEL.replace("certification = 0.02", "certification = 0.1").replace("test = 0.28", "test = 0.2")
    settings = config(tmp_path, f"compare.folds={compared_on}", text=text)
    data = load_data(CatalogProducts(lambda: batches(rows)), DICTIONARY, settings, tmp_path / "d", Stages(silent))
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


def test_shares_of_the_labels_are_nested_and_all_labels_is_the_plain_fit(fitted: FittedModels) -> None:
    ids = [f"p{number}" for number in range(400)]
    train = np.arange(50, 350)
    small, large = (kept_labels(train, ids, share, 0) for share in (0.1, 0.4))
    assert (len(small), len(large)) == (30, 120)
    assert set(small) < set(large) < set(train.tolist())
    assert set(small) != set(kept_labels(train, ids, 0.1, 1))
    assert list(kept_labels(train, ids, 1.0, 0)) == list(train)
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
    """Nor on a product of one of its content groups; the fits choose on the other half."""
    settings = config(tmp_path, 'compare.folds=["choosing"]', text=ONE_MODEL)
    data = load_data(CatalogProducts(lambda: batches(rows)), DICTIONARY, settings, tmp_path / "d", Stages(silent))
    (task,) = data.tasks.values()
    groups, choosing = data.split.groups, set(data.split.folds.choosing.tolist())
    compared_on = set(data.evaluation_index.tolist())
    assert compared_on < choosing
    assert set(task.folds.choosing.tolist()) < choosing
    assert choosing - compared_on - set(task.folds.choosing.tolist()) <= {10}  # without a picture
    for index in (task.train, task.self_supervised, task.folds.choosing):
        assert len(index)
        assert not np.isin(groups[index], groups[data.evaluation_index]).any()
