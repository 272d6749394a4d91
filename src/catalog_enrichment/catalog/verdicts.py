"""The tables `audits`, `verdicts` and `confirmations`, read and written here alone: what was drawn for reviewers, what
they said, and which certificates an audit has confirmed.

All three are append-only. Rows of a run that was killed do not count; it writes them when it is started again. Of
several verdicts about one item that of the run that finished last counts: an adjudicator may have decided since. What
a run took in that was rolled back does not count, and is not taken in again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from catalog_enrichment.catalog import runs
from catalog_enrichment.records import RunKind, RunStatus

if TYPE_CHECKING:
    from collections.abc import Collection

    from catalog_enrichment.catalog.base import Catalog

AUDITS, VERDICTS, CONFIRMATIONS = "audits", "verdicts", "confirmations"

Row = dict[str, Any]

Key = tuple[str, str, str]
"""Product id, attribute, value."""

OF_MANAGERS = "suggestions"
"""Purpose (audit.items.Purpose) of the verdicts of shops' managers on suggestions."""

GOLD = "gold"
"""Purpose of the verdicts on gold samples."""

WRONG = frozenset({"no", "other", "none"})
"""Answers (audit.items.Answer) that say that the value is wrong."""


def drawn(catalog: Catalog, sample_ids: Collection[str] | None = None) -> list[Row]:
    """Rows of `audits` of samples that are complete, in the order of the runs and of the draw."""
    order = _finished(catalog)
    rows = [row for row in _rows(catalog, AUDITS) if row["run_id"] in order]
    if sample_ids is not None:
        rows = [row for row in rows if row["sample_id"] in sample_ids]
    return sorted(rows, key=lambda row: (order[row["run_id"]], row["draw_order"]))


def sample_windows(catalog: Catalog) -> dict[str, dict[str, Any]]:
    """Id of each run of audit_sample -> what was asked for (audit.sampling.DrawRequest)."""
    known = runs.rows(catalog, ["run_id", "kind", "window", "finished_at"])
    of_samples = [row for row in known if row["kind"] == RunKind.SAMPLE.value]
    return {row["run_id"]: json.loads(row["window"] or "{}") for row in of_samples}


def of_one_run(windows: Mapping[str, Mapping[str, Any]]) -> frozenset[str]:
    """Of :func:`sample_windows` the ids of the runs that drew only what one run had written or decided."""
    return frozenset(run_id for run_id, window in windows.items() if window.get("run_id"))


def ingested(catalog: Catalog) -> dict[str, Row]:
    """Item id -> the verdict that was taken in last, also by a run that was rolled back since."""
    return {row["item_id"]: row for row in _taken_in(catalog)}


def newest(catalog: Catalog) -> dict[str, Row]:
    """Item id -> the verdict that counts: the newest one, without those that a rolled back run took in."""
    rows = _taken_in(catalog)
    back = runs.rolled_back(catalog, sorted({row["attribute"] for row in rows})) if rows else {}
    return {row["item_id"]: row for row in rows if row["run_id"] not in back.get(row["attribute"], ())}


def refused(catalog: Catalog) -> set[Key]:
    """The values that people said are wrong, of their product and attribute: they are not written again."""
    return refused_values(newest(catalog).values())


def refused_values(rows: Iterable[Mapping[str, Any]]) -> set[Key]:
    """The values that ``rows``, one verdict per item, refuse.

    Several items may be about one value, of several samples. One that says it is wrong is enough: another item's yes
    does not lift it, nor somebody who cannot tell. Only a changed verdict on the same item does, and the later accept
    of a manager.
    """
    wrong: dict[Key, Any] = {}
    accepted: dict[Key, Any] = {}
    for row in sorted(rows, key=lambda row: row["settled_at"]):
        key = (row["product_id"], row["attribute"], row["value"])
        if is_wrong(row):
            wrong[key] = row["settled_at"]
        elif row["answer"] == "yes" and row["purpose"] == OF_MANAGERS:
            accepted[key] = row["settled_at"]
    return {key for key, at in wrong.items() if key[2] and not (key in accepted and accepted[key] >= at)}


def is_wrong(verdict: Mapping[str, Any]) -> bool:
    """Whether the value that was asked about is wrong; a reviewer may have named it again among the right ones."""
    return verdict["answer"] in WRONG and verdict["value"] not in verdict["right_values"]


def confirmed(catalog: Catalog) -> frozenset[str]:
    """Ids of the certificates that an audit has confirmed, without runs that were rolled back."""
    order = _finished(catalog) if catalog.version(CONFIRMATIONS) >= 0 else {}
    rows = _rows(catalog, CONFIRMATIONS, ["certificate_id", "attribute", "run_id"]) if order else []
    back = runs.rolled_back(catalog, sorted({row["attribute"] for row in rows})) if rows else {}
    return frozenset(
        row["certificate_id"]
        for row in rows
        if row["run_id"] in order and row["run_id"] not in back.get(row["attribute"], ())
    )


def _taken_in(catalog: Catalog) -> list[Row]:
    """The verdicts of finished runs, in the order in which they count."""
    if catalog.version(VERDICTS) < 0:
        return []
    order = _finished(catalog)
    rows = [row for row in _rows(catalog, VERDICTS) if row["run_id"] in order]
    return sorted(rows, key=lambda row: (order[row["run_id"]], row["settled_at"]))


def _rows(catalog: Catalog, table: str, columns: Sequence[str] | None = None) -> list[Row]:
    return [row for batch in catalog.scan(table, columns) for row in batch.to_pylist()]


def _finished(catalog: Catalog) -> dict[str, int]:
    """Id of each succeeded run -> its place in the order in which they finished."""
    known = runs.rows(catalog, ["run_id", "status", "finished_at"])
    ids = [row["run_id"] for row in known if row["status"] == RunStatus.SUCCEEDED.value]
    return {run_id: place for place, run_id in enumerate(ids)}
