"""The data set as network inputs: texts tokenized once, pictures read by the batch, varied and masked on the way."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from catalog_enrichment.inputs.tokenizer import TextTokenizer
from catalog_enrichment.models.network import ModelInputs, ModelOutputs, MultiModalNet
from catalog_enrichment.models.preprocess import Preprocessor, normalise_pixels
from catalog_enrichment.models.spec import ModelSpec
from catalog_enrichment.training.dataset import Dataset
from catalog_enrichment.training.folds import Index

SHIFT = 0.08
"""Augmentation moves a picture by up to this share of its side, in each direction."""
_TOKENIZED_AT_ONCE = 4096
_SCORED_AT_ONCE = 128


@dataclass(frozen=True, slots=True)
class Examples:
    """N products; ``lengths`` (N,) counts tokens, so that a batch is no wider than its longest text."""

    dataset: Dataset
    spec: ModelSpec
    tokens: dict[str, NDArray[np.int32]]
    """Name of the input -> (N, L)."""
    lengths: NDArray[np.int64]
    has_image: NDArray[np.bool_]

    @classmethod
    def of(cls, dataset: Dataset, spec: ModelSpec, tokenizer: TextTokenizer) -> Examples:
        """Tokenize every product with the preprocessing that the artifact will have (I8)."""
        preprocessor = Preprocessor(tokenizer, spec)
        tokens: dict[str, NDArray[np.int32]] = {}
        for start in range(0, len(dataset), _TOKENIZED_AT_ONCE):
            part = slice(start, start + _TOKENIZED_AT_ONCE)
            for name, ids in preprocessor.token_ids(dataset.titles[part], dataset.descriptions[part]).items():
                column = tokens.setdefault(name, np.zeros((len(dataset), spec.text.max_length), dtype=np.int32))
                # what lies right of a text is cut or masked, so any id will do there
                column[part, : ids.shape[1]] = ids
        lengths = tokens["attention_mask"].sum(axis=1, dtype=np.int64)
        return cls(dataset, spec, tokens, lengths, dataset.has_image)

    def batch(
        self, index: Index, hidden: NDArray[np.bool_] | None = None, augment: np.random.Generator | None = None
    ) -> ModelInputs:
        """The inputs of the products at ``index`` (B,); pictures are not seen where ``hidden`` (B,)."""
        longest = int(self.lengths[index].max())
        ids = {name: torch.from_numpy(column[index, :longest].astype(np.int64)) for name, column in self.tokens.items()}
        pixels = np.asarray(self.dataset.pixels[index])
        has_image = self.has_image[index]
        if hidden is not None:
            has_image = has_image & ~hidden
        if augment is not None:
            pixels = vary(pixels, augment)
        return ModelInputs(
            input_ids=ids["input_ids"],
            attention_mask=ids["attention_mask"],
            token_type_ids=ids.get("token_type_ids"),
            pixels=normalise_pixels(pixels, has_image, self.spec.image),
            has_image=torch.from_numpy(has_image),
        )

    def outputs(self, network: MultiModalNet, index: Index) -> ModelOutputs:
        """The outputs for all products at ``index``, in its order, on the CPU; ``network`` is left in eval mode."""
        network.eval()
        device = next(network.parameters()).device
        order = np.argsort(self.lengths[index], kind="stable")
        back = torch.from_numpy(np.argsort(order, kind="stable"))
        with torch.inference_mode():
            parts = [network(self.batch(index[at]).to(device)) for at in _chunks(order, _SCORED_AT_ONCE)]
        logits = {name: torch.cat([part.logits[name].cpu() for part in parts])[back] for name in network.heads}
        weights = [part.attention for part in parts if part.attention is not None]
        if not weights:
            return ModelOutputs(logits, None)
        return ModelOutputs(
            logits, {name: torch.cat([part[name].cpu() for part in weights])[back] for name in network.heads}
        )


def vary(pixels: NDArray[np.uint8], random: np.random.Generator) -> NDArray[np.uint8]:
    """Mirror half of the pictures (B, S, S, 3) and shift each a little; the edge is repeated.

    A listing shows the same thing mirrored or off centre. Colours stay as they are: colour is what is to be learned.
    """
    count, side = len(pixels), pixels.shape[1]
    reach = int(side * SHIFT)
    places = np.arange(side)
    rows = np.clip(places + random.integers(-reach, reach + 1, (count, 1)), 0, side - 1)  # (B, S)
    columns = np.clip(places + random.integers(-reach, reach + 1, (count, 1)), 0, side - 1)
    mirrored = random.random((count, 1)) < 0.5
    columns = np.where(mirrored, columns[:, ::-1], columns)
    return np.asarray(pixels[np.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]])


def _chunks(order: Index, size: int) -> Iterator[Index]:
    return (order[start : start + size] for start in range(0, len(order), size))
