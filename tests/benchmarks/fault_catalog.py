"""A small catalog that goes through a chain of jobs; each job can be started again from the state before it.

The chain: two imports, two enrichments, a backfill of two chunks with another model version, a rollback, the upkeep.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from catalog_enrichment.catalog.lake import Catalog
from catalog_enrichment.catalog.storage import Storage

from .. import object_sample, sample_catalog
from ..object_store import ObjectStoreServer
from ..sample_catalog import SampleCatalog, listing
from .fault_job import trace_boundaries
from .fault_states import Contents, contents

SPARK = """
[spark]
driver_memory = "1g"
[spark.conf]
"spark.sql.shuffle.partitions" = "2"
"spark.sql.codegen.wholeStage" = "false"
[maintenance]
compact_files = 3
retention_hours = 0
"""
PRODUCTS = 60


@dataclass
class Step:
    """A job of the chain."""

    name: str
    job: str
    arguments: list[str] = field(default_factory=list)
    boundaries: list[str] = field(default_factory=list)
    """The boundaries that an undisturbed run passes, in order."""
    seconds: float = 0.0
    """The time of an undisturbed run in a process that has run other jobs."""


@dataclass
class World:
    """The folder ``sample`` in which all jobs run, and a copy of catalog and feed before and after each step."""

    folder: Path
    sample: SampleCatalog
    steps: list[Step]
    expected: list[Contents] = field(default_factory=list)
    """What the catalog holds after each step."""
    store: Storage | None = None
    """Where the catalog is, if it is in an object store."""

    @property
    def catalog(self) -> Path:
        return self.sample.folder / "catalog"

    def place(self, state: int | None = None) -> Path | Storage:
        """Return the place of the catalog, or of its copy before step ``state``."""
        if self.store is None:
            return self.catalog if state is None else self.folder / "states" / str(state) / "catalog"
        return self.store.below("catalog" if state is None else f"states/{state}")

    def save(self, number: int) -> None:
        """Keep the present state as the state before step ``number``."""
        shutil.copytree(self.sample.folder / "feed", self.folder / "states" / str(number) / "feed")
        if self.store is not None:
            _copy(self.store, "catalog", f"states/{number}")
        else:
            shutil.copytree(self.catalog, self.folder / "states" / str(number) / "catalog")

    def restore(self, number: int) -> None:
        """Go back to the state before step ``number``. Times of files are kept: a feed's fingerprint contains them."""
        for name in ("feed",) if self.store else ("catalog", "feed"):
            shutil.rmtree(self.sample.folder / name)
            shutil.copytree(self.folder / "states" / str(number) / name, self.sample.folder / name)
        if self.store is not None:
            _copy(self.store, f"states/{number}", "catalog")

    def arguments(self, step: Step) -> list[str]:
        return ["--config", str(self.sample.file), *step.arguments]

    def contents(self) -> Contents:
        return contents(self.place())


def _copy(store: Storage, source: str, target: str) -> None:
    store.discard(target)
    for file in list(store.files(source)):
        store.put(target + file.path.removeprefix(source), store.read(file.path))


def run_here(job: str, arguments: Sequence[str]) -> tuple[int, dict[str, Any]]:
    """Run a job in this process, which joins its Spark session; return its exit code and summary."""
    return sample_catalog.run_job(job, *arguments)[:2]


def build(folder: Path, server: ObjectStoreServer | None = None) -> World:
    """Build the catalog and its models, in a folder or in the object store of ``server``, and run the undisturbed chain
    of jobs. Raises RuntimeError if a job fails."""
    sample = sample_catalog.build(folder / "work")
    sample.file.write_text(sample.file.read_text() + SPARK)
    for seed in (1, 2):
        sample_catalog.register(sample, folder / "artifacts", seed=seed)
    sample.promotion.promote("1", expected_current=None)
    sample.feed(first_feed())
    world = World(folder, sample, _steps())
    if server is None:
        world.catalog.mkdir()
    else:
        world.store = object_sample.place(server, "faults")
        object_sample.moved(sample, server, "faults/catalog")
    for number, step in enumerate(world.steps):
        if step.name == "second import":
            sample.feed(second_feed())
        if step.job == "rollback_run":
            step.arguments[1] = _last_enrichment(world)
        world.save(number)
        stop, begin = trace_boundaries(step.boundaries.append), time.perf_counter()
        code, summary = run_here(step.job, world.arguments(step))
        stop()
        step.seconds = time.perf_counter() - begin
        if code or summary["status"] != "succeeded":
            raise RuntimeError(f"{step.name}, undisturbed, ended with {code}: {summary}")
        world.expected.append(world.contents())
    return world


def _steps() -> list[Step]:
    return [
        Step("first import", "import_products"),
        Step("first enrichment", "enrich_catalog", ["--no-report"]),
        Step("second import", "import_products"),
        Step("second enrichment", "enrich_catalog", ["--no-report"]),
        Step("backfill", "backfill", ["--model-version", "2", "--category", "Apparel", "--chunk-products", "30"]),
        Step("rollback", "rollback_run", ["--run-id", ""]),
        Step("upkeep", "maintain_catalog", ["--force"]),
    ]


def first_feed() -> list[dict[str, Any] | str]:
    rows: list[dict[str, Any] | str] = [listing(number) for number in range(PRODUCTS)]
    rows[5] = listing(5, image="nosuch.jpg")
    rows[6] = listing(6, opt_out=True)
    return [
        *rows,
        *(listing(1, product_id=" "), listing(2, product_id="blank", title=" "), listing(3)),
        '{"product_id": ',
    ]


def second_feed() -> list[dict[str, Any] | str]:
    """Return the feed of the second import: a quarter of the products changed, ten are new, another row is broken."""
    rows = first_feed()
    rows[: PRODUCTS // 4] = [listing(number, title=f"Changed {number} blue wool") for number in range(PRODUCTS // 4)]
    return [*rows, *(listing(number) for number in range(PRODUCTS, PRODUCTS + 10)), "[]"]


def _last_enrichment(world: World) -> str:
    found = [row for batch in Catalog(world.place()).scan("runs") for row in batch.to_pylist()]
    runs = [row for row in found if row["kind"] == "enrich"]
    plain = [row for row in runs if row["parent_run_id"] is None]
    return str(max(plain, key=lambda row: row["finished_at"])["run_id"])
