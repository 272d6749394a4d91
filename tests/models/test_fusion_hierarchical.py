"""Hierarchical fusion against equation 1 and section III-C of Tashu et al. 2022."""

from __future__ import annotations

from itertools import product as every
from typing import Any

import numpy as np
import pytest
import torch

from catalog_enrichment.models.fusion.base import EncoderOutputs, Fusion
from catalog_enrichment.models.fusion.hierarchical import Projection

from .plain import (
    HAS_IMAGE,
    HEADS,
    TEXTS,
    B,
    every_product,
    linear,
    numbers,
    randomised,
    views,
    weight,
)

JOINS = ("add", "concat", "average")


def z(parts: list[np.ndarray | None], how: str) -> np.ndarray | None:
    """Return Z of section III-C. A missing part is None: an average leaves it out, the other joins take it for 0."""
    there = [part for part in parts if part is not None]
    if not there:
        return None
    zero = np.zeros_like(there[0])
    if how == "concat":
        return np.concatenate([zero if part is None else part for part in parts])
    total = sum(there, zero)
    return total / len(there) if how == "average" else total


def projected(vector: np.ndarray, fusion: Fusion, width: int) -> np.ndarray:
    """Convolve along the vector, and pool the largest to ``width`` numbers."""
    kernel, bias = weight(fusion, "projection.convolution.weight")[0, 0], weight(fusion, "projection.convolution.bias")
    reach = len(kernel) // 2
    padded = np.concatenate([np.zeros(reach), vector, np.zeros(reach)])
    actual = [sum(kernel * padded[at : at + len(kernel)]) + bias[0] for at in range(len(vector))]
    starts = [at * len(actual) // width for at in range(width)]
    ends = [-(-(at + 1) * len(actual) // width) for at in range(width)]
    return np.array([max(actual[start:end]) for start, end in zip(starts, ends, strict=True)])


def expected(
    encoded: EncoderOutputs, fusion: Fusion, texts: str, joins: tuple[str, str, str], product: int
) -> np.ndarray:
    """Return f's last hidden layer over Z(P, Z(Z(T_f, D_f), Z(T_c, D_c))), eq. 1."""
    fields, encoders, modalities = joins
    vectors = [
        numbers(view.vector)[product] if there[product] else None
        for view, there in zip(encoded.texts, TEXTS[texts], strict=True)
    ]
    if "apart" in texts:
        pairs = [vectors[at : at + 2] for at in range(0, len(vectors), 2)]
        vectors = [z(pair, fields) for pair in pairs]
    text = z(vectors, encoders)
    assert text is not None
    assert encoded.image is not None
    picture = projected(numbers(encoded.image.vector)[product], fusion, len(text)) if HAS_IMAGE[product] else None
    top = z([text, picture], modalities)
    assert top is not None
    for layer in ("hidden.0", "hidden.2"):
        top = np.maximum(linear(top, fusion, layer), 0)
    return top


@pytest.mark.parametrize("joins", list(every(JOINS, JOINS, JOINS)), ids="-".join)
def test_every_join_at_every_level_is_equation_1(joins: tuple[str, str, str]) -> None:
    for texts, image_width in (("two encoders apart", 10), ("apart", 7), ("two encoders", 4), ("pair", 10)):
        options: dict[str, Any] = dict(zip(("fields", "texts", "modalities"), joins, strict=True))
        fusion = randomised("hierarchical", texts, image_width, options | {"hidden": 5})
        encoded = views(texts, image_width=image_width)
        tops = [expected(encoded, fusion, texts, joins, product) for product in range(B)]
        fused = fusion(encoded)
        for attribute in range(len(HEADS)):
            every_product([linear(top, fusion, f"classifiers.{attribute}") for top in tops], fused.logits[attribute])


@pytest.mark.parametrize(("image", "text"), [(10, 6), (6, 6), (4, 10), (1, 3), (5, 1)])
def test_any_image_width_is_projected_to_any_text_width(image: int, text: int) -> None:
    torch.manual_seed(0)
    projection = Projection(text)
    pixels = torch.randn(3, image)
    encoded = projection(pixels)
    assert encoded.shape == (3, text)
    if image == text:
        torch.testing.assert_close(encoded, projection.convolution(pixels[:, None])[:, 0])
