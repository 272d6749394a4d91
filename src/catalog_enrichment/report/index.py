"""The page over all runs: what each did, coverage from run to run, and a link to each report."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catalog_enrichment.catalog import runs
from catalog_enrichment.records import RunKind, RunStatus
from catalog_enrichment.report import backfill
from catalog_enrichment.report.html import environment, write_html

if TYPE_CHECKING:
    from catalog_enrichment.catalog.base import Catalog

INDEX = "index.html"
SHOWN = 200
"""Newest runs that are listed."""

_COLUMNS = (
    *("run_id", "parent_run_id", "kind", "status", "model_version", "counts", "attributes", "error"),
    *("started_at", "finished_at"),
)
_WIDTH, _HEIGHT = 240.0, 40.0
"""Size of a line of coverage in SVG units."""


def write_index(catalog: Catalog, folder: Path) -> Path:
    """Write ``folder / INDEX`` from the table `runs`, without Spark, and return its path."""
    rows = runs.rows(catalog, _COLUMNS)
    newest = rows[-SHOWN:]
    values = {
        "listed": [_run(row, folder, _of_chunks(row, newest)) for row in reversed(newest)],
        "older": len(rows) - len(newest),
        "trends": _trends(newest),
        "width": _WIDTH,
        "height": _HEIGHT,
    }
    return write_html(folder / INDEX, environment().get_template("index.html.j2").render(values))


def _of_chunks(row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The run itself; of a backfill its chunks among ``rows``, since its own row has no decisions."""
    if row["kind"] != RunKind.BACKFILL:
        return [row]
    return [one for one in rows if backfill.is_chunk(one, row["run_id"])]


def _run(row: Mapping[str, Any], folder: Path, parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    counts, decisions = dict(row["counts"] or {}), [one for part in parts for one in _decisions(part).values()]
    report = f"{row['run_id']}.html"
    return {
        **{name: row[name] for name in ("run_id", "kind", "status", "model_version", "finished_at")},
        "good": row["status"] == RunStatus.SUCCEEDED,
        "minutes": (row["finished_at"] - row["started_at"]).total_seconds() / 60,
        "products": counts.get("products"),
        "predicted": counts.get("predicted"),
        "quarantined": sum(
            n for part in parts for name, n in dict(part["counts"] or {}).items() if name.startswith("quarantined.")
        ),
        "chunks": len(parts) if row["kind"] == RunKind.BACKFILL else 0,
        "chunk": row["kind"] == RunKind.ENRICH and bool(row["parent_run_id"]),
        **{name: sum(one.get(name) or 0 for one in decisions) for name in ("written", "retracted")},
        "report": report if (folder / report).is_file() else "",
        "error": (row["error"] or "").splitlines()[0] if row["error"] else "",
    }


def _trends(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A line of coverage per attribute; ``rows``: oldest first. Attributes of a single run have none."""
    points: dict[str, list[float]] = {}
    for row in rows:
        for name, numbers in _decisions(row).items():
            if row["status"] == RunStatus.SUCCEEDED and numbers.get("coverage_after") is not None:
                points.setdefault(name, []).append(numbers["coverage_after"])
    return [_trend(name, values) for name, values in sorted(points.items()) if len(values) > 1]


def _trend(name: str, values: Sequence[float]) -> dict[str, Any]:
    step = _WIDTH / (len(values) - 1)
    line = " ".join(f"{number * step:.1f},{_HEIGHT * (1 - value):.1f}" for number, value in enumerate(values))
    return {"name": name, "line": line, "first": values[0], "last": values[-1], "points": len(values)}


def _decisions(row: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    content = json.loads(row["attributes"]) if row["attributes"] else {}
    decisions: dict[str, dict[str, Any]] = content.get("decisions", {}) if isinstance(content, dict) else {}
    return decisions
