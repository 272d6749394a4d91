"""Worker side: one model per Python process and device, loaded once by artifact hash.

The cache lives in this importable module because Spark re-pickles whatever a UDF's closure captures: a global of
``__main__`` would be fresh in every task.
"""

from __future__ import annotations

import os
import warnings
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from catalog_enrichment.models.ensemble import Scorer


@cache
def predictor(artifact_hash: str, directory: Path, device: str, numbers: str) -> Scorer:  # noqa: ARG001
    """The predictor of one artifact. ``artifact_hash`` is the identity: a reused worker never serves an old model.

    Raises ConfigError if this machine is not one for ``numbers``.
    """
    # fork plus tokenizer threads can deadlock, and a worker has one core anyway
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from PIL import Image

    from catalog_enrichment.models import compute_types, ensemble

    # a picture with too many pixels gets a reason of its own in place of Pillow's warning
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)
    compute_types.require(numbers, device)
    return ensemble.load(directory, device, numbers)


def task_device() -> str:
    """The accelerator this Spark task was given; without GPU scheduling, GPUs are shared out by partition; else CPU."""
    import torch
    from pyspark import TaskContext

    if not torch.cuda.is_available():
        return "cpu"
    task = TaskContext.get()
    given = task.resources().get("gpu") if task else None
    if given:
        return f"cuda:{given.addresses[0]}"
    return f"cuda:{task.partitionId() % torch.cuda.device_count()}" if task else "cuda:0"
