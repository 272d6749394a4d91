"""Puts the open suggestions into the review store, where the page shows each shop's to its manager."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from catalog_enrichment.audit.items import Item, Purpose, Sample
from catalog_enrichment.audit.review_store import ReviewStore
from catalog_enrichment.catalog import verdicts
from catalog_enrichment.monitoring.stages import Stages
from catalog_enrichment.operations.suggestions import open_suggestions
from catalog_enrichment.records import NOTHING_TO_DO, RunStatus, stable_hash

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from catalog_enrichment.context import Context
    from catalog_enrichment.dictionary import Dictionary

MOST = 50_000
"""Suggestions in one sample: those with the highest scores. More than that people do not answer before the next run."""


def offer_suggestions(context: Context, store: ReviewStore, shops: Sequence[str] = ()) -> dict[str, Any]:
    """Add a sample of the open suggestions, of all ``shops`` if none is named; returns the job's summary.

    Without those of an earlier sample, answered there or not: a manager is asked once. Without a new suggestion nothing
    is added.
    """
    from pyspark.sql import functions as F

    stages = Stages(context.say)
    with stages("suggestions") as stage:
        rows = open_suggestions(context.catalog, context.dictionary)
        if shops:
            rows = rows.where(F.col("shop_id").isin(list(shops)))
        offered = context.spark.createDataFrame(
            sorted(offered_before(store)), "product_id string, attribute string, suggested_value string"
        )
        rows = rows.join(F.broadcast(offered), ["product_id", "attribute", "suggested_value"], "left_anti")
        products = context.catalog.read("products").select(
            "product_id", "description", "category", "language", F.col("images").alias("pictures")
        )
        best = rows.orderBy(F.desc("score"), "product_id", "attribute", "suggested_value").limit(MOST)
        found = [row.asDict(recursive=True) for row in best.join(products, "product_id").collect()]
        found.sort(key=lambda row: (-row["score"], row["product_id"], row["attribute"], row["suggested_value"]))
        stage.rows_out = len(found)
    sample, items = as_sample(context.dictionary, found, datetime.now(UTC))
    added = bool(items) and store.add_sample(sample, items)
    return {
        "status": RunStatus.SUCCEEDED if added else NOTHING_TO_DO,
        "sample_id": sample.sample_id if items else None,
        "suggestions": len(items),
        "seconds": stages.seconds,
    }


def as_sample(
    dictionary: Dictionary, rows: Sequence[Mapping[str, Any]], drawn_at: datetime
) -> tuple[Sample, list[Item]]:
    """``rows``: those of :func:`open_suggestions` with the product's description, category, language and pictures."""
    keys = sorted((row["product_id"], row["attribute"], row["suggested_value"]) for row in rows)
    sample_id = f"suggestions-{stable_hash(keys)[:20]}"
    sample = Sample(
        sample_id=sample_id,
        purpose=Purpose.SUGGESTIONS,
        drawn_at=drawn_at,
        reviewers=1,
        title=f"Open suggestions of {drawn_at:%Y-%m-%d}",
    )
    items = [
        Item(
            item_id=Item.id_of(sample_id, row["product_id"], row["attribute"], row["suggested_value"]),
            sample_id=sample_id,
            product_id=row["product_id"],
            shop_id=row["shop_id"],
            title=row["title"] or "",
            description=row["description"] or "",
            category=row["category"] or "",
            language=row["language"] or "",
            images=tuple((one["uri"] or "", one["version"] or "") for one in row["pictures"] or () if one),
            attribute=row["attribute"],
            cardinality=dictionary[row["attribute"]].cardinality,
            value=row["suggested_value"],
        )
        for row in rows
    ]
    return sample, items


def offered_before(store: ReviewStore) -> set[verdicts.Key]:
    """Product, attribute and value of the suggestions in the store's samples."""
    return {
        (item.product_id, item.attribute, item.value)
        for sample in store.samples()
        if sample.purpose is Purpose.SUGGESTIONS
        for item in store.items(sample.sample_id)
    }
