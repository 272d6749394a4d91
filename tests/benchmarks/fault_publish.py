"""A small process publishes a run, without Spark, and is killed; readers see all of the run or none (I4).

    python -m tests.benchmarks.fault_publish CATALOG NUMBER ACTION STOP_AT

Publishing is that of an enrichment: predictions and quarantine, the ledger's commit, current_values, the row in `runs`.
Every fifth process cleans up instead: small files are joined, the log is shortened, unneeded files are deleted. At the
step number STOP_AT (from 1; 0: never) the process kills itself.
"""

from __future__ import annotations

import math
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from catalog_enrichment.catalog import maintenance, part_files, runs
from catalog_enrichment.catalog.delta_tables import COMMIT_POINTS, DeltaTables, names_of
from catalog_enrichment.catalog.lake import Catalog
from catalog_enrichment.catalog.maintenance import Maintenance
from catalog_enrichment.catalog.object_storage import ObjectStorage
from catalog_enrichment.catalog.runs import RunRecord
from catalog_enrichment.config.catalog import CatalogConfig
from catalog_enrichment.records import RunKind

from ..catalog.catalog_rows import parts_of
from .fault_outcomes import Outcome
from .fault_processes import ROOT, environment
from .fault_states import Contents, contents, difference

PUBLISH, CLEAN_UP = "publish", "clean_up"
VALUES = 200
"""Ledger events of a run."""

LEASE_SECONDS = 2
"""Lease of a catalog in an object store: a process that was killed is taken for dead after it."""

STEPS = {PUBLISH: 30, CLEAN_UP: 16}
"""Steps of a process, of a clean-up at least so many; a number beyond the last step would kill nothing."""

AT = datetime(2026, 3, 1, tzinfo=UTC)


def publish(lake: Catalog, number: int) -> None:
    """Publish as an enrichment does after it has decided, without Spark. Doing it again changes nothing."""
    run_id = f"run-{number:03d}"
    values = [(f"p{i:04d}", "color", "Red" if (i + number) % 2 else "Blue") for i in range(VALUES)]
    decided = {"content_hash": "c", "score": 0.99, "modality": "both", "run_id": run_id}
    predictions = [
        {"product_id": p, "attribute": a, "value": v, "rank": 1, "decision": "publish", "reason": "certified",
         "model_name": "m", "model_version": "1", "compute_type": "fp32"} | decided
        for p, a, v in values
    ]  # fmt: skip
    events = [
        {"event_id": f"{run_id}-{p}", "op": "assert", "source": "model", "asserted_at": AT, "product_id": p,
         "attribute": a, "value": v, "run_id": run_id}
        for p, a, v in values
    ]  # fmt: skip
    refused = {"product_id": None, "stage": "decode", "reason": "scoring_failed", "quarantined_at": AT}
    seen = [
        {"product_id": p, "attribute": a, "values": [v], "source": "model", "run_id": run_id, "asserted_at": AT}
        for p, a, v in values
    ]
    with lake.writing():
        lake.append_rows("predictions", predictions, run_id)
        lake.append_rows("quarantine", [refused | {"run_id": run_id}], run_id)
        lake.append_rows("attribute_values", events, run_id)
        refresh(lake, seen, run_id)
        record = RunRecord(kind=RunKind.ENRICH, run_id=run_id)
        record.count(products=VALUES)
        runs.write(lake, record)


def refresh(lake: Catalog, seen: list[dict[str, Any]], run_id: str) -> None:
    """`refresh_current_values` with rows that the driver has: the same commit, with the sources' versions."""
    if lake.current_values_stale():
        delta = lake.tables.create("current_values")
        sources = {table: lake.version(table) for table in COMMIT_POINTS}
        parts = parts_of(lake, "current_values", *seen)
        assert lake.tables.commit(delta, parts, run_id, sources, replaced=names_of(delta))


def clean_up(lake: Catalog, number: int) -> None:
    upkeep = Maintenance(lake, 0)
    with lake.writing():
        for table in upkeep.tables:
            if groups := upkeep.files_to_join(table, 3):
                upkeep.compact(table, groups, f"maintain-{number:03d}")
            if upkeep.commits_since_checkpoint(table) >= maintenance.CHECKPOINT_COMMITS:
                upkeep.shorten_log(table)
            upkeep.unreferenced_files(table).delete()
        upkeep.leftover_folders(runs.succeeded_ids(lake)).delete()


ACTIONS: dict[str, Callable[[Catalog, int], None]] = {PUBLISH: publish, CLEAN_UP: clean_up}


def main(catalog: str, number: str, action: str, stop_at: str) -> None:
    """Load everything, print "ready", and begin the action."""
    lake, steps = lake_at(catalog), 0
    lake.version("runs")

    def step(original: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **named: Any) -> Any:
            nonlocal steps
            for moment in range(2):  # before and after the call
                if moment:
                    result = original(*arguments, **named)
                steps += 1
                if steps == int(stop_at):
                    os.kill(os.getpid(), signal.SIGKILL)
            return result

        return counted

    for owner, name in (
        (DeltaTables, "commit"), (DeltaTables, "create"), (Maintenance, "compact"), (Maintenance, "shorten_log"),
        (maintenance.FileSet, "delete"), (part_files, "write_part"),
    ):  # fmt: skip
        setattr(owner, name, step(getattr(owner, name)))
    print("ready", flush=True)
    ACTIONS[action](lake, int(number))


def lake_at(catalog: str) -> Catalog:
    """Return the catalog in a folder, or in an object store that the variables of the environment describe."""
    if "://" not in catalog:
        return Catalog(Path(catalog))
    settings = CatalogConfig(path=catalog, dictionary="").store_settings()
    return Catalog(ObjectStorage(catalog, settings), lease_seconds=LEASE_SECONDS)


@dataclass(frozen=True)
class Place:
    """Where the catalog is whose processes are killed, and what else happens meanwhile."""

    uri: str = ""
    """Empty: in the folder of the kills."""
    during: Callable[[int], None] = lambda _: None
    """Called with the number of a process when that has begun."""
    until: float = math.inf
    """The time.perf_counter after which no more processes are started."""


def kills(folder: Path, times: int, seed: int, at: Place = Place()) -> list[Outcome]:
    """Kill ``times`` processes, half at a step and half at a random moment; resume and compare after each of them."""
    chosen = random.Random(seed)
    at_steps = Outcome("SIGKILL of a publishing process at its steps", "publish")
    at_random = Outcome("SIGKILL of a publishing process at random moments", "publish")
    place = at.uri or str(folder / "killed")
    killed, whole = lake_at(place), Catalog(folder / "undisturbed")
    seconds = {action: _seconds(f"{place}-timing", action) for action in ACTIONS}
    before = contents(killed.storage)
    for number in range(times):
        if time.perf_counter() > at.until:
            at_steps.notes.append(f"{times - number} kills left out, for time")
            break
        action = CLEAN_UP if number % 5 == 4 else PUBLISH
        outcome = at_steps if number % 2 else at_random
        stop_at = chosen.randint(1, STEPS[action]) if outcome is at_steps else 0
        delay = None if stop_at else chosen.uniform(0, seconds[action])
        process = _start(place, number, action, stop_at)
        at.during(number)
        ended = _end(process, delay)
        outcome.notes += [] if ended == -signal.SIGKILL else [f"number {number} ended with {ended} before its kill"]
        if action == PUBLISH:
            publish(whole, number)
        after = contents(whole.storage)
        if problem := part_of_a_run(killed, before, after, f"run-{number:03d}"):
            outcome.unexplained += 1
            outcome.notes.append(f"{action} {number}: {problem}")
        ACTIONS[action](killed, number)
        before = contents(killed.storage)
        found = difference(before, after)
        outcome.times += 1
        outcome.equal += found.equal
        outcome.lost += found.lost
        outcome.duplicated += found.duplicated
        outcome.notes += [] if found.equal else [f"{action} {number}: {found.examples}"]
    return [at_steps, at_random]


def part_of_a_run(lake: Catalog, before: Contents, after: Contents, run_id: str) -> str | None:
    """Return what readers see of a part of the run after the kill; None if each table has all of it or nothing."""
    now = contents(lake.storage)
    for table in ("attribute_values", "current_values", "runs"):
        if now[table] not in (before[table], after[table]):
            return f"readers see a part of {table}"
    landed = {table: Counter(row["run_id"] for b in lake.scan(table, ["run_id"]) for row in b.to_pylist())[run_id]
              for table in ("predictions", "quarantine", "attribute_values")}  # fmt: skip
    if landed["predictions"] not in (0, VALUES) or landed["quarantine"] not in (0, 1):
        return f"a part has landed: {landed}"
    if landed["attribute_values"] and not (landed["predictions"] and landed["quarantine"]):
        return f"the ledger's commit came before the landing: {landed}"
    return None


def _start(catalog: str, number: int, action: str, stop_at: int) -> subprocess.Popen[bytes]:
    """Start the process; return it when it is ready to act."""
    command = [sys.executable, "-m", "tests.benchmarks.fault_publish", catalog, str(number), action, str(stop_at)]
    process = subprocess.Popen(command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    process.stdout.readline()
    return process


def _end(process: subprocess.Popen[bytes], delay: float | None) -> int:
    """Kill the process ``delay`` seconds from now, if given; return how it ended."""
    with process:
        if delay is not None:
            time.sleep(delay)
            process.kill()
        return process.wait(120)


def _seconds(catalog: str, action: str) -> float:
    """Return the seconds of the action in a process that nobody kills, and a tenth more."""
    lake = lake_at(catalog)
    for number in range(3):
        publish(lake, number)
    begin = time.perf_counter()
    ACTIONS[action](lake, 3)
    seconds = time.perf_counter() - begin
    for folder in list(lake.storage.folders()):
        lake.storage.discard(folder.path)
    return seconds * 1.1


if __name__ == "__main__":
    main(*sys.argv[1:])
