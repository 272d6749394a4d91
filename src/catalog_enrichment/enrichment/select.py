"""Which products a run scores, and for which attributes: the window asked for, less what needs no scoring (I5, I7).

An attribute of a product is pending until this model version has decided it on this content. A decision that was
only about the merchant's value (agrees, disagrees) is open again when the merchant takes the value away; an attribute
that is switched on, or that a new category makes applicable, is pending where it was never decided.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from catalog_enrichment.catalog import category_filters
from catalog_enrichment.records import SUCCEEDED, Reason, stable_hash

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

    from catalog_enrichment.context import Context
    from catalog_enrichment.registry.model_registry import ResolvedModel

READY = "ready"
_KEY = ["product_id", "content_hash"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """The slice of the catalog that a run looks at; empty fields do not restrict it."""

    categories: tuple[str, ...] = ()
    updated_from: str = ""
    updated_until: str = ""
    product_ids: tuple[str, ...] = ()
    chunk: tuple[int, int] | None = None
    """(i, n): the i-th of n chunks by hash of the product id."""
    max_products: int = 0
    """Newest first; 0: all."""

    def as_dict(self) -> dict[str, Any]:
        """What restricts, and the product ids by hash alone: there may be a million of them."""
        restrictions = {name: value for name, value in asdict(self).items() if value}
        if self.product_ids:
            restrictions["product_ids"] = stable_hash(sorted(self.product_ids))
        return restrictions

    def select(self, products: DataFrame) -> DataFrame:
        """The products inside the window (``max_products`` is applied later, to those that need scoring)."""
        from pyspark.sql import functions as F

        if self.product_ids:
            wanted = products.sparkSession.createDataFrame([(i,) for i in self.product_ids], "product_id string")
            products = products.join(F.broadcast(wanted.distinct()), "product_id", "left_semi")
        if self.categories:
            products = products.where(category_filters.below(self.categories))
        if self.updated_from:
            products = products.where(F.col("updated_at") >= F.to_timestamp(F.lit(self.updated_from)))
        if self.updated_until:
            products = products.where(F.col("updated_at") < F.to_timestamp(F.lit(self.updated_until)))
        if self.chunk:
            number, of = self.chunk
            products = products.where(F.pmod(F.xxhash64("product_id"), F.lit(of)) == number)
        return products


@dataclass(frozen=True, slots=True)
class Work:
    products: DataFrame
    """The products to score, with their pictures and ``pending``, the attributes to decide."""
    rows: int
    """How many they are."""
    seen: int
    """Products in the window: rows + the sum of ``skipped``."""
    skipped: dict[str, int]
    fingerprint: str
    """Hash of everything a decision about these products rests on."""


def select_work(context: Context, model: ResolvedModel, window: Window) -> Work:
    """Every product of the window that is new, changed, or has an attribute this model version has not decided."""
    from pyspark.sql import functions as F

    products = window.select(context.catalog.read("products"))
    status = _with_pending(context, model, products.drop("images", "title", "description"))
    status = status.withColumn("status", _status(context)).cache()
    counts = {row["status"]: row["count"] for row in status.groupBy("status").count().collect()}
    ready = status.where(F.col("status") == READY)
    rows = counts.pop(READY, 0)
    if 0 < window.max_products < rows:
        ready = ready.orderBy(F.desc_nulls_last("updated_at"), "product_id").limit(window.max_products)
        counts[Reason.OVER_LIMIT.value] = rows - window.max_products
        rows = window.max_products
    return Work(
        products=products.join(ready.select(*_KEY, "pending"), _KEY),
        rows=rows,
        seen=rows + sum(counts.values()),
        skipped=dict(sorted(counts.items())),
        fingerprint=fingerprint(ready),
    )


def fingerprint(frame: DataFrame) -> str:
    """Hash of the set of products, of what is said of them and what is to decide, whatever the order of the rows."""
    from pyspark.sql import functions as F

    said = F.to_json(F.array_sort(F.map_entries("merchant_attributes")))
    row_hash = F.xxhash64(*_KEY, "shop_id", "category", "language", said, F.concat_ws(",", F.col("pending")))
    row = frame.agg(F.count("*"), F.sum(row_hash.cast("decimal(38,0)")), F.bit_xor(row_hash)).first()
    return stable_hash(*(str(value) for value in row or ()))


def _status(context: Context) -> Column:
    """READY, or why the product is left alone."""
    from pyspark.sql import functions as F

    rules = context.config.enrich
    return (
        F.when(F.col("opt_out"), Reason.OPTED_OUT.value)
        .when(F.col("shop_id").isin(rules.disabled_shops), Reason.SHOP_DISABLED.value)
        .when(
            (F.size("applicable") == 0) | category_filters.below(rules.disabled_categories), Reason.NOT_APPLICABLE.value
        )
        .when(F.col("refused"), Reason.ALREADY_QUARANTINED.value)
        .when(F.size("pending") == 0, Reason.ALREADY_SCORED.value)
        .otherwise(READY)
    )


def _with_pending(context: Context, model: ResolvedModel, products: DataFrame) -> DataFrame:
    """Adds ``applicable`` and ``pending`` (attributes), and ``refused``: this version could not score this content.

    A run that was killed is not in `runs`: its products are pending still, and its checkpoints are found again.
    """
    from pyspark.sql import functions as F

    names = [name for name in context.dictionary.enabled if name in model.heads]
    applying = [F.when(category_filters.applies(context.dictionary[name]), F.lit(name)) for name in names]
    applicable = F.array_compact(F.array(*applying)) if applying else F.array().cast("array<string>")
    about_merchant = F.col("reason").isin(Reason.AGREES_WITH_MERCHANT.value, Reason.DISAGREES_WITH_MERCHANT.value)
    decided = (
        _finished(context, model, "predictions")
        .groupBy(_KEY)
        .agg(
            F.collect_set(F.when(~about_merchant, F.col("attribute"))).alias("decided"),
            F.collect_set(F.when(about_merchant, F.col("attribute"))).alias("answered"),
        )
    )
    refused = _finished(context, model, "quarantine").select(*_KEY, F.lit(True).alias("refused")).distinct()
    none = F.array().cast("array<string>")
    given = F.map_keys(F.map_filter("merchant_attributes", lambda _, values: F.size(values) > 0))
    settled = F.array_union(
        F.coalesce("decided", none), F.array_intersect(F.coalesce("answered", none), F.coalesce(given, none))
    )
    return (
        products.join(decided, _KEY, "left")
        .join(refused, _KEY, "left")
        .withColumn("refused", F.coalesce("refused", F.lit(False)))
        .withColumn("applicable", applicable)
        .withColumn("pending", F.array_except("applicable", settled))
    )


def _finished(context: Context, model: ResolvedModel, table: str) -> DataFrame:
    """The rows of ``table`` that finished runs of this version of this model wrote."""
    from pyspark.sql import functions as F

    runs = context.catalog.read("runs").where((F.col("status") == SUCCEEDED) & (F.col("model_name") == model.name))
    mine = context.catalog.read(table).where(F.col("model_version") == model.version)
    return mine.join(runs.select("run_id"), "run_id", "left_semi")
