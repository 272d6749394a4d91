"""The predictor, the same for evaluation in training, the batch and the MLflow model (I8)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from catalog_enrichment.inputs.product_batch import ProductBatch
from catalog_enrichment.inputs.tokenizer import TextTokenizer
from catalog_enrichment.models import artifact, compute_types, folding
from catalog_enrichment.models.network import ModelOutputs, MultiModalNet
from catalog_enrichment.models.preprocess import Preprocessor
from catalog_enrichment.models.spec import Head, ModelSpec
from catalog_enrichment.records import Cardinality


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores of B products."""

    probabilities: dict[str, np.ndarray]
    """Attribute -> (B, V) float32, calibrated; V in the order of the head's labels. Sums to 1 over V where the
    attribute has one value."""
    attention: dict[str, np.ndarray]
    """Attribute -> (B,) float32, the weight on the text: 1 without a picture, NaN if the fusion has no such weight."""
    has_image: np.ndarray
    """(B,) bool: the product has a usable picture."""
    vectors: np.ndarray
    """(B, D) float32: the encoders' vectors of the texts, then of the picture; 0 where a product has no such part."""


class Predictor:
    """A model version ready to score. Not safe for concurrent calls on one instance: its tokenizers keep state."""

    def __init__(
        self,
        net: MultiModalNet,
        tokenizers: Mapping[str, TextTokenizer],
        spec: ModelSpec,
        temperatures: Mapping[str, float],
        device: str = "cpu",
        numbers: str = compute_types.FP32,
    ) -> None:
        self._net = net.to(device).eval()
        self._preprocessor = Preprocessor(tokenizers, spec)
        self._temperatures = dict(temperatures)
        self._device, self._numbers = device, numbers
        self.square = spec.image.square
        self.compute_type = compute_types.path_name(numbers, device)
        """Number type and device of the computation; certificates name them: others give different scores."""

    @classmethod
    def load(cls, directory: Path, device: str = "cpu", numbers: str = compute_types.FP32) -> Predictor:
        """Load a model version from its folder, offline. ``numbers``: number type (:mod:`compute_types`).

        Raises ModelContractError if it is damaged.
        """
        # TF32 convolutions give different scores from the fp32 that certificates are bound to
        torch.backends.cudnn.allow_tf32 = False
        loaded = artifact.load(directory)
        if loaded.net.image is not None:
            folding.fold_batch_norms(loaded.net.image, loaded.spec.image.size)
        return cls(loaded.net, loaded.tokenizers, loaded.spec, loaded.temperatures, device, numbers)

    @property
    def heads(self) -> dict[str, Head]:
        """Attribute -> its cardinality and labels."""
        return self._net.heads

    def predict(self, batch: ProductBatch) -> Scores:
        """Score B products; pictures of side ``square.side``.

        A product's scores do not depend on the other products of the batch, except for rounding: below
        :data:`compute_types.TOLERANCE`.
        """
        inputs = self._preprocessor.inputs(batch, self._device)
        with torch.inference_mode(), compute_types.computing_in(self._numbers, self._device):
            outputs = self._net(inputs)
            probabilities = {name: self._probabilities(name, logits) for name, logits in outputs.logits.items()}
        assert outputs.encoded is not None
        vectors = outputs.encoded.vectors().float().cpu().numpy()
        return Scores(probabilities, self._attention(outputs), inputs.has_image.cpu().numpy(), vectors)

    def text_lengths(self, titles: Sequence[str | None], descriptions: Sequence[str | None]) -> NDArray[np.int64]:
        """(B,): tokens of each product's texts. Batches of products of like length need little padding."""
        return self._preprocessor.text_lengths(titles, descriptions)

    def _probabilities(self, attribute: str, logits: torch.Tensor) -> np.ndarray:
        scaled = logits.float() / self._temperatures[attribute]
        one_value = self.heads[attribute].cardinality is Cardinality.ONE
        probabilities: np.ndarray = (scaled.softmax(dim=1) if one_value else scaled.sigmoid()).cpu().numpy()
        return probabilities

    def _attention(self, outputs: ModelOutputs) -> dict[str, np.ndarray]:
        if outputs.attention is None:
            batch = len(next(iter(outputs.logits.values())))
            return {name: np.full(batch, np.nan, dtype=np.float32) for name in self.heads}
        return {name: weight.float().cpu().numpy() for name, weight in outputs.attention.items()}
