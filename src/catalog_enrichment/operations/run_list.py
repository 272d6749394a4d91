"""Lists the newest runs: what each did, or why it was refused or failed. Reads the table `runs` only, without Spark."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from catalog_enrichment.catalog import runs
from catalog_enrichment.errors import ConfigError
from catalog_enrichment.records import RunKind
from catalog_enrichment.report import run_numbers
from catalog_enrichment.report.tables import Column, aligned_table, count

if TYPE_CHECKING:
    from catalog_enrichment.catalog.base import Catalog

Row = Mapping[str, Any]

NOTE_CHARACTERS = 70
"""Length to which the table's last column is cut."""

_AS_THEY_ARE = ("run_id", "parent_run_id", "kind", "status", "model_name", "model_version", "error")
_READ = (*_AS_THEY_ARE, "attempt", "started_at", "finished_at", "counts", "window")


def list_runs(
    catalog: Catalog, last: int, kinds: Collection[str] = (), statuses: Collection[str] = ()
) -> list[dict[str, Any]]:
    """The ``last`` attempts of runs, newest first, of these ``kinds`` and ``statuses`` (empty: all), as plain data.

    An attempt that is going on or was killed has no row. ``seconds`` is the time from start to end. ``written`` counts
    products with a written value, per attribute and added up, ``retracted`` values of earlier runs; a backfill has the
    sums of its chunks. Both are None where the attempt did not succeed or the kind of run writes no values itself.
    ``note``: what else it did, in words. Raises ConfigError where there is no table `runs`.
    """
    if catalog.version(runs.TABLE) < 0:
        raise ConfigError(
            f"there are no runs in {catalog.location(runs.TABLE)}: no job has run on this catalog yet, or catalog.path "
            "is another one's"
        )
    newest_first = runs.rows(catalog, _READ)[::-1]
    chunks = run_numbers.by_backfill(newest_first)
    wanted = {"kind": kinds, "status": statuses}
    asked = [row for row in newest_first if all(not names or row[key] in names for key, names in wanted.items())]
    listed = asked[:last]
    runs.add_attributes(catalog, [one for row in listed for one in (row, *chunks.get(row["run_id"], ()))])
    return [_told(row, chunks.get(row["run_id"], ())) for row in listed]


def as_table(told: Iterable[Row]) -> str:
    """What :func:`list_runs` returns as text for a terminal."""
    return aligned_table(list(told), _COLUMNS)


def _told(row: Row, chunks: Sequence[Row]) -> dict[str, Any]:
    """One attempt; ``chunks``: the succeeded ones, if it is a backfill."""
    counts = dict(row["counts"] or ())
    return {
        **{name: row[name] for name in _AS_THEY_ARE},
        "attempt": row["attempt"] or 1,
        "started_at": row["started_at"].isoformat(),
        "finished_at": row["finished_at"].isoformat(),
        "seconds": max(0.0, round((row["finished_at"] - row["started_at"]).total_seconds(), 1)),
        "products": counts.get("products"),
        **{name: run_numbers.total(row, chunks, name) for name in ("written", "retracted")},
        "note": "" if row["error"] else _note(row, counts, chunks),
    }


def _note(row: Row, counts: Mapping[str, int], chunks: Sequence[Row]) -> str:
    def total(name: str) -> int:
        return sum(by_reason(name).values())

    def by_reason(name: str) -> dict[str, int]:
        return {key.removeprefix(f"{name}."): n for key, n in sorted(counts.items()) if key.startswith(f"{name}.")}

    match row["kind"]:
        case RunKind.IMPORT.value:
            numbers = {name: counts.get(name, 0) for name in ("new", "changed")} | {"quarantined": total("quarantined")}
            return ", ".join(f"{number:,} {name}" for name, number in numbers.items())
        case RunKind.ROLLBACK.value:
            window = json.loads(row["window"] or "{}")
            of = f"{window['attribute']} of " if window.get("attribute") else ""
            undone = row["parent_run_id"] or f"{len(window['run_ids']):,} runs of version {window['model_version']}"
            return f"undoes {of}{undone}: {total('events'):,} events"
        case RunKind.BACKFILL.value:
            return f"{len(chunks):,} chunks"
        case RunKind.ENRICH.value if row["parent_run_id"]:
            return f"chunk of {row['parent_run_id']}"
        case RunKind.MAINTAIN.value:
            return f"{counts.get('rows_removed', 0):,} rows and {counts.get('files_deleted', 0):,} files removed"
    return ", ".join(f"{name}: {number:,} events" for name, number in by_reason("events").items())


def _name(told: Row) -> str:
    """The run id, from the second attempt on with its number."""
    return f"{told['run_id']} #{told['attempt']}" if told["attempt"] > 1 else str(told["run_id"])


def _duration(told: Row) -> str:
    minutes, seconds = divmod(round(told["seconds"]), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"


def _short_note(told: Row) -> str:
    text: str = told["error"] or told["note"]
    first, *_ = text.splitlines() or [""]
    return first if len(first) <= NOTE_CHARACTERS else first[: NOTE_CHARACTERS - 1] + "…"


_COLUMNS = (
    Column("run", _name, "<"),
    Column("kind", lambda told: str(told["kind"]), "<"),
    Column("status", lambda told: str(told["status"]), "<"),
    Column("started (UTC)", lambda told: told["started_at"][:16].replace("T", " "), "<"),
    Column("h:mm:ss", _duration),
    Column("model", lambda told: told["model_version"] or "-"),
    Column("products", count("products")),
    Column("written", count("written")),
    Column("retracted", count("retracted")),
    Column("note", _short_note, "<"),
)
