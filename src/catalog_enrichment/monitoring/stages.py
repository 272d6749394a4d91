"""Stage lines: what a run is doing, at what rate, and the seconds each stage took."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

from catalog_enrichment.monitoring import logs, progress

Say = Callable[[str], None]
"""Prints one line of progress."""


def to_stderr(line: str, level: int = logging.INFO) -> None:
    """Progress goes to stderr, without control characters: the last line of stdout is the job's JSON summary.

    In a job with time, level and run id (:mod:`catalog_enrichment.monitoring.logs`).
    """
    logs.say(line, level)


@dataclass
class Stage:
    """What a stage did. Its ``with`` block fills in the numbers it knows."""

    name: str
    rows_in: int | None = None
    rows_out: int | None = None
    quarantined: int | None = None
    note: str = ""
    seconds: float = 0.0

    def count(
        self, rows_in: int | None = None, rows_out: int | None = None, quarantined: int | None = None, note: str = ""
    ) -> None:
        """Set what the stage did; None for a number that it does not have."""
        self.rows_in, self.rows_out, self.quarantined, self.note = rows_in, rows_out, quarantined, note

    def line(self) -> str:
        """One INFO line: seconds, rows in, out and quarantined, rows/s."""
        numbers = {"in": self.rows_in, "out": self.rows_out, "quarantined": self.quarantined}
        parts = [f"{label} {number:,}" for label, number in numbers.items() if number is not None]
        rows = self.rows_in or self.rows_out
        rate = [f"{rows / self.seconds:,.0f} rows/s"] if rows and self.seconds else []
        return "  ".join([f"{self.name:<12}", f"{self.seconds:7.1f} s", *parts, *rate, self.note]).rstrip()


@dataclass
class Stages:
    """The stages of one run, in order. A job with several runs has one of these for each."""

    say: Say = to_stderr
    done: list[Stage] = field(default_factory=list)

    @property
    def seconds(self) -> dict[str, float]:
        """Stage name -> seconds; stages of the same name are added up."""
        return add_seconds(*({stage.name: stage.seconds} for stage in self.done))

    def rows(self) -> list[dict[str, Any]]:
        """The stages as plain data, for the column `stages` of the table `runs`."""
        return [asdict(stage) | {"seconds": round(stage.seconds, 2)} for stage in self.done]

    @contextmanager
    def __call__(self, name: str) -> Iterator[Stage]:
        """Time a stage, show how far it is, and print its line when it ends. A stage that raises is not counted and has
        no line."""
        stage = Stage(name)
        start = time.perf_counter()
        with progress.shown(name, self.say):
            yield stage
        stage.seconds = time.perf_counter() - start
        self.done.append(stage)
        with logs.with_fields(stage=asdict(stage) | {"seconds": round(stage.seconds, 2)}):
            self.say(stage.line())


def add_seconds(*seconds: dict[str, float]) -> dict[str, float]:
    """Seconds per stage name, added up over several runs, rounded to hundredths."""
    total: dict[str, float] = {}
    for by_name in seconds:
        for name, value in by_name.items():
            total[name] = total.get(name, 0.0) + value
    return {name: round(value, 2) for name, value in total.items()}
