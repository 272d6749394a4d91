"""The modality-attention merger, and the opinion pool of this merger and perceptrons."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from catalog_enrichment.models.fusion.base import (
    SATURATION,
    EncoderOutputs,
    FusionOutput,
    FusionShape,
    VectorFusion,
    linear_heads,
    needed,
    scored_alike,
)


class ModalityAttention(VectorFusion):
    """The merger of De la Comble et al. 2022, section 4.1: a weight p on the text, per product and attribute.

    p = sigmoid(W [x_txt, x_img] + b); the head gets [p x_txt, (1 - p) x_img] (eq. 2 and 3). Every attribute has its own
    p: material may depend on the text where colour depends on the picture.
    """

    kind = "modality_attention"
    learns_modality_weights = True

    def __init__(self, shape: FusionShape, options: Any) -> None:
        super().__init__(shape, options)
        self.importance = nn.Linear(self.joined_width, len(self.heads))
        self.classifiers = linear_heads(self.joined_width, self.heads)

    def forward(self, encoded: EncoderOutputs) -> FusionOutput:
        x_txt, x_img = self.text_vector(encoded), self.image_vector(encoded)
        logits = self.importance(torch.cat([x_txt, x_img], dim=1)).float()
        # clamped in float32, also under autocast: the KL term's gradient is finite, and exactly 1 means "no picture"
        p = torch.sigmoid(logits).clamp(SATURATION, 1 - SATURATION)
        p = torch.where(needed(encoded.image).present[:, None], p, torch.ones_like(p))  # (B, A)
        scores = [
            classifier(torch.cat([p[:, [index]] * x_txt, (1 - p[:, [index]]) * x_img], dim=1))
            for index, classifier in enumerate(self.classifiers)
        ]
        return FusionOutput(tuple(scores), p)


class OpinionPool(ModalityAttention):
    """The geometric mean of the probabilities of classifiers that read the same two vectors.

    Not from the five papers. The log loss of the pool is at most the mean of the classifiers' (Heskes 1998, "Selecting
    weighting factors in logarithmic opinion pools"), and the lower, the less they agree. Here they are the
    modality-attention merger of De la Comble et al. 2022 and perceptrons over both vectors, as the shallow fusion of
    Chen et al. 2021. Every classifier has a loss of its own, so that none relies on the others; their sum chooses the
    epoch. The attention is the merger's: the perceptrons read the picture whatever it is.
    """

    kind = "opinion_pool"

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Options:
        perceptrons: int = 1
        """Beside the merger; each has weights of its own."""
        hidden: int = 512
        """Width of their hidden layers."""
        dropout: float = 0.3
        """Share of their inputs, and of their hidden layer, that a training step leaves out."""

        def __post_init__(self) -> None:
            if min(self.perceptrons, self.hidden) < 1 or not 0 <= self.dropout < 1:
                raise ValueError(f"perceptrons and hidden must be at least 1, dropout lie in [0, 1): {self}")

    def __init__(self, shape: FusionShape, options: Options) -> None:
        super().__init__(shape, options)
        self.perceptrons = nn.ModuleList(
            nn.ModuleList(_perceptron(self.joined_width, len(head.labels), options) for head in self.heads)
            for _ in range(options.perceptrons)
        )

    def forward(self, encoded: EncoderOutputs) -> FusionOutput:
        merged = super().forward(encoded)
        joined = self.joined_vector(encoded)
        experts = (merged.logits, *(scored_alike(perceptrons, joined) for perceptrons in self.perceptrons))
        # the mean of logits is the normalised geometric mean of the probabilities, for softmax and for sigmoid
        pooled = tuple(torch.stack(logits).mean(dim=0) for logits in zip(*experts, strict=True))
        return FusionOutput(pooled, merged.attention, experts)


def _perceptron(width: int, values: int, options: OpinionPool.Options) -> nn.Module:
    return nn.Sequential(
        nn.Dropout(options.dropout),
        nn.Linear(width, options.hidden),
        nn.LayerNorm(options.hidden),
        nn.GELU(),
        nn.Dropout(options.dropout),
        nn.Linear(options.hidden, values),
    )
