"""Processes of the fault tests: their environment, their start, and SIGKILL with all that they started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from .benchmark import tree

ROOT = Path(__file__).parents[2]


def environment(**more: str) -> dict[str, str]:
    """Return the variables of child processes: no model hub, no telemetry, a single thread, a JVM that starts fast."""
    # a session runs a hundred jobs: the code cache of this compiler, 48 MiB, is full after 90 s, and compiles no more
    ours = {
        "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)]),
        "PYSPARK_PYTHON": sys.executable,
        "HF_HUB_OFFLINE": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "GX_ANALYTICS_ENABLED": "false",
        "OMP_NUM_THREADS": "1",
        "SPARK_SUBMIT_OPTS": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC -XX:ReservedCodeCacheSize=256m",
    }
    return {**os.environ, **ours, **more}


def start(
    module: str, arguments: Sequence[object], output: Path, more: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start ``python -m module arguments`` in a process group; stdout and stderr go to the file ``output``."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    with output.open("wb") as sink:
        return subprocess.Popen(
            command, cwd=ROOT, env=environment(**(more or {})), start_new_session=True, stdin=subprocess.PIPE,
            stdout=sink, stderr=subprocess.STDOUT,
        )  # fmt: skip


def kill(processes: Sequence[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def kill_tree(process: subprocess.Popen[bytes]) -> None:
    """Send SIGKILL to the process, its group and all descendants, Python workers included, and wait for it."""
    below = tree(process.pid)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    kill(below)
    process.wait()
