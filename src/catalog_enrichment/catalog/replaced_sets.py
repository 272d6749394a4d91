"""Model values that a newer set replaced: they stand in the ledger and no reader sees them.

A value that is retracted uncovers the set that it replaced, which a newer decision did not write. A rollback wants
that; a retraction of one value, because it is wrong or switched off, does not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from catalog_enrichment.catalog import ledger
from catalog_enrichment.records import Reason, Source

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

_KEY = ["product_id", "attribute"]


def with_replaced(active: DataFrame, gone: DataFrame) -> DataFrame:
    """``gone`` and the older model values that would be seen again without it, with the contradiction SUPERSEDED.

    ``active``: assert events whose values stand; ``gone``: those of them to retract, with ``contradiction``. Older
    values are added only where nothing of the newest model set of a product and attribute is left.
    """
    from pyspark.sql import functions as F

    touched = gone.select(*_KEY).distinct()
    model = active.where(F.col("source") == Source.MODEL.value).join(touched, _KEY, "left_semi")
    rest = model.join(gone.select("event_id"), "event_id", "left_anti")
    newest = ledger.newest_sets(model).select(*_KEY, "run_id")
    emptied = newest.join(rest, [*_KEY, "run_id"], "left_anti").select(*_KEY)
    older = rest.join(emptied, _KEY).withColumn("contradiction", F.lit(Reason.SUPERSEDED.value))
    return gone.unionByName(older.select(*gone.columns))
