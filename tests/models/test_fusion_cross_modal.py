"""Cross-modal attention against equations 1 to 4 of Chen et al. 2021, word by word."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from catalog_enrichment.models.fusion.base import EncoderOutput, EncoderOutputs, Fusion
from catalog_enrichment.models.fusion.cross_modal import Attention

from .plain import HAS_IMAGE, HEADS, TEXTS, B, D, H, every_product, numbers, randomised, sigmoid, softmax, views, weight


def attended(q: np.ndarray, others: np.ndarray, fusion: Fusion, name: str) -> np.ndarray:
    """Return SA(q, k, k) of a word over all that count, eq. 2."""
    w_q, w_k, w_v = (weight(fusion, f"{name}.{part}.weight") for part in ("query", "key", "value"))
    query, keys = w_q @ q, [w_k @ other for other in others]
    shares = softmax(np.array([query @ key / math.sqrt(len(key)) for key in keys]))
    return np.sum([share * (w_v @ other) for share, other in zip(shares, others, strict=True)], axis=0)


def words_of(encoded: EncoderOutputs, product: int) -> np.ndarray:
    """Return h: the tokens of all texts of a product, without padding."""
    actual = [numbers(view.tokens)[product][view.mask[product].numpy()] for view in encoded.texts]
    return np.concatenate(actual)


@pytest.mark.parametrize("texts", TEXTS)
def test_cross_modal_attention_is_equations_1_to_4(texts: str) -> None:
    fusion, encoded = randomised("cross_modal", texts), views(texts)
    assert encoded.image is not None
    w_1, w_2, b = (weight(fusion, name) for name in ("gate_text.weight", "gate_image.weight", "gate_image.bias"))
    summed = []
    for product in range(B):
        h, v = words_of(encoded, product), numbers(encoded.image.tokens)[product]
        total = np.zeros(H)
        for word in h:
            total += attended(word, h, fusion, "within_text")
            if HAS_IMAGE[product]:
                gate = sigmoid(w_1 @ word + w_2 @ v[0] + b)  # eq. 3
                total += gate * attended(word, v, fusion, "on_image")  # eq. 1
        summed.append(total)
    fused = fusion(encoded)
    for attribute in range(len(HEADS)):
        w_3, bias = weight(fusion, f"classifiers.{attribute}.weight"), weight(fusion, f"classifiers.{attribute}.bias")
        every_product([w_3 @ total + bias for total in summed], fused.logits[attribute])  # eq. 4, before its softmax


def test_padding_is_neither_attended_to_nor_summed() -> None:
    fusion, encoded = randomised("cross_modal"), views()
    before = fusion(encoded).logits
    text = encoded.texts[0]
    assert not text.mask.all()
    text.tokens[~text.mask] = 1e3
    for expected, found in zip(before, fusion(encoded).logits, strict=True):
        assert torch.equal(found, expected)
    longer = EncoderOutput(
        torch.zeros(B, H), torch.cat([text.tokens, torch.ones(B, 3, H)], 1), torch.zeros(B, 8).bool(), text.present
    )
    longer.mask[:, :5] = text.mask
    for expected, found in zip(before, fusion(EncoderOutputs((longer,), encoded.image)).logits, strict=True):
        torch.testing.assert_close(found, expected)


def test_attention_over_nothing_is_zero_with_a_finite_gradient() -> None:
    torch.manual_seed(0)
    attention = Attention(H, D)
    q, k = torch.randn(3, 4, H, requires_grad=True), torch.randn(3, 5, D, requires_grad=True)
    mask = torch.tensor([[True] * 5, [False] * 5, [True, False, False, False, False]])
    encoded = attention(q, k, mask)
    assert encoded.shape == (3, 4, H)
    assert (encoded[1] == 0).all()
    only = attention.value(k[2, 0])
    torch.testing.assert_close(encoded[2], only.expand(4, H))  # a single token gets all the weight
    encoded.square().sum().backward()
    for leaf in (q, k, *attention.parameters()):
        assert leaf.grad is not None
        assert torch.isfinite(leaf.grad).all()
    assert k.grad is not None
    assert (k.grad[1] == 0).all()
    assert (k.grad[2, 1:] == 0).all()


def test_a_product_without_a_word_has_only_the_bias() -> None:
    fusion, encoded = randomised("cross_modal"), views()
    text = encoded.texts[0]
    wordless = EncoderOutput.of(text.vector, text.tokens, text.mask, torch.zeros(B, dtype=torch.bool))
    for attribute, logits in enumerate(fusion(EncoderOutputs((wordless,), encoded.image)).logits):
        every_product([weight(fusion, f"classifiers.{attribute}.bias")] * B, logits)
