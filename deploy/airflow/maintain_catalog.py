"""Airflow DAG: cleaning up, every week, after the training."""

from __future__ import annotations

from typing import Any

from airflow.sdk import dag, task
from catalog_jobs import SETTINGS, call


@dag(schedule="30 5 * * 0", **SETTINGS)
def maintain_catalog_weekly() -> None:
    """maintain_catalog. Where a job from outside Airflow writes (exit 3), nothing is lost by waiting a week."""

    @task
    def maintain_catalog() -> dict[str, Any]:
        return call("maintain_catalog", ok=(0, 3))

    maintain_catalog()


maintain_catalog_weekly()
