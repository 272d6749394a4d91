"""Processes that are clients of a Spark Connect server, and what two catalogs have in common."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from ..sample_catalog import SampleCatalog, table

ROOT = Path(__file__).parents[2]
MINUTES = 20 * 60
OF_ITS_OWN = (
    *("first_imported_at", "asserted_at", "started_at", "finished_at", "decided_at", "quarantined_at", "scored_at"),
    *("source_uri", "imported_by"),
)
"""Columns with times of the clock, paths, and the id of the import, which is about the files' paths."""

_JOBS = """
import json, os, signal, sys
from catalog_enrichment import cli
from catalog_enrichment.catalog import runs
write, rows = runs.write, []

def write_or_die(*arguments):
    if len(rows) == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    rows.append(write(*arguments))

if int(sys.argv[2]):
    runs.write = write_or_die
for name, *arguments in json.loads(sys.argv[1]):
    getattr(cli, name)(arguments)
from pyspark import SparkContext
assert SparkContext._active_spark_context is None and SparkContext._gateway is None  # no JVM in this process
"""


def ended(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python code in a process of its own, which can be a client."""
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], text=True, capture_output=True, timeout=MINUTES, check=False,
        cwd=ROOT,
    )  # fmt: skip


def client(code: str, *arguments: str) -> list[Any]:
    """Run Python code in a process of its own, which can be a client; return the JSON lines that it prints."""
    done = ended(code, *arguments)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def run_jobs(*jobs: list[str]) -> list[dict[str, Any]]:
    """Run jobs in one process without a JVM; return their summaries, all of which are of jobs that succeeded."""
    summaries = client(_JOBS, json.dumps(jobs), "0")
    assert [(summary["job"], summary["exit_code"]) for summary in summaries] == [(name, 0) for name, *_ in jobs], (
        summaries
    )
    return summaries


def run_until_killed(*jobs: list[str], rows: int) -> None:
    """Run jobs in a process that dies when it would write a row after so many ``rows`` of the table `runs`."""
    done = ended(_JOBS, json.dumps(jobs), str(rows))
    assert done.returncode == -signal.SIGKILL, done.stderr[-3000:]


def stored(sample: SampleCatalog, name: str) -> list[dict[str, Any]]:
    """The rows of a table in one order, without what two catalogs cannot have in common."""
    own = (*OF_ITS_OWN, "run_id") if name == "quarantine" else OF_ITS_OWN
    kept = [{key: value for key, value in row.items() if key not in own} for row in table(sample, name)]
    return sorted(kept, key=lambda row: json.dumps(row, default=str, sort_keys=True))


def outcomes(sample: SampleCatalog) -> list[tuple[Any, ...]]:
    """Kind, id (but of imports), status and counts of the runs."""
    return sorted(
        (run["kind"], "" if run["kind"] == "import" else run["run_id"], run["status"], sorted(run["counts"]))
        for run in table(sample, "runs")
    )
