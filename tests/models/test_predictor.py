from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from catalog_enrichment.inputs.product_batch import ProductBatch
from catalog_enrichment.inputs.square import Square
from catalog_enrichment.inputs.tokenizer import TextTokenizer
from catalog_enrichment.models import artifact
from catalog_enrichment.models.network import MultiModalNet
from catalog_enrichment.models.predictor import Predictor
from catalog_enrichment.models.preprocess import Preprocessor

from .conftest import HEADS, KINDS, SIZE, TEMPERATURES, network, tiny, tokenizers_of


@pytest.fixture
def predictor(net: MultiModalNet, tokenizers: dict[str, TextTokenizer]) -> Predictor:
    return Predictor(net, tokenizers, tiny().model, TEMPERATURES)


def predictor_of(kind: str, variant: str = "pair lcnet") -> Predictor:
    recipe = tiny(kind, variant)
    return Predictor(network(recipe), tokenizers_of(recipe), recipe.model, TEMPERATURES)


@pytest.mark.parametrize("variant", ["pair lcnet", "apart second vit"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_mixed_batch_scores_as_its_products_one_by_one(kind: str, variant: str, batch: ProductBatch) -> None:
    predictor = predictor_of(kind, variant)
    together = predictor.predict(batch)
    assert together.has_image.tolist() == [True, False, True, True, False, True]
    for row in range(6):
        single = predictor.predict(ProductBatch([batch.titles[row]], [batch.descriptions[row]], [batch.pictures[row]]))
        assert single.has_image[0] == together.has_image[row]
        for name in HEADS:
            for one, many in ((single.probabilities, together.probabilities), (single.attention, together.attention)):
                np.testing.assert_allclose(one[name][0], many[name][row], atol=1e-5)


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


def test_attention_is_one_without_a_picture(predictor: Predictor, batch: ProductBatch) -> None:
    scores = predictor.predict(batch)
    assert set(scores.attention) == set(HEADS)
    for weight in scores.attention.values():
        assert (weight[~scores.has_image] == 1).all()
        assert ((weight[scores.has_image] > 0) & (weight[scores.has_image] < 1)).all()


def test_attention_is_nan_without_modality_weights(batch: ProductBatch) -> None:
    scores = predictor_of("concat").predict(batch)
    assert all(np.isnan(weight).all() and weight.shape == (6,) for weight in scores.attention.values())


def test_a_network_left_in_training_mode_predicts_as_in_eval_mode(
    tokenizers: dict[str, TextTokenizer], batch: ProductBatch
) -> None:
    predictor = Predictor(network(tiny()).train(), tokenizers, tiny().model, TEMPERATURES)
    first, second = predictor.predict(batch), predictor.predict(batch)
    assert all(np.array_equal(first.probabilities[name], second.probabilities[name]) for name in HEADS)


def test_the_predictor_has_heads_square_and_numeric_path(predictor: Predictor) -> None:
    assert predictor.heads == HEADS
    assert predictor.square == Square(SIZE)
    assert predictor.compute_type == "fp32-cpu"


def test_a_loaded_version_fits_pictures_as_its_recipe_says(tmp_path: Path) -> None:
    recipe = tiny()
    recipe = replace(recipe, model=replace(recipe.model, image=replace(recipe.model.image, trim=True)))
    artifact.save(tmp_path / "model", network(recipe), tokenizers_of(recipe), recipe, TEMPERATURES)
    assert Predictor.load(tmp_path / "model").square == Square(SIZE, trim=True)


@pytest.mark.parametrize("variant", ["apart second vit", "pair regions"])
@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_batch_gives_empty_scores(kind: str, variant: str) -> None:
    scores = predictor_of(kind, variant).predict(ProductBatch([], [], []))
    assert scores.probabilities["material"].shape == (0, 4)
    assert scores.attention["type"].shape == (0,)
    assert scores.has_image.shape == (0,)


@pytest.mark.parametrize("kind", KINDS)
def test_a_product_without_anything_is_scored(kind: str) -> None:
    scores = predictor_of(kind, "apart second vit").predict(ProductBatch([None, ""], [None, ""], [None, None]))
    for name, head in HEADS.items():
        assert scores.probabilities[name].shape == (2, len(head.labels))
        assert np.isfinite(scores.probabilities[name]).all()
        np.testing.assert_allclose(*scores.probabilities[name], atol=1e-6)


def test_malformed_and_huge_texts_are_scored(predictor: Predictor) -> None:
    titles = [None, "", "\x00", "\ud83d broken", "م" * 100_000, "word " * 200_000]
    scores = predictor.predict(ProductBatch(titles, titles[::-1], [None] * 6))
    assert all(np.isfinite(array).all() for array in scores.probabilities.values())
