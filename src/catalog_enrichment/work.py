"""Which products a run scores: the window asked for, less what needs no scoring, each with its reason (I5, I7)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from catalog_enrichment.catalog import scope
from catalog_enrichment.records import SUCCEEDED, Reason, stable_hash

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

    from catalog_enrichment.context import Context
    from catalog_enrichment.registry import ResolvedModel

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
            products = products.where(scope.below(self.categories))
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
    """The products to score, with their pictures."""
    rows: int
    """How many they are."""
    seen: int
    """Products in the window: rows + the sum of ``skipped``."""
    skipped: dict[str, int]
    fingerprint: str
    """Hash of the set of (product, content) to score."""


def select_work(context: Context, model: ResolvedModel, window: Window) -> Work:
    """Every product of the window that is new, changed, or not yet scored by this model version."""
    from pyspark.sql import functions as F

    products = window.select(context.catalog.read("products"))
    status = products.drop("images", "merchant_attributes").withColumn("status", _own_status(context, model))
    handled = _handled(context, model)
    status = status.join(handled, _KEY, "left").withColumn(
        "status", F.when(F.col("status") == READY, F.coalesce("handled", F.lit(READY))).otherwise(F.col("status"))
    )
    status = status.select(*_KEY, "updated_at", "status").cache()
    counts = {row["status"]: row["count"] for row in status.groupBy("status").count().collect()}
    ready = status.where(F.col("status") == READY)
    rows = counts.pop(READY, 0)
    if 0 < window.max_products < rows:
        ready = ready.orderBy(F.desc_nulls_last("updated_at"), "product_id").limit(window.max_products).cache()
        counts[Reason.OVER_LIMIT.value] = rows - window.max_products
        rows = window.max_products
    return Work(
        products=products.join(ready.select(*_KEY), _KEY, "left_semi"),
        rows=rows,
        seen=rows + sum(counts.values()),
        skipped=dict(sorted(counts.items())),
        fingerprint=fingerprint(ready),
    )


def fingerprint(frame: DataFrame) -> str:
    """Hash of the set of (product, content) in ``frame``, whatever the order of its rows."""
    from pyspark.sql import functions as F

    row_hash = F.xxhash64(*_KEY)
    row = frame.agg(F.count("*"), F.sum(row_hash.cast("decimal(38,0)")), F.bit_xor(row_hash)).first()
    return stable_hash(*(str(value) for value in row or ()))


def _own_status(context: Context, model: ResolvedModel) -> Column:
    """READY, or why the product is left alone whatever was scored before."""
    from pyspark.sql import functions as F

    rules = context.config.enrich
    applicable = F.lit(False)
    for name in context.dictionary.enabled:
        if name in model.heads:
            applicable = applicable | scope.applies(context.dictionary[name])
    applicable = applicable & ~scope.below(rules.disabled_categories)
    return (
        F.when(F.col("opt_out"), Reason.OPTED_OUT.value)
        .when(F.col("shop_id").isin(rules.disabled_shops), Reason.SHOP_DISABLED.value)
        .when(~applicable, Reason.NOT_APPLICABLE.value)
        .otherwise(READY)
    )


def _handled(context: Context, model: ResolvedModel) -> DataFrame:
    """(product_id, content_hash, handled) scored or quarantined by this model version in a finished run.

    A run that was killed is not in `runs`, so its products are selected again and its checkpoints are found again.
    """
    from pyspark.sql import functions as F

    finished = context.catalog.read("runs").where(F.col("status") == SUCCEEDED).select("run_id")
    by_table = {"predictions": Reason.ALREADY_SCORED, "quarantine": Reason.ALREADY_QUARANTINED}
    handled = [
        context.catalog.read(table)
        .where(F.col("model_version") == model.version)
        .join(finished, "run_id", "left_semi")
        .select(*_KEY, F.lit(reason.value).alias("handled"))
        .distinct()
        for table, reason in by_table.items()
    ]
    return handled[0].union(handled[1]).dropDuplicates(_KEY)
