"""The tables `audits`, `verdicts` and `confirmations`, read and written here alone: what was drawn for reviewers, what
they said, and which certificates an audit has confirmed.

All three are append-only. Rows of a run that was killed do not count; it writes them when it is started again. Of
several verdicts about one item that of the run that finished last counts: an adjudicator may have decided since.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from catalog_enrichment.catalog import runs
from catalog_enrichment.records import RunStatus

if TYPE_CHECKING:
    from collections.abc import Collection

    from catalog_enrichment.catalog.base import Catalog

AUDITS, VERDICTS, CONFIRMATIONS = "audits", "verdicts", "confirmations"

Row = dict[str, Any]

Key = tuple[str, str, str]
"""Product id, attribute, value."""

WRONG = frozenset({"no", "other"})
"""Answers (audit.items.Answer) that say that the value is wrong."""


def drawn(catalog: Catalog, sample_ids: Collection[str] | None = None) -> list[Row]:
    """Rows of `audits` of samples that are complete, in the order of the runs and of the draw."""
    order = _finished(catalog)
    rows = [row for row in _rows(catalog, AUDITS) if row["run_id"] in order]
    if sample_ids is not None:
        rows = [row for row in rows if row["sample_id"] in sample_ids]
    return sorted(rows, key=lambda row: (order[row["run_id"]], row["draw_order"]))


def newest(catalog: Catalog) -> dict[str, Row]:
    """Item id -> the verdict that counts."""
    if catalog.version(VERDICTS) < 0:
        return {}
    order = _finished(catalog)
    rows = [row for row in _rows(catalog, VERDICTS) if row["run_id"] in order]
    rows.sort(key=lambda row: (order[row["run_id"]], row["settled_at"]))
    return {row["item_id"]: row for row in rows}


def refused(catalog: Catalog, more: Iterable[Row] = ()) -> set[Key]:
    """The values that reviewers said are wrong, of their product and attribute: they are not written again.

    The newest verdict about a value counts. One whose run was rolled back does not. ``more``: verdicts that are not
    written yet.
    """
    rows = [*newest(catalog).values(), *more]
    if not rows:
        return set()
    taken_back = runs.rolled_back(catalog, sorted({row["attribute"] for row in rows})) if _any_run(rows) else {}
    said: dict[Key, Row] = {}
    for row in sorted(rows, key=lambda row: row["settled_at"]):
        if row["run_id"] not in taken_back.get(row["attribute"], ()):
            said[row["product_id"], row["attribute"], row["value"]] = row
    return {key for key, row in said.items() if key[2] and is_wrong(row)}


def is_wrong(verdict: Mapping[str, Any]) -> bool:
    """Whether the value that was asked about is wrong; a reviewer may have named it again among the right ones."""
    return verdict["answer"] in WRONG and verdict["value"] not in verdict["right_values"]


def confirmed(catalog: Catalog) -> frozenset[str]:
    """Ids of the certificates that an audit has confirmed."""
    order = _finished(catalog) if catalog.version(CONFIRMATIONS) >= 0 else {}
    rows = _rows(catalog, CONFIRMATIONS, ["certificate_id", "run_id"]) if order else []
    return frozenset(row["certificate_id"] for row in rows if row["run_id"] in order)


def _any_run(rows: Iterable[Row]) -> bool:
    return any(row["run_id"] for row in rows)


def _rows(catalog: Catalog, table: str, columns: Sequence[str] | None = None) -> list[Row]:
    return [row for batch in catalog.scan(table, columns) for row in batch.to_pylist()]


def _finished(catalog: Catalog) -> dict[str, int]:
    """Id of each succeeded run -> its place in the order in which they finished."""
    known = runs.rows(catalog, ["run_id", "status", "finished_at"])
    ids = [row["run_id"] for row in known if row["status"] == RunStatus.SUCCEEDED.value]
    return {run_id: place for place, run_id in enumerate(ids)}
