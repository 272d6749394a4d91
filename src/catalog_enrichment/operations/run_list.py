"""Lists the newest runs: what each did, or why it was refused or failed. Reads only the table `runs`, without Spark."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from catalog_enrichment.catalog import runs
from catalog_enrichment.errors import ConfigError
from catalog_enrichment.monitoring.text_tables import Column, aligned_table, count, text
from catalog_enrichment.records import RunKind

if TYPE_CHECKING:
    from catalog_enrichment.catalog.lake import Catalog

Row = Mapping[str, Any]

NOTE_CHARACTERS = 70
"""Length to which the table's last column is cut."""

_AS_THEY_ARE = ("run_id", "parent_run_id", "kind", "status", "model_name", "model_version", "error", "attempt")
_READ = (*_AS_THEY_ARE, "started_at", "finished_at", "counts", "window")


def list_runs(
    catalog: Catalog, last: int, kinds: Collection[str] = (), statuses: Collection[str] = ()
) -> list[dict[str, Any]]:
    """Return the ``last`` attempts, newest first, of these ``kinds`` and ``statuses`` (empty: all), as plain data.

    An attempt that is going on or was killed has no row. ``seconds`` is the time from start to end. ``written`` counts
    products with a written value, added up over attributes, and ``retracted`` values of earlier runs; a backfill has
    the sums of its chunks. Both are None where the attempt did not succeed or the kind of run writes no values.
    ``note``: what else it did, in words. Raises ConfigError where there is no table `runs`.
    """
    if catalog.version(runs.TABLE) < 0:
        raise ConfigError(
            f"there are no runs in {catalog.location(runs.TABLE)}: no job has run on this catalog yet, or catalog.path "
            "is that of another catalog"
        )
    newest_first = runs.rows(catalog, _READ)[::-1]
    chunks = runs.by_backfill(newest_first)
    asked = [
        row
        for row in newest_first
        if (not kinds or row["kind"] in kinds) and (not statuses or row["status"] in statuses)
    ]
    listed = [(row, chunks.get(row["run_id"], ())) for row in asked[:last]]
    runs.add_attributes(catalog, [part for row, of_row in listed for part in (row, *of_row)])
    return [_summary(row, of_row) for row, of_row in listed]


def as_table(attempts: Sequence[Row]) -> str:
    """Return the attempts of :func:`list_runs` as text for a terminal."""
    return aligned_table(attempts, _COLUMNS)


def _summary(row: Row, chunks: Sequence[Row]) -> dict[str, Any]:
    """Return an attempt as plain data; ``chunks``: the succeeded chunks of a backfill."""
    counts = dict(row["counts"] or ())
    return {
        **{name: row[name] for name in _AS_THEY_ARE},
        "started_at": row["started_at"].isoformat(),
        "finished_at": row["finished_at"].isoformat(),
        "seconds": max(0.0, round((row["finished_at"] - row["started_at"]).total_seconds(), 1)),
        "products": counts.get("products"),
        **{name: runs.total(row, chunks, name) for name in ("written", "retracted")},
        "note": "" if row["error"] else _note(row, counts, chunks),
    }


def _note(row: Row, counts: Mapping[str, int], chunks: Sequence[Row]) -> str:
    def by_reason(name: str) -> dict[str, int]:
        return {key.removeprefix(f"{name}."): n for key, n in sorted(counts.items()) if key.startswith(f"{name}.")}

    def total(name: str) -> int:
        return sum(by_reason(name).values())

    match row["kind"]:
        case RunKind.IMPORT.value:
            numbers = {name: counts.get(name, 0) for name in ("new", "changed")} | {"quarantined": total("quarantined")}
            # only where there are some: most sources are not complete, and delete no product
            numbers |= {name: counts[name] for name in ("deleted", "gone", "missed", "returned") if counts.get(name)}
            return ", ".join(f"{number:,} {name}" for name, number in numbers.items())
        case RunKind.IMPORT_PROPOSALS.value:
            return ", ".join(f"{counts.get(name, 0):,} {name}" for name in ("new", "replaced", "unchanged"))
        case RunKind.DELETE.value:
            return f"{counts.get('products', 0):,} products deleted, {counts.get('unknown', 0):,} ids unknown"
        case RunKind.ROLLBACK.value:
            window = json.loads(row["window"] or "{}")
            of = f"{window['attribute']} of " if window.get("attribute") else ""
            undone = row["parent_run_id"] or f"{len(window['run_ids']):,} runs of version {window['model_version']}"
            return f"undoes {of}{undone}: {total('events'):,} events"
        case RunKind.AUDIT.value:
            return ", ".join(f"{counts[name]:,} {word}" for name, word in _OF_AUDIT.items() if counts.get(name))
        case RunKind.SAMPLE.value:
            return f"{total('drawn'):,} drawn"
        case RunKind.BACKFILL.value:
            return f"{len(chunks):,} chunks"
        case RunKind.ENRICH.value if row["parent_run_id"]:
            return f"chunk of {row['parent_run_id']}"
        case RunKind.MAINTAIN.value:
            return f"{counts.get('rows_removed', 0):,} rows and {counts.get('files_deleted', 0):,} files removed"
    return ", ".join(f"{name}: {number:,} events" for name, number in by_reason("events").items())


_OF_AUDIT = {
    "verdicts": "verdicts",
    "wrong": "wrong",
    "retracted": "retracted",
    "reinstated": "reinstated",
    "human_sets": "given by people",
    "confirmed": "confirmed",
    "paused": "paused",
}
"""Counts of a run of the kind `audit` -> their words in a note."""


def _name(attempt: Row) -> str:
    """Return the run id, with the number of the attempt from the second attempt on."""
    number = f" #{attempt['attempt']}" if attempt["attempt"] > 1 else ""
    return f"{attempt['run_id']}{number}"


def _duration(attempt: Row) -> str:
    minutes, seconds = divmod(round(attempt["seconds"]), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"


def _short_note(attempt: Row) -> str:
    note: str = attempt["error"] or attempt["note"]
    first, *_ = note.splitlines() or [""]
    return first if len(first) <= NOTE_CHARACTERS else first[: NOTE_CHARACTERS - 1] + "…"


_COLUMNS = (
    Column("run", _name, "<"),
    Column("kind", text("kind"), "<"),
    Column("status", text("status"), "<"),
    Column("started (UTC)", lambda attempt: attempt["started_at"][:16].replace("T", " "), "<"),
    Column("h:mm:ss", _duration),
    Column("model", lambda attempt: attempt["model_version"] or "-"),
    Column("products", count("products")),
    Column("written", count("written")),
    Column("retracted", count("retracted")),
    Column("note", _short_note, "<"),
)
