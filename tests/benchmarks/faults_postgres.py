"""Faults of the delivery to PostgreSQL: kills, cut connections, a server that dies, two deliveries at once.

faults_stores.py runs it (about 10 minutes on 2 cores).

A real server and a real catalog, which gets new commits before every fault while a merchant edits values all the time.
After each fault the database must be at a commit: its rows are those that readers of the catalog saw at its position.
Then the job runs again, and the database must have what readers see now, with every commit delivered once and in order.
"""

from __future__ import annotations

import json
import random
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
from tests.benchmarks.fault_postgres_world import PRODUCTS, World, finished, go
from tests.delivery.histories import State, applied, value
from tests.postgres_server import PostgresServer

DELIVERY_KILLS, JOB_KILLS, OTHERS = 100, 20, 8
"""How often each fault happens: SIGKILL to deliveries, to whole jobs, every other fault."""


def killed_delivery(world: World) -> str:
    process = go(world.start())
    time.sleep(world.random.uniform(0, world.seconds))
    alive = process.poll() is None
    process.kill()
    process.communicate()
    return "killed" if alive else "over before"


def during(happens: Callable[[World], None]) -> Callable[[World], str]:
    """A fault of the server's, at a random moment of a delivery, which may end with exit 4 only."""

    def fault(world: World) -> str:
        process = go(world.start())
        time.sleep(world.random.uniform(0, world.seconds))
        happens(world)
        code, said = finished(process)
        if code not in (0, 4) or "Traceback" in said:
            world.tally.unexplained.append(f"exit {code}: {said[-300:]}")
        return f"exit {code}"

    return fault


def restarted(stop: Callable[[PostgresServer], None]) -> Callable[[World], None]:
    def happens(world: World) -> None:
        stop(world.server)
        world.server.start()

    return happens


def two_at_once(world: World) -> str:
    both = [world.start(), world.start()]
    ends = [finished(process) for process in [go(process) for process in both]]
    codes = sorted(code for code, _ in ends)
    if codes not in ([0, 0], [0, 4]):
        world.tally.unexplained.append(f"two at once ended with {codes}: {ends}")
    return f"exits {codes[0]} and {codes[1]}"


FAULTS: dict[str, Callable[[World], str]] = {
    "delivery killed": killed_delivery,
    "connections terminated": during(lambda world: world.server.kill_backends()),
    "server killed": during(restarted(lambda server: server.kill())),
    "server restarted": during(restarted(lambda server: server.stop("fast"))),
    "two deliveries at once": two_at_once,
}
"""Fault -> what makes it happen once and returns how the delivery ended."""


def killed_job(world: World, number: int) -> str:
    """SIGKILL to a whole job, in turn to deliver_values and to export_changes, then the job again.

    Returns the outcome: "equal" if the database, or the table of who follows the files, has what readers see.
    """
    export = number % 2 == 1
    arguments = ["--consumer", "mirror", "--output", str(world.folder / "files")] if export else []
    name = "export_changes" if export else "deliver_values"
    process = world.job(name, *arguments)
    time.sleep(world.random.uniform(0.3, 2.5))
    alive = process.poll() is None
    process.kill()
    process.communicate()
    if not alive:
        return "over before"
    if export:
        code, said = finished(world.job(name, *arguments))
        equal = code == 0 and mirrored(world) == world.versions.seen()
        if code:
            world.tally.unexplained.append(f"{name} that ran again ended with {code}: {said[-300:]}")
        return "equal" if equal else "not equal"
    at_a_commit = world.at_a_commit("job killed")
    code, said = finished(world.job(name))
    if code:
        world.tally.unexplained.append(f"{name} that ran again ended with {code}: {said[-300:]}")
    return "equal" if at_a_commit and world.complete("job killed") else "not equal"


def mirrored(world: World) -> State:
    """Return the state of a consumer that applies the files of export_changes in order and skips known versions."""
    have: State = {}
    done = -1
    for file in sorted((world.folder / "files").glob("*.jsonl"), key=lambda file: int(file.stem.rpartition("-")[2])):
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        if not rows or rows[-1]["op"] != "end":
            world.tally.unexplained.append(f"{file.name} is not complete")
        have = applied(have, [_filled(row) for row in rows if row["version"] > done])
        done = max(done, rows[-1]["version"])
    return have


def _filled(row: dict[str, Any]) -> dict[str, Any]:
    """The row with null for what its line leaves out: the last line of a file is about no product."""
    from datetime import datetime

    at = row.get("asserted_at")
    empty = dict.fromkeys(("product_id", "attribute", *value("x")))
    return empty | row | {"asserted_at": at and datetime.fromisoformat(at)}


@contextmanager
def merchant_edits(world: World) -> Iterator[Callable[[], int]]:
    """A merchant who sets and changes values all the time; the function counts those that readers do not see."""
    stop, truth = threading.Event(), {}
    draw = random.Random(3)

    def edit() -> None:
        edits = 0
        while not stop.wait(0.02):
            key, edits = (f"p{draw.randrange(PRODUCTS):06d}", "color"), edits + 1
            with suppress(psycopg.Error):  # the server is away: the merchant tries again
                world.database.query(
                    "INSERT INTO enriched.merchant_values VALUES (%s, %s, %s) "
                    'ON CONFLICT (product_id, attribute) DO UPDATE SET "values" = excluded."values"',
                    (*key, [f"merchant-{edits}"]),
                )
                truth[key] = [f"merchant-{edits}"]

    def unseen() -> int:
        stop.set()
        editor.join()
        seen = world.database.readers_see()
        return sum(seen.get(key) != (values, "merchant") for key, values in truth.items())

    editor = threading.Thread(target=edit)
    editor.start()
    try:
        yield unseen
    finally:
        stop.set()
        editor.join()


# --- the whole --------------------------------------------------------------------------------------------------------


def run(minutes: float) -> dict[str, Any]:
    """Try all faults, until each happened as often as planned or the time is over; return the figures."""
    until = time.monotonic() + 60 * minutes
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)  # as root the server runs as another user
        server = PostgresServer(Path(folder) / "server")
        server.start()
        world = World(Path(folder), server)
        try:
            _prepare(world)
            with merchant_edits(world) as unseen:
                _all_faults(world, until)
                edits_unseen = unseen()
        finally:
            server.stop("immediate")
            if world.spare is not None:
                world.spare.kill()
                world.spare.communicate()
    return _figures(world, edits_unseen)


def _prepare(world: World) -> None:
    from catalog_enrichment.delivery import deliver

    deliver.migrate(world.database.config, say=lambda _: None)
    world.commit()
    world.complete("first delivery")
    world.commit()
    process, start = world.start(), time.monotonic()
    finished(go(process))
    world.seconds = time.monotonic() - start


def _all_faults(world: World, until: float) -> None:
    planned = ["delivery killed"] * DELIVERY_KILLS + ["job killed"] * JOB_KILLS
    planned += [fault for fault in FAULTS if fault != "delivery killed" for _ in range(OTHERS)]
    world.random.shuffle(planned)
    jobs = 0
    while planned and time.monotonic() < until:
        fault = planned.pop()
        world.commit()
        if fault == "job killed":
            outcome = killed_job(world, jobs)
            jobs += outcome != "over before"
            if outcome == "over before":
                planned.insert(0, fault)
        else:
            ended = FAULTS[fault](world)
            equal = world.at_a_commit(fault) & world.complete(fault)
            outcome = f"{ended}, then {'equal' if equal else 'not equal'}"
            if ended == "over before":
                planned.insert(0, fault)
        world.tally.count(fault, outcome)


def _figures(world: World, edits_unseen: int) -> dict[str, Any]:
    tally = world.tally
    for fault, outcomes in tally.outcomes.items():
        for outcome, count in sorted(outcomes.items()):
            print(f"{fault:24} {outcome:44} {count:5}")
    for problem in tally.unexplained:
        print(f"unexplained: {problem}")
    equal, unequal = (tally.of("job killed", outcome) for outcome in ("equal", "not equal"))
    killed = [tally.of("delivery killed", f"killed, then {outcome}") for outcome in ("equal", "not equal")]
    return {
        "kills": equal + unequal,
        "reruns_equal": equal,
        "publish_kills": sum(killed),
        "publish_equal": killed[0],
        "lost": tally.lost + edits_unseen,
        "duplicated": tally.duplicated,
        "unexplained": len(tally.unexplained),
        "commits": world.commits,
        "merchant_edits_unseen": edits_unseen,
        "other_faults": sum(sum(outcomes.values()) for fault, outcomes in tally.outcomes.items()
                            if fault not in ("job killed", "delivery killed")),
    }  # fmt: skip
