"""What the process of a contender is asked to do, and what it answers. Imports no framework."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa


@dataclass(frozen=True, kw_only=True)
class Run:
    """A pass over a world."""

    folder: str
    """Parquet files of the products."""
    predictions: str = ""
    """Parquet file to write the predictions to; empty: none."""


@dataclass(frozen=True)
class Version:
    """A registered model version."""

    artifact: str
    """Its folder, as the registry gave it."""
    artifact_hash: str
    uri: str
    """`models:/NAME/VERSION`"""
    tracking_uri: str
    config: str
    """TOML config of the project, for its session."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """The process of a contender: it starts, warms up on a few products, and makes its runs in order."""

    contender: str
    version: Version
    workers: int
    """Processes that score, and Spark's cores."""
    batch: int = 32
    """Products per forward pass."""
    pictures: str = ""
    """Folder of the catalog's pictures, by content."""
    warm_up: str = ""
    """Folder with a few products."""
    runs: tuple[Run, ...] = ()
    profile: str = ""
    """Folder for the times of the tasks (inference_profile.py); empty: none are taken."""
    answer: str = ""
    """JSON file to write the :class:`Measured` of every run to."""

    def write(self, file: Path) -> None:
        file.write_text(json.dumps(asdict(self)))

    @classmethod
    def read(cls, file: Path) -> Job:
        content: dict[str, Any] = json.loads(file.read_text())
        runs = tuple(Run(**run) for run in content["runs"])
        return cls(**content | {"version": Version(**content["version"]), "runs": runs})


@dataclass(frozen=True)
class Measured:
    """A timed pass."""

    seconds: float
    peak_rss_mib: float


@dataclass(frozen=True)
class Scored:
    """The result of a pass over a world."""

    seconds: float
    """From the Parquet files to the predictions in the main process."""
    predictions: pa.Table
    """``row``, and per attribute the best value `NAME` and its probability `NAME_score`; in any order."""


class Contender(Protocol):
    """A framework or loop that scores, made from a :class:`Job`: starts its processes or session."""

    def score(self, folder: Path) -> Scored:
        """Score all products of a world."""

    def close(self) -> None:
        """End what was started."""


def files_of(folder: Path) -> list[Path]:
    """Return the Parquet files of a world, in order."""
    return sorted(folder.glob("*.parquet"))
