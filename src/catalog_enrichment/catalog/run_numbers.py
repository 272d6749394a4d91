"""What runs wrote, from their rows in `runs`: for the page over all runs and for the list in a terminal.

A backfill writes nothing itself: its numbers are the sums of its chunks. Pure functions.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from catalog_enrichment.records import RunKind, RunStatus

Row = Mapping[str, Any]


def has_succeeded(row: Row) -> bool:
    return bool(row["status"] == RunStatus.SUCCEEDED)


def is_chunk(row: Row) -> bool:
    """Return whether a row is of a chunk that succeeded; a rollback has a parent, too: the run that it takes back."""
    return row["kind"] == RunKind.ENRICH and has_succeeded(row) and bool(row["parent_run_id"])


def by_backfill(rows: Iterable[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Return run id of a backfill -> the rows of its chunks that succeeded, in the order of ``rows``."""
    chunks: dict[str, list[dict[str, Any]]] = {}
    for row in filter(is_chunk, rows):
        chunks.setdefault(row["parent_run_id"], []).append(row)
    return chunks


def writers(row: Row, chunks: Sequence[Row]) -> Sequence[Row] | None:
    """Return the rows whose decisions became values: the row itself, of a backfill its ``chunks``.

    None for a kind of run that writes no values itself, and for an attempt that was refused or failed: its row may
    have decisions all the same, which were made before it ended.
    """
    if not has_succeeded(row):
        return None
    return {RunKind.ENRICH: (row,), RunKind.BACKFILL: chunks}.get(row["kind"])


def decisions(row: Row) -> dict[str, dict[str, Any]]:
    """Return attribute -> its numbers, of the row's column `attributes`; {} where there are none."""
    found: dict[str, dict[str, Any]] = json.loads(row["attributes"] or "{}").get("decisions", {})
    return found


def total(row: Row, chunks: Sequence[Row], name: str) -> int | None:
    """Return a number of the decisions of :func:`writers`, added up over attributes and rows; None without any rows."""
    parts = writers(row, chunks)
    if parts is None:
        return None
    return sum(int(found[name]) for part in parts for found in decisions(part).values())
