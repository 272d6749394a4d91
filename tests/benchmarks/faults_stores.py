"""Faults of the stores that a catalog uses: an S3 server under it, a PostgreSQL server to which it delivers.

    make faults_stores                                                  (under 60 minutes on 2 cores)
    python -m tests.benchmarks.faults_stores --only s3 --minutes 5      (a try, from the repository's folder)

Each store's own file has the faults and starts a real server: faults_s3.py kills jobs and publishing processes on a
catalog in an object store, kills and restarts the server meanwhile, starts two jobs at once and lets the holder of the
write lease sleep past its expiry; faults_postgres.py does the same to the delivery. After each fault the job runs
again, and what is there is compared with an undisturbed run. The table store x fault x outcome comes first; the last
line is one JSON object. Exit code 1 if anything is lost, duplicated, unexplained or not equal, a
store not tried, or there were fewer than 20 kills of jobs and 100 of publishing or delivery.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

from .benchmark import arguments, print_json

STORES = {"s3": "faults_s3", "postgres": "faults_postgres"}
"""Store -> the module of this folder whose `run(minutes)` returns its figures."""

MINUTES = {"s3": 32.0, "postgres": 24.0}


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--only", choices=list(STORES), action="append", help="a store; repeatable")
    parser.add_argument("--minutes", type=float, help="for each store, instead of its own limit")
    args = parser.parse_args()
    figures = {store: figures_of(store, args.minutes or MINUTES[store]) for store in args.only or STORES}
    print_json(figures)
    return int(any(map(wrong, figures.values())))


def figures_of(store: str, minutes: float) -> dict[str, Any]:
    """Return the figures of a store, or why there are none where its module or a program that it needs is not there."""
    name = STORES[store]
    try:
        module = importlib.import_module(f".{name}", __package__)
        return dict(module.run(minutes))
    except (ModuleNotFoundError, FileNotFoundError) as missing:
        return {"not_run": str(missing)}


def wrong(figures: dict[str, Any]) -> bool:
    """Return whether a store lost something, was not tried, or had too few kills."""
    kills = [("kills", "reruns_equal", 20), ("publish_kills", "publish_equal", 100)]
    unequal = any(
        figures.get(name, 0) < least or figures[name] != figures.get(equal, 0) for name, equal, least in kills
    )
    return "not_run" in figures or unequal or any(figures.get(name) for name in ("lost", "duplicated", "unexplained"))


if __name__ == "__main__":
    sys.exit(main())
