"""The catalog, server and database of the fault tests of the delivery, and what must hold after each fault."""

from __future__ import annotations

import random
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests.benchmarks import fault_processes
from tests.config_texts import WITH_DEMO_DICTIONARY
from tests.delivery.conftest import Database, new_database
from tests.delivery.histories import State, Versions, value
from tests.postgres_server import PostgresServer

from catalog_enrichment.errors import CatalogEnrichmentError

ROOT = Path(__file__).parents[2]
PRODUCTS = 3_000
DELIVERY = """
import sys
from pathlib import Path
from catalog_enrichment.catalog.lake import Catalog
from catalog_enrichment.config.load import load_config
from catalog_enrichment.delivery import deliver, differences, postgres
from catalog_enrichment.errors import CatalogEnrichmentError
import deltalake, psycopg
config = load_config(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
try:
    deliver.deliver_values(Catalog.of(config), config.delivery)
except CatalogEnrichmentError as problem:
    print(problem, file=sys.stderr)
    sys.exit(problem.exit_code)
"""
"""A delivery without the start of a job: it waits for a line before it begins, so that a kill hits the delivery."""

CONFIG = f"""{WITH_DEMO_DICTIONARY}[delivery]
uri = "{{uri}}"
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
        """The time of an undisturbed delivery, in which a kill falls."""

    def commit(self) -> None:
        """Change some of the products by one to three runs."""
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
        """Return a delivery that has loaded everything and waits for :func:`go`; the next delivery loads meanwhile."""
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
        """Return whether the rows are those that readers of the catalog saw at the position of the database."""
        rows, version = self.delivered()
        expected = {} if version is None else self.versions.seen(version)
        if rows == expected:
            return True
        self.tally.unexplained.append(f"{fault}: the database is not at commit {version}")
        return False

    def delivered(self) -> tuple[State, int | None]:
        """Return rows and position of the same moment."""
        while True:
            ((before,),) = self.database.query("SELECT version FROM enriched.position")
            rows = self.database.rows()
            if self.database.query("SELECT version FROM enriched.position") == [(before,)]:
                return rows, before

    def complete(self, fault: str) -> bool:
        """Run a delivery to its end; return whether every commit was delivered once and readers see all of it."""
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
