"""Objectives that fit encoders before the whole model.

- Self-supervision adapts encoders to titles and pictures without labels (Chen et al. 2022, section 3). Both losses are
  contrastive: they increase the similarity of a pair relative to the other products of the batch.
- Destruction and construction learning: an image encoder learns details by classifying pictures whose patches are
  shuffled and predicting each patch's position (Chen et al., "Destruction and Construction Learning for Fine-grained
  Image Recognition", CVPR 2019; used by Bi et al. 2020, section 3.2.2).

Shapes: N products of a batch, W width of the projections; B pictures, S picture side, P patches along a side, m side of
the encoder's feature map, D' its width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import cast

import torch
from torch import nn
from torch.nn import functional

from catalog_enrichment.models.fusion.base import EncoderOutput, needed
from catalog_enrichment.models.image_encoders import feature_map
from catalog_enrichment.models.network import ModelInputs, ModelOutputs, MultiModalNet
from catalog_enrichment.models.spec import AdaptSpec, DestructionSpec
from catalog_enrichment.models.text_encoders import TextEncoder
from catalog_enrichment.records import stable_hash
from catalog_enrichment.training.examples import Examples
from catalog_enrichment.training.folds import Index
from catalog_enrichment.training.objectives import Classification, HeldOutLoss, Objective, Target, total_loss


def contrast(spec: AdaptSpec, network: MultiModalNet) -> Objective:
    """Return the objective that ``spec.method`` names, with projections for ``network``'s encoders.

    Raises ValueError for `convirt` on a network without an image encoder.
    """
    return SimCSE(spec, network) if spec.method == "simcse" else ConVIRT(spec, network)


class _Contrast(Objective):
    """The base of the self-supervised objectives: a projection of the first text encoder's vectors."""

    def __init__(self, spec: AdaptSpec, network: MultiModalNet) -> None:
        super().__init__()
        self._spec = spec
        self.project_text = projection(_text_encoder(network).width, spec.projection)

    def identity(self) -> str:
        return stable_hash(type(self).__name__, asdict(self._spec))


class SimCSE(_Contrast):
    """The objective of section 3.1: a positive pair is the same title encoded twice, with two dropout masks; other
    titles are negatives.

    Only the first text encoder is fitted, on the first text it reads: the title, or title and description where the
    recipe makes them a text pair. On held-out products dropout is off, so both encodings are equal, the similarity of
    each pair is 1, and the loss compares only how dissimilar different titles are.
    """

    def forward(self, network: MultiModalNet, inputs: ModelInputs, index: torch.Tensor) -> torch.Tensor:
        del index
        encodings = (_encode_title(network, inputs) for _ in range(2))
        first, second = (self.project_text(view.vector[view.present]) for view in encodings)
        return info_nce(first, second, first, self._spec.temperature)


class ConVIRT(_Contrast):
    """The objective of section 3.2: a positive pair is a title and its product's picture; pictures and titles of other
    products are negatives.

    Eq. 7 is printed with sim(v_j, t_j) in its denominator, which does not contain picture i. The denominator here is
    sim(v_i, t_j), eq. 6 with picture and title exchanged, as the paper's text says and as in ConVIRT (Zhang et al.
    2020, eq. 3).
    """

    def __init__(self, spec: AdaptSpec, network: MultiModalNet) -> None:
        super().__init__(spec, network)
        if network.image is None:
            raise ValueError("convirt needs titles and pictures, and this network has no image encoder")
        self.project_image = projection(network.image.width, spec.projection)

    def forward(self, network: MultiModalNet, inputs: ModelInputs, index: torch.Tensor) -> torch.Tensor:
        """Return the loss; 0 if fewer than two products have a picture: there are no negatives."""
        del index
        assert network.image is not None
        view = _encode_title(network, inputs)
        usable = view.present & inputs.has_image
        text: torch.Tensor = self.project_text(view.vector[usable])  # (N, W)
        if len(text) < 2:
            return text.sum() * 0.0
        image = self.project_image(network.image(inputs.pixels[usable])[0])  # (N, W)
        to_image = info_nce(text, image, image, self._spec.temperature)
        to_text = info_nce(image, text, text, self._spec.temperature)
        return self._spec.text_to_image * to_image + (1 - self._spec.text_to_image) * to_text  # eq. 8


def info_nce(anchors: torch.Tensor, positives: torch.Tensor, others: torch.Tensor, temperature: float) -> torch.Tensor:
    """Return the mean over i of -log(exp(sim(a_i, p_i) / tau) / sum over j != i of exp(sim(a_i, o_j) / tau)).

    The vectors are (N, W). Eq. 3, 4 and 6 as printed: sim is the cosine, and the positive is not in the denominator (in
    the SimCSE and ConVIRT papers it is), so the loss can be negative. It is bounded, because cosines are. 0, with
    gradient 0, if N < 2.
    """
    if len(anchors) < 2:
        return (anchors.sum() + positives.sum() + others.sum()) * 0.0
    with torch.autocast(anchors.device.type, enabled=False):  # bf16 would lose precision in the division by tau
        a, p, o = (functional.normalize(vectors.float(), dim=1) for vectors in (anchors, positives, others))
        diagonal = torch.eye(len(a), dtype=torch.bool, device=a.device)
        negatives = (a @ o.T / temperature).masked_fill(diagonal, -torch.inf).logsumexp(dim=1)
        positive = (a * p).sum(dim=1) / temperature
        return (negatives - positive).mean()


def projection(width: int, projected: int) -> nn.Sequential:
    """Build g_t or g_v, a two-layer perceptron (eq. 1 and 5); discarded after the adaptation."""
    return nn.Sequential(nn.Linear(width, projected), nn.ReLU(), nn.Linear(projected, projected))


def _text_encoder(network: MultiModalNet) -> TextEncoder:
    return cast(TextEncoder, network.texts["text"])


def _encode_title(network: MultiModalNet, inputs: ModelInputs) -> EncoderOutput:
    """Return the first text encoder's output for its first text; a second text encoder is not run."""
    view: EncoderOutput = _text_encoder(network)(inputs.texts["text"][0])
    return view


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
        """Return the loss; 0, with gradient 0, if no product has a picture."""
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
        """Return the predicted original row and column of each patch, in [-1, 1]: (B, D', m, m) to (B, 2, P, P)."""
        pooled = functional.adaptive_avg_pool2d(features, self._spec.patches)
        return torch.tanh(self.position_head(pooled).float())

    def held_out(self, network: MultiModalNet, examples: Examples, index: Index) -> HeldOutLoss:
        """Return the classification loss of whole pictures: the deployed model gets no others."""
        return self._classification.held_out(network, examples, index)


def shuffled(count: int, patches: int, reach: int) -> torch.Tensor:
    """Return the patch at each position of the grid after region confusion (CVPR 2019, section 3.1); (count, P, P)
    int64, patches numbered row by row.

    Each row is sorted by q_j = j + U(-reach, reach), then each column, so that a patch moves by fewer than 2 * reach
    positions in either direction.
    """
    from_column = _local_permutations(count, patches, reach)  # (count, row, position in the row)
    from_row = _local_permutations(count, patches, reach).transpose(1, 2)  # (count, position in the column, column)
    return from_row * patches + from_column.gather(1, from_row)


def unshuffled(count: int, patches: int) -> torch.Tensor:
    """Return the identity in the format of :func:`shuffled`: every patch at its original position."""
    return torch.arange(patches**2).view(1, patches, patches).expand(count, -1, -1)


def rearranged(pixels: torch.Tensor, origins: torch.Tensor) -> torch.Tensor:
    """Return the pictures (B, 3, S, S) with the patch ``origins`` (B, P, P) at each position.

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
    """Map patch numbers (B, P, P) to their rows and columns (B, 2, P, P), from -1 (first) to 1 (last)."""
    patches = origins.shape[-1]
    return torch.stack([origins // patches, origins % patches], dim=1) * (2 / (patches - 1)) - 1


def _local_permutations(count: int, patches: int, reach: int) -> torch.Tensor:
    """Draw permutations along the last axis, (count, P, P), that move entries by fewer than 2 * ``reach``.

    They are drawn on the CPU, so that they are the same on any device.
    """
    noise = (torch.rand(count, patches, patches) * 2 - 1) * reach
    return (torch.arange(patches) + noise).argsort(dim=-1)
