"""Python workers of Spark in which a task dies, fails or is slow.

Used as `spark.python.daemon.module`. FAULT_HOOK is `die_scoring`, `die_writing`, `fail`, `slow` or empty. Each fault
happens once: to the first task that makes its file in the folder FAULT_FLAGS.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

from catalog_enrichment.catalog import part_files
from catalog_enrichment.inference import udf

_write_part, _predictor = part_files.write_part, udf.task_predictor


def write_part(*arguments: Any) -> Any:
    """The task has written its file, which nobody refers to yet."""
    part = _write_part(*arguments)
    if part is not None:
        if _first("die_writing"):
            os.kill(os.getpid(), signal.SIGKILL)
        if _first("fail"):
            raise RuntimeError("this task fails after it has written its file")
        if _first("slow"):
            time.sleep(60)
    return part


def predictor(*arguments: Any) -> Any:
    """The task has loaded the model and begins to score."""
    loaded = _predictor(*arguments)
    if _first("die_scoring"):
        os.kill(os.getpid(), signal.SIGKILL)
    return loaded


def _first(hook: str) -> bool:
    if os.environ.get("FAULT_HOOK") != hook:
        return False
    try:
        (Path(os.environ["FAULT_FLAGS"]) / hook).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


if __name__ == "__main__":
    from pyspark.daemon import manager

    part_files.write_part = write_part
    udf.task_predictor = predictor
    manager()
