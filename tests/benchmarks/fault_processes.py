"""Processes of the fault tests: start one, kill it with all that it started, measure the memory of a tree of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = os.sysconf("SC_PAGE_SIZE")


def environment(**more: str) -> dict[str, str]:
    """For child processes: no model hub, no telemetry, one thread, a JVM that starts fast."""
    # one session runs a hundred jobs: the code cache of this compiler, 48 MiB, is full after 90 s, and compiles no more
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
    """``python -m module arguments`` in a process group of its own; stdout and stderr go to the file ``output``."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    with output.open("wb") as sink:
        return subprocess.Popen(
            command, cwd=ROOT, env=environment(**(more or {})), start_new_session=True, stdin=subprocess.PIPE,
            stdout=sink, stderr=subprocess.STDOUT,
        )  # fmt: skip


def parents() -> dict[int, int]:
    """Process id -> parent's process id, of all processes."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, ValueError, IndexError):
            # the name in the second field may contain spaces and parentheses
            found[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    return found


def tree(pid: int) -> list[int]:
    """``pid`` and all its descendants, parents first."""
    known, found = parents(), [pid]
    for one in found:
        found += [child for child, parent in known.items() if parent == one]
    return found


def command_line(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    return ""


def kill(pids: Sequence[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def kill_tree(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL to the process, its process group and all descendants, Python workers included, and wait for them."""
    pids = tree(process.pid)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    kill(pids)
    process.wait()


@dataclass
class Peak:
    megabytes: float = 0.0


@contextmanager
def peak_memory(pid: int, every_seconds: float = 0.2) -> Iterator[Peak]:
    """The largest resident memory that ``pid`` and its descendants have together during the block."""
    peak, done = Peak(), threading.Event()

    def watch() -> None:
        while not done.wait(every_seconds):
            peak.megabytes = max(peak.megabytes, sum(map(_resident, tree(pid))) / 2**20)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield peak
    finally:
        done.set()
        watcher.join()


def _resident(pid: int) -> int:
    with suppress(OSError, ValueError, IndexError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE
    return 0
