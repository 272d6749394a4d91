"""Cross-modal attention with a visual gate (Chen et al. 2021, section 3.3.3): every word looks at the picture."""

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
    """h' = SA(h, h, h) + VG * SA(h, v, v) (eq. 1); the heads see the sum of h' over the words (eq. 4).

    h (B, T, H): the tokens of all texts; v (B, M, D): the tokens of the picture, v_0 standing for all of it. The two
    attentions have parameters of their own, for text and picture may differ in width. Without a picture, or for
    padding, a term is 0. The heads have a bias beside the paper's W3: the sum is 0 for a product without any text.
    """

    uses_tokens = True

    def __init__(self, sizes: FusionShape, options: Any) -> None:
        super().__init__(sizes, options)
        width = same_width(sizes.texts, "cross-modal attention")
        self.within_text = Attention(width, width)
        self.on_image = Attention(width, sizes.image)
        self.gate_text = nn.Linear(width, width, bias=False)  # W1
        self.gate_image = nn.Linear(sizes.image, width)  # W2 and b
        self.classifiers = linear_heads(width, self.heads)

    def forward(self, views: EncoderOutputs) -> FusionOutput:
        image = needed(views.image)
        h = torch.cat([view.tokens for view in views.texts], dim=1)
        words = torch.cat([view.mask for view in views.texts], dim=1)  # (B, T)
        gate = torch.sigmoid(self.gate_text(h) + self.gate_image(image.tokens[:, 0]).unsqueeze(1))  # eq. 3, (B, T, H)
        joined = self.within_text(h, h, words) + gate * self.on_image(h, image.tokens, image.mask)
        summed = (joined * words.unsqueeze(-1)).sum(dim=1)  # (B, H)
        return FusionOutput(scored_alike(self.classifiers, summed))


class Attention(nn.Module):
    """SA(q, k, k) of eq. 2: softmax((W_Q q)(W_K k)^T / sqrt(d_k)) W_V k, with one head, as wide as the query."""

    def __init__(self, query: int, key: int) -> None:
        super().__init__()
        self.query = nn.Linear(query, query, bias=False)
        self.key = nn.Linear(key, query, bias=False)
        self.value = nn.Linear(key, query, bias=False)

    def forward(self, q: torch.Tensor, k: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Queries (B, T, H) over keys (B, M, D); ``mask`` (B, M) bool. (B, T, H), 0 where there is no key at all."""
        scores = self.query(q) @ self.key(k).transpose(1, 2) / math.sqrt(q.shape[-1])  # (B, T, M)
        scores = scores.masked_fill(~mask.unsqueeze(1), -torch.inf)
        nothing = ~mask.any(dim=1)[:, None, None]  # (B, 1, 1)
        weights = scores.masked_fill(nothing, 0.0).softmax(dim=-1).masked_fill(nothing, 0.0)
        attended: torch.Tensor = weights.to(k.dtype) @ self.value(k)
        return attended
