"""Faults of every kind, and what the catalog holds afterwards.

    make faults                                                        (under 60 minutes on 2 cores)
    python -m tests.benchmarks.faults --only publish --publish-kills 10         (a try, from the repository's folder)

Sections: `publish` (a small publishing process), `kills` (whole jobs at every boundary and at random moments, and their
JVM), `tasks` (a Python worker or executor killed, a task retried or run twice by speculation), `rows` (hostile rows in
every format) and `surroundings` (a full disk, a read-only folder, a locked MLflow store). After each fault the job
runs again and the catalog is compared with that of an undisturbed chain of the same jobs (fault_states.py). The table
fault x outcome comes first; the last line is one JSON object. Exit code 1 if anything is lost, duplicated, unexplained
or not equal.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from .benchmark import arguments, print_json
from .fault_outcomes import Outcome, delta, table
from .fault_processes import environment

SECTIONS = ("publish", "kills", "tasks", "surroundings", "rows")
SEED, ENRICHMENT = 10, 1
"""ENRICHMENT: the step of the chain whose parts are killed."""


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--only", choices=SECTIONS, action="append", help="a section; repeatable")
    parser.add_argument("--every", type=int, default=1, help="kill at each n-th boundary only")
    parser.add_argument("--boundary-minutes", type=float, default=25, help="for the kills at boundaries")
    parser.add_argument("--random-kills", type=int, default=6)
    parser.add_argument("--publish-kills", type=int, default=100)
    parser.add_argument("--rows", type=int, default=1600, help="rows of an import")
    args = parser.parse_args()
    os.environ.update(environment())  # before any library is imported that reads it
    outcomes, begin = [], time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        for outcome in _outcomes(Path(folder), args):
            outcomes.append(outcome)
            minutes = (time.perf_counter() - begin) / 60
            print(f"{minutes:5.1f} min  {outcome.row()}", file=sys.stderr, flush=True)
    print(table(outcomes))
    figures = delta(outcomes)
    print_json({"delta": figures})
    wrong = figures["lost"] + figures["duplicated"] + figures["unexplained"]
    return int(wrong > 0 or any(outcome.equal < outcome.times for outcome in outcomes))


def _outcomes(folder: Path, args: argparse.Namespace) -> Iterator[Outcome]:
    from . import fault_feeds, fault_kills, fault_publish, fault_surroundings, fault_tasks

    sections = args.only or SECTIONS
    if "publish" in sections:
        yield from fault_publish.kills(folder / "publish", args.publish_kills, SEED)
    if {"kills", "tasks", "surroundings"} & set(sections):
        from . import fault_catalog

        until = time.perf_counter() + 60 * args.boundary_minutes
        world = fault_catalog.build(folder / "world")
        if "kills" in sections:
            standby = fault_kills.Standby(world)
            try:
                yield from fault_kills.at_boundaries(world, standby, args.every, until)
                yield fault_kills.at_random(world, standby, args.random_kills, SEED)
                yield fault_kills.of_the_jvm(world, standby, ENRICHMENT, 2)
            finally:
                standby.close()
        if "tasks" in sections:
            yield from fault_tasks.faults(world, ENRICHMENT)
        if "surroundings" in sections:
            yield from fault_surroundings.faults(world)
    if "rows" in sections:
        yield from fault_feeds.imports(folder / "rows", args.rows)


if __name__ == "__main__":
    sys.exit(main())
