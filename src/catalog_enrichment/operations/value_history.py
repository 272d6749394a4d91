"""The history of a value in words: the ledger's events about one attribute of a product, and which of them are undone.

A rollback's event names the event that it undoes, so that a rollback of a rollback is followed back to the run whose
work is in force again (:mod:`catalog_enrichment.catalog.ledger`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from catalog_enrichment.catalog import ledger
from catalog_enrichment.records import Op, Source
from catalog_enrichment.web.pages import when
from catalog_enrichment.web.quotes import Evidence

Row = Mapping[str, Any]


def undoing_runs(history: Sequence[Row]) -> dict[str, str]:
    """Return the id of each event that is undone -> the run that undoes it, by events that are in force themselves.

    ``history``: all events about one attribute of a product, oldest first.
    """
    found: dict[str, str] = {}
    for event in reversed(history):
        if event["undoes"] is not None and event["event_id"] not in found:
            found[event["undoes"]] = event["run_id"]
    return found


def in_force(history: Sequence[Row]) -> list[Row]:
    """Return the events that no event in force undoes, oldest first. ``history``: as for :func:`undoing_runs`."""
    undone = undoing_runs(history)
    return [event for event in history if event["event_id"] not in undone]


def last_retract(history: Sequence[Row]) -> Row | None:
    """Return the newest event in force that took a value back; None if there is none."""
    retracts = [event for event in in_force(history) if event["op"] == Op.RETRACT.value]
    return retracts[-1] if retracts else None


def evidence_of(current: Row | None, history: Sequence[Row], product: Row) -> list[dict[str, str]]:
    """Return value, evidence and a sentence about it, for each value of a model that readers see and that has evidence.

    The sentence names the value where the set has several.
    ``current``: the row of `current_values`; ``history``: as for :func:`undoing_runs`; ``product``: has the title and
    the description, in which the evidence is looked for.
    """
    if current is None or current["source"] != Source.MODEL.value:
        return []
    found = {
        event["value"]: event["evidence"]
        for event in history
        if event["run_id"] == current["run_id"] and event["op"] == Op.ASSERT.value and event["evidence"]
    }
    told = {value: Evidence.of(found[value], product["title"], product["description"]) for value in sorted(found)}
    several = len(current["values"]) > 1
    return [
        {"value": value, "evidence": evidence.text, "sentence": f"{value}: " * several + evidence.sentence}
        for value, evidence in told.items()
        if value in current["values"]
    ]


def value_in_words(event: Row) -> str:
    return "no value" if event["value"] == ledger.NO_VALUE else repr(event["value"])


def undoing_in_words(history: Sequence[Row]) -> dict[str, str]:
    """Return event id -> what the event undoes and which run has undone it, as the end of a sentence; "" if neither."""
    run_of, undone = {event["event_id"]: event["run_id"] for event in history}, undoing_runs(history)
    found = {}
    for event in history:
        undoes, by = run_of.get(event["undoes"]), undone.get(event["event_id"])
        found[event["event_id"]] = (f", which undoes run {undoes}" if undoes else "") + (
            f" (undone by run {by})" if by else ""
        )
    return found


def in_words(history: Sequence[Row]) -> list[str]:
    """Return a line per event, oldest first: when, what, by which run, what it undoes, and whether it is undone."""
    undoing = undoing_in_words(history)
    return [
        f"{when(event['asserted_at'])} {event['op']} {value_in_words(event)} by run {event['run_id']}"
        + undoing[event["event_id"]]
        for event in history
    ]
