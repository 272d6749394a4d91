"""Draws whole products uniformly, for the samples that certify: each product of a population is equally likely.

A simple random sample without replacement in a random order: each beginning of the draw is a sample of the same kind,
so that a test may look after every answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from catalog_enrichment.records import stable_hash
from catalog_enrichment.spark.frames import persisted_frames

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def draw_products(rows: DataFrame, size: int, salt: str) -> list[list[dict[str, Any]]]:
    """Return all ``rows`` of ``size`` products, or of all products if there are fewer; one list per product.

    The products are in the order of the draw. Each row gets ``probability``, with which its product was drawn,
    ``population``, the number of products, and the weights of a uniform draw. Within a product the rows are sorted by
    attribute, then by score, the highest first. Another ``salt`` gives another draw.
    """
    from pyspark.sql import functions as F

    random = F.xxhash64(F.lit(stable_hash(salt)), "product_id")
    with persisted_frames() as persist:
        rows = persist(rows)
        products = rows.select("product_id").distinct()
        population = products.count()
        chosen = products.withColumn("place", random).orderBy("place", "product_id").limit(size)
        found = [row.asDict() for row in rows.join(F.broadcast(chosen), "product_id").collect()]
    found.sort(key=lambda row: (row["place"], row["product_id"], row["attribute"], -(row["score"] or 0), row["value"]))
    drawn: dict[str, list[dict[str, Any]]] = {}
    for row in found:
        del row["place"]
        share = {"probability": min(1.0, size / population), "population": population}
        drawn.setdefault(row["product_id"], []).append(row | share | {"weight": 1.0, "highest_weight": 1.0})
    return list(drawn.values())
