"""The contenders by name, their environment, and the process of a contender.

    python tests/benchmarks/inference_contenders.py JOB.json        (started by inference.py)

- `bare`: the forward pass alone, in fp32; decoded pictures and token ids are in memory before the clock starts.
- `plain`: decode, tokenize and forward in sequence, without Spark: fp32 eager PyTorch, as many processes as cores.
- `plain_alloc`: `plain` with glibc's allocator told to keep freed memory (ALLOCATOR).
- `plain_bf16`: `plain` with the forward pass under autocast to bfloat16.
- `plain_full`: the loop of a tutorial: `Image.open(...).convert("RGB").resize(...)`, the tokenizer of transformers.
- `ours`: the UDF of the scoring stage in the session that the jobs start, on the fastest compute type of this
  processor. Pictures are in the catalog's store, as after an import; the workers read them there.
  No scaled copies of the pictures are kept when it starts: it makes those of large pictures.
- `ours_again`: the same for products that were scored before, by another version: the copies are there.
- `ours_eager`: `ours` in fp32.
- `ours_arrow`: the same engine inside mapInArrow, in fp32.
- `spark_udf`: `mlflow.pyfunc.spark_udf` on the registered version with `env_manager="local"`. Its Python workers keep
  the model, which mlflow would load again in every task. It calls the model in chunks of at most 64 products.
- `spark_udf_full`: `mlflow.pyfunc.spark_udf` as documented, over a logged PythonModel with the loop of `plain_full`.
  Every task loads the model, as mlflow does.
- `predict_batch_udf`: `pyspark.ml.functions.predict_batch_udf` over the model of `plain`.
- `ray`: Ray Data, `map_batches` of a class on an ActorPoolStrategy with an actor per core, a block per batch.
- `ray_full`: Ray Data as its guide has it: `read_parquet`, `map_batches` of a class over the model of `plain_full`.
- `daft`: Daft, a batch method of a `daft.cls` class, `max_concurrency` of the number of cores, each in its own process.
- `daft_full`: Daft as its guide to multimodal data has it: its own `decode_image` and `resize`, then such a class.

The rows that end in `_full` decode pictures in full, as documentation shows it; the others share the decoder of the
model version, which JPEG's draft mode makes faster for large pictures.

Every process has a single thread. On Spark a file is a task, four files per core. Only `plain_alloc` is given allocator
settings; the settings that the jobs give their own workers belong to `ours`.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from benchmark import PeakMemory
from inference_job import Contender, Job, Measured

from catalog_enrichment.models import compute_types

ALLOCATOR = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_TOP_PAD_": "268435456",
    "MALLOC_MMAP_THRESHOLD_": "1073741824",
    "MALLOC_TRIM_THRESHOLD_": "2147483648",
}
"""Settings of glibc's malloc that keep freed memory in the process."""
_REMOVED = ("MALLOC_", "LD_PRELOAD", "OMP_", "GOMP_", "KMP_", "MKL_", "PYTHONDONTWRITEBYTECODE")
"""Beginnings of variables that are not passed on: allocator and threads are the contender's own."""
_COMMON = {
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "RAY_USAGE_STATS_ENABLED": "0",
    "DO_NOT_TRACK": "true",
    "DAFT_ANALYTICS_ENABLED": "0",
}


@dataclass(frozen=True)
class Kind:
    """Where a contender's class is, and what it needs."""

    module: str
    name: str
    path: str = "fp32"
    """Its compute type; empty: the fastest of this processor."""
    package: str = ""
    """Package of the extra `bench` without which it is left out."""
    environment: Mapping[str, str] = field(default_factory=dict)
    reads_copies: bool = False
    """It scores scaled copies of large pictures, as the jobs do."""
    own_pixels: bool = False
    """It decodes and scales pictures in its own way."""
    new_workers: bool = False
    """It starts new workers for every pass, which warm themselves up; else a pass over a few products does."""

    @property
    def installed(self) -> bool:
        return not self.package or find_spec(self.package) is not None

    def tolerance(self, world: str) -> float:
        """The largest difference from ``plain`` in a world; 1: scores are compared only to find that some are missing,
        because the pixels are others."""
        if self.own_pixels or (self.reads_copies and world == "large"):
            return 1.0
        return compute_types.TOLERANCE[self.path or compute_types.fastest("cpu")]


CONTENDERS = {
    "bare": Kind("inference_plain", "Bare"),
    "plain": Kind("inference_plain", "Plain"),
    "plain_alloc": Kind("inference_plain", "Plain", environment=ALLOCATOR),
    "plain_bf16": Kind("inference_plain", "PlainBf16", path="bf16"),
    "plain_full": Kind("inference_full", "PlainFull", own_pixels=True),
    "ours": Kind("inference_spark", "Ours", path="", reads_copies=True),
    "ours_again": Kind("inference_spark", "OursAgain", path="", reads_copies=True),
    "ours_eager": Kind("inference_spark", "OursEager", reads_copies=True),
    "ours_arrow": Kind("inference_spark", "OursArrow", reads_copies=True),
    "spark_udf": Kind("inference_spark", "SparkUdf", reads_copies=True),
    "spark_udf_full": Kind("inference_full", "SparkUdfFull", own_pixels=True),
    "predict_batch_udf": Kind("inference_spark", "PredictBatchUdf"),
    "ray": Kind("inference_frameworks", "Ray", package="ray", new_workers=True),
    "ray_full": Kind("inference_full", "RayFull", package="ray", new_workers=True, own_pixels=True),
    "daft": Kind("inference_frameworks", "Daft", package="daft", new_workers=True),
    "daft_full": Kind("inference_full", "DaftFull", package="daft", new_workers=True, own_pixels=True),
}


def environment(kind: Kind, inherited: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of a contender's process: its own, and the inherited without allocator and threads."""
    kept = {name: value for name, value in inherited.items() if not name.startswith(_REMOVED)}
    # absolute, because the process runs in another folder
    paths = [Path(__file__).parent, *map(Path, filter(None, kept.get("PYTHONPATH", "").split(os.pathsep)))]
    own = {"PYTHONPATH": os.pathsep.join(str(path.resolve()) for path in paths), "PYSPARK_PYTHON": sys.executable}
    return kept | _COMMON | own | dict(kind.environment)


def main() -> None:
    import pyarrow.parquet as pq

    job = Job.read(Path(sys.argv[1]))
    kind = CONTENDERS[job.contender]
    contender: Contender = getattr(import_module(kind.module), kind.name)(job)
    if not kind.new_workers:
        contender.score(Path(job.warm_up))
    measured = []
    for run in job.runs:
        with PeakMemory() as memory:
            scored = contender.score(Path(run.folder))
        measured.append(asdict(Measured(scored.seconds, memory.mib)))
        if run.predictions:
            pq.write_table(scored.predictions, run.predictions)
    Path(job.answer).write_text(json.dumps(measured))
    contender.close()


if __name__ == "__main__":
    main()
