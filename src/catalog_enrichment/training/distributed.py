"""The function that fits recipes, in this process or in several, and its temporary folder.

Several processes of one machine, a GPU each where there are GPUs, are started through Spark's TorchDistributor. Every
process runs the same :func:`~catalog_enrichment.training.fit.fit` over its share of each batch; the result is that of
the first process. The task is passed in a folder. Imports torch inside functions only: a variable of its thread pool
must be set before.
"""

from __future__ import annotations

import json
import os
import pickle
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from catalog_enrichment.errors import ConfigError

if TYPE_CHECKING:
    from catalog_enrichment.config.schema import Config
    from catalog_enrichment.models.spec import Recipe
    from catalog_enrichment.training.fit import Fitted
    from catalog_enrichment.training.loop import OnEpoch, Progress
    from catalog_enrichment.training.task import Task


class Fitter(Protocol):
    """The signature of :func:`~catalog_enrichment.training.fit.fit`."""

    def __call__(
        self,
        recipe: Recipe,
        task: Task,
        progress: Progress,
        checkpoints: Path | None = None,
        on_epoch: OnEpoch = ...,
    ) -> Fitted: ...


_TASK, _RESULT, _EPOCHS = "task.pkl", "fitted.pt", "epochs.jsonl"
_LOOK_SECONDS = 1.0
"""How often the driver looks for epochs that have ended, and for lines of progress."""


@contextmanager
def fitting_resources(config: Config, job: str) -> Iterator[tuple[Path, Fitter]]:
    """Yield an empty temporary folder, and the function that fits a recipe: in this process, or in `training.processes`
    processes, for which Spark is started with ``job`` as its application name. The folder is deleted at the end.

    Raises ConfigError if there is no section `[training]`.
    """
    settings = config.training
    if settings is None:
        raise ConfigError(f"the config has no [training] section: {job} does not know which recipe to fit")
    # read when torch is loaded. Measured on shared cores: with unlimited spinning of waiting threads, training runs at
    # 1/50 of its speed; without spinning, at 2/3
    os.environ.setdefault("GOMP_SPINCOUNT", "30000")
    from catalog_enrichment.training.fit import fit

    with tempfile.TemporaryDirectory(prefix="catalog-enrichment-") as folder:
        workdir = Path(folder)
        if settings.processes == 1:
            yield workdir, fit
            return
        from catalog_enrichment.spark import session

        session.start(config, job)
        yield workdir, distributed_fitter(workdir / "group", settings.processes)


def distributed_fitter(folder: Path, processes: int) -> Fitter:
    """Return a ``fit`` that runs ``processes`` processes on the driver. Spark must have been started.

    With GPUs every process uses the GPU of its rank. ``folder`` holds the task and the result. Raises ConfigError for
    more processes than this machine has GPUs.
    """
    import torch

    from catalog_enrichment.training.loop import ignored

    if 0 < torch.cuda.device_count() < processes:
        raise ConfigError(f"training.processes is {processes}, but this machine has {torch.cuda.device_count()} GPUs")

    def fit_distributed(
        recipe: Recipe, task: Task, progress: Progress, checkpoints: Path | None = None, on_epoch: OnEpoch = ignored
    ) -> Fitted:
        from pyspark.ml.torch.distributor import TorchDistributor

        progress(f"{recipe.name}: fitted by {processes} processes")
        _write_task(folder, recipe, task, checkpoints)
        # without use_gpu: fit_in_group selects the GPU of the rank
        group = TorchDistributor(num_processes=processes, local_mode=True, use_gpu=False)
        with _followed(folder / _EPOCHS, on_epoch, progress):
            group.run(fit_in_group, str(folder), max(1, (os.cpu_count() or 1) // processes))
        return _read_result(folder, recipe, task)

    return fit_distributed


def fit_in_group(folder: str, threads: int) -> None:
    """Fit the task in ``folder``; each process runs this function."""
    import torch
    from torch import distributed

    from catalog_enrichment.training.fit import fit, set_threads
    from catalog_enrichment.training.loop import ignored

    gpu = torch.cuda.is_available()
    distributed.init_process_group("nccl" if gpu else "gloo")
    try:
        if gpu:
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        set_threads(threads)
        recipe, task, checkpoints = _read_task(Path(folder))
        first = distributed.get_rank() == 0
        on_epoch: OnEpoch = partial(_write_epoch, Path(folder) / _EPOCHS) if first else ignored
        progress: Progress = partial(_write_line, Path(folder) / _EPOCHS) if first else ignored
        fitted = fit(recipe, task, progress, checkpoints, on_epoch)
        if first:
            content = {field.name: getattr(fitted, field.name) for field in fields(fitted)}
            network = {name: value.cpu() for name, value in fitted.network.state_dict().items()}
            torch.save(content | {"network": network}, Path(folder) / _RESULT)
    finally:
        distributed.destroy_process_group()


@contextmanager
def _followed(file: Path, on_epoch: OnEpoch, progress: Progress) -> Iterator[None]:
    """Call ``on_epoch`` and ``progress`` for the epochs and lines that the first process writes into ``file``
    meanwhile."""
    ended = threading.Event()

    def follow() -> None:
        position, last = 0, False
        while not last:
            last = ended.wait(_LOOK_SECONDS)
            lines = file.read_bytes()[position:] if file.exists() else b""
            whole = lines[: lines.rfind(b"\n") + 1]  # a line may be half written
            position += len(whole)
            for line in whole.splitlines():
                stage, told = json.loads(line)
                if stage is None:
                    progress(told)
                else:
                    on_epoch(stage, told)

    follower = threading.Thread(target=follow, name="epochs of the fit", daemon=True)
    follower.start()
    try:
        yield
    finally:
        ended.set()
        follower.join(timeout=60)


def _write_epoch(file: Path, stage: str, row: Mapping[str, float]) -> None:
    _append(file, [stage, dict(row)])


def _write_line(file: Path, line: str) -> None:
    _append(file, [None, line])


def _append(file: Path, told: list[Any]) -> None:
    with file.open("a") as lines:
        lines.write(json.dumps(told) + "\n")


def _write_task(folder: Path, recipe: Recipe, task: Task, checkpoints: Path | None) -> None:
    """Write the task without its pictures, which stay in their memory-mapped file."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in (_RESULT, _EPOCHS):
        (folder / name).unlink(missing_ok=True)
    dataset = task.examples.dataset
    pixels = getattr(dataset.pixels, "filename", None), dataset.pixels.shape
    without_pixels = replace(dataset, pixels=np.zeros((0, 1, 1, 3), dtype=np.uint8))
    plain = replace(task, examples=replace(task.examples, dataset=without_pixels))
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
    import torch

    from catalog_enrichment.models.compute_types import default_device
    from catalog_enrichment.models.network import build_network
    from catalog_enrichment.training.fit import Fitted

    result = torch.load(folder / _RESULT, weights_only=True)
    network = build_network(recipe.model, task.heads, task.tokenizers)
    network.load_state_dict(result.pop("network"))
    return Fitted(network.to(default_device()).eval(), **result)
