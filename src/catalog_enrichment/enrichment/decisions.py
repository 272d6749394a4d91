"""Decisions on the scores, and the ledger events that follow from them: what a run publishes.

Every pending attribute of every scored product gets exactly one decision (I7): :mod:`decided_rows` takes it by the
certificate, :mod:`policy` suppresses what must not be written. Decisions are taken once: a run that is started again
takes those that it had landed before it was killed, and the events that it had committed (I5).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from catalog_enrichment.catalog import ledger
from catalog_enrichment.enrichment import policy
from catalog_enrichment.enrichment.decided_rows import DecisionRules, decide_rows
from catalog_enrichment.errors import GateRefused
from catalog_enrichment.reasons import Reason
from catalog_enrichment.records import Modality, Op, Source
from catalog_enrichment.spark.frames import few_ids

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import Column, DataFrame

    from catalog_enrichment.catalog.lake import Catalog
    from catalog_enrichment.catalog.ledger import ActiveValues
    from catalog_enrichment.enrichment.request import RunRequest
    from catalog_enrichment.enrichment.select import Selection


@dataclass(frozen=True, slots=True)
class Changes:
    """The events that a run would add to the ledger."""

    events: DataFrame
    """Rows of the contract `attribute_values`, checkpointed."""
    published: int
    """Values of all attributes."""
    retracted_by_attribute: dict[str, int]
    ids: pa.Array | None
    """The products that the events are about; None: too many."""

    @property
    def retracted(self) -> int:
        """Values of all attributes."""
        return sum(self.retracted_by_attribute.values())


def decide_and_plan(
    catalog: Catalog,
    request: RunRequest,
    state: ledger.LedgerState,
    selection: Selection,
    scored: DataFrame,
    refused: int,
) -> tuple[DataFrame, Changes]:
    """Return the run's decisions (contract `predictions`) and the ledger events that follow from them.

    What is retracted without a decision makes room under the provisional cap. ``refused``: how many of ``scored`` could
    not be scored.
    """
    run_id, retracted = selection.run_id, selection.retracted
    if refused:
        retracted = retracted.unionByName(policy.of_refused(selection.active.events, scored))
    active = selection.active.without(retracted)
    decided = decide_once(catalog, request, scored, active, state, retracted, run_id)
    return decided, plan_changes(catalog, request.stamp(run_id, state), active.events, decided, retracted)


# --- decisions -------------------------------------------------------------------------------------------------------


def decide_once(
    catalog: Catalog,
    request: RunRequest,
    scored: DataFrame,
    active: ActiveValues,
    state: ledger.LedgerState,
    retracted: DataFrame,
    run_id: str,
) -> DataFrame:
    """Return the run's decisions, or those that it landed before it was killed.

    ``active``: the active values of the scored products. Those of the catalog, without ``retracted``, are looked at
    where the provisional cap may be reached.
    """
    from pyspark.sql import functions as F

    if (landed := policy.landed_decisions(catalog, run_id)) is not None:
        return landed
    with_scores = scored.where(F.col("error").isNull())
    products = with_scores.join(_active_attributes(active.events), "product_id", "left")
    decided = decide_rows(products, DecisionRules.of(request, run_id))
    decided = catalog.checkpoints.get_or_compute(run_id, _of_this_attempt("decided"), decided)
    decided = policy.suppress(catalog, request, decided, scored)
    attributes = policy.over_provisional_cap(decided, state.totals, request.cap)
    if not attributes:
        return decided
    all_active = state.active().without(retracted).events
    capped = policy.suppress_over_cap(decided, all_active, request.cap, attributes)
    return catalog.checkpoints.get_or_compute(run_id, _of_this_attempt("capped"), capped)


def _of_this_attempt(checkpoint: str) -> str:
    """Return the name of a checkpoint that only this attempt of the run reads."""
    return f"{checkpoint}-{datetime.now(UTC):%Y%m%dT%H%M%S%f}"


def _active_attributes(active: DataFrame) -> DataFrame:
    """Return per product ``human_attributes``, those with an active human value, and ``with_picture``.

    ``with_picture``: attribute and content hash of the active model values that were decided with a picture.
    """
    from pyspark.sql import functions as F

    human = F.when(F.col("source") == Source.HUMAN.value, F.col("attribute"))
    used_picture = ledger.by_model() & (F.col("modality") == Modality.BOTH.value)
    return active.groupBy("product_id").agg(
        F.collect_set(human).alias("human_attributes"),
        F.collect_set(F.when(used_picture, F.struct("attribute", "content_hash"))).alias("with_picture"),
    )


# --- suggestions -----------------------------------------------------------------------------------------------------


def confirms_merchant() -> Column:
    """Return whether a row of `predictions` gives a value of the merchant, as sure as a value that is written."""
    from pyspark.sql import functions as F

    return (F.col("reason") == Reason.AGREES_WITH_MERCHANT.value) & (F.col("score") >= F.col("threshold"))


def suggested_change(merchant_values: Column, many: Collection[str]) -> Column:
    """Return what a suggested value would do to the merchant's values, which do not have it: add, replace or fill.

    Rows have ``attribute`` and ``confirmed`` (another row of the product and attribute :func:`confirms_merchant`). An
    attribute of ``many``, with several values per product, is suggested one more value if a merchant's value is
    confirmed; otherwise the suggestion and the merchant's values conflict.
    """
    from pyspark.sql import functions as F

    add = F.col("attribute").isin(sorted(many)) & F.coalesce("confirmed", F.lit(False))
    return F.when(F.size(merchant_values) == 0, "fill").when(add, "add").otherwise("replace")


# --- the ledger events that follow -----------------------------------------------------------------------------------


def plan_changes(
    catalog: Catalog, stamp: ledger.RunStamp, active: DataFrame, decided: DataFrame, retracted: DataFrame
) -> Changes:
    """Return the run's ledger events: assertions, retractions of what its decisions contradict, and of ``retracted``.

    ``active``: the assert events of active values, without ``retracted``. Computed once, into a checkpoint of this
    attempt; of a run that is resumed after its commit, the events committed.
    """
    if catalog.committed("attribute_values", stamp.run_id):
        ledger_rows = catalog.read("attribute_values")
        return _counted(ledger_rows.where(ledger_rows["run_id"] == stamp.run_id))
    retractions = ledger.retract(ledger.contradicted(active, decided), stamp)
    retractions = retractions.unionByName(ledger.retract(retracted, stamp))
    planned = ledger.assertions(decided, stamp).unionByName(retractions)
    return _counted(catalog.checkpoints.get_or_compute(stamp.run_id, _of_this_attempt("changes"), planned))


def _counted(events: DataFrame) -> Changes:
    counts: dict[str, dict[str, int]] = {Op.ASSERT.value: {}, Op.RETRACT.value: {}}
    for row in events.groupBy("op", "attribute").count().collect():
        counts[row["op"]][row["attribute"]] = row["count"]
    return Changes(events, sum(counts[Op.ASSERT.value].values()), counts[Op.RETRACT.value], few_ids(events))


def over_max_changes(catalog: Catalog, changes: Changes, max_changes: int, run_id: str) -> str | None:
    """Return how many more values the run would change than `enrich.max_changes` allows; None: it does not.

    None also for a run that is resumed after its commit to the ledger: its values are visible already.
    """
    planned = changes.published + changes.retracted
    if planned <= max_changes or catalog.committed("attribute_values", run_id):
        return None
    return (
        f"the run would change {planned:,} values (publish {changes.published:,}, retract {changes.retracted:,}), "
        f"more than enrich.max_changes = {max_changes:,}"
    )


def refuse_too_many_changes(over_limit: str | None) -> None:
    """Raise GateRefused if the run is ``over_limit``, as :func:`over_max_changes` says it."""
    if over_limit:
        raise GateRefused(
            f"{over_limit}. Nothing was published. Print the changes with --dry-run, then raise the limit or score "
            "fewer products with --max-products."
        )


def publish(catalog: Catalog, changes: Changes, run_id: str) -> int:
    """Commit the events (the run's commit point), then derive what readers see. Returns the number of its events."""
    written = catalog.append("attribute_values", changes.events, run_id, changes.published + changes.retracted)
    catalog.refresh_current_values(run_id, changes.events, changes.ids)
    return written
