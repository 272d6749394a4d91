"""Destruction and construction learning: an image encoder that must recognise a picture cut into pieces, and know
where each piece was, looks at details (Chen et al., "Destruction and Construction Learning for Fine-grained Image
Recognition", CVPR 2019; used by Bi et al. 2020, section 3.2.2).

Shapes: B products, S picture side, P patches along a side, m side of the encoder's feature map, D' its width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

import torch
from torch import nn
from torch.nn import functional

from catalog_enrichment.models.encoders import feature_map
from catalog_enrichment.models.fusion.base import needed
from catalog_enrichment.models.network import ModelInputs, ModelOutputs, MultiModalNet
from catalog_enrichment.models.spec import DestructionSpec
from catalog_enrichment.records import stable_hash
from catalog_enrichment.training.examples import Examples
from catalog_enrichment.training.folds import Index
from catalog_enrichment.training.objectives import Classification, Objective, Target, total_loss


class Destruction(Objective):
    """For an image-only network: classification of whole and destroyed pictures, plus telling the ones from the
    others (adversarial learning) and telling each patch's original place (region construction).

    All three are means over both copies of the batch, as in the authors' code; the paper sums them, which changes
    what their weights mean with the number of patches. Products without a picture are left out. Both copies go
    through the encoder together, so that its batch statistics are of both.
    """

    def __init__(self, network: MultiModalNet, spec: DestructionSpec, targets: Mapping[str, Target]) -> None:
        super().__init__()
        if network.image is None or len(network.texts):
            raise ValueError("destruction and construction learning is for a network of an image encoder alone")
        self._spec, self._targets = spec, dict(targets)
        self._deployed = Classification(targets)
        self.tell_destroyed = nn.Linear(network.image.width, 2)
        self.tell_place = nn.Conv2d(network.image.token_width, 2, kernel_size=1)

    def identity(self) -> str:
        return stable_hash("destruction", asdict(self._spec), self._deployed.identity())

    def forward(self, network: MultiModalNet, inputs: ModelInputs, index: torch.Tensor) -> torch.Tensor:
        """Zero, with a gradient of zero, where no product has a picture."""
        shown = inputs.has_image.nonzero().squeeze(1)
        if not len(shown):
            return torch.stack([logits.sum() for logits in network(inputs).logits.values()]).sum() * 0.0
        whole = inputs.pixels[shown]
        origins = shuffled(len(whole), self._spec.patches, self._spec.reach)
        both = torch.cat([whole, rearranged(whole, origins)])
        views = network.views(ModelInputs({}, both, torch.ones(len(both), dtype=torch.bool, device=both.device)))
        seen = needed(views.image)
        logits = dict(zip(network.heads, network.fusion(views).logits, strict=True))
        rows = index[shown.to(index.device)]
        loss = total_loss(
            ModelOutputs(logits, None),
            self._targets,
            torch.cat([rows, rows]),
            label_smoothing=self._spec.fit.label_smoothing,
        )
        destroyed = torch.arange(len(both), device=both.device) // len(whole)  # 0, ..., 0, 1, ..., 1
        told = functional.cross_entropy(self.tell_destroyed(seen.vector).float(), destroyed)
        places = self.places(feature_map(seen.tokens))
        truth = torch.cat([coordinates(unshuffled(len(whole), self._spec.patches)), coordinates(origins)])
        misplaced = functional.l1_loss(places, truth.to(places.device))
        return loss + self._spec.adversarial * told + self._spec.construction * misplaced

    def places(self, features: torch.Tensor) -> torch.Tensor:
        """(B, D', m, m) to (B, 2, P, P): the row and column, in [-1, 1], that each patch is thought to come from."""
        pooled = functional.adaptive_avg_pool2d(features, self._spec.patches)
        return torch.tanh(self.tell_place(pooled).float())

    def held_out(self, network: MultiModalNet, examples: Examples, index: Index) -> float:
        """The classification loss of whole pictures: what is deployed sees no others."""
        return self._deployed.held_out(network, examples, index)


def shuffled(count: int, patches: int, reach: int) -> torch.Tensor:
    """Region confusion (CVPR 2019, section 3.1): for each place of a grid, which patch is put there; (count, P, P)
    int64, patches numbered row by row.

    Each row is sorted by q_j = j + U(-reach, reach), then each column, so that no patch moves 2 * reach places in
    either direction.
    """
    from_column = _jittered(count, patches, reach)  # (count, row, place in the row)
    from_row = _jittered(count, patches, reach).transpose(1, 2)  # (count, place in the column, column)
    return from_row * patches + from_column.gather(1, from_row)


def unshuffled(count: int, patches: int) -> torch.Tensor:
    """Every patch where it was, as :func:`shuffled` gives it."""
    return torch.arange(patches**2).view(1, patches, patches).expand(count, -1, -1)


def rearranged(pixels: torch.Tensor, origins: torch.Tensor) -> torch.Tensor:
    """Pictures (B, 3, S, S) with the patch ``origins`` (B, P, P) at each place.

    Where P does not divide S, a margin of less than a pixel per patch stays as it is around the patches: encoders
    with a fixed size take no other, and resampling would blur one copy or both. Raises ValueError if S < P.
    """
    patches, side = origins.shape[-1], pixels.shape[-1] // origins.shape[-1]
    if not side:
        raise ValueError(f"a picture of {pixels.shape[-1]} pixels cannot be cut into {patches} x {patches} patches")
    size, margin = patches * side, (pixels.shape[-1] - patches * side) // 2
    inner = (..., slice(margin, margin + size), slice(margin, margin + size))
    grid = pixels[inner].reshape(*pixels.shape[:2], patches, side, patches, side)
    cells = grid.permute(0, 2, 4, 1, 3, 5).flatten(1, 2)  # (B, P * P, 3, side, side)
    picture = torch.arange(len(cells), device=pixels.device)[:, None, None]
    moved = cells[picture, origins.to(pixels.device)]  # (B, P, P, 3, side, side)
    destroyed = pixels.clone()
    destroyed[inner] = moved.permute(0, 3, 1, 4, 2, 5).reshape(*pixels.shape[:2], size, size)
    return destroyed


def coordinates(origins: torch.Tensor) -> torch.Tensor:
    """(B, P, P) patch numbers to (B, 2, P, P) their rows and columns, from -1 (first) to 1 (last)."""
    patches = origins.shape[-1]
    return torch.stack([origins // patches, origins % patches], dim=1) * (2 / (patches - 1)) - 1


def _jittered(count: int, patches: int, reach: int) -> torch.Tensor:
    """(count, P, P): each last axis a permutation that moves nothing far. Drawn on the CPU: the same on any device."""
    noise = (torch.rand(count, patches, patches) * 2 - 1) * reach
    return (torch.arange(patches) + noise).argsort(dim=-1)
