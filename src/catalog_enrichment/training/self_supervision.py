"""Self-supervised objectives, which adapt encoders to titles and pictures without labels before the fit (Chen et al.
2022, section 3).

Both losses are contrastive: they increase the similarity of a pair relative to the other products of the batch.
Shapes: N products of a batch, H text width, D image width, P width of the projections.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import cast

import torch
from torch import nn
from torch.nn import functional

from catalog_enrichment.models.encoders import TextEncoder
from catalog_enrichment.models.fusion.base import EncoderOutput
from catalog_enrichment.models.network import ModelInputs, MultiModalNet
from catalog_enrichment.models.spec import AdaptSpec
from catalog_enrichment.records import stable_hash
from catalog_enrichment.training.objectives import Objective


def contrast(spec: AdaptSpec, network: MultiModalNet) -> Objective:
    """The objective that ``spec.method`` names, with projections for ``network``'s encoders.

    Raises ValueError for `convirt` on a network without an image encoder.
    """
    return SimCSE(spec, network) if spec.method == "simcse" else ConVIRT(spec, network)


class SimCSE(Objective):
    """Section 3.1: a positive pair is the same title encoded twice, with two dropout masks; other titles are negatives.

    Only the first text encoder is fitted, on the first text it reads: the title, or title and description where the
    recipe makes them a text pair. On held-out products dropout is off, so both encodings are equal, the similarity of
    each pair is 1, and the loss compares only how dissimilar different titles are.
    """

    def __init__(self, spec: AdaptSpec, network: MultiModalNet) -> None:
        super().__init__()
        self._spec = spec
        self.project_text = projection(_text_encoder(network).width, spec.projection)

    def identity(self) -> str:
        return stable_hash(type(self).__name__, asdict(self._spec))

    def forward(self, network: MultiModalNet, inputs: ModelInputs, index: torch.Tensor) -> torch.Tensor:
        del index
        encodings = (_encode_title(network, inputs) for _ in range(2))
        first, second = (self.project_text(view.vector[view.present]) for view in encodings)
        return info_nce(first, second, first, self._spec.temperature)


class ConVIRT(Objective):
    """Section 3.2: a positive pair is a title and its product's picture; pictures and titles of other products are
    negatives.

    Eq. 7 is printed with sim(v_j, t_j) in its denominator, which does not contain picture i. The denominator here is
    sim(v_i, t_j), eq. 6 with picture and title exchanged, as the paper's text says and as in ConVIRT (Zhang et al.
    2020, eq. 3).
    """

    def __init__(self, spec: AdaptSpec, network: MultiModalNet) -> None:
        super().__init__()
        if network.image is None:
            raise ValueError("convirt needs titles and pictures, and this network has no image encoder")
        self._spec = spec
        self.project_text = projection(_text_encoder(network).width, spec.projection)
        self.project_image = projection(network.image.width, spec.projection)

    def identity(self) -> str:
        return stable_hash(type(self).__name__, asdict(self._spec))

    def forward(self, network: MultiModalNet, inputs: ModelInputs, index: torch.Tensor) -> torch.Tensor:
        """0 if fewer than two products have a picture: there are no negatives."""
        del index
        assert network.image is not None
        view = _encode_title(network, inputs)
        usable = view.present & inputs.has_image
        text: torch.Tensor = self.project_text(view.vector[usable])  # (N, P)
        if len(text) < 2:
            return text.sum() * 0.0
        image = self.project_image(network.image(inputs.pixels[usable])[0])  # (N, P)
        to_image = info_nce(text, image, image, self._spec.temperature)
        to_text = info_nce(image, text, text, self._spec.temperature)
        return self._spec.text_to_image * to_image + (1 - self._spec.text_to_image) * to_text  # eq. 8


def info_nce(anchors: torch.Tensor, positives: torch.Tensor, others: torch.Tensor, temperature: float) -> torch.Tensor:
    """Mean over i of -log(exp(sim(a_i, p_i) / tau) / sum over j != i of exp(sim(a_i, o_j) / tau)); all are (N, P).

    Eq. 3, 4 and 6 as printed: sim is the cosine, and the positive is not in the denominator (in the SimCSE and ConVIRT
    papers it is), so the loss can be negative. It is bounded, because cosines are. 0, with gradient 0, if N < 2.
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
    """g_t or g_v, a two-layer perceptron (eq. 1 and 5); discarded after the adaptation."""
    return nn.Sequential(nn.Linear(width, projected), nn.ReLU(), nn.Linear(projected, projected))


def _text_encoder(network: MultiModalNet) -> TextEncoder:
    return cast(TextEncoder, network.texts["text"])


def _encode_title(network: MultiModalNet, inputs: ModelInputs) -> EncoderOutput:
    """The first text encoder's output for its first text; a second text encoder is not run."""
    view: EncoderOutput = _text_encoder(network)(inputs.texts["text"][0])
    return view
