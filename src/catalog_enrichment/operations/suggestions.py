"""Exports suggestions for the merchants: disagreements with their values, and near misses."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from catalog_enrichment.catalog import runs
from catalog_enrichment.errors import ConfigError
from catalog_enrichment.frames import persisted_frames
from catalog_enrichment.records import Decision, RunStatus
from catalog_enrichment.stages import Say, Stages, to_stderr

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from catalog_enrichment.catalog.base import Catalog


def export_suggestions(
    catalog: Catalog, folder: Path, kind: Literal["csv", "parquet"], say: Say = to_stderr
) -> dict[str, Any]:
    """Write the open suggestions to ``folder``, one folder per shop; returns the job's summary.

    Nothing in the catalog changes. Raises ConfigError for a folder that holds anything but an earlier export.
    """
    if folder.exists() and any(folder.iterdir()) and not (folder / "_SUCCESS").exists():
        raise ConfigError(f"{folder} is not empty and was not written by an export; choose another folder")
    stages = Stages(say)
    with stages("export") as stage, persisted_frames() as persist:
        rows = persist(open_suggestions(catalog))
        per_shop = {row["shop_id"]: row["count"] for row in rows.groupBy("shop_id").count().collect()}
        stage.rows_out = sum(per_shop.values())
        writer = rows.repartition("shop_id").sortWithinPartitions("product_id", "attribute").write.mode("overwrite")
        writer = writer.partitionBy("shop_id").option("header", True).option("escape", '"')
        writer.format(kind).save(str(folder))
    return {
        "status": RunStatus.SUCCEEDED,
        "folder": str(folder),
        "suggestions": stage.rows_out,
        "shops": per_shop,
        "seconds": stages.seconds,
    }


def open_suggestions(catalog: Catalog) -> DataFrame:
    """The suggestions of the newest decision per product and attribute that the merchant has not taken up."""
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    finished = runs.succeeded(catalog).select("run_id", "finished_at")
    newest = Window.partitionBy("product_id", "attribute").orderBy(F.desc("finished_at"), F.desc("run_id"))
    decisions = catalog.read("predictions").join(finished, "run_id")
    latest = decisions.withColumn("recency", F.dense_rank().over(newest)).where(F.col("recency") == 1)
    products = catalog.read("products").where(~F.col("opt_out"))
    products = products.select("product_id", "content_hash", "shop_id", "title", "merchant_attributes")
    merchant = F.coalesce(F.col("merchant_attributes")[F.col("attribute")], F.array().cast("array<string>"))
    return (
        latest.where(F.col("decision") == Decision.SUGGEST.value)
        .join(products, ["product_id", "content_hash"])
        .where(~F.array_contains(merchant, F.col("value")))
        .select(
            F.coalesce("shop_id", F.lit("unknown")).alias("shop_id"),
            *("product_id", "title", "attribute"),
            F.concat_ws("|", merchant).alias("merchant_values"),
            F.col("value").alias("suggested_value"),
            F.round("score", 4).alias("score"),
            *("reason", "model_version", "run_id"),
        )
    )
