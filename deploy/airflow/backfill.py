"""Airflow DAG: a backfill, started by hand with its slice as parameters.

Started again with the same parameters it continues: chunks that are done have nothing to do.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import Param, dag, task
from catalog_jobs import ANY_TIME, SETTINGS, call

OPTIONS = {
    "category": "--category",
    "updated_from": "--updated-from",
    "updated_until": "--updated-until",
    "model_version": "--model-version",
    "chunk_products": "--chunk-products",
}
"""Parameter -> option of the job `backfill`."""


@dag(
    schedule=None,
    params={
        "category": Param([], type="array", items={"type": "string"}, description="category paths; empty: all"),
        "updated_from": Param(None, type=["null", "string"], description="ISO date or time, inclusive"),
        "updated_until": Param(None, type=["null", "string"], description="ISO date or time, exclusive"),
        "model_version": Param(None, type=["null", "string"], description="empty: the champion"),
        "chunk_products": Param(None, type=["null", "integer"], minimum=1, description="each chunk is a run"),
        "most_products": Param(1_000_000, type="integer", description="refuse a slice with more to score"),
    },
    **SETTINGS,
)
def backfill_catalog() -> None:
    """backfill --estimate, a check of its size, then backfill."""

    @task(**ANY_TIME)
    def options(params: dict[str, Any] | None = None) -> list[str]:
        given: list[str] = []
        for name, option in OPTIONS.items():
            value = (params or {})[name]
            for one in value if isinstance(value, list) else [value] if value is not None else []:
                given += [option, str(one)]
        return given

    @task(**ANY_TIME)
    def estimate(given: list[str], params: dict[str, Any] | None = None) -> None:
        from airflow.sdk.exceptions import AirflowFailException

        found, most = call("backfill", [*given, "--estimate"]), (params or {})["most_products"]
        if found["to_score"] > most:
            raise AirflowFailException(f"{found['to_score']:,} products to score, and most_products is {most:,}")

    @task(execution_timeout=timedelta(hours=48))
    def backfill(given: list[str]) -> dict[str, Any]:
        return call("backfill", given)

    given = options()
    estimate(given) >> backfill(given)


backfill_catalog()
