"""Fitting on several GPUs, processes or nodes, through Spark's TorchDistributor.

Every process runs the same :func:`~catalog_enrichment.training.fit.fit` over its share of each batch; the result is
that of the first process. The task is passed in a folder, which on a cluster every node must be able to read.
"""

from __future__ import annotations

import json
import os
import pickle
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import distributed

from catalog_enrichment.errors import ConfigError
from catalog_enrichment.models.network import build_network
from catalog_enrichment.models.spec import Recipe
from catalog_enrichment.training.dataset import Dataset
from catalog_enrichment.training.fit import Fitted, fit, set_threads
from catalog_enrichment.training.loop import OnEpoch, ignored
from catalog_enrichment.training.single_encoder import device, heads_of
from catalog_enrichment.training.task import Task

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from catalog_enrichment.training.loop import Progress


class Fitter(Protocol):
    """The signature of :func:`~catalog_enrichment.training.fit.fit`."""

    def __call__(
        self,
        recipe: Recipe,
        task: Task,
        progress: Progress,
        checkpoints: Path | None = None,
        on_epoch: OnEpoch = ignored,
    ) -> Fitted: ...


_TASK, _RESULT, _EPOCHS = "task.pkl", "fitted.pt", "epochs.jsonl"
_LOOK_SECONDS = 1.0
"""How often the driver looks for epochs that have ended."""


def distributed_fitter(spark: SparkSession, folder: Path, processes: int, local: bool) -> Fitter:
    """A ``fit`` with ``processes`` processes: on the driver if ``local``, else one per Spark task.

    With GPUs every process uses one: locally the GPU of its rank, on a cluster the one that Spark's resource scheduling
    (`spark.task.resource.gpu.amount`) assigns. ``folder`` holds the task and the result. Raises ConfigError for more
    processes than this machine has GPUs.
    """
    if local and 0 < torch.cuda.device_count() < processes:
        raise ConfigError(f"training.processes is {processes}, but this machine has {torch.cuda.device_count()} GPUs")

    def fit_distributed(
        recipe: Recipe, task: Task, progress: Progress, checkpoints: Path | None = None, on_epoch: OnEpoch = ignored
    ) -> Fitted:
        from pyspark.ml.torch.distributor import TorchDistributor

        progress(f"{recipe.name}: fitted by {processes} processes {'on the driver' if local else 'on the cluster'}")
        _write_task(folder, recipe, task, checkpoints)
        # locally fit_in_group selects the GPU of the rank; on a cluster Spark assigns GPUs if it is configured to
        scheduled = not local and int(spark.conf.get("spark.task.resource.gpu.amount", "0") or 0) > 0
        group = TorchDistributor(num_processes=processes, local_mode=local, use_gpu=scheduled)
        with _followed(folder / _EPOCHS, on_epoch):
            group.run(fit_in_group, str(folder), _threads(processes, local))
        return _read_result(folder, recipe, task)

    return fit_distributed


def fit_in_group(folder: str, threads: int) -> None:
    """The function that each process runs."""
    gpu = torch.cuda.is_available()
    distributed.init_process_group("nccl" if gpu else "gloo")
    try:
        if gpu:
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        set_threads(threads)
        recipe, task, checkpoints = _read_task(Path(folder))
        first = distributed.get_rank() == 0
        told: OnEpoch = partial(_write_epoch, Path(folder) / _EPOCHS) if first else ignored
        fitted = fit(recipe, task, _print if first else _discard, checkpoints, told)
        if first:
            content = {
                "network": {name: value.cpu() for name, value in fitted.network.state_dict().items()},
                "history": fitted.history,
                "chosen": fitted.chosen,
                "search": fitted.search,
                "stages": fitted.stages,
            }
            torch.save(content, Path(folder) / _RESULT)
    finally:
        distributed.destroy_process_group()


@contextmanager
def _followed(file: Path, on_epoch: OnEpoch) -> Iterator[None]:
    """Call ``on_epoch`` for the epochs that the first process writes into ``file`` meanwhile."""
    ended = threading.Event()

    def follow() -> None:
        position, last = 0, False
        while not last:
            last = ended.wait(_LOOK_SECONDS)
            lines = file.read_bytes()[position:] if file.exists() else b""
            whole = lines[: lines.rfind(b"\n") + 1]  # a line may be half written
            position += len(whole)
            for line in whole.splitlines():
                on_epoch(*json.loads(line))

    follower = threading.Thread(target=follow, name="epochs of the fit", daemon=True)
    follower.start()
    try:
        yield
    finally:
        ended.set()
        follower.join(timeout=60)


def _write_epoch(file: Path, stage: str, row: Mapping[str, float]) -> None:
    with file.open("a") as lines:
        lines.write(json.dumps([stage, dict(row)]) + "\n")


def _write_task(folder: Path, recipe: Recipe, task: Task, checkpoints: Path | None) -> None:
    """Write the task without its pictures, which stay in their memory-mapped file."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in (_RESULT, _EPOCHS):
        (folder / name).unlink(missing_ok=True)
    dataset = task.examples.dataset
    pixels = getattr(dataset.pixels, "filename", None), dataset.pixels.shape
    plain = _with_dataset(task, _without_pixels(dataset))
    with (folder / _TASK).open("wb") as sink:
        pickle.dump((recipe, plain, pixels, checkpoints), sink)


def _read_task(folder: Path) -> tuple[Recipe, Task, Path | None]:
    with (folder / _TASK).open("rb") as source:  # trusted: written by this job
        recipe, task, (file, shape), checkpoints = pickle.load(source)
    dataset = task.examples.dataset
    if file is not None:
        dataset.pixels = np.memmap(file, dtype=np.uint8, mode="r", shape=shape)
    return recipe, task, checkpoints


def _read_result(folder: Path, recipe: Recipe, task: Task) -> Fitted:
    result = torch.load(folder / _RESULT, weights_only=True)
    network = build_network(recipe.model, heads_of(task.labels), task.tokenizers)
    network.load_state_dict(result["network"])
    rows = [result[name] for name in ("history", "chosen", "search", "stages")]
    return Fitted(network.to(device()).eval(), *rows)


def _without_pixels(dataset: Dataset) -> Dataset:
    return replace(dataset, pixels=np.zeros((0, 1, 1, 3), dtype=np.uint8))


def _with_dataset(task: Task, dataset: Dataset) -> Task:
    return replace(task, examples=replace(task.examples, dataset=dataset))


def _threads(processes: int, local: bool) -> int:
    return max(1, (os.cpu_count() or 1) // processes) if local else 0


def _print(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _discard(_line: str) -> None:
    """Only the first process reports progress."""
