"""The data set as network inputs: texts tokenized once, pictures read by the batch, varied and masked on the way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from catalog_enrichment.inputs.tokenizer import TextTokenizer
from catalog_enrichment.models.encoders import Tokens
from catalog_enrichment.models.network import ModelInputs, ModelOutputs, MultiModalNet
from catalog_enrichment.models.preprocess import Preprocessor, TokenIds, normalise_pixels
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
    texts: dict[str, tuple[TokenIds, ...]]
    """Text encoder -> the texts it reads, of all products, int32."""
    lengths: NDArray[np.int64]
    has_image: NDArray[np.bool_]
    picture_size: int = 0
    """Pictures are shrunk to this side; 0: not at all."""

    @classmethod
    def of(cls, dataset: Dataset, spec: ModelSpec, tokenizers: Mapping[str, TextTokenizer]) -> Examples:
        """Tokenize every product with the preprocessing that the artifact will have (I8)."""
        preprocessor = Preprocessor(tokenizers, spec)
        parts = [
            preprocessor.token_ids(dataset.titles[start:end], dataset.descriptions[start:end])
            for start, end in _ranges(len(dataset), _TOKENIZED_AT_ONCE)
        ]
        texts = {
            name: tuple(_joined([part[name][view] for part in parts]) for view in range(text.views))
            for name, text in spec.texts.items()
        }
        lengths = sum(
            ids.columns["attention_mask"].sum(axis=1, dtype=np.int64) for views in texts.values() for ids in views
        )
        return cls(dataset, spec, texts, np.asarray(lengths, dtype=np.int64), dataset.has_image)

    def at(self, picture_size: int) -> Examples:
        """The same with smaller pictures."""
        return replace(self, picture_size=picture_size)

    def batch(
        self, index: Index, hidden: NDArray[np.bool_] | None = None, augment: np.random.Generator | None = None
    ) -> ModelInputs:
        """The inputs of the products at ``index`` (B,); pictures are not seen where ``hidden`` (B,)."""
        pixels = np.asarray(self.dataset.pixels[index])
        has_image = self.has_image[index]
        if hidden is not None:
            has_image = has_image & ~hidden
        if augment is not None:
            pixels = vary(pixels, augment)
        normalised = normalise_pixels(pixels, has_image, self.spec.image)
        if 0 < self.picture_size < normalised.shape[-1]:
            normalised = functional.interpolate(normalised, size=self.picture_size, mode="area")
        return ModelInputs(
            texts={name: tuple(_rows(ids, index) for ids in views) for name, views in self.texts.items()},
            pixels=normalised,
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

        def whole(pieces: Sequence[Mapping[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
            return {name: torch.cat([piece[name].cpu() for piece in pieces])[back] for name in network.heads}

        weights = [part.attention for part in parts if part.attention is not None]
        experts = zip(*(part.experts for part in parts), strict=True)
        return ModelOutputs(
            whole([part.logits for part in parts]),
            whole(weights) if weights else None,
            tuple(whole(expert) for expert in experts),
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


def _joined(parts: Sequence[TokenIds]) -> TokenIds:
    """Texts that were encoded apart, as wide as the longest; right of a text everything is masked."""
    width = max((part.columns["input_ids"].shape[1] for part in parts), default=1)
    columns = {
        name: np.concatenate(
            [np.pad(part.columns[name], ((0, 0), (0, width - part.columns[name].shape[1]))) for part in parts],
            dtype=np.int32,
        )
        for name in (parts[0].columns if parts else ())
    }
    return TokenIds(columns, np.concatenate([part.present for part in parts]))


def _rows(ids: TokenIds, index: Index) -> Tokens:
    """The texts of some products, no wider than the longest of them."""
    longest = max(int(ids.columns["attention_mask"][index].sum(axis=1).max(initial=1)), 1)
    columns = {name: column[index, :longest].astype(np.int64) for name, column in ids.columns.items()}
    return TokenIds(columns, ids.present[index]).tokens()


def _ranges(count: int, size: int) -> Iterator[tuple[int, int]]:
    return ((start, min(start + size, count)) for start in range(0, count, size))


def _chunks(order: Index, size: int) -> Iterator[Index]:
    return (order[start : start + size] for start in range(0, len(order), size))
