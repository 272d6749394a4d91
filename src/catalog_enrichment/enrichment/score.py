"""Scores of the selected products, by the UDF of inference/ or known from earlier runs, and how many got none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from catalog_enrichment.enrichment.scored_before import scored_before
from catalog_enrichment.inference import udf
from catalog_enrichment.records import QuarantineStage
from catalog_enrichment.spark.frames import FEW_PRODUCTS, arrow_batch_rows
from catalog_enrichment.validation.quarantine import quarantine_rows

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pyspark.sql import DataFrame

    from catalog_enrichment.catalog.base import Catalog
    from catalog_enrichment.config.schema import Config
    from catalog_enrichment.enrichment.select import Selection
    from catalog_enrichment.registry.model_registry import ResolvedModel
    from catalog_enrichment.spark.frames import Persist

SCORED = "scored"
"""The checkpoint that a run reads when it is started again; the others belong to one attempt."""

_COLUMNS = ("product_id", "content_hash", "shop_id", "category", "language", "merchant_attributes", "pending")
_CONTENT = ("title", "description", "images")


def score(
    catalog: Catalog, run_id: str, selection: Selection, model: ResolvedModel, config: Config, persist: Persist
) -> DataFrame:
    """The selected products with their scores (inference.udf.SCORED_TYPE), without their texts and pictures.

    Scored once per ``run_id``, into the checkpoint :data:`SCORED`, in batches of `enrich.batch_rows`. ``known``: the
    scores are an earlier run's (:mod:`scored_before`).
    """
    from pyspark.sql import functions as F

    ready, rows = selection.ready, selection.rows
    known = scored_before(catalog, ready.select(*_COLUMNS), model, config)
    if known is not None:
        known = persist(known)
        if rows > FEW_PRODUCTS:  # with few left, pictures of the others need not be shuffled
            rows -= known.count()
        ready = ready.join(known.select("product_id"), "product_id", "left_anti")
    products = selection.with_pictures(ready, rows).select(*_COLUMNS, *_CONTENT)
    spark = products.sparkSession
    shipped = udf.ship(spark, model.artifact, model.artifact_hash, model.numbers)
    scored = udf.scored(products, shipped, config.pictures(), config.enrich.forward_rows).drop("title", "description")
    scored = scored.withColumn("known", F.lit(False))
    if known is not None:
        scored = scored.unionByName(known.withColumn("known", F.lit(True)))
    with arrow_batch_rows(spark, config.enrich.batch_rows):
        return catalog.checkpoint(run_id, SCORED, scored)


def kept(catalog: Catalog, run_id: str, dry_run: bool) -> list[str]:
    """The checkpoint of the scores, if it stays where nothing is published. To be asked before :func:`score`.

    A dry run leaves no scores of its own; those of a run that was refused or killed are for that run.
    """
    return [SCORED] if not dry_run or catalog.has_checkpoint(run_id, SCORED) else []


def count_scored(scored: DataFrame, selection: Selection) -> dict[str, Any]:
    """``predicted``, ``quarantined`` and ``unusable_images`` (by reason): rows = predicted + all quarantined (I7).

    ``unusable_images`` counts products that were scored by their text alone; ``known`` those of ``predicted`` whose
    scores an earlier run computed, if there are any. Raises RuntimeError if a product is missing; then nothing is
    published.
    """
    groups = scored.groupBy("error", "image_reason", "known").count().toArrow().to_pylist()
    rows = sum(group["count"] for group in groups)
    if rows != selection.rows:
        raise RuntimeError(f"{selection.rows} products were selected and {rows} came back from scoring")
    quarantined = _by_reason(groups, "error")
    known = sum(group["count"] for group in groups if group["known"])
    return {
        **({"known": known} if known else {}),
        "predicted": rows - sum(quarantined.values()),
        "quarantined": quarantined,
        "unusable_images": _by_reason([group for group in groups if group["error"] is None], "image_reason"),
    }


def problems(scored: DataFrame) -> DataFrame:
    """``shop_id`` and ``problem`` of the products without scores or without a usable picture, for by_shop."""
    from pyspark.sql import functions as F

    return scored.select("shop_id", F.coalesce("error", "image_reason").alias("problem")).where("problem IS NOT NULL")


def note(counts: Mapping[str, int]) -> str:
    """Of the stage's line: how many scores needed no forward pass."""
    return f"{counts['known']:,} known from earlier runs" if counts.get("known") else ""


def quarantined(scored: DataFrame, model: ResolvedModel, run_id: str) -> DataFrame:
    """Quarantine rows for the products that could not be scored."""
    from pyspark.sql import functions as F

    failed = scored.where(F.col("error").isNotNull()).select(
        "product_id", "content_hash", F.col("error").alias("reason"), "detail"
    )
    return quarantine_rows(failed, QuarantineStage.DECODE, run_id, model_version=model.version)


def _by_reason(groups: list[Any], column: str) -> dict[str, int]:
    counts: dict[str, int] = {}
    for group in groups:
        if group[column] is not None:
            counts[group[column]] = counts.get(group[column], 0) + group["count"]
    return dict(sorted(counts.items()))
