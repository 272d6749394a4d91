"""A job that stops at its n-th boundary, to be killed there.

    python -m tests.benchmarks.fault_job TRACE CONFIG

It starts Spark and then reads a line of JSON from stdin: [stop at, job, arguments]. So it can be started before it is
needed. Boundaries are the ends of stages and checkpoints, and the moments before and after every commit and deletion.
Each adds its name to the file TRACE as a line, after "begin". At the boundary number "stop at" (from 1; 0: never) the
process waits for ever.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def trace_boundaries(reached: Callable[[str], None]) -> Callable[[], None]:
    """Call ``reached`` with the name of every boundary from now on; returns a function that ends it."""
    from catalog_enrichment.catalog.checkpoints import Checkpoints
    from catalog_enrichment.catalog.delta_tables import DeltaTables
    from catalog_enrichment.catalog.maintenance import FileSet, Maintenance
    from catalog_enrichment.monitoring.stages import Stage

    undo: list[tuple[type, str, Any]] = []

    def wrap(owner: type, name: str, before: bool, after: bool, label: Callable[..., str]) -> None:
        original = getattr(owner, name)

        def traced(*arguments: Any, **named: Any) -> Any:
            if before:
                reached(f"before {label(*arguments)}")
            result = original(*arguments, **named)
            if after:
                reached(f"after {label(*arguments)}")
            return result

        undo.append((owner, name, original))
        setattr(owner, name, traced)

    wrap(DeltaTables, "commit", True, True, lambda _, delta, *_rest: f"commit {_table(delta)}")
    wrap(Checkpoints, "get_or_compute", False, True, lambda _, _id, name, *_rest: f"checkpoint {name.split('-')[0]}")
    wrap(Checkpoints, "drop", True, False, lambda *_: "drop_checkpoints")
    wrap(Stage, "line", False, True, lambda stage: f"stage {stage.name}")
    wrap(Maintenance, "compact", True, True, lambda _, table, *_rest: f"compact {table}")
    wrap(Maintenance, "shorten_log", True, True, lambda _, table: f"shorten_log {table}")
    wrap(FileSet, "delete", True, True, lambda *_: "delete")

    def stop() -> None:
        for owner, name, original in reversed(undo):
            setattr(owner, name, original)

    return stop


def _table(delta: Any) -> str:
    return str(delta.table_uri).rstrip("/").rsplit("/", 1)[-1]


def main(trace: str, config: str) -> int:
    from catalog_enrichment import cli
    from catalog_enrichment.config.load import load_config
    from catalog_enrichment.spark import session

    session.start(load_config(config), "fault").range(1).count()
    stop_at, job, arguments = json.loads(sys.stdin.readline() or "[0, null, null]")
    if job is None:  # not needed after all
        return 0
    number = 0
    Path(trace).write_text("begin\n")

    def reached(name: str) -> None:
        nonlocal number
        number += 1
        with Path(trace).open("a") as file:
            file.write(f"{name}\n")
        if number == stop_at:
            time.sleep(3600)

    trace_boundaries(reached)
    return int(getattr(cli, job)(arguments))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
