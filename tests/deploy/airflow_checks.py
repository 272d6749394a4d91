"""Checks of deploy/airflow in Airflow's own environment, with its Python: AIRFLOW/bin/python airflow_checks.py FOLDER.

Not a test module: the environment of the tests has no Airflow. tests/deploy/proofs.py calls it. Prints what it checked.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path

EXPECTED = {
    "audit_ingest_daily": ["audit_ingest"],
    "audit_sample_weekly": ["audit_sample"],
    "backfill_catalog": ["options", "estimate", "backfill"],
    "enrich_catalog_nightly": ["import_products", "enrich_catalog"],
    "maintain_catalog_weekly": ["maintain_catalog"],
    "train_model_weekly": ["train_model", "is_new", "preview", "is_wanted", "promote_model"],
}
WAITS_FOR_NOBODY = {"options", "estimate", "train_model", "is_new", "preview", "is_wanted", "promote_model"}
"""Tasks that do not write to the catalog."""


def check_dags(folder: Path) -> None:
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag(str(folder))
    assert bag.import_errors == {}, bag.import_errors
    assert {name: sorted(dag.task_ids) for name, dag in bag.dags.items()} == {n: sorted(t) for n, t in EXPECTED.items()}
    for name, dag in bag.dags.items():
        assert dag.max_active_runs == 1, name
        assert dag.catchup is False, name
        for task in dag.tasks:
            assert task.execution_timeout is not None, task.task_id
            assert task.execution_timeout >= timedelta(hours=6), task.task_id
            assert task.retries >= 1, task.task_id
            assert task.on_failure_callback, task.task_id
            pool = "default_pool" if task.task_id in WAITS_FOR_NOBODY else "catalog_enrichment"
            assert (task.pool, task.pool_slots) == (pool, 1), task.task_id
    nightly, training = bag.dags["enrich_catalog_nightly"], bag.dags["train_model_weekly"]
    assert nightly.get_task("enrich_catalog").upstream_task_ids == {"import_products"}
    assert "is_wanted" in training.get_task("promote_model").upstream_task_ids
    assert (training.params["promote"], training.params["if_new"]) == (True, 1000)
    assert "is_new" in training.get_task("preview").upstream_task_ids
    print(f"{len(bag.dags)} DAGs parsed")


def check_exit_codes() -> None:
    """Call programs that end as jobs do."""
    import catalog_jobs
    from airflow.sdk.exceptions import AirflowException, AirflowFailException

    with tempfile.TemporaryDirectory() as bin_folder:
        os.environ["AIRFLOW_VAR_CATALOG_ENRICHMENT_BIN"] = bin_folder
        os.environ["AIRFLOW_VAR_CATALOG_ENRICHMENT_CONFIG"] = "shop.toml"
        job = Path(bin_folder) / "job"
        fails, retries = AirflowFailException, AirflowException
        for code, expected in {0: None, 1: fails, 2: fails, 3: fails, 4: retries, 137: retries}.items():
            summary = json.dumps({"message": "why", "exit_code": code})
            job.write_text(f"#!/bin/sh\necho progress >&2\necho '{summary}'\nexit {code}\n")
            job.chmod(0o755)
            raised: AirflowException | None = None
            try:
                assert catalog_jobs.call("job", ["--dry-run"])["exit_code"] == 0
            except AirflowException as problem:
                raised = problem
            assert (type(raised) if raised else None) is expected, (code, raised)
            assert raised is None or "why" in str(raised), raised
        assert catalog_jobs.call("job", ok=(0, 137))["exit_code"] == 137
    print("exit codes 0, 1, 2, 3, 4 and a killed job are mapped")


def check_that_the_job_ends_with_its_task() -> None:
    """As when Airflow ends a task that was cleared: SIGTERM to the task's process, SIGKILL 5 s later."""
    with tempfile.TemporaryDirectory() as bin_folder:
        job, started = Path(bin_folder) / "job", Path(bin_folder) / "started"
        job.write_text(f"#!/bin/sh\nsleep 600 &\necho $$ $! > {started}.new\nmv {started}.new {started}\nwait\n")
        job.chmod(0o755)
        settings = {
            "AIRFLOW_VAR_CATALOG_ENRICHMENT_BIN": bin_folder, "AIRFLOW_VAR_CATALOG_ENRICHMENT_CONFIG": "shop.toml",
            "PYTHONPATH": sys.argv[1],
        }  # fmt: skip
        code = "import catalog_jobs; catalog_jobs.call('job')"
        with subprocess.Popen([sys.executable, "-c", code], env=os.environ | settings, stderr=subprocess.PIPE) as task:
            while not started.exists():
                assert task.poll() is None, task.stderr and task.stderr.read()
                time.sleep(0.1)
            task.terminate()
            _, error = task.communicate(timeout=5)
        assert b"AirflowException: Airflow has ended the task" in error, error
        assert [pid for pid in started.read_text().split() if Path(f"/proc/{pid}").exists()] == []
    print("a job ends with its task")


if __name__ == "__main__":
    sys.path.insert(0, sys.argv[1])  # as Airflow does with its folder of DAGs
    check_dags(Path(sys.argv[1]))
    check_exit_codes()
    check_that_the_job_ends_with_its_task()
