"""Exports suggestions for the merchants: disagreements with their values, and near misses."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from catalog_enrichment.catalog import runs
from catalog_enrichment.errors import ConfigError
from catalog_enrichment.frames import persisted_frames
from catalog_enrichment.operations.spreadsheet import as_text
from catalog_enrichment.records import Decision, RunStatus, stable_hash
from catalog_enrichment.stages import Say, Stages, to_stderr

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from catalog_enrichment.catalog.base import Catalog


MANIFEST = "_shops.json"
"""File in the export's folder: folder of each shop -> shop id."""

_OF_MERCHANTS = ("product_id", "title", "merchant_values", "suggested_value")
_MAX_NAME_BYTES = 200
_PLAIN = re.compile(r"[^\W_][\w .-]*(?<![. ])")
_LIKE_HASHED = re.compile(r".*-[0-9a-f]{16}")


def export_suggestions(
    catalog: Catalog, folder: Path, kind: Literal["csv", "parquet"], say: Say = to_stderr
) -> dict[str, Any]:
    """Write the open suggestions to ``folder``, one folder per shop; returns the job's summary.

    In CSV files, texts of merchants that a spreadsheet would take for a formula begin with an apostrophe. The folders
    are called ``shop_id=NAME`` (:func:`folder_names`); :data:`MANIFEST` tells the shop of each. Nothing in
    the catalog changes. Raises ConfigError for a folder that holds anything but an earlier export.
    """
    from pyspark.sql import functions as F

    if folder.exists() and any(folder.iterdir()) and not (folder / "_SUCCESS").exists():
        raise ConfigError(f"{folder} is not empty and was not written by an export; choose another folder")
    stages = Stages(say)
    with stages("export") as stage, persisted_frames() as persist:
        rows = persist(open_suggestions(catalog))
        per_shop = {row["shop_id"]: row["count"] for row in rows.groupBy("shop_id").count().collect()}
        stage.rows_out = sum(per_shop.values())
        names = folder_names(per_shop)
        by_name = rows.sparkSession.createDataFrame(list(names.items()) or [("", "")], "shop_id string, name string")
        rows = rows.join(F.broadcast(by_name), "shop_id").drop("shop_id").withColumnRenamed("name", "shop_id")
        if kind == "csv":
            rows = rows.withColumns({name: as_text(F.col(name)) for name in _OF_MERCHANTS})
        writer = rows.repartition("shop_id").sortWithinPartitions("product_id", "attribute").write.mode("overwrite")
        writer = writer.partitionBy("shop_id").option("header", True).option("escape", '"')
        writer.format(kind).save(str(folder))
        manifest = {f"shop_id={name}": shop for shop, name in sorted(names.items())}
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=2, ensure_ascii=False), encoding="utf-8")
    return {
        "status": RunStatus.SUCCEEDED,
        "folder": str(folder),
        "suggestions": stage.rows_out,
        "shops": per_shop,
        "seconds": stages.seconds,
    }


def folder_names(shops: Iterable[str]) -> dict[str, str]:
    """Shop id -> name of its folder: the id itself, or for an id that is no safe file name its start and a hash.

    Safe are letters, digits, ``_``, ``-``, dots and spaces, up to 200 bytes, starting with a letter or digit and not
    ending in a dot or space. Ids that differ only in case get a hash, too: some file systems take them for one.
    """
    shops = list(shops)
    spellings = Counter(shop.casefold() for shop in shops)

    def name(shop: str) -> str:
        plain = _PLAIN.fullmatch(shop) and len(shop.encode()) <= _MAX_NAME_BYTES and not _LIKE_HASHED.fullmatch(shop)
        if plain and spellings[shop.casefold()] == 1:
            return shop
        start = re.sub(r"[^A-Za-z0-9]+", "-", shop)[:40].strip("-") or "shop"
        return f"{start}-{stable_hash(shop)[:16]}"

    return {shop: name(shop) for shop in shops}


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
