"""Small views of a few products for the fusions' tests, and the papers' arithmetic in plain numpy.

Nothing here calls the code under test but to build a fusion and to hand it its input.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from catalog_enrichment.models.fusion import build_fusion
from catalog_enrichment.models.fusion.base import EncoderOutput, EncoderOutputs, Fusion, FusionOutput, FusionShape
from catalog_enrichment.models.spec import FusionSpec, Head
from catalog_enrichment.records import Cardinality

HEADS = (
    Head(Cardinality.ONE, ("Red", "Blue", "Green")),
    Head(Cardinality.MANY, ("Cotton", "Wool", "Silk", "Leather")),
)
HAS_IMAGE = np.array([True, True, False, True, False, True])
HAS_DESCRIPTION = np.array([True, False, True, True, False, True])
B, H, D = len(HAS_IMAGE), 6, 4
ALWAYS = np.ones(B, dtype=bool)
TEXTS = {  # per text view, in the order of EncoderOutputs.texts: which products have it
    "pair": (ALWAYS,),
    "apart": (ALWAYS, HAS_DESCRIPTION),
    "two encoders": (ALWAYS, ALWAYS),
    "two encoders apart": (ALWAYS, HAS_DESCRIPTION, ALWAYS, HAS_DESCRIPTION),
}
TOKENS = (5, 4, 3, 6)
"""Tokens of each text view, padding included."""
PLACES = 5
"""Tokens of the picture."""


def views(texts: str = "pair", filler: float = 0.0, image_width: int = D, seed: int = 1) -> EncoderOutputs:
    """Return random views; ``filler`` is in the place of missing texts and pictures before EncoderOutput.of."""
    random = np.random.default_rng(seed)

    def view(present: np.ndarray, tokens: int, width: int, padded: bool) -> EncoderOutput:
        vector, each = random.normal(size=(B, width)) * 3, random.normal(size=(B, tokens, width))
        lengths = random.integers(2, tokens + 1, size=B) if padded else np.full(B, tokens)
        vector[~present], each[~present] = filler, filler
        mask = np.arange(tokens) < lengths[:, None]
        return EncoderOutput.of(
            torch.from_numpy(vector).float(),
            torch.from_numpy(each).float(),
            torch.from_numpy(mask),
            torch.from_numpy(present),
        )

    read = tuple(view(present, TOKENS[attribute], H, True) for attribute, present in enumerate(TEXTS[texts]))
    return EncoderOutputs(read, view(HAS_IMAGE, PLACES, image_width, False))


def sizes(texts: str = "pair", image_width: int = D) -> FusionShape:
    return FusionShape((H,) * len(TEXTS[texts]), 2 if "apart" in texts else 1, image_width, HEADS)


def randomised(kind: str, texts: str = "pair", image_width: int = D, options: dict[str, Any] | None = None) -> Fusion:
    """A fusion none of whose parameters stands at the neutral value it starts with."""
    torch.manual_seed(0)
    fusion = build_fusion(FusionSpec(kind=kind, options=options or {}), sizes(texts, image_width))
    for weight in fusion.parameters():
        torch.nn.init.normal_(weight, std=0.7)
    return fusion


def weight(fusion: Fusion, name: str) -> np.ndarray:
    return fusion.state_dict()[name].double().numpy()


def numbers(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().double().numpy()


def linear(x: np.ndarray, fusion: Fusion, name: str) -> np.ndarray:
    """Return W x + b for a vector."""
    return weight(fusion, f"{name}.weight") @ x + weight(fusion, f"{name}.bias")


def layer_norm(x: np.ndarray, fusion: Fusion, name: str) -> np.ndarray:
    """Normalise a vector (Ba et al. 2016)."""
    centred = x - x.sum() / len(x)
    deviation = math.sqrt((centred**2).sum() / len(x) + 1e-5)
    return centred / deviation * weight(fusion, f"{name}.weight") + weight(fusion, f"{name}.bias")


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def softmax(x: np.ndarray) -> np.ndarray:
    exponentials = np.exp(x - x.max())
    return exponentials / exponentials.sum()


def probability(logits: np.ndarray, head: Head) -> np.ndarray:
    """Return eq. 1 of De la Comble et al. 2022 for a product."""
    return softmax(logits) if head.cardinality is Cardinality.ONE else sigmoid(logits)


def scores(fused: FusionOutput, attribute: int) -> np.ndarray:
    """(B, V): the probabilities of a fusion's logits."""
    return np.array([probability(row, HEADS[attribute]) for row in numbers(fused.logits[attribute])])


def text_of(encoded: EncoderOutputs, fusion: Fusion, product: int, norm: str = "text_norm") -> np.ndarray:
    """Return x_txt: the normalised text vectors of a product, side by side."""
    return layer_norm(np.concatenate([numbers(view.vector)[product] for view in encoded.texts]), fusion, norm)


def image_of(encoded: EncoderOutputs, fusion: Fusion, product: int, norm: str = "image_norm") -> np.ndarray:
    """Return x_img: the normalised image vector of a product; 0 without a picture."""
    assert encoded.image is not None
    vector = numbers(encoded.image.vector)[product]
    return layer_norm(vector, fusion, norm) if HAS_IMAGE[product] else np.zeros_like(vector)


def macro_f1(predicted: np.ndarray, truth: np.ndarray) -> float:
    """Return the mean F1 of the values that occur in either; both (n, V) bool."""
    f1_scores: list[float] = []
    for column in range(truth.shape[1]):
        hits = sum(a and b for a, b in zip(predicted[:, column], truth[:, column], strict=True))
        total = predicted[:, column].sum() + truth[:, column].sum()
        if total:
            f1_scores.append(2 * hits / total)
    return float(np.mean(f1_scores)) if f1_scores else 0.0


def every_product(expected: Sequence[np.ndarray], actual: torch.Tensor) -> None:
    np.testing.assert_allclose(numbers(actual), np.array(expected), atol=1e-4, rtol=1e-4)
