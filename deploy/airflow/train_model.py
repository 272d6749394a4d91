"""Airflow DAG: a new model version every week if enough labels are new, and its promotion if the gate lets it pass.

Every training uses certification labels, so that a training from the same labels costs and hardly helps: it is left out
where fewer than ``if_new`` labelled products are new since the newest training.
Where the gate refuses or cannot tell (exit 3) the task fails without a retry and the champion stays; a person looks at
the training's page and decides. None of these tasks takes the catalog's write lock, so that the night does not wait for
them. ``promote``: false leaves every promotion to a person.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import Param, dag, task
from catalog_jobs import ANY_TIME, SETTINGS, call

PARAMS = {"promote": Param(True, type="boolean"), "if_new": Param(1000, type="integer", minimum=0)}


@dag(schedule="30 3 * * 0", params=PARAMS, **SETTINGS)
def train_model_weekly() -> None:
    """train_model, promote_model --dry-run (what readers would see change), then promote_model."""

    @task(execution_timeout=timedelta(hours=20), **ANY_TIME)
    def train_model(params: dict[str, Any] | None = None) -> str:
        summary = call("train_model", ["--if-new", str((params or {})["if_new"])])
        return str(summary.get("model_version", ""))

    @task.short_circuit(**ANY_TIME)
    def is_new(version: str) -> bool:
        return bool(version)

    @task(retries=1, **ANY_TIME)
    def preview(version: str) -> dict[str, Any]:
        return call("promote_model", ["--to-version", version, "--dry-run"], ok=(0, 3))

    @task.short_circuit(**ANY_TIME)
    def is_wanted(params: dict[str, Any] | None = None) -> bool:
        return bool((params or {})["promote"])

    @task(**ANY_TIME)
    def promote_model(version: str) -> dict[str, Any]:
        return call("promote_model", ["--to-version", version])

    version = train_model()
    is_new(version) >> preview(version) >> is_wanted() >> promote_model(version)


train_model_weekly()
