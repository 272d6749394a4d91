"""Faults of a catalog in an object store: what it holds afterwards, against a catalog that nobody disturbed.

The server is that of tests/object_store.py: moto with a journal on the disk, so that a killed server comes back with
what it had acknowledged.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..object_store import CREDENTIALS, ObjectStoreServer
from . import fault_catalog, fault_kills, fault_publish
from .fault_catalog import World, run_here
from .fault_kills import Standby, exit_code, run_again, wait_for
from .fault_outcomes import Outcome, delta, table
from .fault_processes import environment, kill_tree
from .fault_states import difference

PUBLISH_KILLS, JOB_KILLS = 100, 20
RESTARTED_AT = {12, 37, 63, 88}
"""Numbers of the publishing processes during which the server is killed and started again."""

PER_STEP = 3
"""Boundaries of each job at which it is killed, spread over it."""

DOWN_SECONDS = 3
SEED = 11
IMPORT, ENRICHMENT = 0, 1
"""Steps of the chain."""


def run(minutes: float) -> dict[str, Any]:
    """Try all faults in about ``minutes``, print the table, and return the figures."""
    until = time.perf_counter() + 60 * minutes
    os.environ.update(environment(**CREDENTIALS))  # before any library is imported that reads it
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory(prefix="faults-s3-", ignore_cleanup_errors=True) as folder:
        server = ObjectStoreServer(Path(folder) / "server")
        server.start()
        os.environ["AWS_ENDPOINT_URL"], os.environ["AWS_REGION"] = server.endpoint, "us-east-1"
        begin = time.perf_counter()
        try:
            for outcome in _outcomes(Path(folder), server, until):
                outcome.fault = f"s3: {outcome.fault}"
                outcomes.append(outcome)
                elapsed = (time.perf_counter() - begin) / 60
                print(f"{elapsed:5.1f} min  {outcome.row()}", file=sys.stderr, flush=True)
        finally:
            server.kill()
    print(table(outcomes), flush=True)
    figures: dict[str, Any] = delta(outcomes)
    del figures["hostile_rows"]
    return figures


def _outcomes(folder: Path, server: ObjectStoreServer, until: float) -> Iterator[Outcome]:
    def restart(number: int) -> None:
        if number in RESTARTED_AT:
            server.restart(DOWN_SECONDS)

    place = fault_publish.Place(server.uri("publish"), restart, until)
    yield from fault_publish.kills(folder / "publish", PUBLISH_KILLS, SEED, place)
    world = fault_catalog.build(folder / "world", server)
    standby = Standby(world)
    try:
        yield of_the_server(world, standby, server)
        yield two_at_once(world, standby)
        yield of_a_sleeping_holder(world, standby)
        every = max(1, min(len(fault_kills.boundaries(step)) for step in world.steps) // PER_STEP)
        killed = 0
        for outcome in fault_kills.at_boundaries(world, standby, every, until):
            killed += outcome.times
            yield outcome
        yield fault_kills.at_random(world, standby, max(3, JOB_KILLS - killed), SEED)
    finally:
        standby.close()


def of_the_server(world: World, standby: Standby, server: ObjectStoreServer) -> Outcome:
    """SIGKILL to the server while a job runs, which goes on when it is there again."""
    outcome = Outcome("SIGKILL of the server during a job, restarted after 3 s", "other")
    for number in (IMPORT, ENRICHMENT):
        for share in (0.3, 0.7):
            world.restore(number)
            step = world.steps[number]
            job, trace = standby.run(step, 0)
            passed = int(share * len(step.boundaries))
            wait_for(lambda trace=trace, passed=passed: trace.is_file() and _lines(trace) > passed)
            server.restart(DOWN_SECONDS)
            code = exit_code(job)
            kill_tree(job)
            standby.renew()
            outcome.ended(code)
            if code:
                outcome.notes.append(f"{step.name} ended with {code}")
            _compare(world, number, outcome)
    return outcome


def two_at_once(world: World, standby: Standby) -> Outcome:
    """The same job twice: a job writes, the other job is refused."""
    outcome = Outcome("two jobs at once", "other")
    for number in (IMPORT, ENRICHMENT):
        world.restore(number)
        step = world.steps[number]
        job, trace = standby.run(step, 0)
        wait_for(lambda trace=trace: trace.is_file() and _lines(trace) > 1)
        second, summary = run_here(step.job, world.arguments(step))
        first = exit_code(job)
        kill_tree(job)
        standby.renew()
        for code in (first, second):
            outcome.ended(code)
        if (first, second) != (0, 3):
            outcome.unexplained += 1
            outcome.notes.append(f"{step.name}: {first} and {second}: {summary.get('message', '')[:200]}")
        _compare(world, number, outcome)
    return outcome


def of_a_sleeping_holder(world: World, standby: Standby) -> Outcome:
    """SIGSTOP to a job that holds the lease; another job takes it over and finishes; then the first job wakes up."""
    outcome = Outcome("the lease's holder sleeps past its expiry", "other")
    for number, boundary in ((ENRICHMENT, "after stage score"), (ENRICHMENT, "after commit predictions")):
        world.restore(number)
        step = world.steps[number]
        job, trace = standby.run(step, 0)
        wait_for(lambda trace=trace, boundary=boundary: trace.is_file() and boundary in trace.read_text())
        os.kill(job.pid, signal.SIGSTOP)
        code, summary = run_here(step.job, world.arguments(step))
        if code:
            outcome.notes.append(f"the second job ended with {code}: {summary.get('message', '')[:200]}")
        os.kill(job.pid, signal.SIGCONT)
        woken = exit_code(job)
        kill_tree(job)
        standby.renew()
        outcome.ended(woken)
        if woken != 4:
            outcome.unexplained += 1
            outcome.notes.append(f"{boundary}: the first job ended with {woken}, not with 4")
        _compare(world, number, outcome)
    return outcome


def _compare(world: World, number: int, outcome: Outcome) -> None:
    """Without running the job again, and after it: both must be what an undisturbed job leaves."""
    found = difference(world.contents(), world.expected[number])
    if found.equal:
        run_again(world, number, outcome, world.steps[number].name)
    else:
        outcome.times += 1
        outcome.lost += found.lost
        outcome.duplicated += found.duplicated
        outcome.notes.append(f"{world.steps[number].name}: {found.examples}")


def _lines(trace: Path) -> int:
    return trace.read_text().count("\n")
