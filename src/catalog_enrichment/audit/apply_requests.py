"""apply_requests: does to the catalog what people asked for on the page, by the operations of the command line.

Answers to suggestions are ingested first, in one run of the kind `audit`:

    refused, or another value is right    the value is not written for this product again, by no model version, and is
                                          not suggested again; where it was written meanwhile it is retracted
    accepted                              a value that was refused before may be written again
    the product has no such value         as refused
    all but the last                      training labels, with the source `suggestions` (catalog.human_labels)

Then the requests are applied in the order in which they came. A request that cannot be applied is marked so with the
reason, which the page shows, and the others go on. A request whose job was killed is applied again, and every operation
that was done already changes nothing the second time.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from catalog_enrichment.audit import consequences
from catalog_enrichment.audit.ingest_verdicts import run_id_of
from catalog_enrichment.audit.review_records import Answer, ChangeRequest, Item, Purpose, RequestKind, RequestState
from catalog_enrichment.audit.review_store import ReviewStore
from catalog_enrichment.catalog import review_tables, runs
from catalog_enrichment.catalog.runs import RunRecord
from catalog_enrichment.errors import ConfigError, GateRefused
from catalog_enrichment.monitoring.stages import Stages
from catalog_enrichment.operations import explain, rollback, set_value
from catalog_enrichment.operations.commands import ANY_CONFIG
from catalog_enrichment.records import NOTHING_TO_DO, Cardinality, RunKind, RunStatus

if TYPE_CHECKING:
    from catalog_enrichment.context import Context

_ANSWERS = {RequestKind.ACCEPT: Answer.YES, RequestKind.REFUSE: Answer.NO, RequestKind.SET: Answer.OTHER}


def waiting(store: ReviewStore) -> list[ChangeRequest]:
    """Return the requests to apply, oldest first."""
    return store.requests(state=RequestState.WAITING)


def apply_requests(context: Context, store: ReviewStore, config: Sequence[str] = ANY_CONFIG) -> dict[str, Any]:
    """Apply every waiting request. Return the job's summary. For a job that holds the catalog's write lock.

    ``config``: options of the commands in messages. Temporary failures and bugs end the job; what was applied until
    then stays applied.
    """
    stages, ended = Stages(context.say), Counter[str]()
    requests = waiting(store)
    if answers := [request for request in requests if is_answer(request)]:
        with stages("answers") as stage:
            stage.rows_in, stage.rows_out = len(answers), _ingest_answers(context, store, answers)
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


def _apply(context: Context, store: ReviewStore, request: ChangeRequest, config: Sequence[str]) -> tuple[str, str]:
    """Apply a request. Return the outcome for people, and the id of the run that wrote a set, if one did.

    Raises ConfigError and GateRefused.
    """
    if request.kind is RequestKind.REFUSE:
        return _undo_answers(context, store, request), ""
    if request.kind is RequestKind.UNDO:
        summary = rollback.rollback_run(context.catalog, request.run_id, request.attribute, say=context.say)
        done = summary["status"] == RunStatus.SUCCEEDED
        return (f"undone by run {summary['run_id']}" if done else "it was undone already"), ""
    correction = correction_of(context, request)
    correction.check(context.dictionary)
    summary = set_value.set_value(context, correction, dry_run=False, config=config)
    run_id = str(summary["run_id"])
    if summary["status"] == NOTHING_TO_DO:
        own = _wrote(context, run_id, request)  # the job was killed after it had written the set
        return "a person has said so already", run_id if own else ""
    return f"{request.attribute} is {', '.join(summary['after']['values']) or 'no value'}, by run {run_id}", run_id


def correction_of(context: Context, request: ChangeRequest) -> set_value.Correction:
    """Return the correction that a SET or ACCEPT asks for. Its values are as they are stored: the page has read them in
    the product's language. Raises ConfigError for an unknown attribute."""
    return set_value.Correction(
        product_id=request.product_id,
        attribute=request.attribute,
        values=_values(context, request),
        as_stored=True,
        remove=not request.values,
        by=request.by,
        reason=request.reason or None,
    )


def _wrote(context: Context, run_id: str, request: ChangeRequest) -> bool:
    """Return whether the run set the value for this request, and not for another statement of a person."""
    for row in runs.rows(context.catalog, ["run_id", "window", "started_at", "finished_at"]):
        if row["run_id"] == run_id and row["started_at"] >= request.asked_at:
            return bool(json.loads(row["window"] or "{}").get("by") == request.by)
    return False


def _undo_answers(context: Context, store: ReviewStore, request: ChangeRequest) -> str:
    """Undo the sets that earlier answers to the refused suggestion wrote. Return the outcome for people.

    Newest first, so that none of them is seen again in between. A set that somebody gave otherwise is kept.
    """
    outcome = "refused: it is not written or suggested for this product again"
    for answer in reversed(store.applied_answers(request.item_id)):
        if answer.run_id and answer.kind in (RequestKind.ACCEPT, RequestKind.SET):
            summary = rollback.rollback_run(context.catalog, answer.run_id, request.attribute, say=context.say)
            if summary["status"] == RunStatus.SUCCEEDED:
                outcome += f"; what {answer.by} answered before is taken back by run {summary['run_id']}"
    return outcome


def _values(context: Context, request: ChangeRequest) -> tuple[str, ...]:
    """Return the whole set to write: an accepted suggestion joins the values that readers see, if there can be
    several."""
    attribute = explain.known_attribute(context.dictionary, request.attribute)
    if request.kind is not RequestKind.ACCEPT or attribute.cardinality is Cardinality.ONE:
        return request.values
    current = explain.rows_about(context.catalog, "current_values", request.product_id)
    seen = current.where(current["attribute"] == request.attribute).first()
    return tuple(sorted({*(seen["values"] if seen else ()), *request.values}))


# --- answers to suggestions -----------------------------------------------------------------------------------------


def is_answer(request: ChangeRequest) -> bool:
    """Return whether the request answers a suggestion."""
    return request.kind is RequestKind.REFUSE or bool(request.item_id and request.kind in _ANSWERS)


def _ingest_answers(context: Context, store: ReviewStore, answers: Sequence[ChangeRequest]) -> int:
    """Write the answers to `verdicts` and retract what they refuse. Return how many events the ledger got.

    Killed anywhere and started again it ends the same: the run's id is a hash of the answers.
    """
    catalog = context.catalog
    record = RunRecord(kind=RunKind.AUDIT, stages=Stages(context.say), config=context.config.without_secrets())
    record.window = {"suggestions": len(answers)}
    with runs.recorded(catalog, record):
        catalog.refresh_current_values("catch-up")  # an earlier run may have been killed before it could
        given = [catalog.names.in_verdict(verdict_row(store, request)) for request in answers]
        given.sort(key=lambda row: (row["settled_at"], row["item_id"]))
        rows = list({row["item_id"]: row for row in given}.values())  # the newest answer to each
        record.run_id = run_id_of(rows)
        refused, allowed = consequences.refused_and_allowed(rows, review_tables.newest(catalog), context.dictionary)
        catalog.append_rows(review_tables.VERDICTS, [row | {"run_id": record.run_id} for row in rows], record.run_id)
        events = 0
        if refused or allowed:
            planned = consequences.planned(catalog, record, consequences.LedgerPlan(refused, allowed))
            events = consequences.publish(catalog, record, planned)
        record.count(events=events, verdicts=len(rows))
        runs.write(catalog, record)
    return events


def verdict_row(store: ReviewStore, request: ChangeRequest) -> dict[str, Any]:
    """Return the row of `verdicts`, without a run. A refusal that names no suggestion is about its value."""
    answer = _ANSWERS[request.kind]
    if request.kind is RequestKind.SET and not request.values:
        answer = Answer.NONE
    row: dict[str, Any] = {
        "purpose": Purpose.SUGGESTIONS.value,
        "product_id": request.product_id,
        "attribute": request.attribute,
        "answer": answer.value,
        "right_values": sorted(request.values) if request.kind is RequestKind.SET else [],
        "reviewers": [request.by],
        "settled_at": request.asked_at,
    }
    if request.item_id:
        item = store.item(request.item_id)
        return row | {"item_id": item.item_id, "sample_id": item.sample_id, "value": item.value}
    (value,) = request.values
    item_id = Item.id_of("requests", request.product_id, request.attribute, value)
    return row | {"item_id": item_id, "sample_id": "requests", "value": value}
