"""Applies what people asked for on the page: each request by the operation that the command line has for it.

What is said about suggestions is taken in first, in one run (:mod:`suggestion_answers`); then the requests are applied
in the order in which they came. One that cannot be applied is marked so with the reason, which the page shows, and the
others go on. A request whose job was killed is applied again, and every operation that was done already changes nothing
the second time.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from catalog_enrichment.audit import suggestion_answers
from catalog_enrichment.audit.review_requests import Request, RequestKind, RequestState
from catalog_enrichment.audit.review_store import ReviewStore
from catalog_enrichment.catalog import runs
from catalog_enrichment.errors import ConfigError, GateRefused
from catalog_enrichment.monitoring.stages import Stages
from catalog_enrichment.operations import lookup, rollback, set_value
from catalog_enrichment.operations.commands import ANY_CONFIG
from catalog_enrichment.records import NOTHING_TO_DO, Cardinality, RunStatus

if TYPE_CHECKING:
    from catalog_enrichment.context import Context


def waiting(store: ReviewStore) -> list[Request]:
    """What is to be applied, oldest first."""
    return store.requests(state=RequestState.WAITING)


def apply_requests(context: Context, store: ReviewStore, config: Sequence[str] = ANY_CONFIG) -> dict[str, Any]:
    """Apply every waiting request; returns the job's summary. For a job that holds the catalog's write lock.

    ``config``: options of the commands in messages. Temporary failures and bugs end the job; what was applied until
    then stays applied.
    """
    stages, ended = Stages(context.say), Counter[str]()
    requests = waiting(store)
    if answered := [request for request in requests if suggestion_answers.is_answer(request)]:
        with stages("answers") as stage:
            stage.rows_in, stage.rows_out = len(answered), suggestion_answers.take_in(context, store, answered)
    with stages("apply") as stage:
        for request in requests:
            run_id = ""
            try:
                state, (outcome, run_id) = RequestState.APPLIED, _apply(context, store, request, config)
            except (ConfigError, GateRefused) as problem:
                state, outcome = RequestState.REFUSED, str(problem)
            if store.mark_applied(request.request_id, outcome, datetime.now(UTC), state, run_id):
                ended[state.value] += 1
                context.say(f"request {request.request_id} by {request.by}: {state.value}: {outcome}")
        stage.rows_out = sum(ended.values())
    status = RunStatus.SUCCEEDED if ended else NOTHING_TO_DO
    return {"status": status, "requests": dict(sorted(ended.items())), "seconds": stages.seconds}


def _apply(context: Context, store: ReviewStore, request: Request, config: Sequence[str]) -> tuple[str, str]:
    """Do what is asked for; returns the outcome for people, and the id of the run that wrote a set, if one did.

    Raises ConfigError and GateRefused.
    """
    if request.kind is RequestKind.REFUSE:
        return _refuse(context, store, request), ""
    if request.kind is RequestKind.UNDO:
        summary = rollback.rollback_run(context.catalog, request.run_id, request.attribute, say=context.say)
        done = summary["status"] == RunStatus.SUCCEEDED
        return (f"undone by run {summary['run_id']}" if done else "it was undone already"), ""
    correction = set_value.Correction(
        product_id=request.product_id,
        attribute=request.attribute,
        values=_values(context, request),
        remove=not request.values,
        by=request.by,
        reason=request.reason or None,
    )
    correction.check(context.dictionary)
    summary = set_value.set_value(context, correction, dry_run=False, config=config)
    if summary["status"] == NOTHING_TO_DO:
        own = _wrote(context, summary["run_id"], request)  # the job was killed after it had written the set
        return "a person has said so already", summary["run_id"] if own else ""
    run_id = str(summary["run_id"])
    return f"{request.attribute} is {', '.join(summary['after']['values']) or 'no value'}, by run {run_id}", run_id


def _wrote(context: Context, run_id: str, request: Request) -> bool:
    """Whether the run set the value for this request, and not for another word of a person."""
    for row in runs.rows(context.catalog, ["run_id", "window", "started_at", "finished_at"]):
        if row["run_id"] == run_id and row["started_at"] >= request.asked_at:
            return bool(json.loads(row["window"] or "{}").get("by") == request.by)
    return False


def _refuse(context: Context, store: ReviewStore, request: Request) -> str:
    """Take back the sets that earlier answers to the same suggestion wrote; returns the outcome for people.

    Newest first, so that none of them is seen again in between. A set that somebody gave otherwise stands.
    """
    outcome = "refused: it is not written or suggested for this product again"
    for answer in reversed(store.applied_answers(request.item_id)):
        if answer.run_id and answer.kind in (RequestKind.ACCEPT, RequestKind.SET):
            summary = rollback.rollback_run(context.catalog, answer.run_id, request.attribute, say=context.say)
            if summary["status"] == RunStatus.SUCCEEDED:
                outcome += f"; what {answer.by} answered before is taken back by run {summary['run_id']}"
    return outcome


def _values(context: Context, request: Request) -> tuple[str, ...]:
    """The whole set to write: an accepted suggestion joins the values that readers see, where there can be several."""
    attribute = lookup.known_attribute(context.dictionary, request.attribute)
    if request.kind is not RequestKind.ACCEPT or attribute.cardinality is Cardinality.ONE:
        return request.values
    import pyarrow.compute as pc

    seen: set[str] = set()
    for batch in context.catalog.scan("current_values", ("product_id", "attribute", "values")):
        for row in batch.filter(pc.equal(batch.column("product_id"), request.product_id)).to_pylist():
            seen |= set(row["values"]) if row["attribute"] == request.attribute else set()
    return tuple(sorted(seen | set(request.values)))
