"""START HERE: a run of enrichment, top to bottom.

    source -> validate -> decode, tokenize -> predict -> decide -> publish

Nothing that a reader of the catalog sees changes before `publish`, and then all of it changes at once: the ledger's
commit is the commit point (I4). Everything before it is stored under the run's id, so a run that is killed and
started again reads what it has already computed and ends as an undisturbed run would have ended (I5).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from catalog_enrichment.catalog import runs
from catalog_enrichment.enrichment import coverage, drift, publish, score, select, summary
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

    Raises DataContractError if the products fail their snapshot gate and GateRefused if the run would change more
    values than the cap allows. Then nothing was published, and the attempt's row in `runs` says why. A dry run over the
    cap is not refused: it shows what a person has to decide about, and says that the run would be.
    """
    config, catalog, stages = context.config, context.catalog, Stages(context.say)
    if not dry_run:
        drift.write_missing_pauses(catalog)
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
        if not selection.rows and not selection.withdrawals:
            return summary.nothing_to_do(record, selection.waiting)

        if selection.rows:
            with stages("validate") as stage:
                record.validation = select.check_products(selection, config)
                stage.count(selection.rows)

        kept = [*score.kept(catalog, run_id, dry_run), coverage.BEFORE]
        with stages("score") as stage:
            scored = score.score(catalog, run_id, selection, model, config, persist)
            record.count(**score.count_scored(scored, selection))
            predicted = record.counts["predicted"]
            stage.count(selection.rows, predicted, selection.rows - predicted, score.note(record.counts))

        with catalog.dropping_checkpoints(run_id, kept):
            with stages("decide") as stage:
                drifted = drift.check(context, request, selection, scored)
                request = replace(request, drifted=drifted.pauses)
                decided, changes = publish.decide_and_plan(catalog, request, state, selection, scored)
                before = coverage.now(catalog, context.dictionary, selection.changed)
                outcome = summary.RunOutcome(selection, scored, decided, changes, before, drifted)
                summary.record_decisions(record, catalog, request, outcome)
                stage.count(selection.rows, changes.published, note=f"retract {changes.retracted}")
            over_cap = publish.over_cap(catalog, changes, config.enrich.max_changes, run_id)
            if dry_run:
                return summary.preview(decided, record, over_cap)
            publish.refuse_over_cap(over_cap)

            with stages("land") as stage:
                # a run that is resumed after its commit finds its own values covered
                seen_before = catalog.remember(run_id, coverage.BEFORE, before.before())
                landed = catalog.append("predictions", decided, run_id)
                stage.count(
                    None, landed, catalog.append("quarantine", score.quarantined(scored, model, run_id), run_id)
                )

            with stages("publish") as stage:
                stage.count(None, publish.publish(catalog, changes, run_id))
                after = coverage.after(catalog, context.dictionary, before, changes.events)
                summary.add_coverage(record, seen_before, after)

        runs.write(catalog, record)  # the last write of the run, but for the switches that its row names
        drift.write(catalog, drifted, run_id, record.started_at)
        catalog.drop_checkpoints(run_id)
    return summary.summary(record)
