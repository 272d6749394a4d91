"""What people ask for on the page and a job does to the catalog: set, accept, refuse, undo.

The page does not write to the catalog. One job at a time may (its write lock), an enrichment can hold that lock for
hours, and a change needs Spark: a person who clicks would wait, or be refused. So a request is kept in the review store
and applied by the job apply_requests, which a scheduler starts every few minutes, and the page says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class RequestKind(StrEnum):
    SET = "set"
    """``values`` are all the right values; none: the product has no value, and no model is to write one."""
    ACCEPT = "accept"
    """The suggested value in ``values`` is right. Where the merchant gives a value it changes in the merchant's feed
    only (I1)."""
    REFUSE = "refuse"
    """The suggested value in ``values`` is wrong: it is not written or suggested for this product again. What an
    ACCEPT or SET of the same suggestion wrote is taken back."""
    UNDO = "undo"
    """Take back what ``run_id`` did to the attribute: `rollback_run`. Only of a run in which a person set this one
    value, so that nothing else is undone with it."""


class RequestState(StrEnum):
    WAITING = "waiting"
    APPLIED = "applied"
    REFUSED = "refused"
    """It cannot be done; ``outcome`` says why."""
    WITHDRAWN = "withdrawn"
    """The person took it back before it was applied."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    kind: RequestKind
    product_id: str
    attribute: str
    values: tuple[str, ...] = ()
    run_id: str = ""
    """Of UNDO: what to undo. Of an applied ACCEPT or SET: the run that wrote the set; empty if none had to."""
    by: str
    """The person's name."""
    reason: str = ""
    asked_at: datetime
    """UTC."""
    item_id: str = ""
    """The suggestion (an item of a sample of suggestions) that ACCEPT, REFUSE or SET answers."""
    request_id: int = 0
    """Given by the store, growing."""
    state: RequestState = RequestState.WAITING
    outcome: str = ""
    """For people: what became of it."""
    ended_at: datetime | None = None
