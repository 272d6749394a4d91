"""Tasks and executors of a job are killed, fail after they wrote, or are slow; Spark or a second run mends it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass

from catalog_enrichment.catalog.lake import Catalog
from catalog_enrichment.catalog.maintenance import Maintenance

from .benchmark import called
from .fault_catalog import World
from .fault_kills import exit_code, run_again, wait_for
from .fault_outcomes import Outcome
from .fault_processes import kill, kill_tree, start

EXECUTOR = "CoarseGrainedExecutorBackend"
LOCAL, CLUSTER = "local[2]", "local-cluster[2,1,1024]"


@dataclass(frozen=True)
class TaskFault:
    name: str
    kind: str
    """As in Outcome: `job` for a kill."""
    master: str
    hook: str
    """What :mod:`fault_daemon` does in a worker."""


FAULTS = [
    TaskFault("SIGKILL of a Python worker that scores, local", "job", LOCAL, "die_scoring"),
    TaskFault("SIGKILL of a Python worker that has written a file, local", "job", LOCAL, "die_writing"),
    TaskFault("SIGKILL of a Python worker that scores, local-cluster", "job", CLUSTER, "die_scoring"),
    TaskFault("SIGKILL of an executor, local-cluster", "job", CLUSTER, ""),
    TaskFault("a task that fails after it wrote its file, local-cluster", "other", CLUSTER, "fail"),
    TaskFault("a slow task, run twice by speculation, local-cluster", "other", CLUSTER, "slow"),
]

CONF = {
    "spark.speculation": "true",
    "spark.speculation.interval": "100ms",
    "spark.speculation.multiplier": "1.1",
    "spark.speculation.quantile": "0.3",
    "spark.speculation.minTaskRuntime": "100ms",
    "spark.python.daemon.module": "tests.benchmarks.fault_daemon",
    "spark.sql.shuffle.partitions": "2",
}


def faults(world: World, number: int) -> Iterator[Outcome]:
    """Each of FAULTS under the step ``number``, in a process of its own; then the job is run again."""
    for place, fault in enumerate(FAULTS):
        outcome = Outcome(fault.name, fault.kind)
        world.restore(number)
        flags = world.folder / f"flags-{place}"
        shutil.rmtree(flags, ignore_errors=True)
        flags.mkdir()
        output = world.folder / f"tasks-{place}"
        step = world.steps[number]
        # --set replaces the whole table spark.conf of the config
        conf = ", ".join(f'"{name}" = "{value}"' for name, value in CONF.items())
        settings = ["--set", f"spark.master='{fault.master}'", "--set", f"spark.conf={{{conf}}}"]
        job = start(
            "tests.benchmarks.fault_cli", [step.job, *world.arguments(step), *settings], output,
            {"FAULT_HOOK": fault.hook, "FAULT_FLAGS": str(flags)},
        )  # fmt: skip
        if not fault.hook:
            wait_for(lambda output=output: "validate " in output.read_text(errors="replace"))
            wait_for(lambda job=job: called(job.pid, EXECUTOR))
            kill(called(job.pid, EXECUTOR)[:1])
        outcome.ended(exit_code(job))
        kill_tree(job)
        if fault.hook:
            outcome.notes.append(f"{len(list(flags.iterdir()))} task hit, {_orphans(world)} files without a reference")
        if outcome.unexplained:
            outcome.notes.append(output.read_text(errors="replace").splitlines()[-1][:400])
        run_again(world, number, outcome, fault.name)
        yield outcome


def _orphans(world: World) -> int:
    """Return how many files of repeated tasks are in the tables that are only appended to."""
    upkeep = Maintenance(Catalog(world.catalog), 0)
    tables = [name for name in ("predictions", "quarantine", "attribute_values") if name in upkeep.tables]
    return sum(len(upkeep.unreferenced_files(name).paths) for name in tables)
