"""Rows of the tables `audits` and `verdicts` for tests without reviewers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

START = datetime(2026, 5, 1, tzinfo=UTC)


def drawn(number: int, **given: Any) -> dict[str, Any]:
    """Return a row of `audits` about product pN, drawn at START in the sample s."""
    usual: dict[str, Any] = {
        "item_id": f"i{number}", "sample_id": "s", "purpose": "audit", "stratum": "uniform", "draw_order": number,
        "probability": 0.1, "population": 200, "weight": 1.0, "highest_weight": 1.0, "product_id": f"p{number}",
        "attribute": "color", "value": "red", "content_hash": f"h{number}", "score": 0.9, "threshold": 0.5,
        "certificate_id": "c1", "modality": "both", "model_version": "3", "event_id": None, "decided_by": "run-1",
        "reason": "certified", "drawn_at": START, "run_id": "sample-1",
    }  # fmt: skip
    return usual | given


def said(of: int | dict[str, Any], answer: str, *right: str, **given: Any) -> dict[str, Any]:
    """Return a row of `verdicts` about a drawn row, given by its number or as it is; settled minutes after START."""
    row, minutes = (drawn(of), of) if isinstance(of, int) else (of, 0)
    names = ("item_id", "sample_id", "purpose", "product_id", "attribute", "value")
    more = {"answer": answer, "right_values": list(right), "reviewers": ["ann"]}
    return {name: row[name] for name in names} | more | {"settled_at": START + timedelta(minutes=minutes)} | given


def by_item(*rows: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["item_id"]: row for row in rows}
