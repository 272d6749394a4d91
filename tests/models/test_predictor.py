"""Scores of a model, of a vote (Bi et al. 2020, section 3.4), and with has-value heads; how both are stored (I8)."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from catalog_enrichment.errors import ModelContractError
from catalog_enrichment.inputs.product_batch import ProductBatch
from catalog_enrichment.inputs.square import Square
from catalog_enrichment.inputs.text import TextTokenizer
from catalog_enrichment.models import artifact, has_value, version_files
from catalog_enrichment.models.network import MultiModalNet
from catalog_enrichment.models.predictor import Predictor, load_predictor
from catalog_enrichment.models.preprocess import Preprocessor
from catalog_enrichment.records import Cardinality, Modality

from .conftest import HEADS, KINDS, SIZE, TEMPERATURES, network, predictor_of, save, tiny


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return predictor_of(tiny())


@pytest.mark.parametrize("variant", ["pair lcnet", "apart second vit"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_mixed_batch_scores_as_its_products_one_by_one(kind: str, variant: str, batch: ProductBatch) -> None:
    predictor = predictor_of(tiny(kind, variant))
    together = predictor.predict(batch)
    assert together.has_image.tolist() == [True, False, True, True, False, True]
    for row in range(6):
        single = predictor.predict(ProductBatch([batch.titles[row]], [batch.descriptions[row]], [batch.pictures[row]]))
        assert single.has_image[0] == together.has_image[row]
        for name in HEADS:
            np.testing.assert_allclose(single.probabilities[name][0], together.probabilities[name][row], atol=1e-5)
            np.testing.assert_allclose(single.attention[name][0], together.attention[name][row], atol=1e-5)


def test_probabilities_are_calibrated_softmax_for_one_value_and_sigmoid_for_many(
    predictor: Predictor, net: MultiModalNet, tokenizers: dict[str, TextTokenizer], batch: ProductBatch
) -> None:
    with torch.inference_mode():
        logits = net(Preprocessor(tokenizers, tiny().model).inputs(batch)).logits
    scores = predictor.predict(batch)
    for name in ("type", "color.main"):
        exponentials = np.exp(logits[name].double().numpy() / TEMPERATURES[name])
        expected = exponentials / exponentials.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(scores.probabilities[name], expected, atol=1e-6)
    expected = 1 / (1 + np.exp(-logits["material"].double().numpy() / TEMPERATURES["material"]))
    np.testing.assert_allclose(scores.probabilities["material"], expected, atol=1e-6)
    assert {array.dtype for array in scores.probabilities.values()} == {np.dtype(np.float32)}
    assert scores.probabilities["type"].shape == (6, 3)


def test_a_network_left_in_training_mode_predicts_as_in_eval_mode(
    tokenizers: dict[str, TextTokenizer], batch: ProductBatch
) -> None:
    predictor = Predictor(network(tiny()).train(), tokenizers, tiny().model, TEMPERATURES)
    first, second = predictor.predict(batch), predictor.predict(batch)
    assert all(np.array_equal(first.probabilities[name], second.probabilities[name]) for name in HEADS)


@pytest.mark.parametrize("variant", ["apart second vit", "pair regions"])
@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_batch_gives_empty_scores(kind: str, variant: str) -> None:
    scores = predictor_of(tiny(kind, variant)).predict(ProductBatch([], [], []))
    assert scores.probabilities["material"].shape == (0, 4)
    assert scores.attention["type"].shape == (0,)
    assert scores.has_image.shape == (0,)


@pytest.mark.parametrize("kind", KINDS)
def test_a_product_without_anything_is_scored(kind: str) -> None:
    empty = ProductBatch([None, ""], [None, ""], [None, None])
    scores = predictor_of(tiny(kind, "apart second vit")).predict(empty)
    for name, head in HEADS.items():
        assert scores.probabilities[name].shape == (2, len(head.labels))
        assert np.isfinite(scores.probabilities[name]).all()
        np.testing.assert_allclose(*scores.probabilities[name], atol=1e-6)


def test_malformed_and_huge_texts_are_scored(predictor: Predictor) -> None:
    titles = [None, "", "\x00", "\ud83d broken", "م" * 100_000, "word " * 200_000]
    scores = predictor.predict(ProductBatch(titles, titles[::-1], [None] * 6))
    assert all(np.isfinite(array).all() for array in scores.probabilities.values())


def test_a_loaded_version_fits_pictures_as_its_recipe_says(tmp_path: Path) -> None:
    recipe = tiny()
    recipe = replace(recipe, model=replace(recipe.model, image=replace(recipe.model.image, trim=True)))
    assert Predictor.load(save(tmp_path / "model", recipe)).square == Square(SIZE, trim=True)


def test_attention_is_nan_without_modality_weights(batch: ProductBatch) -> None:
    scores = predictor_of(tiny("concat")).predict(batch)
    assert all(np.isnan(weight).all() and weight.shape == (6,) for weight in scores.attention.values())


# ---- votes

KINDS_OF_MEMBERS = ("late", "modality_attention", "text_only")


@pytest.fixture
def vote(tmp_path: Path) -> Path:
    folder = tmp_path / "vote"
    member_folders = [folder / artifact.MEMBERS / f"{number:02d}" for number in range(len(KINDS_OF_MEMBERS))]
    for member_folder, kind in zip(member_folders, KINDS_OF_MEMBERS, strict=True):
        save(member_folder, tiny(kind))
    artifact.save_ensemble(folder, "three", member_folders)
    return folder


def test_votes_are_counted_and_the_mean_probability_breaks_ties(vote: Path, batch: ProductBatch) -> None:
    together = load_predictor(vote).predict(batch)
    apart = [Predictor.load(folder).predict(batch) for folder in sorted((vote / artifact.MEMBERS).iterdir())]
    for name, head in HEADS.items():
        each = np.stack([scores.probabilities[name].astype(np.float64) for scores in apart])  # (members, B, V)
        votes = each >= 0.5 if head.cardinality is Cardinality.MANY else each == each.max(axis=2, keepdims=True)
        expected = (votes.sum(axis=0) + each.mean(axis=0)) / (len(each) + 1)
        np.testing.assert_allclose(together.probabilities[name], expected, atol=1e-6)


def test_a_vote_is_one_model_version(vote: Path) -> None:
    version_files.write_certificates(vote, [{"attribute": "type"}])
    artifact.verify(vote)
    assert artifact.heads(vote) == HEADS
    assert version_files.read_certificates(vote) == [{"attribute": "type"}]
    assert load_predictor(vote).heads == HEADS


def test_the_scores_identity_changes_with_any_members_weights(vote: Path, tmp_path: Path) -> None:
    before = artifact.weights_hash(vote)
    version_files.write_certificates(vote, [])
    assert artifact.weights_hash(vote) == before
    other = tmp_path / "other"
    shutil.copytree(vote, other)
    shutil.copy(other / "members/00/model.safetensors", other / "members/01/model.safetensors")
    assert artifact.weights_hash(other) != before
    assert artifact.preprocessing_hash(other) == artifact.preprocessing_hash(vote)


@pytest.mark.parametrize("what", ["a member gone", "a member damaged"])
def test_a_damaged_vote_is_refused(what: str, vote: Path) -> None:
    if what == "a member gone":
        shutil.rmtree(vote / artifact.MEMBERS / "01")
    else:
        (vote / artifact.MEMBERS / "01" / artifact.MODEL).write_text(json.dumps({}))
    with pytest.raises(ModelContractError, match="members/01"):
        load_predictor(vote)


# ---- has-value heads


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return save(tmp_path / "model", tiny("late"))


def heads_of(folder: Path, batch: ProductBatch, scale: float = 1.0) -> dict[tuple[str, Modality], np.ndarray]:
    """Return a head with random weights for the first attribute of products with a picture."""
    width = load_predictor(folder).predict(batch).vectors.shape[1]
    weights = np.random.default_rng(0).standard_normal(width + 1).astype(np.float32) * scale
    return {(next(iter(HEADS)), Modality.BOTH): weights}


def test_a_probability_is_the_exponential_of_the_log_ratio_and_at_most_one() -> None:
    head = np.array([2.0, 0.0, -1.0], dtype=np.float32)
    vectors = np.array([[0.5, 9.0], [0.0, 9.0], [3.0, 9.0]], dtype=np.float32)
    assert has_value.has_value(head, vectors).tolist() == pytest.approx([1.0, np.exp(-1.0), 1.0])


def test_only_products_of_the_heads_path_and_attribute_are_multiplied(saved: Path, batch: ProductBatch) -> None:
    plain, heads = load_predictor(saved).predict(batch), heads_of(saved, batch, 5.0)
    artifact.write_has_value(saved, heads)
    scores = load_predictor(saved).predict(batch)
    (first, _), weights = next(iter(heads.items()))
    factors = np.where(plain.has_image, has_value.has_value(weights, plain.vectors), 1.0)
    assert factors.min() < 0.9
    for name in HEADS:
        expected = plain.probabilities[name] * (factors[:, None] if name == first else 1.0)
        np.testing.assert_allclose(scores.probabilities[name], expected, rtol=1e-5)
        assert scores.probabilities[name].dtype == np.float32
    np.testing.assert_array_equal(scores.attention[first], plain.attention[first])


def test_heads_are_kept_in_the_model_version_and_change_its_weights_hash(saved: Path, batch: ProductBatch) -> None:
    heads, before = heads_of(saved, batch), artifact.weights_hash(saved)
    artifact.write_has_value(saved, {})
    assert artifact.weights_hash(saved) == before
    assert not (saved / has_value.FILE).exists()
    artifact.write_has_value(saved, heads)
    artifact.verify(saved)
    assert artifact.weights_hash(saved) != before
    loaded = has_value.load(saved)
    assert list(loaded) == list(heads)
    for key, weights in heads.items():
        np.testing.assert_array_equal(loaded[key], weights)


def test_a_changed_or_damaged_file_is_refused(saved: Path, batch: ProductBatch) -> None:
    artifact.write_has_value(saved, heads_of(saved, batch))
    (saved / has_value.FILE).write_bytes(b"no safetensors")
    with pytest.raises(ModelContractError, match=r"has_value.safetensors does not match its checksum"):
        load_predictor(saved)
    with pytest.raises(ModelContractError, match=r"has_value.safetensors cannot be read"):
        has_value.load(saved)


def test_the_heads_of_a_vote_use_the_vectors_of_its_first_member(vote: Path, batch: ProductBatch) -> None:
    first_member = load_predictor(vote / artifact.MEMBERS / "00").predict(batch)
    assert np.array_equal(load_predictor(vote).predict(batch).vectors, first_member.vectors)
    heads = heads_of(vote, batch, 5.0)
    artifact.write_has_value(vote, heads)
    ((first, _),) = heads
    assert (load_predictor(vote).predict(batch).probabilities[first].max(axis=1) < 0.9).any()
