"""Quarantine: rows that cannot be used, kept with the reason (contract `quarantine`)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from catalog_enrichment import contract
from catalog_enrichment.masking import MASK, NAMED_VALUE, USER_AND_PASSWORD, WEB_HOOK
from catalog_enrichment.records import QuarantineStage

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame


MOST_CHARACTERS = 2_000
"""Characters that are kept of a product id: the id of a refused row can be of any length."""


def quarantine_rows(
    frame: DataFrame, stage: QuarantineStage, run_id: str, model_version: str | None = None, at: datetime | None = None
) -> DataFrame:
    """Return the rows of ``frame`` with the columns of the quarantine contract; columns that it lacks are null.

    ``frame`` must have ``reason``; it can have ``product_id``, ``detail``, ``payload``, ``source_uri``, ``row_number``
    and ``content_hash``. ``at`` is the time of quarantine, by default now. Passwords and keys in texts that come from
    files are masked (:mod:`catalog_enrichment.masking`).
    """
    from pyspark.sql import functions as F

    run_columns = {
        "stage": F.lit(stage.value),
        "run_id": F.lit(run_id),
        "model_version": F.lit(model_version),
        "quarantined_at": F.lit(at or datetime.now(UTC)),
    }
    columns = {name: F.col(name) for name in frame.columns} | run_columns
    columns |= {name: _masked(columns[name]) for name in ("detail", "payload", "source_uri") if name in columns}
    if "product_id" in columns:
        columns["product_id"] = F.left(columns["product_id"], F.lit(MOST_CHARACTERS))
    schema = contract.spark_schema("quarantine")
    return frame.select(*(columns.get(f.name, F.lit(None)).cast(f.dataType).alias(f.name) for f in schema))


def _masked(text: Column) -> Column:
    """Return the text as :func:`catalog_enrichment.masking.masked` does."""
    from pyspark.sql import functions as F

    without_users = F.regexp_replace(text, USER_AND_PASSWORD, f"://{MASK}@")
    without_paths = F.regexp_replace(without_users, WEB_HOOK, f"$1{MASK}")
    return F.regexp_replace(without_paths, NAMED_VALUE, f"$1{MASK}")
