"""The data set as network inputs: texts are tokenized once; pictures are read, augmented and masked per batch.

Also the inputs and the spec of a model with a single encoder, for the fits of encoders by themselves.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from catalog_enrichment.inputs.text import TextTokenizer
from catalog_enrichment.models.fusion.base import EncoderOutput
from catalog_enrichment.models.network import ModelInputs, ModelOutputs, MultiModalNet
from catalog_enrichment.models.preprocess import Preprocessor, TokenIds, normalise_pixels
from catalog_enrichment.models.spec import FusionSpec, ModelSpec
from catalog_enrichment.models.text_encoders import Tokens
from catalog_enrichment.precision.units import Bools
from catalog_enrichment.training.dataset import Dataset
from catalog_enrichment.training.folds import Index

SHIFT = 0.08
"""Augmentation moves a picture by up to this share of its side, in each direction."""
_TOKENIZER_BATCH = 4096
_BATCH_SIZE = 128


@dataclass(frozen=True, slots=True)
class KnownVectors:
    """Outputs of a frozen encoder for some of the N products."""

    row_of: NDArray[np.int64]
    """(N,): the product's row in ``vectors``; -1: it has none."""
    vectors: tuple[torch.Tensor, ...]
    """(n, H) float32, for each text that the encoder reads; (n, D) for the picture."""


@dataclass(frozen=True, slots=True)
class Examples:
    """Inputs of N products; ``lengths`` (N,) are token counts, by which batches are sorted to save padding."""

    dataset: Dataset
    spec: ModelSpec
    texts: dict[str, tuple[TokenIds, ...]]
    """Text encoder -> the texts it reads, (N, width) int32 each."""
    lengths: NDArray[np.int64]
    has_image: Bools
    picture_size: int = 0
    """Side in pixels to which pictures are shrunk; 0: not shrunk."""
    vectors: dict[str, KnownVectors] = field(default_factory=dict)
    """Frozen encoder -> its outputs for the texts or pictures; see :meth:`with_frozen_outputs`."""

    @classmethod
    def of(cls, dataset: Dataset, spec: ModelSpec, tokenizers: Mapping[str, TextTokenizer]) -> Examples:
        """Tokenize every product with the preprocessing that is saved in the artifact (I8)."""
        preprocessor = Preprocessor(tokenizers, spec)
        parts = [
            preprocessor.token_ids(
                dataset.titles[start : start + _TOKENIZER_BATCH], dataset.descriptions[start : start + _TOKENIZER_BATCH]
            )
            for start in range(0, len(dataset), _TOKENIZER_BATCH)
        ]
        texts = {
            name: tuple(_joined([part[name][view] for part in parts]) for view in range(text.texts_read))
            for name, text in spec.texts.items()
        }
        lengths = sum(
            ids.columns["attention_mask"].sum(axis=1, dtype=np.int64) for views in texts.values() for ids in views
        )
        return cls(dataset, spec, texts, np.asarray(lengths, dtype=np.int64), dataset.has_image)

    def with_picture_size(self, picture_size: int) -> Examples:
        """Return the same examples with pictures shrunk to ``picture_size``."""
        return replace(self, picture_size=picture_size)

    def of_encoder(self, name: str) -> Examples:
        """Return the examples as inputs of :func:`single_encoder_spec`: the texts of the encoder ``name``."""
        return replace(self, texts={"text": self.texts[name if name in self.texts else "text"]})

    def with_frozen_outputs(self, network: MultiModalNet, index: Index, pictures: bool) -> Examples:
        """Return the same examples, in which the products at ``index`` have the outputs of the ``network``'s frozen
        encoders in place of their texts, and with ``pictures`` of their pictures: they are the same in every epoch,
        unless the pictures are varied. For a fusion that uses no tokens.

        Leaves ``network`` in eval mode.
        """
        frozen = {
            name: encoder
            for name, encoder in network.encoders().items()
            if not any(weight.requires_grad for weight in encoder.parameters()) and (pictures or name != "image")
        }
        if network.fusion.uses_tokens or not frozen:
            return self
        network.eval()
        device = next(network.parameters()).device
        row_of = np.full(len(self.dataset), -1)
        row_of[index] = np.arange(len(index))
        order = np.argsort(self.lengths[index], kind="stable")
        found: dict[str, list[torch.Tensor]] = {}
        with torch.inference_mode():
            for chunk in _chunks(order, _BATCH_SIZE):
                inputs = self._inputs_of(frozen, index[chunk]).to(device)
                encoded = {name: network.encoded(name, inputs) for name in frozen}
                for name, outputs in encoded.items():
                    if name not in found:
                        found[name] = [torch.zeros(len(index), output.vector.shape[1]) for output in outputs]
                    for filled, output in zip(found[name], outputs, strict=True):
                        filled[torch.from_numpy(chunk)] = output.vector.cpu()
        vectors = {name: KnownVectors(row_of, tuple(filled)) for name, filled in found.items()}
        return replace(self, vectors=self.vectors | vectors)

    def _inputs_of(self, encoders: Collection[str], index: Index) -> ModelInputs:
        """Return the inputs of ``encoders`` for the products at ``index``; no pictures for text encoders alone."""
        if "image" in encoders:
            return self.batch(index)
        texts = {name: self._texts(name, index) for name in encoders}
        return ModelInputs(texts, torch.zeros(0), torch.from_numpy(self.has_image[index]))

    def batch(
        self, index: Index, masked_images: Bools | None = None, augment: np.random.Generator | None = None
    ) -> ModelInputs:
        """Return the inputs of the products at ``index`` (B,); ``masked_images`` (B,): pictures to leave out.

        ``augment``: random numbers for :func:`augmented` pictures; None: pictures as they are.
        """
        has_image = self.has_image[index]
        if masked_images is not None:
            has_image = has_image & ~masked_images
        texts = {name: self._texts(name, index) for name in self.texts}
        if (rows := self._known("image", index)) is not None:
            (vectors,), present = self.vectors["image"].vectors, torch.from_numpy(has_image)
            known = EncoderOutput.of(vectors[rows], vectors[rows][:, None], present[:, None], present)
            return ModelInputs(texts, torch.zeros(0), present, known)
        pixels = np.asarray(self.dataset.pixels[index])
        if augment is not None:
            pixels = augmented(pixels, augment)
        normalised = normalise_pixels(pixels, has_image, self.spec.image)
        if 0 < self.picture_size < normalised.shape[-1]:
            normalised = functional.interpolate(normalised, size=self.picture_size, mode="area")
        return ModelInputs(texts, normalised, torch.from_numpy(has_image))

    def _texts(self, name: str, index: Index) -> tuple[Tokens | EncoderOutput, ...]:
        """Return the texts that the encoder ``name`` reads, or its outputs where they are known for all of
        ``index``."""
        if (rows := self._known(name, index)) is None:
            return tuple(_rows(ids, index) for ids in self.texts[name])
        present = [torch.from_numpy(ids.present[index]) for ids in self.texts[name]]
        return tuple(
            EncoderOutput(vectors[rows], vectors[rows][:, None], there[:, None], there)
            for vectors, there in zip(self.vectors[name].vectors, present, strict=True)
        )

    def _known(self, name: str, index: Index) -> torch.Tensor | None:
        """(B,) rows of the vectors of the encoder ``name``; None unless they are known for all of ``index``."""
        known = self.vectors.get(name)
        return None if known is None or (known.row_of[index] < 0).any() else torch.from_numpy(known.row_of[index])

    def outputs(self, network: MultiModalNet, index: Index) -> ModelOutputs:
        """Return the outputs for all products at ``index``, in its order, on the CPU. Leaves ``network`` in eval
        mode."""
        network.eval()
        device = next(network.parameters()).device
        order = np.argsort(self.lengths[index], kind="stable")
        original_order = torch.from_numpy(np.argsort(order, kind="stable"))
        with torch.inference_mode():
            parts = [network(self.batch(index[chunk]).to(device)) for chunk in _chunks(order, _BATCH_SIZE)]

        def joined(pieces: Sequence[Mapping[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
            return {name: torch.cat([piece[name].cpu() for piece in pieces])[original_order] for name in network.heads}

        weights = [part.attention for part in parts if part.attention is not None]
        experts = zip(*(part.experts for part in parts), strict=True)
        return ModelOutputs(
            joined([part.logits for part in parts]),
            joined(weights) if weights else None,
            tuple(joined(expert) for expert in experts),
        )


def single_encoder_spec(model: ModelSpec, name: str) -> ModelSpec:
    """Return the model with the encoder ``name`` only (text, second_text or image), unfrozen."""
    if name == "image":
        return unfrozen(replace(model, second_text=None, fusion=FusionSpec(kind="image_only")))
    return unfrozen(replace(model, text=model.texts[name], second_text=None, fusion=FusionSpec(kind="text_only")))


def unfrozen(model: ModelSpec) -> ModelSpec:
    """Return the model with every encoder unfrozen: a stage of its own fits an encoder that the whole model freezes."""
    second = None if model.second_text is None else replace(model.second_text, frozen=False)
    text, image = replace(model.text, frozen=False), replace(model.image, frozen=False)
    return replace(model, text=text, second_text=second, image=image)


def augmented(pixels: NDArray[np.uint8], random: np.random.Generator) -> NDArray[np.uint8]:
    """Mirror half of the pictures (B, S, S, 3) at random and shift each by up to SHIFT; the edge is repeated.

    Colours stay unchanged, because colour is an attribute to learn.
    """
    count, side = len(pixels), pixels.shape[1]
    reach = int(side * SHIFT)
    positions = np.arange(side)
    rows = np.clip(positions + random.integers(-reach, reach + 1, (count, 1)), 0, side - 1)  # (B, S)
    columns = np.clip(positions + random.integers(-reach, reach + 1, (count, 1)), 0, side - 1)
    mirrored = random.random((count, 1)) < 0.5
    columns = np.where(mirrored, columns[:, ::-1], columns)
    return np.asarray(pixels[np.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]])


def _joined(parts: Sequence[TokenIds]) -> TokenIds:
    """Join all ``parts`` into a batch, padded with masked tokens to the width of the widest."""
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
    """Return the texts of the products at ``index``, cut to the length of the longest."""
    longest = max(int(ids.columns["attention_mask"][index].sum(axis=1).max(initial=1)), 1)
    columns = {name: column[index, :longest].astype(np.int64) for name, column in ids.columns.items()}
    return TokenIds(columns, ids.present[index]).tokens()


def _chunks(order: Index, size: int) -> Iterator[Index]:
    return (order[start : start + size] for start in range(0, len(order), size))
