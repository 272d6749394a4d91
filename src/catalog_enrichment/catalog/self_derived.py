"""The table `self_derived`: merchant values that repeat what this system wrote or suggested (PRECISION, certificate 7).

Such a value may be the model's own answer that the merchant took over. As a label it would teach and certify the model
with its own output, so training leaves it out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from catalog_enrichment import contract
from catalog_enrichment.catalog import ledger, runs
from catalog_enrichment.records import Decision
from catalog_enrichment.spark import value_columns
from catalog_enrichment.spark.frames import few_ids

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame

    from catalog_enrichment.catalog.lake import Catalog

TABLE = "self_derived"

COLUMN = "self_derived_attributes"
"""Column that :func:`scan_products` adds."""

_KEY = ["product_id", "attribute"]
_VALUE = [*_KEY, "value"]


def may_be_found(catalog: Catalog) -> bool:
    """Return whether this system has written or suggested anything yet."""
    return any(catalog.version(table) > 0 for table in ("attribute_values", "predictions"))  # 0 is the empty table


def newly_found(catalog: Catalog, imported: DataFrame, at: datetime, ids: pa.Array | None = None) -> DataFrame:
    """Return rows of the contract `self_derived` for imported merchant values that are not marked yet.

    ``imported``: product_id and normalised merchant_attributes, of the new and changed products. Values are only
    written where the merchant gives none, so a merchant value that was written here before is self-derived. Suggestions
    are made where the merchant gives values too: a suggested value is self-derived only if the stored product does not
    have it. ``ids``: of ``imported``, if they are known; else they are looked up.
    """
    from pyspark.sql import functions as F

    given, ids = _values(imported), few_ids(imported) if ids is None else ids
    products = catalog.read("products", columns=["product_id", "merchant_attributes"], ids=ids)
    stored = products.join(imported.select("product_id"), "product_id", "left_semi")
    stored = stored.select("product_id", F.explode("merchant_attributes").alias("attribute", "stored"))
    is_stored = value_columns.is_among(catalog.dictionary, F.col("value"), F.col("stored"))
    new = given.join(stored, _KEY, "left").where(~is_stored).select(*_VALUE)
    # also values that were retracted since
    events = catalog.read("attribute_values", ids=ids).where(ledger.asserted_by_model())
    written = _repeated(catalog, given, events.select(*_VALUE, "run_id", F.col("asserted_at").alias("at")))
    finished = runs.succeeded(catalog).select("run_id", F.col("finished_at").alias("at"))
    suggested = (
        catalog.read("predictions", ids=ids).where(F.col("decision") == Decision.SUGGEST.value).join(finished, "run_id")
    )
    suggested = _repeated(catalog, new, suggested.select(*_VALUE, "run_id", "at"))
    own = written.unionByName(suggested).join(catalog.read(TABLE, ids=ids), _VALUE, "left_anti")
    rows = own.groupBy(*_VALUE).agg(F.min_by("run_id", F.struct("at", "run_id")).alias("run_id"))
    return rows.withColumn("found_at", F.lit(at)).select(contract.columns(TABLE))


def _repeated(catalog: Catalog, given: DataFrame, by_model: DataFrame) -> DataFrame:
    """Return the merchants' values ``given`` that repeat a value ``by_model``, with its run_id and time ``at``.

    A merchant's value in another spelling, or a number within the tolerance, repeats it too.
    """
    from pyspark.sql import functions as F

    pairs = given.join(by_model.withColumnRenamed("value", "own"), _KEY)
    is_same = value_columns.is_among(catalog.dictionary, F.col("value"), F.array("own"))
    return pairs.where(is_same).select(*_VALUE, "run_id", "at")


def scan_products(catalog: Catalog, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
    """Yield the products without Spark, and :data:`COLUMN`: the attributes for which a merchant value is self-derived.

    ``columns``: of the products, product_id and merchant_attributes among them; None: all. Holds the table
    `self_derived` in memory. It is read after the version of the products is chosen: an import commits to
    `self_derived` before it replaces the products, so that every self-derived value of that version is marked.
    """
    import pyarrow as pa

    version = catalog.version("products")
    marked = defaultdict(set)
    for batch in catalog.scan(TABLE, _VALUE):
        for row in batch.to_pylist():
            marked[row["product_id"]].add((row["attribute"], row["value"]))
    for batch in catalog.scan("products", columns, version=version):
        ids, given = (batch.column(name).to_pylist() for name in ("product_id", "merchant_attributes"))
        names = [
            sorted(
                name
                for name, values in merchant or ()
                if any((name, value) in marked.get(product_id, ()) for value in values or ())
            )
            for product_id, merchant in zip(ids, given, strict=True)
        ]
        yield batch.append_column(COLUMN, pa.array(names, pa.list_(pa.string())))


def _values(products: DataFrame) -> DataFrame:
    """Return product_id, attribute, value: a row per merchant value."""
    from pyspark.sql import functions as F

    sets = products.select("product_id", F.explode("merchant_attributes").alias("attribute", "values"))
    return sets.select("product_id", "attribute", F.explode("values").alias("value")).distinct()
