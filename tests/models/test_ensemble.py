"""Several models that vote as one: what they say, and how they are kept (Bi et al. 2020, section 3.4; I8)."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from catalog_enrichment.errors import ConfigError, ModelContractError
from catalog_enrichment.inputs.product_batch import ProductBatch
from catalog_enrichment.models import artifact, ensemble
from catalog_enrichment.models.predictor import Predictor
from catalog_enrichment.models.recipe_files import load_model_recipe
from catalog_enrichment.models.spec import Ensemble, Recipe
from catalog_enrichment.records import Cardinality

from .conftest import HEADS, TEMPERATURES, network, tiny, tokenizers_of

KINDS_OF_MEMBERS = ("late", "modality_attention", "text_only")


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    member_folders = [folder / ensemble.MEMBERS / f"{number:02d}" for number in range(len(KINDS_OF_MEMBERS))]
    for member_folder, kind in zip(member_folders, KINDS_OF_MEMBERS, strict=True):
        recipe = tiny(kind)
        artifact.save(member_folder, network(recipe), tokenizers_of(recipe), recipe, TEMPERATURES)
    ensemble.save(folder, "three", member_folders)
    return folder


def test_votes_are_counted_and_the_mean_probability_breaks_ties(saved: Path, batch: ProductBatch) -> None:
    together = ensemble.load(saved).predict(batch)
    apart = [
        Predictor.load(member_folder).predict(batch) for member_folder in sorted((saved / ensemble.MEMBERS).iterdir())
    ]
    for name, head in HEADS.items():
        each = [scores.probabilities[name].astype(np.float64) for scores in apart]
        for product in range(len(batch)):
            votes = np.zeros(len(head.labels))
            for probabilities in each:
                member_scores = probabilities[product]
                votes += (
                    member_scores >= 0.5
                    if head.cardinality is Cardinality.MANY
                    else member_scores == member_scores.max()
                )
            mean = sum(probabilities[product] for probabilities in each) / len(each)
            expected = (votes + mean) / (len(each) + 1)
            np.testing.assert_allclose(together.probabilities[name][product], expected, atol=1e-6)


def test_a_vote_is_one_model_version(saved: Path) -> None:
    artifact.write_certificates(saved, [{"attribute": "type"}])
    artifact.verify(saved)
    assert artifact.heads(saved) == HEADS
    assert artifact.read_certificates(saved) == [{"attribute": "type"}]
    assert ensemble.load(saved).heads == HEADS


def test_the_scores_identity_changes_with_any_members_weights(saved: Path, tmp_path: Path) -> None:
    before = artifact.weights_hash(saved)
    artifact.write_certificates(saved, [])
    assert artifact.weights_hash(saved) == before
    other = tmp_path / "other"
    shutil.copytree(saved, other)
    shutil.copy(other / "members/00/model.safetensors", other / "members/01/model.safetensors")
    assert artifact.weights_hash(other) != before
    assert artifact.preprocessing_hash(other) == artifact.preprocessing_hash(saved)


@pytest.mark.parametrize("what", ["a member gone", "a member damaged"])
def test_a_damaged_vote_is_refused(what: str, saved: Path) -> None:
    if what == "a member gone":
        shutil.rmtree(saved / ensemble.MEMBERS / "01")
    else:
        (saved / ensemble.MEMBERS / "01" / artifact.MODEL).write_text(json.dumps({}))
    with pytest.raises(ModelContractError, match="members/01"):
        ensemble.load(saved)


def recipe_files(folder: Path, members: str) -> Path:
    (folder / "small.toml").write_text(
        'name = "small"\n[model.text]\nname = "x"\n[model.image]\nsize = 64\n[fit]\nepochs = 3\n'
    )
    (folder / "vote.toml").write_text(f'name = "vote"\nmembers = [{members}]\n')
    return folder / "vote.toml"


def test_an_ensembles_recipe_names_recipes_and_what_is_changed_in_them(tmp_path: Path) -> None:
    file = recipe_files(
        tmp_path, '"small.toml", { recipe = "small.toml", "fit.seed" = 4, "model.fusion.options.layers" = 1 }'
    )
    ensemble_recipe = load_model_recipe(file)
    assert isinstance(ensemble_recipe, Ensemble)
    assert [member.fit.seed for member in ensemble_recipe.members] == [0, 4]
    assert ensemble_recipe.members[1].model.fusion.options == {"layers": 1}
    assert isinstance(load_model_recipe(tmp_path / "small.toml"), Recipe)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ('"small.toml"', "at least two"),
        ('"small.toml", "gone.toml"', "member 1 names no recipe"),
        (
            '"small.toml", { recipe = "small.toml", "model.image.size" = 96 }',
            "same model.image.size.*64 and false and 96 and false",
        ),
        ('"small.toml", { recipe = "small.toml", "model.image.trim" = true }', "64 and false and 64 and true"),
        ('"small.toml", { recipe = "small.toml", "fit.sed" = 1 }', "member 1.*'fit\\.sed'"),
    ],
)
def test_an_unusable_ensemble_is_a_config_error(members: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        load_model_recipe(recipe_files(tmp_path, members))
