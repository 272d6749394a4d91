"""Active model values that no decision replaces, and that the run itself retracts (PRECISION, One version at a time).

    SWITCHED_OFF       the attribute, the shop, the category, the value or its certificate is switched off, or the
                       attribute does not apply to the product's category
    SUPERSEDED         an older value that would be seen again in place of one that is switched off
    CONTENT_CHANGED    the value was decided on other content, and this model does not decide the new one: it could not
                       score it, or has no head for the attribute

What merchants and people gave is never retracted. When the cause is gone the attribute is pending again
(:mod:`pending`). Pure functions over Spark DataFrames.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from catalog_enrichment.catalog import category_filters
from catalog_enrichment.catalog.replaced_sets import with_replaced
from catalog_enrichment.catalog.switches import Scope, State, Switches
from catalog_enrichment.records import Reason, Source

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

    from catalog_enrichment.config.schema import EnrichConfig
    from catalog_enrichment.dictionary import Attribute


def withdrawn(
    active: DataFrame,
    products: DataFrame,
    rules: EnrichConfig,
    enabled: Sequence[Attribute],
    with_head: Sequence[Attribute],
) -> DataFrame:
    """The rows of ``active`` (assert events) to retract; ``contradiction`` says why.

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
    joined = _of_model(active).join(facts, "product_id").withColumn("contradiction", reason)
    return joined.where(F.col("contradiction").isNotNull()).select(*active.columns, "contradiction")


def values_off(active: DataFrame, products: DataFrame, withdrawn: DataFrame, off: Switches) -> DataFrame:
    """``withdrawn`` and the values of ``products`` that are switched off, or whose certificate is.

    Where a value is switched off the set that it replaced is not seen again: a newer decision had replaced it. Where a
    certificate is, readers see what they saw before it wrote, as after a rollback.
    """
    from pyspark.sql import functions as F

    values = off.of(Scope.VALUE, State.OFF)
    certificates = off.targets(Scope.CERTIFICATE, State.OFF)
    if not values and not certificates:
        return withdrawn
    rest = active.join(products.select("product_id"), "product_id", "left_semi")
    rest = _of_model(rest.join(withdrawn.select("event_id"), "event_id", "left_anti"))
    is_off, by_certificate = F.lit(False), F.coalesce(F.col("certificate_id").isin(certificates), F.lit(False))
    for one in values:
        is_off = is_off | ((F.col("attribute") == one.attribute) & (F.col("value") == one.target))
    reason = F.lit(Reason.SWITCHED_OFF.value)
    gone = rest.where(by_certificate).withColumn("contradiction", reason)
    rest = rest.where(~by_certificate)
    gone_values = rest.where(is_off).withColumn("contradiction", reason)
    found = gone.unionByName(with_replaced(rest, gone_values))
    return withdrawn.unionByName(found.select(*withdrawn.columns))


def of_refused(active: DataFrame, scored: DataFrame) -> DataFrame:
    """Rows of ``active`` on other content, of products that this run could not score; ``scored`` has ``error``."""
    from pyspark.sql import functions as F

    refused = scored.where(F.col("error").isNotNull()).select("product_id", F.col("content_hash").alias("new_content"))
    stale = _of_model(active).join(refused, "product_id").where(_other_content())
    return stale.select(*active.columns, F.lit(Reason.CONTENT_CHANGED.value).alias("contradiction"))


def _of_model(active: DataFrame) -> DataFrame:
    return active.where(active["source"] == Source.MODEL.value)


def _other_content() -> Column:
    from pyspark.sql import functions as F

    return ~F.col("content_hash").eqNullSafe(F.col("new_content"))
