"""Airflow DAG: import and enrichment, every night.

A rerun is safe: a job that has nothing to do reports it and changes nothing.
"""

from __future__ import annotations

from typing import Any

from airflow.sdk import dag, task
from catalog_jobs import SETTINGS, call


@dag(schedule="15 1 * * *", **SETTINGS)
def enrich_catalog_nightly() -> None:
    """import_products, then enrich_catalog."""

    @task
    def import_products() -> dict[str, Any]:
        return call("import_products")

    @task
    def enrich_catalog() -> dict[str, Any]:
        return call("enrich_catalog")

    import_products() >> enrich_catalog()


enrich_catalog_nightly()
