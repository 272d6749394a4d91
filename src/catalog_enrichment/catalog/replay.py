"""The replay of :mod:`catalog.ledger` for a few events, without Spark: of one product, or of what people gave."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from catalog_enrichment.records import Op

Row = Mapping[str, Any]


def active(events: Sequence[Row]) -> list[Row]:
    """The assert events whose values stand: the replay of :mod:`catalog.ledger`, of a few events, without Spark."""
    return [event for event in events if event["op"] == Op.ASSERT.value and _stands(event, events)]


def _stands(asserted: Row, events: Sequence[Row]) -> bool:
    acts = [event for event in events if event["refers_to"] == asserted["event_id"]]
    acts.sort(key=lambda event: (event["asserted_at"], event["run_id"], event["op"], event["event_id"]))
    undone: set[str] = set()
    for act in reversed(acts):
        if act["undoes"] is not None and act["event_id"] not in undone:
            undone.add(act["undoes"])
    in_force = [act for act in acts if act["undoes"] is None and act["event_id"] not in undone]
    retracted = bool(in_force) and in_force[-1]["op"] == Op.RETRACT.value
    return asserted["event_id"] not in undone and not retracted
