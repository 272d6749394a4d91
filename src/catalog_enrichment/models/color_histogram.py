"""The colours of a picture, counted: what a histogram knows from the first example on, a network learns from many.

Not from the papers. An image encoder from random weights needs tens of thousands of labelled pictures before it names
colours as well as logistic regression over a histogram does (the benchmarks' reference); so it may be given one.
"""

from __future__ import annotations

import torch
from torch import nn

from catalog_enrichment.models.spec import ImageSpec

LEVELS = 8
"""Per channel: 512 bins."""


class ColorHistogram(nn.Module):
    """Square roots of two histograms, of the picture and of its middle, projected to ``spec.palette`` numbers."""

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
        """(B, 1024): 512 shares' square roots over the picture, then 512 over the middle half of its sides."""
        levels = ((pixels.float() * self.std + self.mean) * LEVELS).long().clamp(0, LEVELS - 1)
        bins = (levels[:, 0] * LEVELS + levels[:, 1]) * LEVELS + levels[:, 2]  # (B, S, S)
        rim = bins.shape[1] // 4
        return torch.cat([_shares(bins), _shares(bins[:, rim:-rim, rim:-rim])], dim=1).sqrt()


def _shares(bins: torch.Tensor) -> torch.Tensor:
    """(B, 512): the share of the places (B, h, w) that fall into each bin."""
    flat = bins.flatten(1)
    counts = torch.zeros((len(flat), LEVELS**3), device=flat.device)
    return counts.scatter_add_(1, flat, torch.ones_like(flat, dtype=counts.dtype)) / flat.shape[1]
