"""How deploy/airflow calls jobs, without Airflow: its exceptions and its variables are those of a small package here.

tests/deploy/airflow_checks.py does the same in Airflow itself, which has an environment of its own.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from .test_cron import ends

DAGS = Path(__file__).parents[2] / "deploy" / "airflow"
AIRFLOW_KILLS_AFTER = 5
"""Seconds after its SIGTERM."""

AIRFLOW = {
    "__init__.py": "",
    "sdk/__init__.py": "import os\nclass Variable:\n    @staticmethod\n    def get(name): return os.environ[name]\n",
    "sdk/exceptions.py": "class AirflowException(Exception): pass\nclass AirflowFailException(Exception): pass\n",
}
TASK = """
import os, signal, catalog_jobs
before = signal.signal(signal.SIGTERM, lambda number, frame: os.write(2, b"the handler of Airflow"))
try:
    print(catalog_jobs.call("job"), flush=True)
finally:
    assert signal.getsignal(signal.SIGTERM).__name__ == "<lambda>", "the handler was not given back"
"""


@contextmanager
def task(folder: Path, script: str) -> Iterator[subprocess.Popen[bytes]]:
    """Start the process of a task that calls a job with this shell ``script``."""
    for name, text in AIRFLOW.items():
        file = folder / "airflow" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    (folder / "job").write_text(f"#!/bin/bash\n{script}\n")
    (folder / "job").chmod(0o755)
    environment = {
        "PATH": os.environ["PATH"], "PYTHONPATH": f"{folder}:{DAGS}", "PYTHONDONTWRITEBYTECODE": "1",
        "catalog_enrichment_bin": str(folder), "catalog_enrichment_config": "shop.toml",
    }  # fmt: skip
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", TASK], env=environment, stdout=pipe, stderr=pipe) as process:
        try:
            yield process
        finally:
            process.kill()
            if (folder / "started").exists():
                for pid in (folder / "started").read_text().split():
                    ends(pid, seconds=0)


@pytest.mark.parametrize("ignored", ["", "trap '' TERM; "], ids=["a job", "a job that ignores SIGTERM"])
def test_a_task_that_airflow_ends_ends_its_job_and_what_that_has_started(tmp_path: Path, ignored: str) -> None:
    """Airflow sends SIGTERM to the task and kills it 5 s later; a job that went on would hold the catalog's lock."""
    started = tmp_path / "started"
    with task(tmp_path, f"{ignored}sleep 60 & echo $$ $! > {started}.new; mv {started}.new {started}; wait") as process:
        while not started.exists():
            assert process.poll() is None
            time.sleep(0.02)
        process.terminate()
        _, error = process.communicate(timeout=60)
        assert b"AirflowException: Airflow has ended the task, and with it the job" in error
        assert b"the handler of Airflow" not in error
        assert [pid for pid in started.read_text().split() if not ends(pid, seconds=0)] == []


def test_the_job_is_killed_before_airflow_kills_the_task() -> None:
    [seconds] = re.findall(r"^END_SECONDS = (\d+)$", (DAGS / "catalog_jobs.py").read_text(), re.MULTILINE)
    assert int(seconds) < AIRFLOW_KILLS_AFTER


def test_a_job_that_ends_by_itself_leaves_the_tasks_handler_as_it_was(tmp_path: Path) -> None:
    with task(tmp_path, 'echo \'{"status": "succeeded"}\'') as process:
        output, error = process.communicate(timeout=30)
        assert (process.returncode, output) == (0, b"{'status': 'succeeded'}\n"), error
    with task(tmp_path, "exit 4") as process:
        assert b"AirflowException: job ended with 4" in process.communicate(timeout=30)[1]
