"""The contenders without a framework: a process per core with a single thread, a static share of the files for each."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from inference_job import Job, Scored, files_of
from inference_model import PlainModel, Probabilities, batches, inputs_of, top_table

if TYPE_CHECKING:
    from catalog_enrichment.models.network import ModelInputs

Share = tuple[list[int], Probabilities]
"""Rows of the products that a process scored, and their probabilities, (N, V) per attribute."""

_model: PlainModel
"""The model of a worker process, set by :func:`_load` when the process starts."""
_prepared: list[tuple[list[int], ModelInputs]]
"""The decoded and tokenized batches of a worker process of ``bare``."""


class Plain:
    """Decode, tokenize and forward in sequence, in arrival order; texts padded to the longest of their batch."""

    bf16 = False
    model = PlainModel

    def __init__(self, job: Job) -> None:
        self._batch, context, given = job.batch, get_context("spawn"), (self.model, job.version.artifact, self.bf16)
        self._workers = [
            ProcessPoolExecutor(1, mp_context=context, initializer=_load, initargs=given) for _ in range(job.workers)
        ]

    def score(self, folder: Path) -> Scored:
        """Score all products of a world; timed from the files to the probabilities in this process."""
        shares = [files_of(folder)[first :: len(self._workers)] for first in range(len(self._workers))]
        self.prepare(shares)
        start = time.monotonic()
        results = self.run(shares)
        seconds = time.monotonic() - start
        rows = [row for share, _ in results for row in share]
        found = {name: np.concatenate([share[name] for _, share in results]) for name in results[0][1]}
        labels = self._workers[0].submit(_labels).result()
        return Scored(seconds, top_table(labels, rows, found))

    def prepare(self, shares: Sequence[Sequence[Path]]) -> None:
        """Do what is not timed."""

    def run(self, shares: Sequence[Sequence[Path]]) -> list[Share]:
        return self.on_all(_score, [(share, self._batch) for share in shares])

    def on_all(self, work: Callable[..., Any], arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        """The results of ``work`` in every process that has products, called at the same time."""
        calls = [worker.submit(work, *given) for worker, given in zip(self._workers, arguments, strict=True)]
        return [result for call in calls if (result := call.result()) is None or result[0]]

    def close(self) -> None:
        for worker in self._workers:
            worker.shutdown()


class PlainBf16(Plain):
    """Plain with the forward pass under autocast to bfloat16."""

    bf16 = True


class Bare(Plain):
    """The forward pass only: the network's inputs are in memory before the clock starts."""

    def prepare(self, shares: Sequence[Sequence[Path]]) -> None:
        self.on_all(_prepare, [(share, self._batch) for share in shares])

    def run(self, shares: Sequence[Sequence[Path]]) -> list[Share]:
        return self.on_all(_forward, [()] * len(shares))


def _load(model: type[PlainModel], artifact: str, bf16: bool) -> None:
    global _model
    _model = model(Path(artifact), bf16)


def _labels() -> dict[str, np.ndarray]:
    return _model.labels


def _score(files: Sequence[Path], size: int) -> Share:
    return _joined([(batch["row"], _model.predict(*inputs_of(batch))) for batch in batches(files, size)])


def _prepare(files: Sequence[Path], size: int) -> None:
    global _prepared
    _prepared = [(batch["row"], _model.inputs(*inputs_of(batch))) for batch in batches(files, size)]


def _forward() -> Share:
    global _prepared
    scored = [(rows, _model.forward(inputs)) for rows, inputs in _prepared]
    _prepared = []
    return _joined(scored)


def _joined(scored: Sequence[tuple[list[int], Probabilities]]) -> Share:
    rows = [row for of_batch, _ in scored for row in of_batch]
    names = scored[0][1] if scored else {}
    return rows, {name: np.concatenate([found[name] for _, found in scored]) for name in names}
