"""Small rows that keep the contracts, for the catalog's tests."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from catalog_enrichment import contract
from catalog_enrichment.catalog import part_files
from catalog_enrichment.catalog.ledger import RunStamp

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from catalog_enrichment.catalog.lake import Catalog
    from catalog_enrichment.catalog.part_files import Part

START = datetime(2026, 3, 29, 1, 30, 0, 123456, tzinfo=UTC)


def frame(spark: SparkSession, table: str, rows: Iterable[dict[str, Any]]) -> DataFrame:
    """A DataFrame of the table's contract; columns that a row leaves out are null."""
    names = contract.columns(table)
    tuples = [tuple(row.get(name) for name in names) for row in rows]
    return spark.createDataFrame(tuples, contract.spark_schema(table))


def product(product_id: str, **given: Any) -> dict[str, Any]:
    return {"product_id": product_id, "opt_out": False, "content_hash": "content-1", **given}


def prediction(product_id: str, attribute: str, value: str, **given: Any) -> dict[str, Any]:
    return {
        "product_id": product_id,
        "content_hash": "content-1",
        "attribute": attribute,
        "value": value,
        "rank": 1,
        "score": 0.99,
        "modality": "both",
        "decision": "publish",
        "reason": "certified",
        "certificate_id": "certificate-1",
        "threshold": 0.9,
        "model_name": "m",
        "model_version": "1",
        "compute_type": "fp32",
        "run_id": "run-1",
        **given,
    }


def stamp(run_id: str, step: int) -> RunStamp:
    """The stamp of the run that came at ``step``."""
    return RunStamp(run_id, "m", str(step), START + timedelta(minutes=step))


def event(number: int, **given: Any) -> dict[str, Any]:
    """A row of the ledger, by which the run of the same number asserts a value."""
    return {
        "event_id": f"event-{number}", "product_id": f"p{number:02d}", "attribute": "color", "value": "Red",
        "op": "assert", "source": "model", "run_id": f"run-{number:02d}", "asserted_at": START, **given,
    }  # fmt: skip


def scanned(catalog: Catalog, table: str, version: int | None = None) -> list[dict[str, Any]]:
    return [row for batch in catalog.scan(table, version=version) for row in batch.to_pylist()]


def parts_of(catalog: Catalog, table: str, *rows: dict[str, Any]) -> list[Part]:
    """One written file with ``rows``, which no version of the table has yet; no file for no rows."""
    schema = contract.arrow_schema(table)
    batches = pa.Table.from_pylist(list(rows), schema=schema).to_batches()
    return list(part_files.written_parts(batches, catalog.storage.below(table), schema))


def run_row(run_id: str, **given: Any) -> dict[str, Any]:
    return {
        "run_id": run_id,
        "kind": "enrich",
        "status": "succeeded",
        "started_at": START,
        "finished_at": START + timedelta(seconds=3),
        **given,
    }
