"""What the DAGs share: how a job's console script is called, what its exit code means, and who is told.

Airflow is installed in a virtual environment of its own, without this package and without Spark (its Spark provider
writes files of pyspark's folder). The jobs are called as programs of the product's environment. Needed:
apache-airflow>=3.2, which installs apache-airflow-providers-standard; no other provider. (Airflow 3.0 and 3.1 have no
airflow.sdk.exceptions with the two exceptions.)

Pool: ``catalog_enrichment`` with one slot (``airflow pools set catalog_enrichment 1 "one job writes"``). A task whose
pool does not exist is never started.

Variables: ``catalog_enrichment_bin`` (folder of the console scripts), ``catalog_enrichment_config`` (TOML file), and,
if a web hook is to be told of failures, ``catalog_enrichment_webhook`` (a URL that takes JSON).
"""

from __future__ import annotations

import json
import logging
import os
import shlex
import signal
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import Variable
from airflow.sdk.exceptions import AirflowException, AirflowFailException

RETRIED = 4
"""The surroundings failed: worth another attempt. 2 (config, data), 3 (a gate) and 1 (a bug) are not."""

MEANINGS = {
    1: "a bug: keep the log",
    2: "bad config or data contract: read the message, do not retry",
    3: "a gate refused: a person decides",
    RETRIED: "the surroundings failed: it is tried again",
}

END_SECONDS = 3
"""For a job to end after SIGTERM; then SIGKILL. Airflow kills the task itself 5 s after its own SIGTERM."""

ANY_TIME = {"pool": "default_pool"}
"""For a task that does not write to the catalog: it does not wait for those that do."""

log = logging.getLogger(__name__)


def call(job: str, arguments: Sequence[str] = (), ok: Sequence[int] = (0,)) -> dict[str, Any]:
    """Run a job and return its JSON summary. ``ok``: further exit codes that do not fail the task.

    Raises AirflowException for exit code 4 and where a signal ended the job, which Airflow retries, and
    AirflowFailException for the others, which it does not. A task that Airflow ends (timeout, cleared, marked as failed
    or succeeded) ends the job and what the job has started, which would hold the catalog's lock otherwise.
    """
    program = str(Path(Variable.get("catalog_enrichment_bin")) / job)
    command = [program, "--config", Variable.get("catalog_enrichment_config"), *arguments]
    log.info("%s", shlex.join(command))
    # a process group of its own, so that Spark's JVM ends with it; without the settings of Airflow's Python
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, start_new_session=True
    )
    last = ""
    with _ended_with_the_task(process):
        for line in process.stdout or ():
            last = line.strip() if line.startswith("{") else last
            log.info("%s", line.rstrip())
        code = process.wait()
    summary = json.loads(last or "{}")
    if code in ok:
        return summary
    message = f"{job} ended with {code} ({MEANINGS.get(code, 'killed by a signal')}): {summary.get('message', '')}"
    if code == RETRIED or code < 0 or code > 128:
        raise AirflowException(message)
    raise AirflowFailException(message)


@contextmanager
def _ended_with_the_task(process: subprocess.Popen[str]) -> Iterator[None]:
    """A block after which the process group of ``process`` is ended, also where Airflow ends the task within.

    On SIGTERM Airflow calls ``on_kill`` of the operator, which that of a Python function does not have, and kills the
    task 5 s later: no ``finally`` would run. Raises AirflowException then.
    """

    def terminated(*_: object) -> None:
        _end(process)  # here and not only below: a logger may swallow what is raised while it writes a line
        raise AirflowException("Airflow has ended the task, and with it the job")

    here = threading.current_thread() is threading.main_thread()  # no other thread may install a handler
    before = signal.signal(signal.SIGTERM, terminated) if here else None
    try:
        yield
    finally:
        if here:
            signal.signal(signal.SIGTERM, before)
        if process.poll() is None:
            _end(process)


def _end(process: subprocess.Popen[str]) -> None:
    """End the process group: SIGTERM, and SIGKILL for what is there :data:`END_SECONDS` later."""
    with suppress(ProcessLookupError):  # nothing is left
        os.killpg(process.pid, signal.SIGTERM)
        until = time.monotonic() + END_SECONDS
        while time.monotonic() < until:
            process.poll()  # a program that has ended is of the group until it was waited for
            os.killpg(process.pid, 0)
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def tell(context: dict[str, Any]) -> None:
    """Failure callback: post the task, its exit and where its log is to the web hook, if there is one."""
    instance = context["ti"]
    message = {
        "text": f"{instance.dag_id}.{instance.task_id} failed: {context.get('exception')}",
        "log": getattr(instance, "log_url", ""),
    }
    log.error("%s", message["text"])
    url = Variable.get("catalog_enrichment_webhook", default=None)
    if url:
        request = urllib.request.Request(url, json.dumps(message).encode(), {"Content-Type": "application/json"})
        try:
            urllib.request.urlopen(request, timeout=10).close()
        except OSError as problem:  # the task has failed already; Airflow shows that
            log.error("the web hook was not told: %s", problem)


SETTINGS: dict[str, Any] = {
    "start_date": datetime(2026, 1, 1, tzinfo=UTC),
    "catchup": False,  # a night that was missed is made good by the next run, which scores all that is new
    "max_active_runs": 1,
    "tags": ["catalog-enrichment"],
    "default_args": {
        # one job writes to a catalog at a time; without the pool one of another DAG would end with exit 3, not retried
        "pool": "catalog_enrichment",
        "retries": 3,
        "retry_delay": timedelta(minutes=10),
        "retry_exponential_backoff": True,
        "max_retry_delay": timedelta(hours=1),
        "execution_timeout": timedelta(hours=6),
        "on_failure_callback": tell,
    },
}
"""Arguments of every DAG. ``execution_timeout`` is per attempt of a task."""
