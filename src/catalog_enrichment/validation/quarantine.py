"""Quarantine: rows that cannot be used, kept with their reason for somebody to look at (contract `quarantine`)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from catalog_enrichment import contract
from catalog_enrichment.records import QuarantineStage

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def quarantine_rows(
    frame: DataFrame, stage: QuarantineStage, run_id: str, model_version: str | None = None, at: datetime | None = None
) -> DataFrame:
    """The rows of ``frame`` in the quarantine contract; columns that it does not have are null.

    ``frame`` needs ``reason``; ``product_id``, ``detail``, ``payload``, ``source_uri``, ``row_number`` and
    ``content_hash`` are taken where they exist. ``at`` defaults to now.
    """
    from pyspark.sql import functions as F

    stamp = {
        "stage": F.lit(stage.value),
        "run_id": F.lit(run_id),
        "model_version": F.lit(model_version),
        "quarantined_at": F.lit(at or datetime.now(UTC)),
    }
    given = {name: F.col(name) for name in frame.columns}
    columns = given | stamp
    return frame.select(
        *[
            columns.get(field.name, F.lit(None)).cast(field.dataType).alias(field.name)
            for field in contract.spark_schema("quarantine")
        ]
    )
