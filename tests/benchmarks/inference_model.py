"""The model version as a user would run it without this project's engine: decode, tokenize, forward, eager PyTorch.

Decoding, cleaning, tokenization and the network are those of the model version, because every contender must give the
same predictions. Shapes: B products, N products of several batches, V values of an attribute.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

if TYPE_CHECKING:
    from catalog_enrichment.models.network import ModelInputs

Probabilities = dict[str, np.ndarray]
"""Attribute -> (B, V) or (N, V) float32."""
START_SECONDS = 120.0
"""Longest time that a worker waits for the others to load their model."""


class PlainModel:
    """A model version on the CPU. ``bf16``: the forward pass under autocast to bfloat16; else float32 throughout."""

    def __init__(self, folder: Path, bf16: bool = False) -> None:
        """Raises ModelContractError if ``folder`` is not an undamaged model version."""
        import torch

        from catalog_enrichment.config.images import ImagesConfig
        from catalog_enrichment.models import artifact
        from catalog_enrichment.models.preprocess import Preprocessor

        torch.set_num_threads(1)
        loaded = artifact.load(folder)
        self._net, self._temperatures, self.spec = loaded.net, loaded.temperatures, loaded.spec
        self._preprocessor = Preprocessor(loaded.tokenizers, loaded.spec)
        # a user who keeps no scaled copies does not make any
        self._limits, self._bf16 = ImagesConfig(keep_scaled=False), bf16
        self.labels = {name: np.array(head.labels, dtype=object) for name, head in loaded.net.heads.items()}
        """Attribute -> its V values."""

    def inputs(
        self, titles: Sequence[str | None], descriptions: Sequence[str | None], pictures: Sequence[bytes | None]
    ) -> ModelInputs:
        """Decoded and tokenized; texts are padded to the longest of these B products."""
        from catalog_enrichment.inputs.images import decode_image
        from catalog_enrichment.inputs.product_batch import ProductBatch

        square = self.spec.image.square
        decoded = [None if data is None else decode_image(data, square, self._limits).pixels for data in pictures]
        return self._preprocessor.inputs(ProductBatch(titles, descriptions, decoded))

    def forward(self, inputs: ModelInputs) -> Probabilities:
        """The calibrated probabilities of B products."""
        import torch

        from catalog_enrichment.records import Cardinality

        autocast = torch.autocast("cpu", torch.bfloat16) if self._bf16 else nullcontext()
        probabilities = {}
        with torch.inference_mode():
            with autocast:
                logits = self._net(inputs).logits
            for name, head in self._net.heads.items():
                scaled = logits[name].float() / self._temperatures[name]
                single = head.cardinality is Cardinality.ONE
                probabilities[name] = (scaled.softmax(dim=1) if single else scaled.sigmoid()).numpy()
        return probabilities

    def predict(
        self, titles: Sequence[str | None], descriptions: Sequence[str | None], pictures: Sequence[bytes | None]
    ) -> Probabilities:
        """:meth:`inputs`, then :meth:`forward`."""
        return self.forward(self.inputs(titles, descriptions, pictures))

    def warm_up(self, files: Sequence[Path], batch: int) -> None:
        """Score the first ``batch`` of the products in ``files``."""
        for first in islice(batches(files, batch), 1):
            self.predict(*inputs_of(first))

    def top(self, probabilities: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Per attribute the best value, `NAME` (B,) object, and its probability, `NAME_score` (B,) float32."""
        columns = {}
        for name, scores in probabilities.items():
            columns[name] = self.labels[name][scores.argmax(axis=1)]
            columns[f"{name}_score"] = scores.max(axis=1)
        return columns


def inputs_of(batch: dict[str, list[Any]]) -> tuple[list[Any], list[Any], list[Any]]:
    return batch["title"], batch["description"], batch["image"]


def batches(files: Sequence[Path], size: int) -> Iterator[dict[str, list[Any]]]:
    """Yield the products of a world's files in their order, ``size`` at a time: column -> values."""
    for file in files:
        for batch in pq.read_table(file).to_batches(max_chunksize=size):
            yield batch.to_pydict()


def top_table(
    labels: Mapping[str, np.ndarray], rows: Sequence[int], probabilities: Mapping[str, np.ndarray]
) -> pa.Table:
    """``row``, and per attribute `NAME`, `NAME_score` and all probabilities, `NAME_all`, in the order of the labels."""
    columns: dict[str, Any] = {"row": pa.array(rows, pa.int64())}
    for name, scores in probabilities.items():
        columns[name] = pa.array(labels[name][scores.argmax(axis=1)], pa.string())
        columns[f"{name}_score"] = pa.array(scores.max(axis=1), pa.float64())
        columns[f"{name}_all"] = pa.array(scores.tolist(), pa.list_(pa.float64()))
    return pa.table(columns)


def wait_for_all(folder: Path, worker: str, workers: int) -> None:
    """Note in ``folder`` that this worker has its model; return when ``workers`` have, or after START_SECONDS.

    For frameworks that start new workers for every pass: their start is no part of the measured time.
    """
    (folder / f"loaded-{worker}").touch()
    deadline = time.monotonic() + START_SECONDS
    while len(list(folder.glob("loaded-*"))) < workers and time.monotonic() < deadline:
        time.sleep(0.01)
    (folder / f"began-{worker}").write_text(repr(time.monotonic()))


def first_begin(folder: Path, workers: int) -> float:
    """When the first of the workers began to score (time.monotonic, seconds).

    Raises RuntimeError if fewer than ``workers`` did: then some had nothing to do.
    """
    begun = [float(file.read_text()) for file in folder.glob("began-*")]
    if len(begun) < workers:
        raise RuntimeError(
            f"{len(begun)} of {workers} workers had products to score; score more products, or smaller batches"
        )
    return min(begun)


def note_end(folder: Path, worker: str) -> None:
    """Note in ``folder`` that this worker has scored a batch now."""
    (folder / f"ended-{worker}").write_text(repr(time.monotonic()))


def last_end(folder: Path) -> float:
    """When the last batch was scored (time.monotonic, seconds)."""
    return max(float(file.read_text()) for file in folder.glob("ended-*"))
