"""What a catalog holds, without times: equal for a job that was disturbed and run again, and for an undisturbed job.

Equality is that of I5: products, quarantine, predictions, ledger, what readers see, label uses, self-derived values,
and the succeeded runs with their counts. Scores are compared to four decimals. Left out are times, the attempts that
failed, and the runs of maintain_catalog, whose counts are those of what was left to do.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from catalog_enrichment import contract
from catalog_enrichment.catalog.lake import Catalog
from catalog_enrichment.catalog.storage import Storage

LEFT_OUT = {"seconds", "stages", "validation", "config", "attempt", "error", "table_versions"}
"""Columns that differ between attempts, besides the times (`*_at`, except a product's `updated_at`)."""

Contents = dict[str, Counter[str]]
"""Table -> its rows as JSON, each with how often it is there."""


@dataclass(frozen=True)
class Difference:
    lost: int
    """Rows that an undisturbed run has and this run lacks."""
    duplicated: int
    """Rows that are there more often than in an undisturbed run."""
    examples: tuple[str, ...] = ()

    @property
    def equal(self) -> bool:
        return not (self.lost or self.duplicated)


def contents(catalog: Path | Storage) -> Contents:
    """Return all tables of the catalog in ``catalog``, read as its readers do."""
    lake = Catalog(catalog)
    rows = {name: [row for batch in lake.scan(name) for row in batch.to_pylist()] for name in contract.TABLES}
    succeeded = {row["run_id"] for row in rows["runs"] if row["status"] == "succeeded"}
    for name in ("predictions", "quarantine"):
        rows[name] = [row for row in rows[name] if row["run_id"] in succeeded]
    rows["runs"] = [row for row in rows["runs"] if row["run_id"] in succeeded and row["kind"] != "maintain"]
    rows["runs"] = [row for row in rows["runs"] if row["status"] == "succeeded"]
    return {name: Counter(map(_as_text, found)) for name, found in rows.items()}


def difference(actual: Contents, expected: Contents) -> Difference:
    """Return the difference of ``actual`` from ``expected`` over all tables."""
    lost = [f"lost {name}: {row}" for name in expected for row in (expected[name] - actual[name]).elements()]
    more = [f"more {name}: {row}" for name in expected for row in (actual[name] - expected[name]).elements()]
    return Difference(len(lost), len(more), tuple(text[:600] for text in (*lost[:3], *more[:3])))


def _as_text(row: dict[str, Any]) -> str:
    kept = {
        name: _plain(value)
        for name, value in row.items()
        if name not in LEFT_OUT and (not name.endswith("_at") or name == "updated_at")
    }
    return json.dumps(kept, sort_keys=True, default=str)


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, bytes):
        return hashlib.sha256(value).hexdigest()
    if isinstance(value, list) and value and isinstance(value[0], tuple):  # a map, in no order
        return sorted((key, _plain(element)) for key, element in value)
    if isinstance(value, list):
        return [_plain(element) for element in value]
    if isinstance(value, dict):
        return {key: _plain(element) for key, element in value.items()}
    return value
