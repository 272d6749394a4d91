"""The page over all runs: what each did with a link to its report, coverage over time and by shop, certificates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from catalog_enrichment.catalog import review_tables, runs
from catalog_enrichment.catalog.coverage_groups import COVERAGE_KEY, Groups, from_rows
from catalog_enrichment.precision import claim
from catalog_enrichment.records import RunKind
from catalog_enrichment.report.run_page import TEMPLATES, certificates_of
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
        "shops": _coverage_by_shop(newest),
        "certificates": _certificates(newest),
        "confirmed": review_tables.confirmed(catalog),
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
        **{name: runs.total(row, chunks, name) for name in ("written", "values_written", "retracted")},
        "report": report if (folder / report).is_file() else "",
        "error": (row["error"] or "").splitlines()[0] if row["error"] else "",
    }


# --- coverage from run to run -----------------------------------------------------------------------------------------


def _trends(listed: Sequence[_Listed]) -> list[dict[str, Any]]:
    """Return a line of coverage per attribute with several runs; ``listed``: oldest first."""
    points: dict[str, list[_Point]] = {}
    for run in listed:
        last: dict[str, float] = {}
        for part in runs.writers(*run) or ():
            for name, numbers in runs.decisions(part).items():
                if numbers.get("coverage_after") is not None:
                    last[name] = numbers["coverage_after"]
        for name, coverage in last.items():
            points.setdefault(name, []).append(_Point(run.row["finished_at"], coverage))
    return [{"name": name, **_line(of)} for name, of in sorted(points.items()) if len(of) > 1]


class _Point(NamedTuple):
    at: datetime
    coverage: float


def _line(points: Sequence[_Point]) -> dict[str, Any]:
    """Return a line in SVG units, from 0% at the bottom to 100% at the top, the runs at equal distances."""
    step = _WIDTH / max(len(points) - 1, 1)
    line = " ".join(f"{place * step:.1f},{_HEIGHT * (1 - of.coverage):.1f}" for place, of in enumerate(points))
    first, last = points[0], points[-1]
    return {
        "line": line,
        "first": first.coverage,
        "last": last.coverage,
        "since": first.at,
        "until": last.at,
        "points": len(points),
    }


def _coverage_by_shop(listed: Sequence[_Listed]) -> dict[str, Any]:
    """Return the products and the coverage of each shop after the newest run, with a line over the runs before; {}
    where no run counted shops. The shops are the largest; the others are one row (`coverage_groups`)."""
    history: list[tuple[datetime, Groups]] = []
    for run in listed:
        counted = [
            found[COVERAGE_KEY] for part in runs.writers(*run) or () if COVERAGE_KEY in (found := runs.attributes(part))
        ]
        if counted:
            history.append((run.row["finished_at"], from_rows(counted[-1]["groups"])))
    newest = history[-1][1] if history else {}
    names = sorted({name for by, _, name, _ in newest if by == "shop"})
    sizes: dict[str | None, int] = {}
    for (by, shop, _, has_value), products in newest.items():
        if by == "shop" and not has_value:
            sizes[shop] = max(sizes.get(shop, 0), products)
    order = sorted(sizes, key=lambda shop: (shop is None, -sizes[shop], shop or ""))
    rows = [
        {"shop": shop, "products": sizes[shop], "cells": [_cell(history, shop, name) for name in names]}
        for shop in order
    ]
    return {"attributes": names, "rows": rows} if rows else {}


def _cell(history: Sequence[tuple[datetime, Groups]], shop: str | None, attribute: str) -> dict[str, Any] | None:
    """Return the coverage of a shop, as :func:`_line`; None where the attribute applies to none of its products."""
    points = []
    for at, groups in history:
        if products := groups.get(("shop", shop, attribute, False), 0):
            points.append(_Point(at, groups.get(("shop", shop, attribute, True), 0) / products))
    applies = ("shop", shop, attribute, False) in history[-1][1]
    return _line(points) if applies and points else None


# --- certificates -----------------------------------------------------------------------------------------------------


def _certificates(listed: Sequence[_Listed]) -> list[dict[str, Any]]:
    """Return the certificates of the version of the newest run that let values be written."""
    for run in reversed(listed):
        for part in reversed(runs.writers(*run) or ()):
            if found := certificates_of(runs.attributes(part)):
                return [
                    {"certificate": issued, "products": claim.PATHS[issued.modality], "version": part["model_version"]}
                    for issued in found
                    if issued.threshold is not None
                ]
    return []
