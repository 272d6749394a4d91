"""The rows that samples are drawn of, one frame per population, with the columns :data:`ROW`.

    accepted       model values that readers see
    suggested      open suggestions
    abstained      products whose score was too low; without a value
    unlabelled     products without a merchant value, one row per attribute that they lack; without a value
    proposed       values that a model version proposed, whatever was decided about them

Each row is about one value, or about one attribute of a product without a value.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from catalog_enrichment.catalog import ledger, runs
from catalog_enrichment.catalog.category_filters import applies
from catalog_enrichment.records import JUDGED, Cardinality, Decision, Op, Reason, Source

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from catalog_enrichment.catalog.base import Catalog
    from catalog_enrichment.dictionary import Dictionary

ROW = ("product_id", "attribute", "value", "content_hash", "score", "threshold", "certificate_id", "modality",
       "model_version", "event_id", "decided_by", "reason")  # fmt: skip
"""Columns of `audits` that a population gives."""

Pair = tuple[str, str]
"""Product id, attribute."""

_PAIR = ["product_id", "attribute"]


def accepted(catalog: Catalog) -> DataFrame:
    """Return the model values that readers see, each with the event that asserts it."""
    from pyspark.sql import functions as F

    current = catalog.read("current_values").where(F.col("source") == Source.MODEL.value)
    seen = current.select("product_id", "attribute", "run_id", F.explode("values").alias("value"))
    is_assert = (F.col("op") == Op.ASSERT.value) & (F.col("source") == Source.MODEL.value)
    events = catalog.read("attribute_values").where(is_assert)
    rows = events.join(seen, ["product_id", "attribute", "run_id", "value"], "left_semi")
    return rows.withColumn("decided_by", F.col("run_id")).select(*ROW)


def suggested(catalog: Catalog, dictionary: Dictionary) -> DataFrame:
    """Return the open suggestions."""
    from pyspark.sql import functions as F

    from catalog_enrichment.operations.suggestions import open_suggestions

    suggestions = open_suggestions(catalog, dictionary).select(
        "product_id", "attribute", F.col("suggested_value").alias("value"), "run_id"
    )
    key = ["product_id", "attribute", "value", "run_id"]
    rows = catalog.read("predictions").where(F.col("decision") == Decision.SUGGEST.value)
    return _of_predictions(rows.join(suggestions, key, "left_semi"))


def abstained(catalog: Catalog) -> DataFrame:
    """Return the products whose newest decision found the best score too low; the value is empty."""
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    newest = Window.partitionBy(*_PAIR).orderBy(F.desc("finished_at"), F.desc("run_id"), "rank")
    best = _decisions(catalog).withColumn("place", F.row_number().over(newest)).where("place = 1")
    judged = [reason.value for reason in JUDGED - {Reason.REFUSED_BY_PERSON}]
    rows = best.where((F.col("decision") == Decision.ABSTAIN.value) & F.col("reason").isin(judged))
    seen = catalog.read("current_values").select(*_PAIR)
    rows = _left_to_models(catalog, rows).join(seen, _PAIR, "left_anti")
    return _of_predictions(rows).withColumn("value", F.lit(""))


def unlabelled(
    catalog: Catalog, dictionary: Dictionary, attributes: Sequence[str], asked: Collection[Pair]
) -> DataFrame:
    """Return one row per product and attribute for which the merchant gives no value; the value is empty.

    Products that opted out, attributes that do not apply to the product's category, and the pairs ``asked`` are left
    out. Values of models and people make no difference.
    """
    from pyspark.sql import functions as F

    products = catalog.read("products").where(~F.col("opt_out"))
    names = F.array_compact(F.array(*[F.when(applies(dictionary[name]), F.lit(name)) for name in attributes]))
    pairs = products.select("product_id", "content_hash", F.explode(names).alias("attribute"))
    by_merchants = catalog.read("current_values").where(F.col("source") == Source.MERCHANT.value)
    rows = _without(pairs.join(by_merchants, _PAIR, "left_anti"), asked)
    nothing = [F.lit(None).cast("double" if name in ("score", "threshold") else "string").alias(name)
               for name in ROW if name not in ("product_id", "attribute", "value", "content_hash")]  # fmt: skip
    return rows.select("product_id", "attribute", F.lit("").alias("value"), "content_hash", *nothing).select(*ROW)


def proposed(
    catalog: Catalog, dictionary: Dictionary, model_version: str, lowest: float, judged: Collection[Pair]
) -> DataFrame:
    """Return the newest proposals of ``model_version`` with a score of at least ``lowest``, whatever was decided.

    Proposals about older content, for products to which the merchant or a person gave a value, and for the pairs
    ``judged`` are left out. Of an attribute with one value per product only the top value is returned.
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    newest = Window.partitionBy(*_PAIR).orderBy(F.desc("finished_at"), F.desc("run_id"))
    own = _decisions(catalog).where(F.col("model_version") == model_version)
    rows = own.withColumn("recency", F.dense_rank().over(newest)).where("recency = 1")
    many = [name for name, one in dictionary.attributes.items() if one.cardinality is Cardinality.MANY]
    rows = rows.where((F.col("rank") == 1) | F.col("attribute").isin(many)).where(F.col("score") >= lowest)
    by_merchants = catalog.read("current_values").where(F.col("source") == Source.MERCHANT.value)
    rows = _left_to_models(catalog, rows).join(by_merchants.select(*_PAIR), _PAIR, "left_anti")
    return _of_predictions(_without(rows, judged))


def versions(catalog: Catalog, attributes: Sequence[str]) -> list[str]:
    """Return the model versions that have decided about ``attributes``; the one of the newest decision is the last."""
    from pyspark.sql import functions as F

    about = _decisions(catalog).where(F.col("attribute").isin(list(attributes)))
    newest = about.groupBy("model_version").agg(F.max(F.struct("finished_at", "run_id")).alias("newest"))
    return [row["model_version"] for row in newest.orderBy("newest").collect()]


def _decisions(catalog: Catalog) -> DataFrame:
    """Return the rows of `predictions` of runs that have succeeded, with ``finished_at`` of the run."""
    from pyspark.sql import functions as F

    finished = runs.succeeded(catalog).select("run_id", "finished_at")
    return catalog.read("predictions").join(F.broadcast(finished), "run_id")


def _left_to_models(catalog: Catalog, rows: DataFrame) -> DataFrame:
    """Return the ``rows`` about the present content of products that did not opt out, where no person gave a value."""
    from pyspark.sql import functions as F

    products = catalog.read("products").where(~F.col("opt_out")).select("product_id", "content_hash")
    rows = rows.join(products, ["product_id", "content_hash"], "left_semi")
    return rows.join(ledger.human_owned(catalog.read("attribute_values")), _PAIR, "left_anti")


def _without(rows: DataFrame, pairs: Collection[Pair]) -> DataFrame:
    """Return the ``rows`` that are not about ``pairs``."""
    from pyspark.sql import functions as F

    gone = rows.sparkSession.createDataFrame(sorted(pairs), "product_id string, attribute string")
    return rows.join(F.broadcast(gone), _PAIR, "left_anti")


def _of_predictions(rows: DataFrame) -> DataFrame:
    """Return the columns :data:`ROW` of rows of `predictions`."""
    from pyspark.sql import functions as F

    nothing = F.lit(None).cast("string")
    return rows.withColumns({"event_id": nothing, "decided_by": F.col("run_id")}).select(*ROW)
