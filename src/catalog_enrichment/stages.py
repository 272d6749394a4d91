"""Stage lines: what a run is doing, at what rate, and the seconds each stage took."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


def to_stderr(line: str) -> None:
    """Progress goes to stderr: the last line of stdout is the job's JSON summary."""
    print(line, file=sys.stderr, flush=True)


@dataclass
class Stage:
    """What a stage did; its body fills in the numbers it knows."""

    name: str
    rows_in: int | None = None
    rows_out: int | None = None
    quarantined: int | None = None
    note: str = ""
    seconds: float = 0.0

    def line(self) -> str:
        """One INFO line: rows in, out, quarantined, seconds, rows/s."""
        numbers = {"in": self.rows_in, "out": self.rows_out, "quarantined": self.quarantined}
        parts = [f"{label} {number:,}" for label, number in numbers.items() if number is not None]
        rows = self.rows_in or self.rows_out
        rate = [f"{rows / self.seconds:,.0f} rows/s"] if rows and self.seconds else []
        return "  ".join([f"{self.name:<12}", f"{self.seconds:7.1f} s", *parts, *rate, self.note]).rstrip()


@dataclass
class Stages:
    """The stages of one run, in order. ``seconds`` goes into the summary and the runs table."""

    say: Callable[[str], None] = to_stderr
    done: list[Stage] = field(default_factory=list)

    @property
    def seconds(self) -> dict[str, float]:
        return {stage.name: round(stage.seconds, 2) for stage in self.done}

    @contextmanager
    def __call__(self, name: str) -> Iterator[Stage]:
        """Time a stage and say what it did when it ends; a stage that raises says nothing."""
        stage = Stage(name)
        start = time.perf_counter()
        yield stage
        stage.seconds = time.perf_counter() - start
        self.done.append(stage)
        self.say(stage.line())
