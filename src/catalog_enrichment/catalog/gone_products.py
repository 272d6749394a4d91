"""Takes the values of products that are gone out of the ledger: a product that comes back is new.

An import and delete_products remove products first, and then retract what models and people asserted about them. An
import does the same for its new products: where a run was killed between the two commits and never started again, the
values are active until then, and no reader sees them. Nothing takes these retractions back (operations.rollback).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from catalog_enrichment.catalog import ledger
from catalog_enrichment.catalog.delta_tables import FENCE_RUN
from catalog_enrichment.reasons import Reason
from catalog_enrichment.records import PRODUCTS_REMOVED, Op, RunKind
from catalog_enrichment.spark.frames import few_ids

if TYPE_CHECKING:
    from datetime import datetime

    import pyarrow as pa
    from pyspark.sql import DataFrame

    from catalog_enrichment.catalog.lake import Catalog

REMOVING = (RunKind.IMPORT, RunKind.DELETE)
"""The kinds of runs that remove products. Their ledger events are about products that are gone, or were."""


def retract_values(
    catalog: Catalog, run_id: str, products: DataFrame, at: datetime, ids: pa.Array | None = None
) -> int:
    """Retract the values of ``products``, in one commit of the run; return how many events the run has.

    Nothing is committed where there is nothing to retract. ``at``: when the run began. ``ids``: of ``products``, if
    they are known; else they are looked up.
    """
    known = catalog.tables.rows_of("attribute_values", run_id)
    if known is not None:
        return known
    if catalog.version("attribute_values") < 0:
        return 0
    if ids is None:
        ids = few_ids(products)
    if ids is not None and not len(ids):
        return 0
    events = catalog.read("attribute_values", ids=ids)
    values = catalog.checkpoints.get_or_compute(run_id, "gone_values", to_retract(events, products))
    if values.isEmpty():
        return 0
    stamp = ledger.RunStamp(run_id, None, None, catalog.next_asserted_at(at))
    return catalog.append("attribute_values", ledger.retract(values, stamp), run_id)


def to_retract(events: DataFrame, products: DataFrame) -> DataFrame:
    """Return the asserts about ``products`` to retract, with ``contradiction``, the reason.

    Also those that are not active: an undone retraction would bring them back. An assert that was retracted so before
    is retracted again if something made it active since.
    """
    from pyspark.sql import functions as F

    mine = events.join(products.select("product_id").distinct(), "product_id", "left_semi")
    asserts = mine.where(F.col("op") == Op.ASSERT.value)
    earlier = mine.where(F.col("reason") == Reason.PRODUCT_GONE.value).select(F.col("refers_to").alias("event_id"))
    active = ledger.active(mine).select("event_id")
    done = earlier.distinct().join(active, "event_id", "left_anti")
    reason = F.lit(Reason.PRODUCT_GONE.value)
    return asserts.join(done, "event_id", "left_anti").withColumn("contradiction", reason)


def products_removed(catalog: Catalog, after: int, succeeded: Iterable[Mapping[str, Any]]) -> bool:
    """Return whether a run has removed products since version ``after`` of their table, or may have: it was killed.

    ``succeeded``: run_id, kind and counts of the succeeded runs.
    """
    removed = {row["run_id"]: _removed(row) for row in succeeded}
    commits = catalog.tables.commits("products", after)
    by_runs = [commit.run_id or "" for commit in commits if not (commit.run_id or "").startswith(FENCE_RUN)]
    return any(removed.get(run_id, True) for run_id in by_runs)


def _removed(run: Mapping[str, Any]) -> bool:
    counts = dict(run["counts"] or {})
    return run["kind"] == RunKind.DELETE.value or any(counts.get(name) for name in PRODUCTS_REMOVED)


def ledger_changed_by_others(catalog: Catalog, after: int) -> bool:
    """Return whether a run of another kind than :data:`REMOVING`, or a person, has written to the ledger since its
    version ``after``."""
    if catalog.version("attribute_values") < after:  # another program made the table again
        return True
    no_others = (*(f"{kind.value}-" for kind in REMOVING), FENCE_RUN)
    commits = catalog.tables.commits("attribute_values", after)
    # version 0 is the empty table
    return any(commit.version and not (commit.run_id or "").startswith(no_others) for commit in commits)
