"""The report of a backfill: its chunks added up, from the rows of `runs` alone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from catalog_enrichment.catalog import coverage_groups
from catalog_enrichment.monitoring.stages import add_seconds
from catalog_enrichment.records import add_counts
from catalog_enrichment.report import coverage, withheld
from catalog_enrichment.validation import by_shop

_SUMMED = ("written", "suggested", "abstained", "retracted")


def summed(backfill: Mapping[str, Any], chunks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The row of a backfill with the counts, attributes and seconds of its chunks.

    ``chunks``: their rows in `runs`, in the order in which they finished; coverage is that before the first one and
    after the last one.
    """
    attributes = [json.loads(chunk["attributes"] or "{}") for chunk in chunks]
    return {
        **backfill,
        "counts": add_counts(*(dict(chunk["counts"] or {}) for chunk in chunks)),
        "attributes": json.dumps(_attributes(attributes)),
        "seconds": add_seconds(*(dict(chunk["seconds"] or {}) for chunk in chunks)),
        "stages": [],
    }


def _attributes(chunks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    certificates = {one["certificate_id"]: one for chunk in chunks for one in chunk.get("certificates", ())}
    last = chunks[-1] if chunks else {}
    return {
        "decisions": _decisions([chunk.get("decisions", {}) for chunk in chunks]),
        "certificates": list(certificates.values()),
        "waiting": add_counts(*(chunk.get("waiting", {}) for chunk in chunks)),
        coverage_groups.COVERAGE_KEY: last.get(coverage_groups.COVERAGE_KEY, {}),
        coverage_groups.CHANGE_KEY: coverage_groups.to_rows(coverage.changes(chunks)),
        by_shop.KEY: by_shop.merged([chunk[by_shop.KEY] for chunk in chunks if by_shop.KEY in chunk]),
        **withheld.added(chunks),
    }


def _decisions(chunks: Sequence[Mapping[str, Mapping[str, Any]]]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for name in sorted({name for chunk in chunks for name in chunk}):
        rows = [chunk[name] for chunk in chunks if name in chunk]
        found[name] = {
            **{kind: sum(row.get(kind) or 0 for row in rows) for kind in _SUMMED},
            "merchant": rows[-1].get("merchant"),
            "coverage_before": rows[0].get("coverage_before"),
            "coverage_after": rows[-1].get("coverage_after"),
        }
    return found


def listed(chunks: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What the table of chunks shows: run id, finished, products, predicted, written, retracted and seconds of each."""
    rows = []
    for chunk in chunks:
        decisions = json.loads(chunk["attributes"] or "{}").get("decisions", {}).values()
        counts = dict(chunk["counts"] or {})
        rows.append(
            {
                **{name: chunk[name] for name in ("run_id", "finished_at")},
                **{name: counts.get(name, 0) for name in ("products", "predicted")},
                **{name: sum(one.get(name) or 0 for one in decisions) for name in ("written", "retracted")},
                "seconds": sum(dict(chunk["seconds"] or {}).values()),
            }
        )
    return rows
