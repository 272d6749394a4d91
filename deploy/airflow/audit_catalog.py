"""Airflow DAGs: a sample of written values for reviewers every week, and their verdicts every morning.

audit_ingest ends with exit 3 where the verdicts raise an alarm; the attribute is paused by then. The task fails without
a retry, so that somebody is told.
"""

from __future__ import annotations

from typing import Any

from airflow.sdk import Param, dag, task
from catalog_jobs import SETTINGS, call


@dag(
    schedule="0 6 * * 1",
    params={
        "attribute": Param([], type="array", items={"type": "string"}, description="only these; empty: all"),
        "uniform": Param(None, type=["null", "integer"], minimum=1, description="values per attribute"),
    },
    **SETTINGS,
)
def audit_sample_weekly() -> None:
    """audit_sample: draws what reviewers are asked."""

    @task
    def audit_sample(params: dict[str, Any] | None = None) -> dict[str, Any]:
        given = params or {}
        options = [word for name in given["attribute"] for word in ("--attribute", name)]
        options += ["--uniform", str(given["uniform"])] if given["uniform"] is not None else []
        return call("audit_sample", options)

    audit_sample()


@dag(schedule="0 7 * * *", **SETTINGS)
def audit_ingest_daily() -> None:
    """audit_ingest: takes in what reviewers have said since yesterday."""

    @task
    def audit_ingest() -> dict[str, Any]:
        return call("audit_ingest")

    audit_ingest()


audit_sample_weekly()
audit_ingest_daily()
