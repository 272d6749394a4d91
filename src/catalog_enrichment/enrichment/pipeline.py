"""START HERE: a run of enrichment, top to bottom.

    source -> validate -> decode, tokenize -> predict -> decide -> publish

Nothing a reader of the catalog sees changes before `publish`, and then all of it changes at once: the ledger's
commit is the commit point (I4). Everything before it lands under the run's id, so a run that is killed and started
again finds what it already did and ends where an undisturbed run would have ended (I5).
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from catalog_enrichment.enrichment import steps
from catalog_enrichment.enrichment.select import Window, select_work

if TYPE_CHECKING:
    from catalog_enrichment.context import Context
    from catalog_enrichment.registry.model_registry import ResolvedModel


def enrich(
    context: Context, model: ResolvedModel, window: Window, parent_run_id: str | None = None, dry_run: bool = False
) -> dict[str, Any]:
    """Score what needs scoring, decide, and publish what is certified. Returns the run's summary.

    Raises DataContractError if the products fail their snapshot gate and GateRefused if the run would change more
    than the cap allows; in both cases nothing was written.
    """
    stage, catalog, started = context.stages, context.catalog, datetime.now(UTC)

    with stage("select") as done:
        if not dry_run:  # a run killed between the ledger's commit and its refresh left readers one run behind
            catalog.refresh_current_values("catch-up")
        work = select_work(context, model, window)
        done.rows_in, done.rows_out = work.seen, work.rows
    run_id = steps.run_id(context, model, work, window)
    if not work.rows:
        return steps.nothing_to_do(context, model, work)

    with stage("validate") as done:
        validation = steps.snapshot_gate(context, work)
        done.rows_in = work.rows

    with stage("score") as done:
        scored = catalog.stage(run_id, "scored", steps.score(context, model, work))
        done.rows_in, done.rows_out, done.quarantined = steps.count_scored(scored, work)

    with stage("decide") as done:
        decided = steps.decide_once(context, model, scored, run_id)
        changes = steps.plan_changes(context, decided, model, run_id)
        done.rows_in, done.rows_out = work.rows, changes.published
        done.note = f"retract {changes.retracted}"
    steps.refuse_over_cap(context, changes)

    run = steps.describe_run(context, model, work, scored, decided)
    run.update(run_id=run_id, parent_run_id=parent_run_id, window=window.as_dict(), started_at=started)
    if dry_run:
        return steps.preview(context, run, decided)

    with stage("land") as done:
        done.rows_out = catalog.append("predictions", decided, run_id)
        done.quarantined = catalog.append("quarantine", steps.quarantined(scored, model, run_id), run_id)

    with stage("publish") as done:
        done.rows_out = catalog.append("attribute_values", changes.events, run_id)
        catalog.refresh_current_values(run_id)
    return steps.finish(context, run, validation)
