"""What a run would change for readers, as ledger events, and the cap on how much that may be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from catalog_enrichment.catalog import ledger
from catalog_enrichment.enrichment import decide, withheld
from catalog_enrichment.enrichment.withdrawn import of_refused
from catalog_enrichment.errors import GateRefused
from catalog_enrichment.records import Op

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from catalog_enrichment.catalog.base import Catalog
    from catalog_enrichment.enrichment.request import RunRequest
    from catalog_enrichment.enrichment.select import Selection


@dataclass(frozen=True, slots=True)
class Changes:
    """What a run would add to the ledger."""

    events: DataFrame
    """Rows of the contract `attribute_values`, checkpointed."""
    published_by_attribute: dict[str, int]
    """Attribute -> values."""
    retracted_by_attribute: dict[str, int]

    @property
    def published(self) -> int:
        """Values of all attributes."""
        return sum(self.published_by_attribute.values())

    @property
    def retracted(self) -> int:
        """Values of all attributes."""
        return sum(self.retracted_by_attribute.values())


def decide_and_plan(
    catalog: Catalog, request: RunRequest, state: ledger.LedgerState, selection: Selection, scored: DataFrame
) -> tuple[DataFrame, Changes]:
    """The run's decisions (contract `predictions`) and the ledger events that follow from them and the selection.

    What is retracted without a decision makes room under the provisional cap.
    """
    active = selection.active
    withdrawn = selection.withdrawn.unionByName(of_refused(active.events, scored))
    rest = active.without(withdrawn)
    decided = decide.decide_once(catalog, request, scored, rest, selection.run_id)
    decided = withheld.withhold(catalog, request, decided, scored, selection.run_id)
    decided = decide.under_cap(catalog, request, decided, state.active().without(withdrawn), selection.run_id)
    stamp = request.stamp(selection.run_id, state)
    return decided, plan_changes(catalog, stamp, rest.events, decided, withdrawn)


def plan_changes(
    catalog: Catalog, stamp: ledger.RunStamp, active: DataFrame, decided: DataFrame, withdrawn: DataFrame
) -> Changes:
    """The ledger events of a run: assertions, and retractions of what its decisions contradict and of ``withdrawn``.

    ``active``: the assert events whose values stand, without ``withdrawn`` (see :mod:`withdrawn`). Computed once,
    into a checkpoint of this attempt; of a run that is resumed after its commit, those committed.
    """
    if catalog.committed("attribute_values", stamp.run_id):
        ledger_rows = catalog.read("attribute_values")
        return _counted(ledger_rows.where(ledger_rows["run_id"] == stamp.run_id))
    retracted = ledger.retractions(active, decided, stamp).unionByName(ledger.retract(withdrawn, stamp))
    planned = ledger.assertions(decided, stamp).unionByName(retracted)
    return _counted(catalog.checkpoint(stamp.run_id, decide.attempt_name("changes"), planned))


def _counted(events: DataFrame) -> Changes:
    counts: dict[str, dict[str, int]] = {Op.ASSERT.value: {}, Op.RETRACT.value: {}}
    for row in events.groupBy("op", "attribute").count().collect():
        counts[row["op"]][row["attribute"]] = row["count"]
    return Changes(events, counts[Op.ASSERT.value], counts[Op.RETRACT.value])


def over_cap(catalog: Catalog, changes: Changes, max_changes: int, run_id: str) -> str | None:
    """How many more values the run would change than ``max_changes`` (`enrich.max_changes`) allows; None: it does not.

    None also for a run that is resumed after its commit to the ledger: its values are visible already.
    """
    planned = changes.published + changes.retracted
    if planned <= max_changes or catalog.committed("attribute_values", run_id):
        return None
    return (
        f"the run would change {planned:,} values (publish {changes.published:,}, retract {changes.retracted:,}), "
        f"more than enrich.max_changes = {max_changes:,}"
    )


def refuse_over_cap(over_cap: str | None) -> None:
    """Raises GateRefused if there is something ``over_cap``, as :func:`over_cap` says it."""
    if over_cap:
        raise GateRefused(
            f"{over_cap}. Nothing was published. Print "
            "the changes with --dry-run, then raise the limit or score fewer products with --max-products."
        )


def publish(catalog: Catalog, changes: Changes, run_id: str) -> int:
    """Commit the events, then derive what readers see. Returns how many events the run wrote."""
    written = catalog.append("attribute_values", changes.events, run_id)
    catalog.refresh_current_values(run_id, changes.events)
    return written
