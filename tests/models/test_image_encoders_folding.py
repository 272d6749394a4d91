"""Batch normalisations folded into the convolutions before them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from timm.layers import BatchNormAct2d
from torch import nn

from catalog_enrichment.inputs.product_batch import ProductBatch
from catalog_enrichment.models import artifact
from catalog_enrichment.models.image_encoders import ImageEncoder, fold_batch_norms
from catalog_enrichment.models.predictor import Predictor

from .conftest import SIZE, TEMPERATURES, network, tiny, tokenizers_of


@pytest.fixture
def encoder() -> ImageEncoder:
    """An encoder with statistics and weights as after training, not those that a normalisation begins with."""
    return trained(network(tiny("image_only")).image)


def trained(encoder: Any) -> ImageEncoder:
    random = torch.Generator().manual_seed(1)
    for norm in norms(encoder):
        for values in (norm.weight.data, norm.running_var):
            values.uniform_(0.5, 2, generator=random)
        for values in (norm.bias.data, norm.running_mean):
            values.normal_(generator=random)
    return encoder.eval()


def norms(encoder: nn.Module) -> list[Any]:
    return [module for module in encoder.modules() if isinstance(module, nn.BatchNorm2d)]


def outputs(encoder: ImageEncoder) -> list[np.ndarray]:
    pixels = torch.randn(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(7))
    with torch.inference_mode():
        return [found.numpy() for found in encoder(pixels)]


def test_no_normalisation_is_left_and_the_outputs_stay(encoder: ImageEncoder) -> None:
    before, count = outputs(encoder), len(norms(encoder))
    assert fold_batch_norms(encoder, SIZE) == count > 5
    assert norms(encoder) == []
    for expected, found in zip(before, outputs(encoder), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


class Odd(nn.Module):
    """Convolutions that must stay as they are, and a convolution that need not."""

    def __init__(self) -> None:
        super().__init__()
        self.used_twice, self.with_it = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)
        self.called_twice, self.called_norms = nn.Conv2d(4, 4, 1), nn.ModuleList([nn.BatchNorm2d(4) for _ in range(2)])
        self.plain, self.with_act = nn.Conv2d(4, 4, 1, bias=False), BatchNormAct2d(4)

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        first = self.used_twice(pixels)
        found = first + self.with_it(first) if self.residual else self.with_it(first)
        for norm in self.called_norms:
            found = norm(self.called_twice(found))
        found = self.with_act(self.plain(found))
        return found, found.mean((2, 3))

    residual = False


def test_a_convolution_that_is_called_twice_is_left_alone() -> None:
    odd: Any = trained(Odd())
    before = outputs(odd)
    assert fold_batch_norms(odd, SIZE) == 2
    assert norms(odd) == list(odd.called_norms)
    assert isinstance(odd.with_act[1], nn.ReLU)
    for expected, found in zip(before, outputs(odd), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


def test_an_encoder_whose_outputs_would_change_is_left_alone() -> None:
    """It uses the output of a convolution in another way too."""
    odd: Any = trained(Odd())
    odd.residual = True
    before = outputs(odd)
    assert fold_batch_norms(odd, SIZE) == 0
    assert len(norms(odd)) == 4
    assert all(np.array_equal(expected, found) for expected, found in zip(before, outputs(odd), strict=True))


def test_a_loaded_model_is_folded_and_scores_as_before(batch: ProductBatch, tmp_path: Path) -> None:
    recipe = tiny()
    net, tokenizers = network(recipe), tokenizers_of(recipe)
    trained(net.image)
    artifact.save(tmp_path / "model", net, tokenizers, recipe, TEMPERATURES)
    loaded = Predictor.load(tmp_path / "model")
    assert norms(loaded._net.image) == []  # type: ignore[arg-type]
    expected = Predictor(net, tokenizers, recipe.model, TEMPERATURES).predict(batch)
    found = loaded.predict(batch)
    for name, scores in expected.probabilities.items():
        np.testing.assert_allclose(found.probabilities[name], scores, atol=1e-5)
