"""Quarantine rows keep the contract whatever the stage knows about a row."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from catalog_enrichment import contract
from catalog_enrichment.records import QuarantineStage
from catalog_enrichment.validation.quarantine import quarantine_rows


def test_rows_land_in_the_contract_and_unknown_columns_are_null(spark: Any) -> None:
    at = datetime(2026, 1, 2, tzinfo=UTC)
    bad = spark.createDataFrame([("1", "image_empty", "why")], "product_id string, reason string, detail string")
    frame = quarantine_rows(bad, QuarantineStage.DECODE, "enrich-1", model_version="7", at=at)
    wanted = contract.spark_schema("quarantine")
    assert [(f.name, f.dataType) for f in frame.schema] == [(f.name, f.dataType) for f in wanted]
    row = frame.selectExpr("*", "unix_seconds(quarantined_at) as seconds").first()
    assert row is not None
    assert (row.product_id, row.stage, row.reason, row.detail) == ("1", "decode", "image_empty", "why")
    assert (row.run_id, row.model_version, row.payload, row.row_number) == ("enrich-1", "7", None, None)
    assert row.seconds == at.timestamp()
