"""The open suggestions, disagreements with merchants' values and near misses, and their export for the shops."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from catalog_enrichment.catalog import ledger, review_tables, runs
from catalog_enrichment.enrichment.decisions import confirms_merchant, suggested_change
from catalog_enrichment.errors import ConfigError
from catalog_enrichment.monitoring.stages import Say, Stages, to_stderr
from catalog_enrichment.operations.exported_values import without_formulas_in_spark
from catalog_enrichment.records import Cardinality, Decision, RunStatus, stable_hash
from catalog_enrichment.spark import value_columns
from catalog_enrichment.spark.frames import persisted_frames

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from catalog_enrichment.catalog.lake import Catalog
    from catalog_enrichment.dictionary import Dictionary


MANIFEST = "_shops.json"
"""File in the export's folder: file of each shop -> shop id."""

_STAGING = "_staging"
"""Folder in the export's folder while it is written."""

_OF_MERCHANTS = ("shop_id", "product_id", "title", "merchant_values", "suggested_value", "evidence")
_MAX_NAME_BYTES = 200
_PLAIN = re.compile(r"[^\W_][\w .-]*(?<![. ])")
_LIKE_HASHED = re.compile(r".*-[0-9a-f]{16}")


def export_suggestions(
    catalog: Catalog, dictionary: Dictionary, folder: Path, kind: Literal["csv", "parquet"], say: Say = to_stderr
) -> dict[str, Any]:
    """Write the open suggestions to ``folder``, a file per shop, highest scores first. Return the job's summary.

    The files are called ``NAME.csv`` or ``NAME.parquet`` (:func:`file_names`); :data:`MANIFEST` tells the shop of each.
    The column ``change`` says what a suggestion would do to the merchant's values. An earlier export is replaced.
    Raises ConfigError for a folder that holds anything else.
    """
    from pyspark.sql import functions as F

    earlier = _earlier_export(folder)
    stages = Stages(say)
    with stages("export") as stage, persisted_frames() as persist:
        rows = persist(open_suggestions(catalog, dictionary))
        per_shop = {row["shop_id"]: row["count"] for row in rows.groupBy("shop_id").count().collect()}
        stage.rows_out = sum(per_shop.values())
        numbers = {shop: number for number, shop in enumerate(sorted(per_shop))}
        of_shop = rows.sparkSession.createDataFrame(list(numbers.items()), "shop_id string, shop_number int")
        rows = rows.join(F.broadcast(of_shop), "shop_id")
        if kind == "csv":
            rows = rows.withColumns({name: without_formulas_in_spark(F.col(name)) for name in _OF_MERCHANTS})
        order = ("shop_number", F.desc("score"), "product_id", "attribute", "suggested_value")
        writer = rows.repartition("shop_number").sortWithinPartitions(*order).write.mode("overwrite")
        writer = writer.partitionBy("shop_number").option("header", True).option("escape", '"')
        writer.format(kind).save(str(folder / _STAGING))
        manifest = {f"{name}.{kind}": shop for shop, name in sorted(file_names(per_shop).items())}
        _write_manifest(folder, dict.fromkeys(earlier, "") | manifest)  # an export that is killed here can be replaced
        for name, shop in manifest.items():
            (written,) = (folder / _STAGING / f"shop_number={numbers[shop]}").glob(f"*.{kind}")
            written.replace(folder / name)
        shutil.rmtree(folder / _STAGING)
        for name in earlier - set(manifest):
            (folder / name).unlink(missing_ok=True)
        _write_manifest(folder, manifest)
    return {
        "status": RunStatus.SUCCEEDED,
        "folder": str(folder),
        "suggestions": stage.rows_out,
        "shops": per_shop,
        "seconds": stages.seconds,
    }


def _write_manifest(folder: Path, manifest: dict[str, str]) -> None:
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2, ensure_ascii=False), encoding="utf-8")


def _earlier_export(folder: Path) -> set[str]:
    """Return the files of an earlier export in ``folder``. Raises ConfigError for any other file."""
    found = {entry.name for entry in folder.iterdir()} if folder.exists() else set()
    try:
        listed = json.loads((folder / MANIFEST).read_text(encoding="utf-8")) if MANIFEST in found else {}
    except ValueError:
        listed = {}
    if others := found - set(listed) - {MANIFEST, _STAGING}:
        raise ConfigError(f"{folder} holds {min(others)!r}, which no export has written there; choose another folder")
    return set(listed)


def file_names(shops: Iterable[str]) -> dict[str, str]:
    """Return shop id -> file name without suffix: the id, or where that is no safe file name its start and a hash.

    Safe are letters, digits, ``_``, ``-``, dots and spaces, up to 200 bytes, starting with a letter or digit and not
    ending in a dot or space. Ids that differ only in case get a hash, too: some file systems take them for the same.
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


def open_suggestions(catalog: Catalog, dictionary: Dictionary) -> DataFrame:
    """Return the suggestions of the newest decision per product and attribute that the merchant has not taken up.

    Left out are products and attributes for which a person gave a set, and values that a person refused.
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    finished = runs.succeeded(catalog).select("run_id", "finished_at")
    newest = Window.partitionBy("product_id", "attribute").orderBy(F.desc("finished_at"), F.desc("run_id"))
    decisions = catalog.read("predictions").join(finished, "run_id")
    latest = decisions.withColumn("recency", F.dense_rank().over(newest)).where(F.col("recency") == 1)
    of_product = Window.partitionBy("product_id", "attribute")
    latest = latest.withColumn("confirmed", F.max(confirms_merchant()).over(of_product))
    many = [name for name, attribute in dictionary.attributes.items() if attribute.cardinality is Cardinality.MANY]
    products = catalog.read("products").where(~F.col("opt_out"))
    products = products.select("product_id", "content_hash", "shop_id", "title", "merchant_attributes")
    merchant = F.coalesce(F.col("merchant_attributes")[F.col("attribute")], F.array().cast("array<string>"))
    refused = value_columns.sets_of(products, review_tables.refused(catalog), "refused")
    known = F.concat(merchant, F.coalesce("refused", F.array().cast("array<string>")))
    return (
        latest.where(F.col("decision") == Decision.SUGGEST.value)
        .join(F.broadcast(refused), ["product_id", "attribute"], "left")
        .join(products, ["product_id", "content_hash"])
        .where(~value_columns.is_among(dictionary, F.col("value"), known))
        .join(ledger.human_owned(catalog.read("attribute_values")), ["product_id", "attribute"], "left_anti")
        .select(
            F.coalesce("shop_id", F.lit("unknown")).alias("shop_id"),
            *("product_id", "title", "attribute"),
            F.concat_ws("|", merchant).alias("merchant_values"),
            F.col("value").alias("suggested_value"),
            suggested_change(merchant, many).alias("change"),
            F.round("score", 4).alias("score"),
            *("evidence", "reason", "model_version", "run_id"),
        )
    )
