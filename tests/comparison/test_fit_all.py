"""Two recipes, a vote, two seeds and shares of the labels on the toy: every figure against plain recomputation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from catalog_enrichment.comparison.fit_all import Contest, kept_labels, run_contest
from catalog_enrichment.comparison.models import entrants_of
from catalog_enrichment.comparison.report import difference_text, figure_text, write_comparison
from catalog_enrichment.comparison.tables import Comparison, Table, compare, measured
from catalog_enrichment.config.comparison import REFERENCES
from catalog_enrichment.config.load import load_config
from catalog_enrichment.config.schema import Config
from catalog_enrichment.errors import ConfigError, DataContractError
from catalog_enrichment.models.spec import Recipe
from catalog_enrichment.precision import metrics
from catalog_enrichment.precision.bootstrap import Resamples
from catalog_enrichment.precision.units import pairs_from
from catalog_enrichment.records import Cardinality
from catalog_enrichment.training.evaluation import ModelScores, attribute_metrics
from catalog_enrichment.training.fit import Fitted, fit
from catalog_enrichment.training.loop import Progress
from catalog_enrichment.training.task import Task

from ..training.toy import DICTIONARY, batches, product, recipe_toml, silent

METRICS = ["accuracy", "f1_micro", "f1_macro", "f1_weighted", "f1_head", "f1_tail", "r_at_p95_micro", "r_at_p95_macro"]
COMPARE = f"""
[catalog]
path = "lake"
dictionary = "dictionary.json"
[mlflow]
tracking_uri = "sqlite:///mlflow.db"
[training]
recipe = "toy.toml"
attributes = ["color", "material"]
min_label_count = 5
threads = 1
[training.folds]
train = 0.5
validation = 0.1
calibration = 0.1
certification = 0.02
test = 0.28
[compare]
seeds = [0, 1]
max_epochs = 2
label_shares = [0.5, 1.0]
label_share_recipes = ["text"]
resamples = 200
[[compare.recipes]]
name = "text"
set = {{ "model.fusion.kind" = "text_only" }}
[[compare.recipes]]
name = "attention"
set = {{ "model.image.size" = 48 }}
note = "test_convnext stands in"
[[compare.recipes]]
name = "vote"
members = ["text", "attention"]
[[compare.tables]]
title = "Modalities"
paper = "a paper, Table 2"
kind = "modalities"
recipes = ["text", "attention", "vote", "reference_both"]
metrics = {METRICS}
baseline = "text"
note = "a stand-in | named"
[[compare.tables]]
title = "Shares"
kind = "label_shares"
recipes = ["text"]
metrics = ["accuracy"]
"""


def config(folder: Path, *overrides: str, text: str = COMPARE) -> Config:
    (folder / "toy.toml").write_text(recipe_toml(epochs=3))
    (folder / "config.toml").write_text(text)
    return load_config(folder / "config.toml", list(overrides))


@pytest.fixture(scope="module")
def settings(tmp_path_factory) -> Config:
    return config(tmp_path_factory.mktemp("compare"))


@pytest.fixture(scope="module")
def rows() -> list[dict]:
    found = [product(number) for number in range(260)]
    for number in range(0, 260, 9):  # a reseller's copy: the same picture, so the same content group
        found.append(product(number) | {"product_id": f"twin{number}"})
    found[10] |= {"images": []}
    return found


@pytest.fixture(scope="module")
def contest(settings: Config, rows: list[dict], tmp_path_factory) -> Contest:
    return run_contest(lambda: batches(rows), DICTIONARY, settings, tmp_path_factory.mktemp("w"), silent)


@pytest.fixture(scope="module")
def comparison(settings: Config, contest: Contest) -> Comparison:
    assert settings.compare is not None
    return compare(contest, settings.compare)


def table(comparison: Comparison, title: str, attribute: str = "color") -> Table:
    (found,) = [one for one in comparison.tables if one.title.startswith(title) and one.attribute == attribute]
    return found


def plain(name: str, scores: ModelScores, contest: Contest, attribute: str, rows: np.ndarray) -> float:
    """A metric of the products at ``rows`` (repeats allowed), without any of the code under test."""
    labels = contest.labels[attribute]
    probability = np.stack([scores.probabilities[attribute][list(scores.index).index(row)] for row in rows.tolist()])
    truth, unlearned = labels.truth[rows], labels.unlearned[rows]
    if labels.cardinality is Cardinality.ONE:
        said = np.eye(truth.shape[1], dtype=bool)[probability.argmax(axis=1)]
    else:
        said = probability >= 0.5
    if name == "accuracy":
        return float(((said == truth).all(axis=1) & (unlearned == 0)).mean())
    if name == "f1_micro":
        return 2 * float((said & truth).sum()) / float(said.sum() + truth.sum() + (unlearned > 0).sum())
    if name == "f1_weighted":
        hits, occurs = (said & truth).sum(axis=0), said.sum(axis=0) + truth.sum(axis=0)
        total = sum(2 * hits[v] / occurs[v] * truth[:, v].sum() for v in range(truth.shape[1]) if occurs[v])
        return float(total) / float(truth.sum() + (unlearned > 0).sum())
    if name.startswith("f1"):
        each = []
        support = labels.truth.sum(axis=0)
        head, held = set(), 0
        for value in sorted(range(len(support)), key=lambda value: -support[value]):
            if held < 0.8 * support.sum():
                head.add(value)
                held += support[value]
        for value in range(truth.shape[1]):
            wanted = {"f1_macro": True, "f1_head": value in head, "f1_tail": value not in head}[name]
            occurs = said[:, value].sum() + truth[:, value].sum()
            if wanted and occurs:
                each.append(2 * (said[:, value] & truth[:, value]).sum() / occurs)
        return float(np.mean(each)) if each else 0.0
    pairs = pairs_from(probability, truth, labels.cardinality)
    if name == "r_at_p95_macro":
        return metrics.r_at_p_macro(pairs)
    best = 0
    for threshold in pairs.scores:
        accepted = pairs.scores >= threshold
        hits = int(pairs.correct[accepted].sum())
        if hits / accepted.sum() >= 0.95:
            best = max(best, hits)
    return best / float(truth.sum() + unlearned.sum())


def judged(contest: Contest, attribute: str) -> np.ndarray:
    return contest.index[contest.labels[attribute].labelled[contest.index]]


@pytest.mark.parametrize("attribute", ["color", "material"])
@pytest.mark.parametrize("metric", METRICS)
def test_a_figure_is_the_mean_over_the_seeds_of_the_plain_metric(
    contest: Contest, comparison: Comparison, metric: str, attribute: str
) -> None:
    for row in table(comparison, "Modalities", attribute).rows:
        scores = [outcome.views["both"] for outcome in contest.entries[row.name].outcomes]
        each = [plain(metric, one, contest, attribute, judged(contest, attribute)) for one in scores]
        figure = row.figures[metric]
        assert figure.estimate == pytest.approx(np.mean(each))
        if row.name in REFERENCES:
            assert figure.spread is None
        else:
            assert figure.spread == pytest.approx(np.std(each, ddof=1))


@pytest.mark.parametrize("metric", ["accuracy", "f1_micro", "f1_tail"])
def test_intervals_and_differences_are_those_of_resampled_content_groups(
    contest: Contest, comparison: Comparison, metric: str
) -> None:
    """Every resample is drawn out as a list of products, and both models are measured on it anew."""
    index = judged(contest, "material")
    values = {"text": [], "attention": []}
    for block in Resamples(contest.groups[index], 200):
        for weights in block:
            drawn = np.repeat(index, weights)
            for name, found in values.items():
                each = [outcome.views["both"] for outcome in contest.entries[name].outcomes]
                found.append(np.mean([plain(metric, one, contest, "material", drawn) for one in each]))
    rows = {row.name: row for row in table(comparison, "Modalities", "material").rows}
    figure, difference = rows["attention"].figures[metric], rows["attention"].differences[metric]
    assert (figure.low, figure.high) == pytest.approx(tuple(np.quantile(values["attention"], [0.025, 0.975])))
    apart = np.array(values["attention"]) - np.array(values["text"])
    assert (difference.low, difference.high) == pytest.approx(tuple(np.quantile(apart, [0.025, 0.975])))
    assert difference.estimate == pytest.approx(figure.estimate - rows["text"].figures[metric].estimate)
    assert len(np.unique(contest.groups[index])) < len(index), "the toy has twins to resample together"


def test_the_better_model_has_the_positive_difference(comparison: Comparison) -> None:
    """The pictures show every colour, the titles name every second one."""
    rows = {row.name: row for row in table(comparison, "Modalities").rows}
    assert rows["attention"].differences["accuracy"].estimate > 0
    assert rows["reference_both"].differences["accuracy"].low > 0
    assert rows["reference_both"].differences["accuracy"].p_value < 0.05
    assert not rows["text"].differences


def test_the_vote_is_that_of_its_members_scores(contest: Contest) -> None:
    members = [contest.entries[name].outcomes[1].views["both"].probabilities["color"] for name in ("text", "attention")]
    ballots = np.stack([np.eye(one.shape[1])[one.argmax(axis=1)] for one in members]).sum(axis=0)
    expected = (ballots + np.mean(members, axis=0)) / 3
    np.testing.assert_allclose(
        contest.entries["vote"].outcomes[1].views["both"].probabilities["color"], expected, rtol=1e-5
    )
    seconds = [contest.entries[name].outcomes[1].seconds for name in ("text", "attention", "vote")]
    assert seconds[2] == pytest.approx(seconds[0] + seconds[1])


def test_models_are_judged_on_products_that_none_of_them_learned_from(contest: Contest, rows: list[dict]) -> None:
    assert contest.lineage["judged_on"] == ["test"]
    assert contest.lineage["twins_share_judged"] == 0
    assert contest.lineage["judged"] == len(contest.index) > 50
    assert 10 not in contest.index, "a product without a picture answers for text only"
    assert {entry.sees for entry in contest.entries.values()} == {"text", "image", "both"}
    for entry in contest.entries.values():
        for outcome in entry.outcomes:
            for scores in outcome.views.values():
                np.testing.assert_array_equal(scores.index, contest.index)


def test_shares_of_the_labels_are_nested_and_all_of_them_is_the_plain_fit(contest: Contest) -> None:
    ids = [f"p{number}" for number in range(400)]
    train = np.arange(50, 350)
    small, large = (kept_labels(train, ids, share, 0) for share in (0.1, 0.4))
    assert (len(small), len(large)) == (30, 120)
    assert set(small) < set(large) < set(train.tolist())
    assert set(small) != set(kept_labels(train, ids, 0.1, 1))
    assert list(kept_labels(train, ids, 1.0, 0)) == list(train)
    whole, half = (contest.shares["text", share].outcomes[0].views["both"] for share in (1.0, 0.5))
    plain_fit = contest.entries["text"].outcomes[0].views["both"]
    np.testing.assert_array_equal(whole.probabilities["color"], plain_fit.probabilities["color"])
    assert not np.allclose(half.probabilities["color"], plain_fit.probabilities["color"])


def test_the_shares_table_has_a_column_per_share(contest: Contest, comparison: Comparison) -> None:
    found = table(comparison, "Shares", "material")
    assert list(found.columns.values()) == ["50%", "100%"]
    (row,) = found.rows
    for key, share in (("0.5", 0.5), ("1.0", 1.0)):
        scores = [outcome.views["both"] for outcome in contest.shares["text", share].outcomes]
        each = [plain("accuracy", one, contest, "material", judged(contest, "material")) for one in scores]
        assert row.figures[key].estimate == pytest.approx(np.mean(each))
        assert comparison.at_shares["text"][share]["material/accuracy"] == pytest.approx(np.mean(each))


def test_a_hidden_input_is_not_seen(contest: Contest, comparison: Comparison) -> None:
    """R@P95 of what is left; for a model of the text a hidden picture changes nothing."""
    found = table(comparison, "One input hidden")
    assert [row.name for row in found.rows] == ["attention", "vote"]
    views = contest.entries["attention"].outcomes
    for view in ("both", "image_masked", "text_masked"):
        each = [plain("r_at_p95_micro", one.views[view], contest, "color", judged(contest, "color")) for one in views]
        assert found.rows[0].figures[view].estimate == pytest.approx(np.mean(each))
    text = contest.entries["text"].outcomes[0].views
    np.testing.assert_allclose(text["image_masked"].probabilities["color"], text["both"].probabilities["color"])
    assert not np.allclose(text["text_masked"].probabilities["color"], text["both"].probabilities["color"])


def test_a_summary_for_scripts_has_every_model_and_nothing_else(contest: Contest, comparison: Comparison) -> None:
    assert list(comparison.summary) == ["text", "attention", "vote", *REFERENCES]
    index, labels = judged(contest, "color"), contest.labels["color"]
    for name, found in comparison.summary.items():
        assert set(found) == {"color", "material", "seconds"}
        views = [outcome.views["both"].at("color", index) for outcome in contest.entries[name].outcomes]
        each = [attribute_metrics(view, labels, index) for view in views]
        names = {"r_at_p95": "r_at_p95_micro", "macro_f1": "f1_macro", "accuracy": "accuracy"}
        assert found["color"] == {
            short: pytest.approx(np.mean([one[long] for one in each]), abs=1e-4) for short, long in names.items()
        }
        assert comparison.metrics[name]["color/accuracy"] == pytest.approx(found["color"]["accuracy"], abs=1e-4)


@pytest.mark.parametrize("metric", METRICS)
def test_every_metric_that_may_be_asked_for_is_the_one_that_training_reports(contest: Contest, metric: str) -> None:
    for labels in contest.labels.values():
        index = judged(contest, labels.attribute)
        scores = contest.entries["reference_text"].outcomes[0].views["both"]
        expected = attribute_metrics(scores.at(labels.attribute, index), labels, index)[metric]
        assert measured(metric, scores, labels, index).estimate == pytest.approx(expected)


def test_html_and_markdown_have_every_figure_and_stand_in(comparison: Comparison, tmp_path: Path) -> None:
    html, markdown = write_comparison(tmp_path / "deep" / "comparison", comparison, {"seeds": "0, 1"})
    page, text = html.read_text(), markdown.read_text()
    count = 0
    for one in comparison.tables:
        for row in one.rows:
            cells = [figure_text(figure) for figure in row.figures.values()]
            cells += [difference_text(found) for found in row.differences.values()]
            lines = _section(text, one).splitlines()
            (line,) = [line for line in lines if line.startswith(f"| {row.name} |")]
            assert all(f"| {cell} |" in line and f"<td>{cell}</td>" in page for cell in cells)
            count += len(cells)
    assert count > 100
    for shown in (page, text):
        assert "a paper, Table 2" in shown
        assert "a stand-in | named" in shown
        assert "attention: test_convnext stands in" in shown
        assert "reference_image" in shown
        assert "Judged on" in shown
        assert all(warning.split("(")[0] in shown for warning in comparison.warnings)
    assert "//" not in page, "nothing is fetched"


def _section(text: str, one: Table) -> str:
    of_attribute = text.split(f"## {one.attribute}\n")[1].split("\n## ")[0]
    return of_attribute.split(f"### {one.title}\n")[1].split("\n### ")[0]


def test_signs_and_intervals_are_printed_in_per_cent() -> None:
    from catalog_enrichment.comparison.tables import Figure
    from catalog_enrichment.precision.bootstrap import Difference

    assert figure_text(Figure(0.4421, 0.41, 0.475, 0.008)) == "44.2 [41.0, 47.5] ± 0.8"
    assert figure_text(Figure(0.4421, 0.41, 0.475)) == "44.2 [41.0, 47.5]"
    assert difference_text(Difference(-0.031, -0.06, 0.002, 0.0301)) == "-3.1 [-6.0, +0.2], p 0.030"


def test_the_budget_caps_every_stage_and_seeds_shift_every_stage(tmp_path: Path) -> None:
    from catalog_enrichment.comparison.models import seeded

    stages = 'adapt = { method = "simcse", fit = { epochs = 9 } }, image = { epochs = 1, seed = 4 }'
    loaded = config(tmp_path, text=COMPARE.replace('"model.image.size" = 48', stages))
    text, attention, vote = entrants_of(loaded)
    (recipe,) = attention.members
    assert recipe.adapt is not None
    assert recipe.image is not None
    assert (recipe.fit.epochs, recipe.adapt.fit.epochs, recipe.image.epochs) == (2, 2, 1)
    assert vote.members == (*text.members, recipe)
    shifted = seeded(recipe, 3)
    assert shifted.adapt is not None
    assert shifted.image is not None
    assert (shifted.fit.seed, shifted.adapt.fit.seed, shifted.image.seed) == (3, 3, 7)
    assert replace(shifted, fit=recipe.fit, adapt=recipe.adapt, image=recipe.image) == recipe


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('recipes = ["text", "attention", "vote"', 'recipes = ["text", "nosuch"', r"no such recipe \['nosuch'\]"),
        ('members = ["text", "attention"]', 'members = ["text", "nosuch"]', r"members of vote: no such.*'attention'"),
        ('metrics = ["accuracy"]', 'metrics = ["bleu"]', "bleu"),
        ('baseline = "text"', 'baseline = "vot"', "baseline 'vot' is not one of its recipes"),
        ('kind = "modalities"', 'kind = "modalitys"', "modalitys"),
        ('name = "vote"', 'name = "text"', "different names"),
        ('name = "vote"', 'name = "status"', "'status' cannot be a model's name"),
        ('name = "vote"', 'name = "reference_text"', "'reference_text' cannot be"),
        ('name = "vote"', 'name = "vote"\nnmae = "x"', r"unknown key 'compare\.recipes\.2\.nmae'.*'members'"),
        ('members = ["text", "attention"]', 'members = ["text"]', "one member alone"),
        ('label_share_recipes = ["text"]', "label_share_recipes = []", "no such recipe"),
        ("label_shares = [0.5, 1.0]", "label_shares = []", "give label_shares"),
        ("label_shares = [0.5, 1.0]", "label_shares = [1.5]", r"lie in \(0, 1\]"),
        ("seeds = [0, 1]", "seeds = [1, 1]", "different numbers"),
        ('max_epochs = 2', 'max_epochs = 2\nfolds = ["certification"]', "certification"),
        ('kind = "label_shares"', 'kind = "mergers"', "needs a baseline"),
    ],
)  # fmt: skip
def test_a_mistake_in_the_section_is_found_when_the_config_is_read(
    tmp_path: Path, old: str, new: str, says: str
) -> None:
    assert old in COMPARE
    with pytest.raises(ConfigError, match=says):
        config(tmp_path, text=COMPARE.replace(old, new, 1))


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('"text_only" }', '"nosuch" }', r"compare\.recipes: text: toy\.toml.*no fusion 'nosuch'"),
        ('"text_only" }', '"text_only", "fit.epoch" = 3 }', r"unknown key 'fit\.epoch'.*'epochs'"),
        ('"text_only" }', '"text_only", "name.x" = 3 }', "'name' is a value, not a table"),
        (
            '"model.image.size" = 48 }',
            '"fit.epochs" = 3 }\nrecipe = "nosuch.toml"',
            r"attention: nosuch\.toml: no such",
        ),
    ],
)
def test_a_recipe_that_cannot_be_used_is_named(tmp_path: Path, old: str, new: str, says: str) -> None:
    assert old in COMPARE
    with pytest.raises(ConfigError, match=says):
        entrants_of(config(tmp_path, text=COMPARE.replace(old, new, 1)))


def test_any_share_of_the_labels_has_its_column_and_its_metrics(
    settings: Config, contest: Contest, comparison: Comparison
) -> None:
    third = 1 / 3
    shares = {("text", share): contest.shares["text", 0.5] for share in (third, 0.004)}
    assert settings.compare is not None
    found = compare(replace(contest, shares=shares), replace(settings.compare, label_shares=[third, 0.004]))
    (shown,) = [one for one in found.tables if one.title.startswith("Shares") and one.attribute == "color"]
    assert list(shown.columns.values()) == ["0.4%", "33.3333%"]
    assert set(found.at_shares["text"]) == {third, 0.004}
    assert found.metrics["text"]["color/accuracy"] == comparison.metrics["text"]["color/accuracy"]


def test_what_cannot_be_built_fails_before_anything_is_fitted(tmp_path: Path, rows: list[dict]) -> None:
    lines: list[str] = []
    broken = COMPARE.replace('"model.image.size" = 48', '"model.fusion.options" = { hiden = 3 }')
    with pytest.raises(ConfigError, match="hiden"):
        run_contest(lambda: batches(rows), DICTIONARY, config(tmp_path, text=broken), tmp_path / "w", lines.append)
    few = config(tmp_path, text=COMPARE.replace("[0.5, 1.0]", "[0.01, 1.0]"))
    with pytest.raises(DataContractError, match="fewer than 20"):
        run_contest(lambda: batches(rows), DICTIONARY, few, tmp_path / "v", lines.append)
    assert not [line for line in lines if "epoch" in line]


def test_an_interrupted_comparison_goes_on_and_is_fitted_as_the_training_is(tmp_path: Path, rows: list[dict]) -> None:
    settings = config(tmp_path, text=COMPARE.replace("threads = 1", 'threads = 1\ncheckpoints = "kept"'))
    fitted: list[str] = []

    def once(recipe: Recipe, task: Task, progress: Progress, checkpoints: Path | None = None) -> Fitted:
        if len(fitted) == 2:
            raise KeyboardInterrupt
        fitted.append(recipe.name)
        return fit(recipe, task, progress, checkpoints)

    with pytest.raises(KeyboardInterrupt):
        run_contest(lambda: batches(rows), DICTIONARY, settings, tmp_path / "w", silent, once)
    assert fitted == ["model text", "model attention"]
    lines: list[str] = []
    found = run_contest(lambda: batches(rows), DICTIONARY, settings, tmp_path / "v", lines.append)
    assert [line.partition(":")[0] for line in lines if "goes on after epoch 2" in line] == fitted
    again = run_contest(lambda: batches(rows), DICTIONARY, settings, tmp_path / "u", lines.append)
    for name, entry in found.entries.items():
        first, second = entry.outcomes[0].views["both"], again.entries[name].outcomes[0].views["both"]
        np.testing.assert_array_equal(first.at("color", found.index), second.at("color", found.index))


def test_a_model_that_cannot_be_fitted_is_left_out_and_named(tmp_path: Path, rows: list[dict]) -> None:
    """Also the baseline of a table, also what votes with it; what else was fitted is judged."""
    text = COMPARE.replace('name = "attention"\nset = {', 'name = "attention"\nset = { "fit.learning_rate" = 1e30,')
    settings = config(tmp_path, text=text.replace("seeds = [0, 1]", "seeds = [0]").replace("= 2", "= 1"))
    assert settings.compare is not None
    lines: list[str] = []
    found = run_contest(lambda: batches(rows), DICTIONARY, settings, tmp_path / "w", lines.append)
    assert set(found.failed) == {"attention", "vote"}
    assert "the loss is no number" in found.failed["attention"]
    assert [line for line in lines if line.startswith("attention: failed, and is left out")]
    assert list(found.entries) == ["text", *REFERENCES]
    asked = settings.compare
    asked = replace(asked, tables=[replace(asked.tables[0], kind="mergers", baseline="attention"), *asked.tables[1:]])
    comparison = compare(found, asked)
    shown = table(comparison, "Modalities")
    assert [row.name for row in shown.rows] == ["text", "reference_both"]
    assert (shown.baseline, shown.kind) == ("", "plain")
    assert "could not be fitted: attention, vote" in shown.note
    assert {line.partition(":")[0] for line in comparison.warnings} >= {"attention", "vote"}


def test_products_that_change_meanwhile_are_refused(settings: Config, rows: list[dict], tmp_path: Path) -> None:
    reads = iter([rows, rows[1:]])
    with pytest.raises(DataContractError, match="changed while they were read"):
        run_contest(lambda: batches(next(reads)), DICTIONARY, settings, tmp_path, silent)


def test_with_the_calibration_fold_there_are_more_products_to_judge_by(
    settings: Config, contest: Contest, rows: list[dict], tmp_path: Path
) -> None:
    one = COMPARE.split("[[compare.recipes]]")[0] + '[[compare.recipes]]\nname = "text"\n'
    one = one.replace("seeds = [0, 1]", 'folds = ["calibration", "test"]').replace("max_epochs = 2", "max_epochs = 1")
    one += 'set = { "model.fusion.kind" = "text_only" }\n'
    one = one.replace("label_shares = [0.5, 1.0]\n", "").replace('label_share_recipes = ["text"]\n', "")
    found = run_contest(lambda: batches(rows), DICTIONARY, config(tmp_path, text=one), tmp_path / "w", silent)
    assert set(found.index) > set(contest.index)
    sizes = contest.lineage["folds"]
    assert len(found.index) == sizes["calibration"] + sizes["test"] - (10 in found.index)
