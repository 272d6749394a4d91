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
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow as pa
from inference_job import Job, Scored, files_of
from inference_model import PlainModel, first_begin, last_end, note_end, wait_for_all

if TYPE_CHECKING:
    from catalog_enrichment.models.network import ModelInputs

M = TypeVar("M", bound=PlainModel)


@dataclass(frozen=True)
class Worker:
    """What a worker of a pass needs to start."""

    job: Job
    begun: str
    """Folder in which the workers of the pass say that they are ready."""

    def ready_model(self, kind: type[M]) -> M:
        """The model, loaded and warm, as soon as the other workers have theirs."""
        model = kind(Path(self.job.version.artifact))
        model.warm_up(files_of(Path(self.job.warm_up)), self.job.batch)
        wait_for_all(Path(self.begun), str(os.getpid()), self.job.workers)
        return model

    def note_end(self) -> None:
        """Note that this worker has scored a batch now."""
        note_end(Path(self.begun), str(os.getpid()))


class Ray:
    """`ray.data`: map_batches of a class on a pool with an actor per core."""

    blocks_of_batches = True
    """Small files come as a single block, which a single actor would get; so a block is a batch."""

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
            products = ray.data.read_parquet(files)
            if self.blocks_of_batches:
                products = products.repartition(target_num_rows_per_block=self._job.batch)
            found = products.map_batches(
                self.scorer,
                fn_constructor_args=(Worker(self._job, begun),),
                batch_size=self._job.batch,
                batch_format="pyarrow",
                compute=ray.data.ActorPoolStrategy(size=self._job.workers),
                num_cpus=1,
            )
            tables, end = _with_last_arrival(found.iter_batches(batch_size=None, batch_format="pyarrow"))
            seconds = end - first_begin(Path(begun), self._job.workers)
        return Scored(seconds, pa.concat_tables(tables))

    @property
    def scorer(self) -> type:
        """The class of an actor."""
        return RayScorer

    def close(self) -> None:
        import ray

        ray.shutdown()


class RayScorer:
    """An actor: its model is loaded when it starts."""

    def __init__(self, worker: Worker) -> None:
        self._model = worker.ready_model(PlainModel)

    def __call__(self, batch: pa.Table) -> pa.Table:
        columns = (batch[name].to_pylist() for name in ("title", "description", "image"))
        return pa.table({"row": batch["row"], **scored_columns(self._model, *columns)})


class Daft:
    """A batch method of a `daft.cls` class, in a process per core."""

    def __init__(self, job: Job) -> None:
        import daft  # noqa: F401  (its import belongs to the start)

        from catalog_enrichment.models import artifact

        self._job, self._names = job, list(artifact.heads(Path(job.version.artifact)))

    def score(self, folder: Path) -> Scored:
        import daft

        begun = tempfile.mkdtemp()
        scorer = self.scorer_class(self._names)(Worker(self._job, begun))
        products = daft.read_parquet([str(file) for file in files_of(folder)])
        columns = (products["title"], products["description"], self.pictures(products))
        found = products.select(products["row"], scorer.score(*columns).alias("found"))
        parts = list(found.to_arrow_iter())
        # the parts come only after the workers have ended, which takes seconds and is not measured
        seconds = last_end(Path(begun)) - first_begin(Path(begun), self._job.workers)
        shutil.rmtree(begun)
        tables = [pa.table({"row": part["row"], **_fields(part["found"])}) for part in parts]
        return Scored(seconds, pa.concat_tables(tables))

    def pictures(self, products: Any) -> Any:
        """The column of the pictures."""
        return products["image"]

    def scorer_class(self, names: list[str]) -> Any:
        """The class whose method scores; ``names``: the attributes, which make the type of its result."""
        import daft

        @daft.cls(max_concurrency=self._job.workers, use_process=True)
        class DaftScorer:
            def __init__(self, worker: Worker) -> None:
                self._worker, self._model = worker, worker.ready_model(PlainModel)

            @daft.method.batch(return_dtype=daft_type(names), batch_size=self._job.batch)
            def score(self, title: daft.Series, description: daft.Series, image: daft.Series) -> Any:
                columns = scored_columns(self._model, title.to_pylist(), description.to_pylist(), image.to_pylist())
                self._worker.note_end()
                return pa.StructArray.from_arrays(list(columns.values()), list(columns))

        return DaftScorer

    def close(self) -> None:
        """Nothing outlives an execution."""


def daft_type(names: Sequence[str]) -> Any:
    """The type of the result for the attributes ``names``."""
    import daft

    kinds = {"": daft.DataType.string(), "_score": daft.DataType.float32()}
    return daft.DataType.struct({f"{name}{end}": kind for name in names for end, kind in kinds.items()})


def scored_columns(model: PlainModel, *columns: list[Any], inputs: ModelInputs | None = None) -> dict[str, pa.Array]:
    """The best values and their probabilities of titles, descriptions and pictures, or of ``inputs``."""
    found = model.predict(*columns) if inputs is None else model.forward(inputs)
    return {
        name: pa.array(values, pa.float32() if name.endswith("_score") else pa.large_string())
        for name, values in model.top(found).items()
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
