"""Preprocessing for training and batch (I8): raw texts and decoded pictures to the network's inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from catalog_enrichment.inputs.product_batch import ProductBatch
from catalog_enrichment.inputs.text import TextTokenizer, clean_text
from catalog_enrichment.models.network import ModelInputs
from catalog_enrichment.models.spec import ImageSpec, ModelSpec, TextSpec
from catalog_enrichment.models.text_encoders import Tokens

VERSION = 1
"""The version in every artifact. Increase it when the same product would give different inputs: cleaning, text form,
decoding, resizing or normalisation. A certificate is valid for a single version."""


@dataclass(frozen=True, slots=True)
class TokenIds:
    """A text of N products as arrays; the columns are those of :class:`Tokens`, by name."""

    columns: Mapping[str, NDArray[np.integer[Any]]]
    """Name -> (N, T)."""
    present: NDArray[np.bool_]
    """(N,): the product has this text."""

    def tokens(self) -> Tokens:
        tensors = {name: torch.from_numpy(column) for name, column in self.columns.items()}
        return Tokens(
            tensors["input_ids"],
            tensors["attention_mask"],
            tensors.get("token_type_ids"),
            torch.from_numpy(self.present),
        )


class Preprocessor:
    def __init__(self, tokenizers: Mapping[str, TextTokenizer], spec: ModelSpec) -> None:
        self._tokenizers = dict(tokenizers)
        self._spec = spec

    def inputs(self, batch: ProductBatch, device: torch.device | str = "cpu") -> ModelInputs:
        """Return the network's inputs of B products, on ``device``. Raises ValueError for a picture of another size.

        Pictures go to a GPU as bytes, from pinned memory and while the CPU goes on, and are normalised there.
        """
        has_image = np.array([picture is not None for picture in batch.pictures], dtype=bool)
        return ModelInputs(
            texts={
                name: tuple(ids.tokens().to(device) for ids in texts)
                for name, texts in self.token_ids(batch.titles, batch.descriptions).items()
            },
            pixels=normalise_pixels(self._stack(batch.pictures), has_image, self._spec.image, device),
            has_image=torch.from_numpy(has_image).to(device),
        )

    def token_ids(
        self, titles: Sequence[str | None], descriptions: Sequence[str | None]
    ) -> dict[str, tuple[TokenIds, ...]]:
        """Return text encoder -> the texts it reads, cleaned and encoded; see :meth:`TextTokenizer.encode`."""
        return {
            name: _encoded(self._tokenizers[name], spec, titles, descriptions)
            for name, spec in self._spec.texts.items()
        }

    def text_lengths(self, titles: Sequence[str | None], descriptions: Sequence[str | None]) -> NDArray[np.int64]:
        """Return the tokens of each product's texts, of all text encoders together: (B,)."""
        texts = [ids for read in self.token_ids(titles, descriptions).values() for ids in read]
        return np.asarray(sum(ids.columns["attention_mask"].sum(axis=1, dtype=np.int64) for ids in texts))

    def _stack(self, pictures: Sequence[NDArray[np.uint8] | None]) -> NDArray[np.uint8]:
        """Return the pictures as (B, S, S, 3), 0 without a picture."""
        size = self._spec.image.size
        stacked = np.zeros((len(pictures), size, size, 3), dtype=np.uint8)
        for row, picture in enumerate(pictures):
            if picture is None:
                continue
            if picture.shape != stacked.shape[1:] or picture.dtype != np.uint8:
                raise ValueError(f"picture {row} is {picture.dtype} {picture.shape}, not uint8 {stacked.shape[1:]}")
            stacked[row] = picture
        return stacked


def _encoded(
    tokenizer: TextTokenizer, spec: TextSpec, titles: Sequence[str | None], descriptions: Sequence[str | None]
) -> tuple[TokenIds, ...]:
    first = [clean_text(title, spec.max_chars) for title in titles]
    second = [clean_text(description, spec.max_chars) for description in descriptions]
    no_text, always = [""] * len(first), np.ones(len(first), dtype=bool)
    has_description = np.array([bool(text) for text in second], dtype=bool)
    if spec.fields == "pair":
        return (TokenIds(tokenizer.encode(first, second, spec.max_length), always),)
    # an empty title counts as present, so that a product without any text gets a score
    title = TokenIds(tokenizer.encode(first, no_text, spec.max_length), always)
    description = TokenIds(tokenizer.encode(second, no_text, spec.max_length), has_description)
    return {"title": (title,), "description": (description,), "apart": (title, description)}[spec.fields]


def normalise_pixels(
    pixels: np.ndarray, has_image: np.ndarray, spec: ImageSpec, device: torch.device | str = "cpu"
) -> torch.Tensor:
    """Turn uint8 pictures (B, S, S, 3) into float32 (B, 3, S, S) on ``device``: (x / 255 - mean) / std.

    A product without a picture has 0.
    """
    side = pixels.shape[2]  # a whole line of pixels at a time: with the three channels alone nothing is vectorised
    scale = (1 / (255 * torch.tensor(spec.std))).repeat(side).to(device)
    shift = (-torch.tensor(spec.mean) / torch.tensor(spec.std)).repeat(side).to(device)
    given = torch.from_numpy(pixels)
    if torch.device(device).type == "cuda":
        given = given.pin_memory().to(device, non_blocking=True)
    lines = given.flatten(2).float().mul_(scale).add_(shift)  # (B, S, 3 S)
    normalised = lines.view(pixels.shape)
    if not has_image.all():
        normalised[torch.from_numpy(~has_image).to(device)] = 0
    return normalised.permute(0, 3, 1, 2)  # stays channels-last in memory, the fastest layout for convolutions
