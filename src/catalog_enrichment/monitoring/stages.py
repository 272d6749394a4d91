"""Stages of a run: how far a stage is while it runs, then a line with its rows, its rate and its seconds."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

from catalog_enrichment.monitoring import logs
from catalog_enrichment.spark import api_mode

Say = Callable[[str], None]
"""Prints a line of progress."""

_BAR_SECONDS = 0.5
"""How often a bar is drawn."""

_BAR_AFTER_SECONDS = 2.0
"""When a bar is drawn first: short stages have no bar."""


def to_stderr(line: str, level: int = logging.INFO) -> None:
    """Print a line on stderr (:mod:`catalog_enrichment.monitoring.logs`): stdout is for the job's JSON summary."""
    logs.say(line, level)


@dataclass
class Stage:
    """The numbers of a stage. Its ``with`` block fills in those that it knows."""

    name: str
    rows_in: int | None = None
    rows_out: int | None = None
    quarantined: int | None = None
    note: str = ""
    seconds: float = 0.0

    def count(
        self, rows_in: int | None = None, rows_out: int | None = None, quarantined: int | None = None, note: str = ""
    ) -> None:
        """Set the numbers of the stage; None for a number that it does not have."""
        self.rows_in, self.rows_out, self.quarantined, self.note = rows_in, rows_out, quarantined, note

    def line(self) -> str:
        """Return the stage's line: seconds, rows in, out and quarantined, rows/s."""
        numbers = {"in": self.rows_in, "out": self.rows_out, "quarantined": self.quarantined}
        parts = [f"{label} {number:,}" for label, number in numbers.items() if number is not None]
        rows = self.rows_in or self.rows_out
        rate = [f"{rows / self.seconds:,.0f} rows/s"] if rows and self.seconds else []
        return "  ".join([f"{self.name:<12}", f"{self.seconds:7.1f} s", *parts, *rate, self.note]).rstrip()


@dataclass
class Stages:
    """The stages of a run, in order."""

    say: Say = to_stderr
    done: list[Stage] = field(default_factory=list)

    @property
    def seconds(self) -> dict[str, float]:
        """Stage name -> seconds; the seconds of stages with the same name are added up."""
        return add_seconds(*({stage.name: stage.seconds} for stage in self.done))

    def rows(self) -> list[dict[str, Any]]:
        """Return the stages as plain data, for the column `stages` of the table `runs`."""
        return [asdict(stage) | {"seconds": round(stage.seconds, 2)} for stage in self.done]

    @contextmanager
    def __call__(self, name: str) -> Iterator[Stage]:
        """Time a stage, show how far it is, and print its line when it ends.

        A stage that raises is not counted and has no line.
        """
        stage = Stage(name)
        start = time.perf_counter()
        with progress_shown(name, self.say):
            yield stage
        stage.seconds = time.perf_counter() - start
        self.done.append(stage)
        with logs.with_fields(stage=asdict(stage) | {"seconds": round(stage.seconds, 2)}):
            self.say(stage.line())


def duration(seconds: float) -> str:
    """Return a time as a person says it, rounded: 45 s, 12 min, 3.5 h."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 100 * 60 else f"{seconds / 3600:.1f} h"


def add_seconds(*seconds: dict[str, float]) -> dict[str, float]:
    """Return the seconds per stage name, added up over several runs, rounded to hundredths."""
    total: dict[str, float] = {}
    for by_name in seconds:
        for name, value in by_name.items():
            total[name] = total.get(name, 0.0) + value
    return {name: round(value, 2) for name, value in total.items()}


@contextmanager
def progress_shown(stage: str, say: Say) -> Iterator[None]:
    """Show how far ``stage`` is: a bar on stderr if that is a terminal, else a line every `logs.progress_seconds`.

    Spark computes while the driver waits, so that a thread asks Spark's status tracker. Without Spark, or while it has
    nothing to do, there is only the time.
    """
    settings = logs.started()
    if settings is None or settings.progress_seconds == 0:
        yield
        return
    ended = threading.Event()
    as_bar = sys.stderr.isatty() and settings.format != "json"
    show = partial(_bar, stage, ended) if as_bar else partial(_lines, stage, ended, say, settings.progress_seconds)
    watcher = threading.Thread(target=_quietly, args=(show,), name=f"progress of {stage}", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join(timeout=5)  # a JVM that does not answer must not hold up the end of the job


def _quietly(show: Callable[[], None]) -> None:
    """Run ``show`` without raising: if Spark ends, the stage itself reports it."""
    try:
        show()
    except Exception as problem:
        logs.say(f"progress is not shown any more: {type(problem).__name__}", level=10)


def _lines(stage: str, ended: threading.Event, say: Say, seconds: float) -> None:
    start = time.monotonic()
    while not ended.wait(seconds):
        tasks = api_mode.running_tasks()
        say(f"{stage:<12}  {time.monotonic() - start:5.0f} s so far" + (f"  {tasks}" if tasks else ""))


def _bar(stage: str, ended: threading.Event) -> None:
    from tqdm import tqdm

    if ended.wait(_BAR_AFTER_SECONDS):
        return
    form = "{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} tasks [{elapsed}<{remaining}]"
    with tqdm(total=1, desc=stage, bar_format=form, file=sys.stderr, leave=False) as bar:
        while not ended.wait(_BAR_SECONDS):
            tasks = api_mode.running_tasks()
            if tasks is not None:
                bar.total, bar.n = tasks.total, tasks.completed
            bar.refresh()
