"""Which older sets are seen again without the values that go, and therefore go too."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from pyspark.sql import functions as F

from catalog_enrichment.catalog.replaced_sets import with_replaced

from .catalog_rows import START, frame

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def event(product_id: str, value: str, run: int, **given: Any) -> dict[str, Any]:
    return {
        "event_id": f"{product_id} {value} {run}", "op": "assert", "source": "model", "product_id": product_id,
        "attribute": "material", "value": value, "run_id": f"run-{run}", "asserted_at": START + timedelta(hours=run),
        **given,
    }  # fmt: skip


def test_an_older_set_goes_where_nothing_of_the_newest_one_is_left(spark: SparkSession) -> None:
    rows = [
        event("emptied", "wool", 1), event("emptied", "silk", 1), event("emptied", "linen", 2),
        event("emptied", "hemp", 2),
        event("partly", "wool", 1), event("partly", "linen", 2), event("partly", "silk", 2),
        event("untouched", "wool", 1), event("untouched", "linen", 2),
        event("emptied", "red", 1, attribute="color"),
        event("emptied", "cotton", 1, source="human"),
        event("old one goes", "wool", 1), event("old one goes", "linen", 2),
    ]  # fmt: skip
    active = frame(spark, "attribute_values", rows)
    ids = ["emptied linen 2", "emptied hemp 2", "partly linen 2", "old one goes wool 1"]
    gone = active.where(F.col("event_id").isin(ids)).withColumn("contradiction", F.lit("audit_wrong"))
    found = {row["event_id"]: row["contradiction"] for row in with_replaced(active, gone).collect()}
    assert found == dict.fromkeys(ids, "audit_wrong") | dict.fromkeys(
        ["emptied wool 1", "emptied silk 1"], "superseded"
    )
