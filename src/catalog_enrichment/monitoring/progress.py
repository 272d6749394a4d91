"""How far a long stage is: a bar in a terminal, a line every `logs.progress_seconds` elsewhere.

Spark computes while the driver waits, so that a thread asks Spark's status tracker. Without Spark, or while it has
nothing to do, there is only the time.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from catalog_enrichment.monitoring import logs

_BAR_SECONDS = 0.5
"""How often a bar is drawn. The first time is after two seconds: short stages have none."""
_BAR_AFTER_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Tasks:
    """Tasks of Spark's running stages, added up."""

    total: int
    completed: int
    running: int
    failed: int

    def __str__(self) -> str:
        failed = f", {self.failed:,} failed attempts" if self.failed else ""
        return f"{self.completed:,} of {self.total:,} tasks done, {self.running:,} running{failed}"


def spark_tasks() -> Tasks | None:
    """What Spark computes now; None if there is no Spark in this process or it computes nothing."""
    if "pyspark" not in sys.modules:
        return None
    from pyspark import SparkContext

    context = SparkContext._active_spark_context
    if context is None:
        return None
    tracker = context.statusTracker()
    stages = [stage for number in tracker.getActiveStageIds() if (stage := tracker.getStageInfo(number)) is not None]
    if not stages:
        return None
    return Tasks(
        total=sum(stage.numTasks for stage in stages),
        completed=sum(stage.numCompletedTasks for stage in stages),
        running=sum(stage.numActiveTasks for stage in stages),
        failed=sum(stage.numFailedTasks for stage in stages),
    )


@contextmanager
def shown(stage: str, say: Callable[[str], None]) -> Iterator[None]:
    """Show meanwhile how far ``stage`` is: as a bar on stderr if that is a terminal, else through ``say``."""
    settings = logs.started()
    if settings is None or settings.progress_seconds == 0:
        yield
        return
    ended = threading.Event()
    bars = sys.stderr.isatty() and settings.format != "json"
    show = _bar if bars else _lines
    arguments = (stage, ended) if bars else (stage, ended, say, settings.progress_seconds)
    watcher = threading.Thread(target=_quietly, args=(show, *arguments), name=f"progress of {stage}", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join(timeout=5)  # a JVM that does not answer must not hold up the end of the job


def _quietly(show: Callable[..., None], *arguments: Any) -> None:
    """Progress is no reason to fail, nor to print a traceback: where Spark ends, the stage itself reports it."""
    try:
        show(*arguments)
    except Exception as problem:
        logs.say(f"progress is not shown any more: {type(problem).__name__}", level=10)


def _lines(stage: str, ended: threading.Event, say: Callable[[str], None], seconds: float) -> None:
    start = time.monotonic()
    while not ended.wait(seconds):
        tasks = spark_tasks()
        say(f"{stage:<12}  {time.monotonic() - start:5.0f} s so far" + (f"  {tasks}" if tasks else ""))


def _bar(stage: str, ended: threading.Event) -> None:
    from tqdm import tqdm

    if ended.wait(_BAR_AFTER_SECONDS):
        return
    form = "{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} tasks [{elapsed}<{remaining}]"
    with tqdm(total=1, desc=stage, bar_format=form, file=sys.stderr, leave=False) as bar:
        while not ended.wait(_BAR_SECONDS):
            tasks = spark_tasks()
            if tasks is not None:
                bar.total, bar.n = tasks.total, tasks.completed
            bar.refresh()
