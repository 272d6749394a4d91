"""START HERE: a run of enrichment, top to bottom.

    select -> validate -> score (decode, tokenize, predict) -> decide -> land -> publish

Nothing that a reader of the catalog sees changes before `publish`, and then all of it changes at once: the ledger's
commit is the commit point (I4). Everything before it is stored under the run's id. A run that is killed and started
again has the same id, and ends as an undisturbed run would have ended (I5). Killed after

    score     it reads the scores (checkpoint) and decides again
    land      it takes the decisions that it landed, if all of them may still be published (policy.may_resume)
    commit    it finds its events in the ledger; the next job's refresh shows them to readers
    publish   select finds it again by the values before it, and it writes its row in `runs`
    its row   the next run writes the switches that the row names (drift_check.write_missing_pauses)
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from catalog_enrichment.catalog import runs
from catalog_enrichment.enrichment import coverage, decisions, drift_check, outcomes, score, select, summary
from catalog_enrichment.enrichment.request import RunRequest, RuntimeOverrides, Window
from catalog_enrichment.monitoring.stages import Stages
from catalog_enrichment.spark.frames import persisted_frames

if TYPE_CHECKING:
    from catalog_enrichment.context import Context
    from catalog_enrichment.registry.model_registry import ResolvedModel


def enrich(
    context: Context,
    model: ResolvedModel,
    window: Window,
    parent_run_id: str | None = None,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Score what needs scoring, decide, and publish what is certified. Returns the run's summary.

    Raises DataContractError if the products fail their snapshot gate, and GateRefused if the run would change more
    values than `enrich.max_changes`. Then nothing was published, and the attempt's row in `runs` says why. A dry run
    over that limit is not refused: it shows what a person has to decide about, and says that the run would be.
    """
    config, catalog, stages = context.config, context.catalog, Stages(context.say)
    if not dry_run:
        drift_check.write_missing_pauses(catalog)
    request = RunRequest.of(config, context.dictionary, model, window, RuntimeOverrides.read(catalog))
    model = request.model
    context.say(model.why_numbers)
    record = request.record(config, stages, parent_run_id)

    with persisted_frames() as persist, runs.recorded(catalog, record, unless=dry_run):
        with stages("select") as stage:
            state = select.read_ledger(catalog)
            if not dry_run:  # a run killed between the ledger's commit and its refresh left readers one run behind
                catalog.refresh_current_values("catch-up")
            selection = select.select_products(catalog, request, state, persist)
            run_id = selection.identify(record)
            stage.count(selection.seen, selection.rows)
        if not selection.rows and not selection.retractions:
            return summary.nothing_to_do(record, selection.waiting)

        if selection.rows:
            with stages("validate") as stage:
                record.validation = score.check_products(selection, config)
                stage.count(selection.rows)

        kept = [*score.kept_checkpoints(catalog, run_id, dry_run), coverage.BEFORE]
        with stages("score") as stage:
            scored = score.score(catalog, run_id, selection, model, config, persist)
            record.count(**score.count_scored(scored, selection))
            predicted = record.counts["predicted"]
            refused = selection.rows - predicted
            stage.count(selection.rows, predicted, refused, score.note(record.counts))

        with catalog.checkpoints.dropping(run_id, kept):
            with stages("decide") as stage:
                drifted = drift_check.check(context, request, selection, scored)
                request = replace(request, drifted=drifted.pauses)
                decided, changes = decisions.decide_and_plan(catalog, request, state, selection, scored, refused)
                before = coverage.now(catalog, context.dictionary, selection.scope)
                outcome = summary.RunOutcome(selection, scored, decided, changes, before, drifted)
                summary.record_decisions(record, catalog, request, outcome)
                stage.count(selection.rows, changes.published, note=f"retract {changes.retracted}")
            over_limit = decisions.over_max_changes(catalog, changes, config.enrich.max_changes, run_id)
            if dry_run:
                return summary.preview(decided, record, over_limit)
            decisions.refuse_too_many_changes(over_limit)

            with stages("land") as stage:
                # a run that is resumed after its commit finds its own values covered
                seen_before = catalog.checkpoints.remember(run_id, coverage.BEFORE, before.before())
                landed = catalog.append("predictions", decided, run_id)
                stage.count(None, landed, score.quarantine(catalog, scored, refused, model, run_id))

            with stages("publish") as stage:
                stage.count(None, decisions.publish(catalog, changes, run_id))
                after = coverage.after(catalog, context.dictionary, before, changes.ids)
                summary.add_coverage(record, seen_before, after, outcomes.by_reason(catalog, decided))

        runs.write(catalog, record)  # the last write of the run, but for the switches that its row names
        drift_check.write_pauses(catalog, drifted.pauses, run_id, record.started_at)
        catalog.checkpoints.drop(run_id)
    return summary.summary(record)
