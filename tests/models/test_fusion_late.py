"""Late fusion against section 3.3.1 of Chen et al. 2021."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from catalog_enrichment.models.fusion.base import EncoderOutput, EncoderOutputs, HeldOutTargets
from catalog_enrichment.models.spec import Head
from catalog_enrichment.records import Cardinality

from .plain import (
    HAS_IMAGE,
    HEADS,
    TEXTS,
    B,
    D,
    H,
    image_of,
    linear,
    numbers,
    probability,
    randomised,
    scores,
    text_of,
    views,
)


@pytest.mark.parametrize("texts", TEXTS)
def test_late_fusion_interpolates_the_probabilities_of_two_classifiers(texts: str) -> None:
    fusion, encoded = randomised("late", texts), views(texts)
    alphas = (0.3, 0.85)
    fusion.get_buffer("alpha").copy_(torch.tensor(alphas))
    fused = fusion(encoded)
    for attribute, (head, alpha) in enumerate(zip(HEADS, alphas, strict=True)):
        for product in range(B):
            x_txt, x_img = text_of(encoded, fusion, product), image_of(encoded, fusion, product)
            p_txt = probability(linear(x_txt, fusion, f"text_classifiers.{attribute}"), head)
            p_img = probability(linear(x_img, fusion, f"image_classifiers.{attribute}"), head)
            expected = alpha * p_txt + (1 - alpha) * p_img if HAS_IMAGE[product] else p_txt
            np.testing.assert_allclose(scores(fused, attribute)[product], expected, atol=1e-5)


def test_a_product_with_only_a_picture_gets_the_image_classifiers_probabilities() -> None:
    fusion, encoded = randomised("late"), views()
    text = encoded.texts[0]
    unread = replace(text, vector=torch.zeros_like(text.vector), present=torch.zeros(B, dtype=torch.bool))
    fused = fusion(EncoderOutputs((unread,), encoded.image))
    for attribute, head in enumerate(HEADS):
        for product in np.flatnonzero(HAS_IMAGE):
            x_img = image_of(encoded, fusion, product)
            expected = probability(linear(x_img, fusion, f"image_classifiers.{attribute}"), head)
            np.testing.assert_allclose(scores(fused, attribute)[product], expected, atol=1e-5)


def many_views(products: int, share_with_image: float, seed: int = 3) -> EncoderOutputs:
    random = torch.Generator().manual_seed(seed)

    def view(width: int, present: torch.Tensor) -> EncoderOutput:
        vector = torch.randn(products, width, generator=random)
        return EncoderOutput.of(vector, vector[:, None], present[:, None], present)

    has_image = torch.rand(products, generator=random) < share_with_image
    return EncoderOutputs((view(H, torch.ones(products, dtype=torch.bool)),), view(D, has_image))


def surprise(p: np.ndarray, truth: np.ndarray, head: Head) -> float:
    """Return the mean negative log-likelihood; both (n, V)."""
    if head.cardinality is Cardinality.ONE:
        return float(-np.log(p[truth > 0]).mean())
    return float(-np.where(truth > 0, np.log(p), np.log(1 - p)).mean())


def test_alpha_is_the_best_of_a_brute_force_search_over_held_out_products_with_both() -> None:
    """Products without a picture do not see alpha, so they have no say in it: here they would all want the text."""
    fusion, encoded = randomised("late"), many_views(400, share_with_image=0.4)
    assert encoded.image is not None
    has_image = encoded.image.present.numpy()
    with torch.no_grad():
        held_out = fusion(encoded)
    random = np.random.default_rng(0)
    known, best = [], []
    for attribute, (head, wanted) in enumerate(zip(HEADS, (0.3, 0.6), strict=True)):
        p_txt = np.array([probability(row, head) for row in numbers(held_out.experts[0][attribute])])
        p_img = np.array([probability(row, head) for row in numbers(held_out.experts[1][attribute])])
        mixed = wanted * p_txt + (1 - wanted) * p_img
        if head.cardinality is Cardinality.ONE:
            drawn = np.array([random.choice(len(row), p=row / row.sum()) for row in mixed])
            truth = np.eye(len(head.labels))[np.where(has_image, drawn, p_txt.argmax(axis=1))]
        else:
            truth = np.where(has_image[:, None], random.random(mixed.shape) < mixed, p_txt > 0.5).astype(float)
        learnable = random.random(len(truth)) < 0.8
        truth[~learnable] = np.roll(truth[~learnable], 1, axis=1)
        used = learnable & has_image
        losses = [surprise((a * p_txt + (100 - a) * p_img)[used] / 100, truth[used], head) for a in range(101)]
        best.append(int(np.argmin(losses)) / 100)
        known.append(HeldOutTargets(torch.from_numpy(truth).float(), torch.from_numpy(learnable)))
    assert all(0 < alpha < 1 for alpha in best)
    chosen = fusion.choose_parameters(held_out, known, seed=0)
    assert chosen == pytest.approx({"alpha/0": best[0], "alpha/1": best[1]}, abs=1e-6)
    np.testing.assert_allclose(fusion.get_buffer("alpha"), best, atol=1e-6)

    settled = fusion(encoded)
    for attribute, head in enumerate(HEADS):
        p_txt, p_img = (
            np.array([probability(row, head) for row in numbers(expert[attribute])]) for expert in held_out.experts
        )
        expected = np.where(has_image[:, None], best[attribute] * p_txt + (1 - best[attribute]) * p_img, p_txt)
        np.testing.assert_allclose(scores(settled, attribute), expected, atol=1e-5)
        assert torch.equal(settled.experts[0][attribute], held_out.experts[0][attribute])


@pytest.mark.parametrize(("share_with_image", "learnable"), [(0.0, True), (1.0, False)])
def test_alpha_stays_without_usable_choosing_products(share_with_image: float, learnable: bool) -> None:
    fusion = randomised("late")
    held_out = fusion(many_views(20, share_with_image))
    known = [HeldOutTargets(torch.ones(20, len(head.labels)), torch.full((20,), learnable)) for head in HEADS]
    assert fusion.choose_parameters(held_out, known, seed=0) == {}
    assert fusion.get_buffer("alpha").tolist() == [0.5, 0.5]


def test_without_a_picture_only_the_text_classifier_gets_a_gradient() -> None:
    fusion, encoded = randomised("late"), views()
    missing = torch.from_numpy(~HAS_IMAGE)
    text, image = fusion(encoded).experts
    image[0][missing].sum().backward()
    assert not any(weight.grad is not None and weight.grad.any() for weight in fusion.parameters())
    text[0][missing].sum().backward()
    assert fusion.get_parameter("text_classifiers.0.weight").grad is not None
