"""Cross-modal attention: text tokens attend to picture tokens."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from catalog_enrichment.models.fusion.base import (
    EncoderOutputs,
    Fusion,
    FusionOutput,
    FusionShape,
    linear_heads,
    needed,
    same_width,
    scored_alike,
)


class CrossModal(Fusion):
    """Cross-modal attention with a visual gate (Chen et al. 2021, section 3.3.3): text tokens attend to picture tokens.

    h' = SA(h, h, h) + VG * SA(h, v, v) (eq. 1), where h are the tokens of all texts, v those of the picture, and v_0
    represents the whole picture; the heads get the sum of h' over the tokens (eq. 4). The two attentions have separate
    parameters, because text and picture may differ in width. A term is 0 without a picture and for padding. The heads
    have a bias in addition to the paper's W3: the sum is 0 for a product without any text.
    """

    kind = "cross_modal"
    uses_tokens = True

    def __init__(self, shape: FusionShape, options: Any) -> None:
        super().__init__(shape, options)
        width = same_width(shape.texts, "cross-modal attention")
        self.within_text = Attention(width, width)
        self.on_image = Attention(width, shape.image)
        self.gate_text = nn.Linear(width, width, bias=False)  # W1
        self.gate_image = nn.Linear(shape.image, width)  # W2 and b
        self.classifiers = linear_heads(width, self.heads)

    def forward(self, encoded: EncoderOutputs) -> FusionOutput:
        image = needed(encoded.image)
        h = torch.cat([output.tokens for output in encoded.texts], dim=1)  # (B, T, H)
        words = torch.cat([output.mask for output in encoded.texts], dim=1)  # (B, T)
        gate = torch.sigmoid(self.gate_text(h) + self.gate_image(image.tokens[:, 0]).unsqueeze(1))  # eq. 3, (B, T, H)
        joined = self.within_text(h, h, words) + gate * self.on_image(h, image.tokens, image.mask)
        summed = (joined * words.unsqueeze(-1)).sum(dim=1)  # (B, H)
        return FusionOutput(scored_alike(self.classifiers, summed))


class Attention(nn.Module):
    """SA(q, k, k) of eq. 2: softmax((W_Q q)(W_K k)^T / sqrt(d_k)) W_V k, with a single head of the query's width."""

    def __init__(self, query: int, key: int) -> None:
        super().__init__()
        self.query = nn.Linear(query, query, bias=False)
        self.key = nn.Linear(key, query, bias=False)
        self.value = nn.Linear(key, query, bias=False)

    def forward(self, q: torch.Tensor, k: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Attend with queries (B, T, H) to the keys (B, M, D) that ``mask`` (B, M) shows.

        Returns (B, T, H), 0 where there is no key at all.
        """
        scores = self.query(q) @ self.key(k).transpose(1, 2) / math.sqrt(q.shape[-1])  # (B, T, M)
        scores = scores.masked_fill(~mask.unsqueeze(1), -torch.inf)
        no_keys = ~mask.any(dim=1)[:, None, None]  # (B, 1, 1)
        weights = scores.masked_fill(no_keys, 0.0).softmax(dim=-1).masked_fill(no_keys, 0.0)
        attended: torch.Tensor = weights.to(k.dtype) @ self.value(k)
        return attended
