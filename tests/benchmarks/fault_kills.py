"""Whole jobs are killed, at every boundary and at random moments, and started again."""

from __future__ import annotations

import json
import random
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from .benchmark import called
from .fault_catalog import Step, World, run_here
from .fault_outcomes import Outcome
from .fault_processes import kill, kill_tree, start
from .fault_states import contents, difference

BOUNDARIES = {
    "first import": ["before commit products", "after commit products"],
    "first enrichment": ["before commit attribute_values", "after commit attribute_values"],
    "second import": [],
    "second enrichment": [],
    "backfill": ["after commit attribute_values", "after commit runs"],
    "rollback": [],
    "upkeep": ["after compact attribute_values", "before commit current_values", "after shorten_log", "before delete"],
}
"""Step -> the boundaries at which it is killed; empty: all of them."""

COMMIT_POINTS = {"products", "attribute_values"}

LIMIT_SECONDS = 300


class Standby:
    """A process that has started Spark and waits for a job: the next process starts while the last job is run again."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.number = 0
        self.next = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        self.number += 1
        self.trace.unlink(missing_ok=True)
        output = self.world.folder / f"output-{self.number}"
        return start("tests.benchmarks.fault_job", [self.trace, self.world.sample.file], output)

    @property
    def trace(self) -> Path:
        return self.world.folder / f"trace-{self.number}"

    def run(self, step: Step, stop_at: int) -> tuple[subprocess.Popen[bytes], Path]:
        """Start the job of ``step`` in the waiting process; returns it and its trace. Call :meth:`renew` after it."""
        assert self.next.stdin is not None
        line = json.dumps([stop_at, step.job, self.world.arguments(step)])
        self.next.stdin.write(line.encode() + b"\n")
        self.next.stdin.close()
        return self.next, self.trace

    def renew(self) -> None:
        self.next = self._start()

    def close(self) -> None:
        kill_tree(self.next)


def boundaries(step: Step) -> list[int]:
    """Return the numbers, from 1, of the boundaries at which the step is killed.

    Nothing happens between the end of a checkpoint or commit and that of its stage: the second boundary is left out. So
    is the moment before a commit that is not a commit point: fault_publish.py has it.
    """
    chosen = BOUNDARIES[step.name]
    found = []
    for number, name in enumerate(step.boundaries, 1):
        before = step.boundaries[number - 2] if number > 1 else ""
        idle = before.startswith("after") and (name.startswith("after stage") or name == "before drop_checkpoints")
        idle = idle or (not chosen and name.startswith("before commit") and name.split()[-1] not in COMMIT_POINTS)
        if not idle and (not chosen or name.startswith(tuple(chosen))):
            found.append(number)
    return found


def at_boundaries(world: World, standby: Standby, every: int, until: float) -> Iterator[Outcome]:
    """SIGKILL to the whole process tree at each boundary of each job; ``every``: only each n-th of them.

    After ``until`` (of time.perf_counter) two boundaries of each job are enough; the outcome counts those left out.
    """
    for number, step in enumerate(world.steps):
        outcome = Outcome(f"SIGKILL of {step.name} at its boundaries", "job")
        chosen = boundaries(step)[::every]
        for stop_at in [*chosen[::3], *chosen[1::3], *chosen[2::3]]:
            if outcome.times >= 2 and time.perf_counter() > until:
                outcome.notes.append(f"{len(chosen) - outcome.times} boundaries left out, for time")
                break
            world.restore(number)
            job, trace = standby.run(step, stop_at)
            wait_for(lambda job=job, trace=trace, stop_at=stop_at: _reached(trace, stop_at) or job.poll() is not None)
            kill_tree(job)
            where = step.boundaries[stop_at - 1]
            standby.renew()
            run_again(world, number, outcome, where)
        yield outcome


def at_random(world: World, standby: Standby, times: int, seed: int) -> Outcome:
    """SIGKILL to the whole process tree at a random moment of a random job. A job that was faster is not counted."""
    outcome, chosen = Outcome("SIGKILL at random moments", "job"), random.Random(seed)
    while outcome.times < times:
        number = chosen.randrange(len(world.steps))
        step = world.steps[number]
        world.restore(number)
        job, trace = standby.run(step, 0)
        wait_for(lambda trace=trace: trace.is_file())
        time.sleep(chosen.uniform(0, 1.2 * step.seconds))
        ended = job.poll() is not None
        kill_tree(job)
        standby.renew()
        if not ended:
            run_again(world, number, outcome, f"{step.name}, a random moment")
    return outcome


def of_the_jvm(world: World, standby: Standby, number: int, times: int) -> Outcome:
    """SIGKILL to the JVM of a running enrichment, whose driver then ends by itself."""
    outcome = Outcome("SIGKILL of the JVM", "job")
    step = world.steps[number]
    for _ in range(times):
        world.restore(number)
        job, trace = standby.run(step, 0)
        wait_for(lambda trace=trace: trace.is_file() and "after stage validate" in trace.read_text())
        kill(called(job.pid, "java"))
        outcome.ended(exit_code(job))
        kill_tree(job)
        standby.renew()
        run_again(world, number, outcome, "the JVM")
    return outcome


def exit_code(job: subprocess.Popen[bytes]) -> int:
    try:
        return job.wait(LIMIT_SECONDS)
    except subprocess.TimeoutExpired:
        return 124


def run_again(world: World, number: int, outcome: Outcome, where: str) -> None:
    """Check what readers see, run the job again, and compare with the undisturbed chain."""
    outcome.times += 1
    if problem := seen_by_readers(world, number):
        outcome.unexplained += 1
        outcome.notes.append(f"{where}: {problem}")
    step = world.steps[number]
    code, summary = run_here(step.job, world.arguments(step))
    found = difference(world.contents(), world.expected[number])
    outcome.equal += code == 0 and found.equal
    outcome.lost += found.lost
    outcome.duplicated += found.duplicated
    if code or not found.equal:
        outcome.unexplained += code == 1
        outcome.notes.append(f"{where}: {code} {summary.get('message', '')[:200]} {found.examples}")


def seen_by_readers(world: World, number: int) -> str | None:
    """Return what is wrong where readers see neither the state before the killed job nor that after it (I4).

    A backfill is a sequence of runs, each of which is seen whole or not at all: the ledger tells.
    """
    before, after = contents(world.place(number)), world.expected[number]
    now = world.contents()
    for table in ("products", "current_values"):
        if world.steps[number].job != "backfill" and now[table] not in (before[table], after[table]):
            return f"readers see a part of {table}"
    runs = [
        Counter(json.loads(row)["run_id"] for row in state["attribute_values"].elements()) for state in (now, after)
    ]
    parts = [run_id for run_id in runs[0] if runs[0][run_id] != runs[1][run_id]]
    return f"the ledger has a part of {parts}" if parts else None


def _reached(trace: Path, number: int) -> bool:
    return trace.is_file() and trace.read_text().count("\n") > number  # its first line is "begin"


def wait_for(condition: Callable[[], object], seconds: float = LIMIT_SECONDS) -> object:
    """Wait until ``condition`` is true; returns its value. Raises TimeoutError."""
    limit = time.perf_counter() + seconds
    while time.perf_counter() < limit:
        if value := condition():
            return value
        time.sleep(0.02)
    raise TimeoutError(f"nothing happened for {seconds} s")
