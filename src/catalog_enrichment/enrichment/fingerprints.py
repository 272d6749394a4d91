"""Hashes of sets of products, whatever their order: run ids and records name by them what a run had to decide."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from catalog_enrichment.records import stable_hash

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame


def fingerprint(products: DataFrame) -> str:
    """Return a hash of the products, but for decisions about them. ``content_hash`` covers texts and pictures."""
    return counted(products, _product_hash())[1]


def _product_hash(*lists: Column) -> Column:
    from pyspark.sql import functions as F

    merchant_values = F.to_json(F.array_sort(F.map_entries("merchant_attributes")))
    return F.xxhash64("product_id", "content_hash", "shop_id", "category", "language", merchant_values, *lists)


def input_hash() -> Column:
    """Return the hash of a product to score, also of the attributes to decide and the runs that decided them before."""
    from pyspark.sql import functions as F

    return _product_hash(F.to_json("pending"), F.to_json("earlier_runs"))


def counted(rows: DataFrame, row_hash: Column) -> tuple[int, str]:
    """Return the number of rows and the hash of them all."""
    row = rows.agg(*sums(row_hash)).first()
    return (row["rows"] if row else 0), hash_of(row)


def sums(row_hash: Column) -> list[Column]:
    """Return the aggregates that :func:`hash_of` needs; the column ``rows`` is the number of rows."""
    from pyspark.sql import functions as F

    total, mixed = F.sum(row_hash.cast("decimal(38,0)")), F.bit_xor(row_hash)
    return [F.count("*").alias("rows"), total.alias("total"), mixed.alias("mixed")]


def hash_of(row: Any) -> str:
    """Return the hash of a set of rows by the row of its :func:`sums`; None stands for no rows."""
    return stable_hash(*(str(row[name]) for name in ("rows", "total", "mixed"))) if row else stable_hash()
