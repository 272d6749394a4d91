"""The page over all runs: what each did, coverage from run to run, and a link to each report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from catalog_enrichment.catalog import runs
from catalog_enrichment.records import RunKind
from catalog_enrichment.report.run_page import TEMPLATES
from catalog_enrichment.web import pages

if TYPE_CHECKING:
    from catalog_enrichment.catalog.lake import Catalog

INDEX = "index.html"
COMPARISON = "comparison/comparison.html"
"""Where `compare_models` writes its page, in the same folder."""
SHOWN = 200
"""Newest runs that are listed; a backfill counts once, with its chunks."""

_COLUMNS = (
    *("run_id", "parent_run_id", "kind", "status", "model_version", "counts", "error"),
    *("started_at", "finished_at"),
)
_WIDTH, _HEIGHT = 240.0, 40.0
"""Size of a line of coverage in SVG units."""


class _Listed(NamedTuple):
    row: dict[str, Any]
    chunks: Sequence[dict[str, Any]]
    """The chunks of a backfill that succeeded, oldest first."""

    @property
    def parts(self) -> Sequence[Mapping[str, Any]]:
        """The rows with the run's numbers: a backfill's own row has none."""
        return self.chunks if self.row["kind"] == RunKind.BACKFILL else [self.row]


def write_index(catalog: Catalog, folder: Path) -> Path:
    """Write ``folder / INDEX`` from the table `runs`, without Spark, and return its path.

    The chunks of a backfill that succeeded are in its row; the backfill's own page has a row for each.
    """
    listed = _listed(runs.rows(catalog, _COLUMNS))
    newest = listed[-SHOWN:]
    runs.add_attributes(catalog, [row for run in newest for row in (run.row, *run.chunks)])
    values = {
        "listed": [_run(run, folder) for run in reversed(newest)],
        "older": len(listed) - len(newest),
        "trends": _trends(newest),
        "trainings": _trainings(folder),
        "comparison": COMPARISON if (folder / COMPARISON).is_file() else "",
        "width": _WIDTH,
        "height": _HEIGHT,
    }
    return pages.write(folder / INDEX, pages.render(TEMPLATES, "index.html.j2", values))


def _listed(rows: Sequence[dict[str, Any]]) -> list[_Listed]:
    chunks = runs.by_backfill(rows)
    backfills = {row["run_id"] for row in rows if row["kind"] == RunKind.BACKFILL and runs.has_succeeded(row)}
    found = []
    for row in rows:
        if not (runs.is_chunk(row) and row["parent_run_id"] in backfills):
            own = row["kind"] == RunKind.BACKFILL and runs.has_succeeded(row)
            found.append(_Listed(row, chunks.get(row["run_id"], []) if own else []))
    return found


def _trainings(folder: Path) -> list[tuple[str, str]]:
    """Return version and file name of every training's page, the newest version first."""
    versions = [file.stem.removeprefix("training-") for file in folder.glob("training-*.html")]
    newest_first = sorted(versions, key=lambda version: (len(version), version), reverse=True)
    return [(version, f"training-{version}.html") for version in newest_first]


def _run(listed: _Listed, folder: Path) -> dict[str, Any]:
    row, chunks = listed
    counts = dict(row["counts"] or {})
    report = f"{row['run_id']}.html"
    return {
        **{name: row[name] for name in ("run_id", "kind", "status", "model_version", "finished_at")},
        "good": runs.has_succeeded(row),
        "minutes": (row["finished_at"] - row["started_at"]).total_seconds() / 60,
        "products": counts.get("products"),
        "predicted": counts.get("predicted"),
        "quarantined": sum(
            number
            for part in listed.parts
            for name, number in dict(part["counts"] or {}).items()
            if name.startswith("quarantined.")
        ),
        "chunks": len(chunks),
        "chunk": row["kind"] == RunKind.ENRICH and bool(row["parent_run_id"]),
        **{name: runs.total(row, chunks, name) for name in ("written", "retracted")},
        "report": report if (folder / report).is_file() else "",
        "error": (row["error"] or "").splitlines()[0] if row["error"] else "",
    }


def _trends(listed: Sequence[_Listed]) -> list[dict[str, Any]]:
    """Return a line of coverage per attribute with several runs; ``listed``: oldest first."""
    points: dict[str, list[float]] = {}
    for run in listed:
        last: dict[str, float] = {}
        for part in runs.writers(*run) or ():
            for name, numbers in runs.decisions(part).items():
                if numbers.get("coverage_after") is not None:
                    last[name] = numbers["coverage_after"]
        for name, coverage in last.items():
            points.setdefault(name, []).append(coverage)
    return [_trend(name, values) for name, values in sorted(points.items()) if len(values) > 1]


def _trend(name: str, values: Sequence[float]) -> dict[str, Any]:
    step = _WIDTH / (len(values) - 1)
    line = " ".join(f"{number * step:.1f},{_HEIGHT * (1 - value):.1f}" for number, value in enumerate(values))
    return {"name": name, "line": line, "first": values[0], "last": values[-1], "points": len(values)}
