"""Faults of the delivery to PostgreSQL: kills, cut connections, a server that dies, two deliveries at once.

    python -m tests.benchmarks.faults_postgres                           (about 10 minutes on 2 cores)
    python -m tests.benchmarks.faults_postgres --minutes 2               (a try)

A real server and a real catalog, which gets new commits before every fault while a merchant edits values all the time.
After each fault the database must be at a commit: its rows are those that readers of the catalog saw at its position.
Then the job runs again, and the database must have what readers see now, with every commit delivered once and in order.
The table fault x outcome comes first; the last line is one JSON object. Exit code 1 if anything else was seen.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from tests.benchmarks import fault_processes
from tests.delivery.conftest import Database, new_database
from tests.delivery.histories import State, Versions, applied, value
from tests.postgres_server import PostgresServer

from catalog_enrichment.errors import CatalogEnrichmentError

ROOT = Path(__file__).parents[2]
PRODUCTS = 3_000
DELIVERY_KILLS, JOB_KILLS, OTHERS = 100, 20, 8
"""How often each fault happens: SIGKILL to deliveries, to whole jobs, every other fault."""

DELIVERY = """
import sys
from pathlib import Path
from catalog_enrichment.catalog.lake import LakeCatalog
from catalog_enrichment.config.load import load_config
from catalog_enrichment.delivery import connection, deliver, differences
from catalog_enrichment.errors import CatalogEnrichmentError
import deltalake, psycopg
config = load_config(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
try:
    deliver.deliver_values(LakeCatalog.of(config), config.delivery)
except CatalogEnrichmentError as problem:
    print(problem, file=sys.stderr)
    sys.exit(problem.exit_code)
"""
"""A delivery without the start of a job: it waits for a line before it begins, so that a kill hits the delivery."""

CONFIG = """
[catalog]
path = "catalog"
dictionary = "schemas:attributes/demo.v1.json"
[mlflow]
tracking_uri = "sqlite:///mlflow.db"
[delivery]
uri = "{uri}"
merge_after = 1000
"""


@dataclass
class Tally:
    """What was seen, by fault and outcome."""

    outcomes: dict[str, Counter[str]] = field(default_factory=dict)
    lost: int = 0
    duplicated: int = 0
    unexplained: list[str] = field(default_factory=list)

    def count(self, fault: str, outcome: str) -> None:
        self.outcomes.setdefault(fault, Counter())[outcome] += 1

    def of(self, fault: str, outcome: str) -> int:
        return self.outcomes.get(fault, Counter())[outcome]


class World:
    """A catalog, a server, the database that is delivered to, and the merchant who edits."""

    def __init__(self, folder: Path, server: PostgresServer) -> None:
        self.folder, self.server, self.tally = folder, server, Tally()
        self.versions = Versions(folder / "catalog")
        self.database: Database = new_database(server)
        self.config = folder / "config.toml"
        self.config.write_text(CONFIG.format(uri=self.database.config.uri))
        self.random = random.Random(7)
        self.state: State = {}
        self.spare: subprocess.Popen[str] | None = None
        self.commits = 0
        self.seconds = 0.5
        """Of an undisturbed delivery: the time in which a kill falls."""

    def commit(self) -> None:
        """One to three runs change some of the products."""
        for _ in range(self.random.randint(1, 3)):
            self.commits += 1
            for number in self.random.sample(range(PRODUCTS), PRODUCTS // 4):
                key = (f"p{number:06d}", self.random.choice(("color", "material")))
                if self.random.random() < 0.2:
                    self.state.pop(key, None)
                else:
                    colour = self.random.choice(("Red", "Green", "Blue"))
                    self.state[key] = value(colour, run_id=f"run-{self.commits}", step=self.commits)
            self.versions.show(self.state, f"run-{self.commits}")

    def start(self) -> subprocess.Popen[str]:
        """A delivery that has loaded everything and waits for :func:`go`. The next one is loading meanwhile."""
        process, self.spare = self.spare or self._loading(), self._loading()
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n", process.communicate()[1]
        return process

    def _loading(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", DELIVERY, str(self.config)], cwd=ROOT, env=fault_processes.environment(),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def job(self, name: str, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, str(ROOT / "jobs" / f"{name}.py"), "--config", str(self.config), *arguments]
        return subprocess.Popen(
            command, env=fault_processes.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    # --- what must hold ---------------------------------------------------------------------------------------------

    def at_a_commit(self, fault: str) -> bool:
        """Whether the rows are those that readers of the catalog saw at the database's position."""
        rows, version = self.delivered()
        expected = {} if version is None else self.versions.seen(version)
        if rows == expected:
            return True
        self.tally.unexplained.append(f"{fault}: the database is not at commit {version}")
        return False

    def delivered(self) -> tuple[State, int | None]:
        """Rows and position, of one moment."""
        while True:
            ((before,),) = self.database.query("SELECT version FROM enriched.position")
            rows = self.database.rows()
            if self.database.query("SELECT version FROM enriched.position") == [(before,)]:
                return rows, before

    def complete(self, fault: str) -> bool:
        """Run a delivery to its end; whether every commit was delivered once and readers see what they should."""
        try:
            self.database.deliver(self.versions)
        except CatalogEnrichmentError as problem:
            self.tally.unexplained.append(f"{fault}: the delivery that ran again said {problem}")
            return False
        rows, expected = self.database.rows(), self.versions.seen()
        self.tally.lost += sum(rows.get(key) != row for key, row in expected.items())
        self.tally.duplicated += sum(key not in expected for key in rows)
        steps = self.database.query("SELECT after, version FROM enriched.deliveries ORDER BY id")
        self.tally.duplicated += len(steps) - len({version for _, version in steps})
        self.tally.lost += sum(steps[n + 1][0] != steps[n][1] for n in range(len(steps) - 1))
        return rows == expected


def go(process: subprocess.Popen[str]) -> subprocess.Popen[str]:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()
    return process


def finished(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit code and stderr."""
    said = process.communicate(timeout=120)[1]
    return process.returncode, said


# --- the faults -------------------------------------------------------------------------------------------------------


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
    """SIGKILL to a whole job, of every two one to deliver_values and one to export_changes, then the job again.

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
    """What a consumer has that applies the files of export_changes in order and skips versions that it has."""
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
    from datetime import datetime

    at = row.get("asserted_at")
    return dict.fromkeys(value("x")) | row | {"asserted_at": at and datetime.fromisoformat(at)}


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
    """All faults, until each happened as often as planned or the time is over; the figures of the proof."""
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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=24.0, help="at most so long")
    figures = run(parser.parse_args().minutes)
    print(json.dumps(figures), flush=True)
    wrong = any(figures[name] for name in ("lost", "duplicated", "unexplained"))
    unequal = figures["kills"] != figures["reruns_equal"] or figures["publish_kills"] != figures["publish_equal"]
    return int(wrong or unequal)


if __name__ == "__main__":
    sys.exit(main())
