"""Nightly import and enrichment. Airflow is installed in a separate virtual environment and calls the console scripts.

Variables: ``catalog_enrichment_bin`` (folder of the console scripts), ``catalog_enrichment_config`` (TOML file).
A rerun is safe: a job that has nothing to do reports it and changes nothing.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.sdk import dag, task

JOB = "{{ var.value.catalog_enrichment_bin }}/%s --config {{ var.value.catalog_enrichment_config }}"


@dag(
    schedule="15 1 * * *",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 2, "retry_delay": timedelta(minutes=10)},
)
def enrich_catalog_nightly() -> None:
    """import_products, then enrich_catalog."""

    @task.bash
    def import_products() -> str:
        return JOB % "import_products"

    @task.bash
    def enrich_catalog() -> str:
        return JOB % "enrich_catalog"

    import_products() >> enrich_catalog()


enrich_catalog_nightly()
