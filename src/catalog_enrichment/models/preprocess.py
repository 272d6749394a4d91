"""One preprocessing for training and batch (I8): raw texts and decoded pictures to the network's inputs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from catalog_enrichment.inputs.text import clean_text
from catalog_enrichment.inputs.tokenizer import TextTokenizer
from catalog_enrichment.models.network import ModelInputs
from catalog_enrichment.models.spec import ImageSpec, ModelSpec

VERSION = 1
"""Kept in every artifact. Raise it when the same product would give other inputs: cleaning, text form, decoding,
resizing or normalisation. A certificate holds for one preprocessing."""


class Preprocessor:
    def __init__(self, tokenizer: TextTokenizer, spec: ModelSpec) -> None:
        self._tokenizer = tokenizer
        self._spec = spec

    def inputs(
        self,
        titles: Sequence[str | None],
        descriptions: Sequence[str | None],
        pixels: Sequence[np.ndarray | None],
    ) -> ModelInputs:
        """The inputs of B products: raw texts, and uint8 (S, S, 3) pictures as ``decode_image`` gives them, or None.

        Raises ValueError if the three are not of one length or a picture is not of the model's size.
        """
        if not len(titles) == len(descriptions) == len(pixels):
            raise ValueError(f"{len(titles)} titles, {len(descriptions)} descriptions and {len(pixels)} pictures")
        ids = self.token_ids(titles, descriptions)
        types = ids.get("token_type_ids")
        has_image = np.array([picture is not None for picture in pixels], dtype=bool)
        return ModelInputs(
            input_ids=torch.from_numpy(ids["input_ids"]),
            attention_mask=torch.from_numpy(ids["attention_mask"]),
            token_type_ids=None if types is None else torch.from_numpy(types),
            pixels=normalise_pixels(self._stack(pixels), has_image, self._spec.image),
            has_image=torch.from_numpy(has_image),
        )

    def token_ids(self, titles: Sequence[str | None], descriptions: Sequence[str | None]) -> dict[str, np.ndarray]:
        """The texts alone, cleaned and encoded; see :meth:`TextTokenizer.encode`."""
        text = self._spec.text
        first = [clean_text(title, text.max_chars) for title in titles]
        second = [clean_text(description, text.max_chars) for description in descriptions]
        return self._tokenizer.encode(first, second, text.max_length)

    def _stack(self, pixels: Sequence[np.ndarray | None]) -> np.ndarray:
        size = self._spec.image.size
        stacked = np.zeros((len(pixels), size, size, 3), dtype=np.uint8)
        for row, picture in enumerate(pixels):
            if picture is None:
                continue
            if picture.shape != stacked.shape[1:] or picture.dtype != np.uint8:
                raise ValueError(f"picture {row} is {picture.dtype} {picture.shape}, not uint8 {stacked.shape[1:]}")
            stacked[row] = picture
        return stacked


def normalise_pixels(pixels: np.ndarray, has_image: np.ndarray, spec: ImageSpec) -> torch.Tensor:
    """uint8 (B, S, S, 3) pictures to float32 (B, 3, S, S), (x / 255 - mean) / std; 0 without a picture."""
    scale = 1 / (255 * torch.tensor(spec.std))
    shift = -torch.tensor(spec.mean) / torch.tensor(spec.std)
    normalised = torch.from_numpy(pixels).float().mul_(scale).add_(shift)  # (B, S, S, 3)
    normalised[torch.from_numpy(~has_image)] = 0
    return normalised.permute(0, 3, 1, 2)  # stays channels-last in memory, the layout convolutions like best
