"""What managers of shops said about suggestions becomes part of the catalog: rows of `verdicts`, in one run.

    refused, or another value is right    the value is not written for this product again, by no model version, and is
                                          not suggested again; where it was written meanwhile it is retracted
    accepted                              a value that was refused before may be written again
    the product has no such value         as refused
    all but the last                      training labels, with the source `suggestions` (catalog.people_labels)

Giving a product its value is not done here but by set_value (:mod:`apply_requests`). The run is of the kind `audit`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from catalog_enrichment.audit import consequences
from catalog_enrichment.audit.items import Answer, Item, Purpose
from catalog_enrichment.audit.review_requests import Request, RequestKind
from catalog_enrichment.audit.review_store import ReviewStore
from catalog_enrichment.catalog import runs, verdicts
from catalog_enrichment.catalog.runs import RunRecord
from catalog_enrichment.monitoring.stages import Stages
from catalog_enrichment.records import RunKind, make_run_id

if TYPE_CHECKING:
    from collections.abc import Sequence

    from catalog_enrichment.context import Context

_ANSWERS = {
    RequestKind.ACCEPT: Answer.YES,
    RequestKind.REFUSE: Answer.NO,
    RequestKind.SET: Answer.OTHER,
}


def is_answer(request: Request) -> bool:
    """Whether it answers a suggestion."""
    return request.kind is RequestKind.REFUSE or bool(request.item_id and request.kind in _ANSWERS)


def take_in(context: Context, store: ReviewStore, answered: Sequence[Request]) -> int:
    """Land the answers and retract what they refuse; returns how many events the ledger got.

    Killed anywhere and started again it ends as if it had not been: the run's id is a hash of the answers.
    """
    catalog = context.catalog
    record = RunRecord(kind=RunKind.AUDIT, stages=Stages(context.say), config=context.config.without_secrets())
    record.window = {"suggestions": len(answered)}
    with runs.recorded(catalog, record):
        catalog.refresh_current_values("catch-up")  # an earlier run may have been killed before it could
        said = sorted((_row(store, one) for one in answered), key=lambda row: (row["settled_at"], row["item_id"]))
        rows = list({row["item_id"]: row for row in said}.values())  # the newest answer to each
        record.run_id = make_run_id(RunKind.AUDIT, [[*map(str, sorted(row.items()))] for row in rows])
        refused, allowed = consequences.changed(rows, verdicts.newest(catalog))
        landed = [row | {"run_id": record.run_id} for row in rows]
        catalog.append_rows(verdicts.VERDICTS, landed, record.run_id)
        events = 0
        if refused or allowed:
            plan_ = consequences.LedgerPlan(refused, allowed, human={}, unknown=0)
            events = consequences.publish(catalog, record, plan_)
        record.count(events=events, verdicts=len(rows))
        runs.write(catalog, record)
    return events


def _row(store: ReviewStore, request: Request) -> dict[str, Any]:
    """The row of `verdicts`, without a run. A refusal that names no suggestion is about its value."""
    answer = _ANSWERS[request.kind]
    if request.kind is RequestKind.SET and not request.values:
        answer = Answer.NONE
    usual: dict[str, Any] = {
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
        return usual | {"item_id": item.item_id, "sample_id": item.sample_id, "value": item.value}
    (value,) = request.values
    item_id = Item.id_of("requests", request.product_id, request.attribute, value)
    return usual | {"item_id": item_id, "sample_id": "requests", "value": value}
