"""Colour histograms of a picture as features of the image encoder.

Not from the papers. An image encoder from random weights needs tens of thousands of labelled pictures to classify
colours as well as logistic regression over a histogram does (the benchmarks' reference). The recipe key is `palette`.
"""

from __future__ import annotations

import torch
from torch import nn

from catalog_enrichment.models.spec import ImageSpec

LEVELS = 8
"""Levels per channel: 8 ** 3 = 512 bins."""


class ColorHistogram(nn.Module):
    """Square roots of two histograms, of the picture and of its centre, projected to ``spec.palette`` numbers."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, spec: ImageSpec) -> None:
        super().__init__()
        self.project = nn.Sequential(nn.LayerNorm(2 * LEVELS**3), nn.Linear(2 * LEVELS**3, spec.palette), nn.GELU())
        self.register_buffer("mean", torch.tensor(spec.mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(spec.std)[:, None, None], persistent=False)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Normalised pixels (B, 3, S, S) to (B, ``spec.palette``)."""
        projected: torch.Tensor = self.project(self.histograms(pixels))
        return projected

    def histograms(self, pixels: torch.Tensor) -> torch.Tensor:
        """(B, 1024): square roots of 512 bin shares of the whole picture, then of its centre, half as wide and high."""
        levels = ((pixels.float() * self.std + self.mean) * LEVELS).long().clamp(0, LEVELS - 1)
        bins = (levels[:, 0] * LEVELS + levels[:, 1]) * LEVELS + levels[:, 2]  # (B, S, S)
        margin = bins.shape[1] // 4
        return torch.cat([_shares(bins), _shares(bins[:, margin:-margin, margin:-margin])], dim=1).sqrt()


def _shares(bins: torch.Tensor) -> torch.Tensor:
    """(B, 512): share of the pixels (B, h, w) in each bin."""
    flat = bins.flatten(1)
    counts = torch.zeros((len(flat), LEVELS**3), device=flat.device)
    return counts.scatter_add_(1, flat, torch.ones_like(flat, dtype=counts.dtype)) / flat.shape[1]
