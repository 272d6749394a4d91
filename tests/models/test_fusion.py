"""The fusions against an independent plain computation of the paper's equations (De la Comble et al. 2022)."""

from __future__ import annotations

import math
from typing import get_args

import numpy as np
import pytest
import torch

from catalog_enrichment.errors import ConfigError
from catalog_enrichment.models.fusion import FUSIONS, Fusion, ModalityAttention, Widths, fusion_class, kl_to_uniform
from catalog_enrichment.models.spec import FusionKind, FusionSpec

B, H, D, A = 5, 6, 4, 3
HAS_IMAGE = np.array([True, True, False, True, False])


def randomised(kind: str) -> Fusion:
    """A fusion whose LayerNorm parameters are not the neutral ones it starts with."""
    torch.manual_seed(0)
    fusion = FUSIONS[kind](Widths(H, D, A))
    for weight in fusion.parameters():
        torch.nn.init.normal_(weight)
    return fusion


def vectors() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    return torch.randn(B, H) * 10, torch.randn(B, D)


def weights(fusion: Fusion, name: str) -> np.ndarray:
    return fusion.get_parameter(name).detach().numpy().astype(np.float64)


def layer_norm(x: np.ndarray, fusion: Fusion, which: str) -> np.ndarray:
    rows = []
    for row in x.astype(np.float64):
        centred = row - row.sum() / len(row)
        deviation = math.sqrt((centred**2).sum() / len(row) + 1e-5)
        rows.append(centred / deviation * weights(fusion, f"{which}.weight") + weights(fusion, f"{which}.bias"))
    return np.array(rows)


def test_modality_attention_is_equations_2_and_3_for_every_attribute() -> None:
    fusion, (text, image) = randomised("modality_attention"), vectors()
    fused = fusion(text, image, torch.from_numpy(HAS_IMAGE))
    x_txt, x_img = layer_norm(text.numpy(), fusion, "text_norm"), layer_norm(image.numpy(), fusion, "image_norm")
    w, b = weights(fusion, "importance.weight"), weights(fusion, "importance.bias")
    assert fused.features.shape == (B, A, H + D)
    for product in np.flatnonzero(HAS_IMAGE):
        for attribute in range(A):
            joined = [*x_txt[product], *x_img[product]]
            p = 1 / (1 + math.exp(-(sum(w[attribute] * joined) + b[attribute])))
            expected = [*(p * x_txt[product]), *((1 - p) * x_img[product])]
            assert fused.attention[product, attribute].item() == pytest.approx(p, abs=1e-5)
            np.testing.assert_allclose(fused.features[product, attribute].detach(), expected, atol=1e-4)


def test_without_a_picture_the_text_counts_alone_and_fully() -> None:
    fusion, (text, image) = randomised("modality_attention"), vectors()
    fused = fusion(text, image, torch.from_numpy(HAS_IMAGE))
    x_txt = layer_norm(text.numpy(), fusion, "text_norm")
    for product in np.flatnonzero(~HAS_IMAGE):
        assert (fused.attention[product] == 1).all()
        for attribute in range(A):
            np.testing.assert_allclose(fused.features[product, attribute, :H].detach(), x_txt[product], atol=1e-4)
            assert (fused.features[product, attribute, H:] == 0).all()


def test_concat_joins_the_normalised_vectors() -> None:
    fusion, (text, image) = randomised("concat"), vectors()
    fused = fusion(text, image, torch.from_numpy(HAS_IMAGE))
    x_img = layer_norm(image.numpy(), fusion, "image_norm") * HAS_IMAGE[:, None]
    expected = np.hstack([layer_norm(text.numpy(), fusion, "text_norm"), x_img])
    assert fused.attention is None
    for attribute in range(A):
        np.testing.assert_allclose(fused.features[:, attribute].detach(), expected, atol=1e-4)


@pytest.mark.parametrize(("kind", "which"), [("text_only", "text_norm"), ("image_only", "image_norm")])
def test_single_modalities_see_only_their_own_vector(kind: str, which: str) -> None:
    fusion, (text, image) = randomised(kind), vectors()
    empty = torch.zeros(B, 0)
    has_image = torch.from_numpy(HAS_IMAGE)
    if kind == "text_only":
        fused, expected = fusion(text, empty, has_image), layer_norm(text.numpy(), fusion, which)
    else:
        fused, expected = fusion(empty, image, has_image), layer_norm(image.numpy(), fusion, which) * HAS_IMAGE[:, None]
    assert fused.attention is None
    assert fused.features.shape == (B, A, fusion.width)
    np.testing.assert_allclose(fused.features[:, 1].detach(), expected, atol=1e-4)


@pytest.mark.parametrize("kind", sorted(set(FUSIONS) - {"text_only"}))
def test_what_stands_where_a_picture_is_missing_changes_nothing(kind: str) -> None:
    fusion, (text, image) = randomised(kind), vectors()
    text = text if fusion.uses_text else torch.zeros(B, 0)
    other = image.clone()
    other[~HAS_IMAGE] = 1e6
    first, second = (fusion(text, which, torch.from_numpy(HAS_IMAGE)).features for which in (image, other))
    assert torch.equal(first, second)


def test_a_saturated_attention_is_told_from_a_missing_picture_and_keeps_a_finite_gradient() -> None:
    fusion = ModalityAttention(Widths(H, D, A))
    torch.nn.init.constant_(fusion.importance.bias, 200.0)
    text, image = vectors()
    attention = fusion(text, image, torch.ones(B, dtype=torch.bool)).attention
    assert (attention < 1).all()
    kl_to_uniform(attention).sum().backward()
    assert all(torch.isfinite(weight.grad).all() for weight in fusion.parameters() if weight.grad is not None)


def test_kl_is_equation_5() -> None:
    for p in (0.5, 0.1, 0.8, 0.999):
        expected = p * math.log(p) + (1 - p) * math.log(1 - p) + math.log(2)
        assert kl_to_uniform(torch.tensor([p])).item() == pytest.approx(expected, abs=1e-6)
    # and the general definition, sum of p log(p / q)
    p, q = np.array([0.3, 0.7]), np.array([0.5, 0.5])
    assert kl_to_uniform(torch.tensor(0.3)).item() == pytest.approx(float((p * np.log(p / q)).sum()), abs=1e-6)


def test_kl_is_zero_without_a_picture_and_finite_with_its_gradient_at_the_ends() -> None:
    attention = torch.tensor([1.0, 0.0, 1e-30, 1 - 1e-6, 0.5], requires_grad=True)
    divergence = kl_to_uniform(attention)
    divergence.sum().backward()
    assert divergence[0] == 0
    assert attention.grad[0] == 0
    assert torch.isfinite(divergence).all()
    assert torch.isfinite(attention.grad).all()
    assert divergence[1].item() == pytest.approx(math.log(2), abs=1e-4)


def test_recipes_can_name_exactly_the_fusions_there_are() -> None:
    assert set(get_args(FusionKind)) == set(FUSIONS)


def test_an_unknown_fusion_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="modality_attention"):
        fusion_class(FusionSpec(kind="mixture"))  # type: ignore[arg-type]
