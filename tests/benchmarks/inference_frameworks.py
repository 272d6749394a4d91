"""The contenders on Ray Data and Daft, over the plain loop's model.

Both start new workers for every pass. The workers load their model, score a few products to warm up and wait for each
other, and the clock starts there: as for the other contenders, starting, loading and warming up are not measured. What
these frameworks read in the meantime is in their favour.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from inference_job import Job, Scored, files_of
from inference_model import PlainModel, first_begin, last_end, note_end, wait_for_all


@dataclass(frozen=True)
class Worker:
    """What a worker of a pass needs to start."""

    job: Job
    begun: str
    """Folder in which the workers of the pass say that they are ready."""

    def ready_model(self) -> PlainModel:
        """The model, loaded and warm, as soon as the other workers have theirs."""
        model = PlainModel(Path(self.job.version.artifact))
        model.warm_up(files_of(Path(self.job.warm_up)), self.job.batch)
        wait_for_all(Path(self.begun), str(os.getpid()), self.job.workers)
        return model


class Ray:
    """`ray.data`: map_batches of a class on a pool with an actor per core."""

    def __init__(self, job: Job) -> None:
        import ray

        self._job = job
        # a core more than the actors take, for the tasks that read the files
        ray.init(num_cpus=job.workers + 1, include_dashboard=False, log_to_driver=False)
        ray.data.DataContext.get_current().enable_progress_bars = False

    def score(self, folder: Path) -> Scored:
        import ray

        files = [str(file) for file in files_of(folder)]
        with tempfile.TemporaryDirectory() as begun:
            # small files come as a single block, which a single actor would get; so a block is a batch
            products = ray.data.read_parquet(files).repartition(target_num_rows_per_block=self._job.batch)
            found = products.map_batches(
                RayScorer,
                fn_constructor_args=(Worker(self._job, begun),),
                batch_size=self._job.batch,
                batch_format="pyarrow",
                compute=ray.data.ActorPoolStrategy(size=self._job.workers),
                num_cpus=1,
            )
            tables, end = _with_last_arrival(found.iter_batches(batch_size=None, batch_format="pyarrow"))
            seconds = end - first_begin(Path(begun), self._job.workers)
        return Scored(seconds, pa.concat_tables(tables))

    def close(self) -> None:
        import ray

        ray.shutdown()


class RayScorer:
    """An actor: its model is loaded when it starts."""

    def __init__(self, worker: Worker) -> None:
        self._model = worker.ready_model()

    def __call__(self, batch: pa.Table) -> pa.Table:
        columns = (batch[name].to_pylist() for name in ("title", "description", "image"))
        return pa.table({"row": batch["row"], **_scored(self._model, *columns)})


class Daft:
    """A batch method of a `daft.cls` class, in a process per core."""

    def __init__(self, job: Job) -> None:
        import daft  # noqa: F401  (its import belongs to the start)

        from catalog_enrichment.models import artifact

        self._job, self._names = job, list(artifact.heads(Path(job.version.artifact)))

    def score(self, folder: Path) -> Scored:
        import daft

        begun = tempfile.mkdtemp()
        scorer = _daft_class(self._names, self._job.batch, self._job.workers)(Worker(self._job, begun))
        products = daft.read_parquet([str(file) for file in files_of(folder)])
        columns = (products[name] for name in ("title", "description", "image"))
        found = products.select(products["row"], scorer.score(*columns).alias("found"))
        parts = list(found.to_arrow_iter())
        # the parts come only after the workers have ended, which takes seconds and is not measured
        seconds = last_end(Path(begun)) - first_begin(Path(begun), self._job.workers)
        shutil.rmtree(begun)
        tables = [pa.table({"row": part["row"], **_fields(part["found"])}) for part in parts]
        return Scored(seconds, pa.concat_tables(tables))

    def close(self) -> None:
        """Nothing outlives an execution."""


def _daft_class(names: list[str], batch: int, workers: int) -> Any:
    """The class with the given batch size; ``names``: the attributes, which make the type of its result."""
    import daft

    fields = {name: daft.DataType.string() for name in names}
    fields |= {f"{name}_score": daft.DataType.float32() for name in names}

    @daft.cls(max_concurrency=workers, use_process=True)
    class DaftScorer:
        def __init__(self, worker: Worker) -> None:
            self._worker, self._model = worker, worker.ready_model()

        @daft.method.batch(return_dtype=daft.DataType.struct(fields), batch_size=batch)
        def score(self, title: daft.Series, description: daft.Series, image: daft.Series) -> Any:
            columns = _scored(self._model, title.to_pylist(), description.to_pylist(), image.to_pylist())
            note_end(Path(self._worker.begun), str(os.getpid()))
            return pa.StructArray.from_arrays([columns[name] for name in fields], list(fields))

    return DaftScorer


def _scored(model: PlainModel, titles: list[Any], descriptions: list[Any], pictures: list[Any]) -> dict[str, pa.Array]:
    top = model.top(model.predict(titles, descriptions, pictures))
    return {
        name: pa.array(values, pa.float32() if name.endswith("_score") else pa.large_string())
        for name, values in top.items()
    }


def _with_last_arrival(results: Iterable[Any]) -> tuple[list[Any], float]:
    """The parts of a result that have rows, and when the last of them arrived (time.monotonic, seconds).

    What follows is the end of the workers, which is not measured.
    """
    parts, end = [], time.monotonic()
    for part in results:
        if len(part):
            parts.append(part)
            end = time.monotonic()
    return parts, end


def _fields(values: pa.StructArray) -> dict[str, pa.Array]:
    return {field.name: values.field(field.name) for field in values.type}
