"""Standing model values that no decision replaces, and that the run itself retracts (PRECISION, One version at a time).

    SWITCHED_OFF       the attribute, the shop or the category is switched off, or the attribute does not apply to the
                       product's category
    CONTENT_CHANGED    the value was decided on other content, and this model does not decide the new one: it could not
                       score it, or has no head for the attribute

What merchants and people gave is never retracted. When the cause is gone the attribute is pending again
(:mod:`pending`). Pure functions over Spark DataFrames.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from catalog_enrichment.catalog import category_filters
from catalog_enrichment.records import Reason, Source

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

    from catalog_enrichment.config.schema import EnrichConfig
    from catalog_enrichment.dictionary import Attribute


def withdrawn(
    standing: DataFrame,
    products: DataFrame,
    rules: EnrichConfig,
    enabled: Sequence[Attribute],
    with_head: Sequence[Attribute],
) -> DataFrame:
    """The rows of ``standing`` (assert events) to retract; ``contradiction`` says why.

    ``products``: product_id, content_hash, shop_id, category and ``refused`` (this version could not score the
    content), of the run's window; values of other products are left alone. ``rules``: disabled shops and categories;
    ``with_head``: those of the ``enabled`` attributes that the model has a head for.
    """
    from pyspark.sql import functions as F

    facts = products.select(
        "product_id",
        "category",
        F.col("content_hash").alias("new_content"),
        "refused",
        (F.col("shop_id").isin(rules.disabled_shops) | category_filters.below(rules.disabled_categories)).alias("off"),
    )
    allowed = F.lit(False)
    for attribute in enabled:
        allowed = allowed | ((F.col("attribute") == attribute.name) & category_filters.applies(attribute))
    decidable = F.col("attribute").isin([attribute.name for attribute in with_head])
    switched_off = F.coalesce("off", F.lit(False)) | ~allowed
    stale = _other_content() & (F.col("refused") | ~decidable)
    reason = F.when(switched_off, Reason.SWITCHED_OFF.value).when(stale, Reason.CONTENT_CHANGED.value)
    joined = _of_model(standing).join(facts, "product_id").withColumn("contradiction", reason)
    return joined.where(F.col("contradiction").isNotNull()).select(*standing.columns, "contradiction")


def of_refused(standing: DataFrame, scored: DataFrame) -> DataFrame:
    """Rows of ``standing`` on other content, of products that this run could not score; ``scored`` has ``error``."""
    from pyspark.sql import functions as F

    refused = scored.where(F.col("error").isNotNull()).select("product_id", F.col("content_hash").alias("new_content"))
    stale = _of_model(standing).join(refused, "product_id").where(_other_content())
    return stale.select(*standing.columns, F.lit(Reason.CONTENT_CHANGED.value).alias("contradiction"))


def _of_model(standing: DataFrame) -> DataFrame:
    return standing.where(standing["source"] == Source.MODEL.value)


def _other_content() -> Column:
    from pyspark.sql import functions as F

    return ~F.col("content_hash").eqNullSafe(F.col("new_content"))
