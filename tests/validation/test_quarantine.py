"""Quarantine rows have the contract's columns, whichever columns the stage has."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from catalog_enrichment import contract
from catalog_enrichment.masking import masked
from catalog_enrichment.records import QuarantineStage
from catalog_enrichment.validation.quarantine import quarantine_rows


def test_rows_have_the_contracts_columns_and_missing_ones_are_null(spark: Any) -> None:
    at = datetime(2026, 1, 2, tzinfo=UTC)
    bad = spark.createDataFrame([("1", "image_empty", "why")], "product_id string, reason string, detail string")
    frame = quarantine_rows(bad, QuarantineStage.DECODE, "enrich-1", model_version="7", at=at)
    expected = contract.spark_schema("quarantine")
    assert [(f.name, f.dataType) for f in frame.schema] == [(f.name, f.dataType) for f in expected]
    row = frame.selectExpr("*", "unix_seconds(quarantined_at) as seconds").first()
    assert row is not None
    assert (row.product_id, row.stage, row.reason, row.detail) == ("1", "decode", "image_empty", "why")
    assert (row.run_id, row.model_version, row.payload, row.row_number) == ("enrich-1", "7", None, None)
    assert row.seconds == at.timestamp()


def test_spark_masks_what_python_masks(spark: Any) -> None:
    texts = [
        "https://u:p@h/x", "https://hooks.example/services/T000/B000/XXXX failed", "https://a.test/webhooks/1/x?w=1",
        "https://chat.test/hooks/abcdefgh12345678z", "https://t.test/bot123456:A-b/x", "?token=abc&w=1",
        "https://cdn.test/hooks/coat-hook.jpg",
    ]  # fmt: skip
    frame = spark.createDataFrame([("row", text) for text in texts], "reason string, detail string")
    found = quarantine_rows(frame, QuarantineStage.DECODE, "enrich-1").select("detail").collect()
    assert [row.detail for row in found] == [masked(text) for text in texts]
    assert sum("***" in row.detail for row in found) == len(texts) - 1


def test_the_id_of_a_refused_row_is_cut(spark: Any) -> None:
    bad = spark.createDataFrame([("i" * 10_000, "text_too_long")], "product_id string, reason string")
    (row,) = quarantine_rows(bad, QuarantineStage.IMPORT, "import-1").collect()
    assert row.product_id == "i" * 2_000
