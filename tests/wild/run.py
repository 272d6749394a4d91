"""Runs the jobs over every file of a folder, from init_project to enrich_catalog --dry-run, and prints what came of it.

    python -m tests.wild.run FOLDER [--min-count 20] [--until train_model] [--keep FOLDER]

Each file, also in folders below, gets a project of its own. The table has a line per file: the file, the job that ended
it with its exit code, or "ok", the attributes that were found, and the first line of the message. The last line of
stdout is a JSON object with the number of files per outcome.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

JOBS = ("init_project", "import_products", "train_model", "promote_model", "enrich_catalog")
SUFFIXES = {".csv", ".tsv", ".txt", ".json", ".jsonl", ".xlsx", ".xml", ".parquet", ".gz"}
RECIPE = ("--set", 'training.recipe="recipes:demo.toml"')
"""A small recipe: what is tried is whether a file can be used, not how well."""
_ROOT = Path(__file__).parents[2]
_WIDTH = 100


@dataclass(slots=True)
class Outcome:
    """What came of a file."""

    file: Path
    ended: str = "ok"
    """The job that did not end with 0, and its exit code."""
    attributes: list[str] = field(default_factory=list)
    message: str = ""
    """The error's first line; of a file that went through, what a run would write."""

    def line(self, width: int) -> str:
        found = ", ".join(self.attributes) or "-"
        return f"{self.file!s:<{width}}  {self.ended:<20}  {found[:30]:<30}  {self.message[:_WIDTH]}"


def run(job: str, *arguments: str) -> tuple[int, dict[str, Any]]:
    """Return a job's exit code and the JSON object of its last line."""
    ended = subprocess.run(
        [sys.executable, str(_ROOT / "jobs" / f"{job}.py"), *arguments], capture_output=True, text=True, check=False
    )
    lines = ended.stdout.strip().splitlines()
    try:
        summary = json.loads(lines[-1]) if lines else {}
    except ValueError:
        summary = {}
    return ended.returncode, summary


def tried(file: Path, shown: Path, project: Path, arguments: argparse.Namespace) -> Outcome:
    """Run the jobs on ``file`` until one of them refuses."""
    outcome = Outcome(shown)
    config = str(project / "config.toml")
    for job in JOBS[: JOBS.index(arguments.until) + 1]:
        given = ("--config", config, *RECIPE)
        if job == "init_project":
            given = (str(project), "--from", str(file), "--min-count", str(arguments.min_count))
        elif job == "enrich_catalog":
            given = (*given, "--dry-run")
        code, summary = run(job, *given)
        if job == "init_project":
            outcome.attributes = sorted(summary.get("attributes", {}))
        if code:
            outcome.ended = f"{job} {code}"
            outcome.message = str(summary.get("message", "no message")).splitlines()[0]
            break
        outcome.message = str(summary.get("status", ""))
        if job == "init_project" and not outcome.attributes:
            outcome.ended = "no attribute"
            break
    return outcome


def files_below(folder: Path) -> Iterator[Path]:
    return (file for file in sorted(folder.rglob("*")) if file.is_file() and file.suffix.lower() in SUFFIXES)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--min-count", type=int, default=20, help="as of init_project (default %(default)s)")
    parser.add_argument("--until", choices=JOBS, default=JOBS[-1], help="the last job (default %(default)s)")
    parser.add_argument("--keep", type=Path, help="folder for the projects; by default they are removed")
    arguments = parser.parse_args(argv)
    files = list(files_below(arguments.folder))
    width = max((len(str(file.relative_to(arguments.folder))) for file in files), default=0)
    outcomes = []
    with tempfile.TemporaryDirectory() as temporary:
        for number, file in enumerate(files):
            project = (arguments.keep or Path(temporary)) / f"{number:03}"
            outcomes.append(tried(file.resolve(), file.relative_to(arguments.folder), project, arguments))
            print(outcomes[-1].line(width), flush=True)
    print(json.dumps({"files": len(files), **Counter(outcome.ended for outcome in outcomes)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
