"""What one contender's process is asked to do, and what it answers. Imports no framework."""

from __future__ import annotations

import json
import os
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

SAMPLE_SECONDS = 0.2
"""Between two samples of the memory."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One pass over one world."""

    folder: str
    """Parquet files of the products."""
    batch: int
    """Products per forward pass."""
    predictions: str = ""
    """Parquet file to write the predictions to; empty: none."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One process of one contender: it starts, warms up on a few products, and makes its runs one after the other."""

    contender: str
    workers: int
    """Processes that score, and Spark's cores."""
    path: str
    """Compute type of ``ours``."""
    artifact: str
    """Folder of the model version."""
    artifact_hash: str
    model_uri: str
    """The same version in the registry, `models:/NAME/VERSION`."""
    tracking_uri: str
    config: str
    """TOML config of the project, for its session."""
    pictures: str
    """Folder of the catalog's pictures, by content."""
    warm_up: str
    """Folder with a few products."""
    runs: tuple[Run, ...]
    answer: str
    """JSON file to write the :class:`Measured` of every run to."""

    def write(self, file: Path) -> None:
        file.write_text(json.dumps(asdict(self)))

    @classmethod
    def read(cls, file: Path) -> Job:
        content: dict[str, Any] = json.loads(file.read_text())
        return cls(**content | {"runs": tuple(Run(**run) for run in content["runs"])})


@dataclass(frozen=True)
class Measured:
    """One timed pass."""

    seconds: float
    peak_rss_mib: float


@dataclass(frozen=True)
class Scored:
    """The result of one pass over a world."""

    seconds: float
    """From the Parquet files to the predictions in the main process."""
    predictions: pa.Table
    """``row``, and per attribute the best value `NAME` and its probability `NAME_score`; in any order."""


class Contender(Protocol):
    """Made from a :class:`Job`: starts its processes or session."""

    def score(self, folder: Path, batch: int) -> Scored:
        """All products of a world, ``batch`` per forward pass."""

    def close(self) -> None:
        """End what was started."""


def files_of(folder: Path) -> list[Path]:
    """The Parquet files of a world, in order."""
    return sorted(folder.glob("*.parquet"))


class PeakMemory:
    """A block that measures the largest resident memory of this process and all below it, in MiB.

    The sum of the processes' resident sets: a page that two processes share counts in both.
    """

    mib = 0.0

    def __enter__(self) -> PeakMemory:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            self.mib = max(self.mib, resident_mib(os.getpid()))
            if self._stop.wait(SAMPLE_SECONDS):
                return


def resident_mib(process: int) -> float:
    """Resident memory of a process and its descendants, in MiB; reads /proc (Linux)."""
    children: dict[int, list[int]] = {}
    pages: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:  # it has ended
                continue
            children.setdefault(int(fields[1]), []).append(int(entry.name))
            pages[int(entry.name)] = int(fields[21])
    total, waiting = 0, [process]
    while waiting:
        one = waiting.pop()
        waiting += children.get(one, [])
        total += pages.get(one, 0)
    return total * os.sysconf("SC_PAGE_SIZE") / 2**20
