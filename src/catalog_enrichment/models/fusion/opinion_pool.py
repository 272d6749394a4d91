"""Logarithmic opinion pool: the geometric mean of the probabilities of classifiers that read the same two vectors.

Not from the five papers. The log loss of the pool is at most the mean of the classifiers' (Heskes 1998, "Selecting
weighting factors in logarithmic opinion pools"), and the lower, the less they agree. Here they are the
modality-attention merger of De la Comble et al. 2022 and perceptrons over both vectors, as the shallow fusion of Chen
et al. 2021.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from catalog_enrichment.models.fusion.base import EncoderOutputs, FusionOutput, FusionShape
from catalog_enrichment.models.fusion.modality_attention import ModalityAttention


class OpinionPool(ModalityAttention):
    """Every classifier has a loss of its own, so that none relies on the others; their sum chooses the epoch.

    The attention is that of the merger, one of the classifiers: the others read the picture whatever it is.
    """

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
        width = self.text_width + self.image_width
        self.perceptrons = nn.ModuleList(
            _Perceptrons(_perceptron(width, len(head.labels), options) for head in self.heads)
            for _ in range(options.perceptrons)
        )

    def forward(self, encoded: EncoderOutputs) -> FusionOutput:
        merged = super().forward(encoded)
        joined = torch.cat([self.text_vector(encoded), self.image_vector(encoded)], dim=1)
        experts = (merged.logits, *(perceptrons(joined) for perceptrons in self.perceptrons))
        # the mean of logits is the normalised geometric mean of the probabilities, for softmax and for sigmoid
        pooled = tuple(torch.stack(logits).mean(dim=0) for logits in zip(*experts, strict=True))
        return FusionOutput(pooled, merged.attention, experts)


class _Perceptrons(nn.ModuleList):
    """One for every attribute."""

    def forward(self, joined: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(one(joined) for one in self)


def _perceptron(width: int, values: int, options: OpinionPool.Options) -> nn.Module:
    return nn.Sequential(
        nn.Dropout(options.dropout),
        nn.Linear(width, options.hidden),
        nn.LayerNorm(options.hidden),
        nn.GELU(),
        nn.Dropout(options.dropout),
        nn.Linear(options.hidden, values),
    )
