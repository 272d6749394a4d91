"""Destruction and construction learning: an image encoder learns details by classifying pictures whose patches are
shuffled and predicting each patch's position (Chen et al., "Destruction and Construction Learning for Fine-grained
Image Recognition", CVPR 2019; used by Bi et al. 2020, section 3.2.2).

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
from catalog_enrichment.training.objectives import Classification, HeldOutLoss, Objective, Target, total_loss


class Destruction(Objective):
    """Three losses for an image-only network: classification of whole and shuffled pictures, classification as whole or
    shuffled (adversarial learning), and prediction of each patch's original position (region construction).

    Each is a mean over both copies of the batch, as in the authors' code. The paper sums them, so there the effect of
    their weights depends on the number of patches. Products without a picture are left out. Both copies pass through
    the encoder as one batch, so that its batch statistics cover both.
    """

    def __init__(self, network: MultiModalNet, spec: DestructionSpec, targets: Mapping[str, Target]) -> None:
        super().__init__()
        if network.image is None or len(network.texts):
            raise ValueError("destruction and construction learning needs a network with an image encoder only")
        self._spec, self._targets = spec, dict(targets)
        self._classification = Classification(targets)
        self.adversarial_head = nn.Linear(network.image.width, 2)
        self.position_head = nn.Conv2d(network.image.token_width, 2, kernel_size=1)

    def identity(self) -> str:
        return stable_hash(type(self).__name__, asdict(self._spec), self._classification.identity())

    def forward(self, network: MultiModalNet, inputs: ModelInputs, index: torch.Tensor) -> torch.Tensor:
        """0, with gradient 0, if no product has a picture."""
        with_picture = inputs.has_image.nonzero().squeeze(1)
        if not len(with_picture):
            return torch.stack([logits.sum() for logits in network(inputs).logits.values()]).sum() * 0.0
        whole = inputs.pixels[with_picture]
        origins = shuffled(len(whole), self._spec.patches, self._spec.reach)
        both = torch.cat([whole, rearranged(whole, origins)])
        views = network.encode(ModelInputs({}, both, torch.ones(len(both), dtype=torch.bool, device=both.device)))
        image = needed(views.image)
        logits = dict(zip(network.heads, network.fusion(views).logits, strict=True))
        rows = index[with_picture.to(index.device)]
        loss = total_loss(
            ModelOutputs(logits, None),
            self._targets,
            torch.cat([rows, rows]),
            label_smoothing=self._spec.fit.label_smoothing,
        )
        is_shuffled = torch.arange(len(both), device=both.device) // len(whole)  # 0, ..., 0, 1, ..., 1
        adversarial_loss = functional.cross_entropy(self.adversarial_head(image.vector).float(), is_shuffled)
        positions = self.predicted_positions(feature_map(image.tokens))
        true_positions = torch.cat([coordinates(unshuffled(len(whole), self._spec.patches)), coordinates(origins)])
        construction_loss = functional.l1_loss(positions, true_positions.to(positions.device))
        return loss + self._spec.adversarial * adversarial_loss + self._spec.construction * construction_loss

    def predicted_positions(self, features: torch.Tensor) -> torch.Tensor:
        """(B, D', m, m) to (B, 2, P, P): the predicted original row and column of each patch, in [-1, 1]."""
        pooled = functional.adaptive_avg_pool2d(features, self._spec.patches)
        return torch.tanh(self.position_head(pooled).float())

    def held_out(self, network: MultiModalNet, examples: Examples, index: Index) -> HeldOutLoss:
        """The classification loss of whole pictures, the only ones that the deployed model gets."""
        return self._classification.held_out(network, examples, index)


def shuffled(count: int, patches: int, reach: int) -> torch.Tensor:
    """Region confusion (CVPR 2019, section 3.1): the patch at each position of the grid; (count, P, P) int64, patches
    numbered row by row.

    Each row is sorted by q_j = j + U(-reach, reach), then each column, so that a patch moves by fewer than 2 * reach
    positions in either direction.
    """
    from_column = _local_permutations(count, patches, reach)  # (count, row, position in the row)
    from_row = _local_permutations(count, patches, reach).transpose(1, 2)  # (count, position in the column, column)
    return from_row * patches + from_column.gather(1, from_row)


def unshuffled(count: int, patches: int) -> torch.Tensor:
    """The identity in the format of :func:`shuffled`: every patch at its original position."""
    return torch.arange(patches**2).view(1, patches, patches).expand(count, -1, -1)


def rearranged(pixels: torch.Tensor, origins: torch.Tensor) -> torch.Tensor:
    """Pictures (B, 3, S, S) with the patch ``origins`` (B, P, P) at each position.

    Where P does not divide S, a margin of less than a pixel per patch stays unchanged around the patches: some encoders
    accept one size only, and resampling would blur the picture. Raises ValueError if S < P.
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
    result = pixels.clone()
    result[inner] = moved.permute(0, 3, 1, 4, 2, 5).reshape(*pixels.shape[:2], size, size)
    return result


def coordinates(origins: torch.Tensor) -> torch.Tensor:
    """Patch numbers (B, P, P) to their rows and columns (B, 2, P, P), from -1 (first) to 1 (last)."""
    patches = origins.shape[-1]
    return torch.stack([origins // patches, origins % patches], dim=1) * (2 / (patches - 1)) - 1


def _local_permutations(count: int, patches: int, reach: int) -> torch.Tensor:
    """(count, P, P): permutations along the last axis that move entries by fewer than 2 * ``reach``.

    Drawn on the CPU, so that they are the same on any device.
    """
    noise = (torch.rand(count, patches, patches) * 2 - 1) * reach
    return (torch.arange(patches) + noise).argsort(dim=-1)
