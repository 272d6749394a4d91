"""The history of a value: which events are undone, by which runs, and what that is in words."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from catalog_enrichment.operations.value_history import evidence_of, in_force, in_words, last_retract, undoing_runs

AT = datetime(2026, 3, 29, 1, 30, tzinfo=UTC)


def event(number: int, op: str, run_id: str, value: str = "Red", **given: Any) -> dict[str, Any]:
    usual = {"event_id": f"e{number}", "op": op, "value": value, "run_id": run_id, "undoes": None, "reason": None}
    return usual | {"asserted_at": AT + timedelta(minutes=number)} | given


WRITTEN = event(1, "assert", "enrich-1")
REFUSED = event(2, "retract", "audit-1", reason="refused_by_person")
TAKEN_BACK = event(3, "retract", "rollback-1", undoes="e1", reason="rolled_back")
RESTORED = event(4, "reinstate", "rollback-2", undoes="e3", reason="rolled_back")
AGAIN = event(5, "retract", "rollback-3", undoes="e4", reason="rolled_back")


@pytest.mark.parametrize(
    ("history", "undone", "retract"),
    [
        ([], {}, None),
        ([WRITTEN], {}, None),
        ([WRITTEN, TAKEN_BACK], {"e1": "rollback-1"}, "e3"),
        ([WRITTEN, TAKEN_BACK, RESTORED], {"e3": "rollback-2"}, None),
        ([WRITTEN, TAKEN_BACK, RESTORED, AGAIN], {"e4": "rollback-3", "e1": "rollback-1"}, "e5"),
        ([WRITTEN, REFUSED, TAKEN_BACK, RESTORED], {"e3": "rollback-2"}, "e2"),
    ],
)
def test_an_event_is_undone_by_events_that_are_not_undone_themselves(
    history: list[dict[str, Any]], undone: dict[str, str], retract: str | None
) -> None:
    assert undoing_runs(history) == undone
    assert [of["event_id"] for of in in_force(history)] == [
        of["event_id"] for of in history if of["event_id"] not in undone
    ]
    found = last_retract(history)
    assert (found and found["event_id"]) == retract


def test_evidence_is_told_of_the_model_values_that_readers_see() -> None:
    written = [event(1, "assert", "enrich-1", "160 cm", evidence="160X200 cm"),
               event(1, "assert", "enrich-1", "200 cm", evidence="the picture"),
               event(1, "assert", "enrich-1", "90 cm", evidence=None),
               event(2, "assert", "enrich-0", "90 cm", evidence="of another run"),
               event(3, "retract", "enrich-1", "80 cm", evidence="of a retract"),
               event(4, "assert", "enrich-1", "70 cm", evidence="not seen")]  # fmt: skip
    product = {"title": "Cot", "description": "160x200 cm"}
    seen = {"values": ["160 cm"], "source": "model", "run_id": "enrich-1"}
    only = {"value": "160 cm", "evidence": "160X200 cm", "sentence": 'The text says "160x200 cm".'}
    assert evidence_of(seen, written, product) == [only]
    several = evidence_of(seen | {"values": ["160 cm", "200 cm", "80 cm", "90 cm"]}, written, product)
    assert [told["sentence"] for told in several] == [
        '160 cm: The text says "160x200 cm".', '200 cm: The model gives as evidence "the picture".'
    ]  # fmt: skip
    assert evidence_of(None, written, product) == evidence_of(seen | {"source": "human"}, written, product) == []


def test_the_lines_say_what_each_run_undid_and_what_is_undone() -> None:
    nothing = event(6, "assert", "set_value-1", "")
    assert in_words([WRITTEN, TAKEN_BACK, RESTORED, nothing]) == [
        "2026-03-29 01:31 UTC assert 'Red' by run enrich-1",
        "2026-03-29 01:33 UTC retract 'Red' by run rollback-1, which undoes run enrich-1 (undone by run rollback-2)",
        "2026-03-29 01:34 UTC reinstate 'Red' by run rollback-2, which undoes run rollback-1",
        "2026-03-29 01:36 UTC assert no value by run set_value-1",
    ]
