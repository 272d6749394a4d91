"""The runs that rename values (kind `rename`), and their rollback (:mod:`value_names` has what an event means).

The first job that changes the catalog after the dictionary was edited appends an event per name, as a run of its own.
A rollback appends events too, which name the run that they undo; what was rolled back is not written again while the
dictionary asks for it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from catalog_enrichment.catalog import runs, value_names
from catalog_enrichment.catalog.runs import RunRecord
from catalog_enrichment.catalog.value_names import TABLE, Event, Followed
from catalog_enrichment.records import RunKind, make_run_id, strictly_later

if TYPE_CHECKING:
    from catalog_enrichment.catalog.lake import Catalog
    from catalog_enrichment.monitoring.stages import Say


def events(catalog: Catalog) -> list[dict[str, Any]]:
    """Return the rows of the table, without Spark."""
    if catalog.version(TABLE) < 0:
        return []
    return [row for batch in catalog.scan(TABLE) for row in batch.to_pylist()]


def about(catalog: Catalog, attribute: str) -> list[dict[str, Any]]:
    """Return the rows in force about an attribute, oldest first."""
    rows = [row for row in events(catalog) if row["attribute"] == attribute]
    undone = value_names.undone_runs(rows)
    return [row for row in rows if row["undoes"] is None and (row["run_id"], attribute) not in undone]


def write_pending(catalog: Catalog, followed: Followed, say: Say) -> None:
    """Write the events that no run has written yet, as a run, and derive what readers see again.

    Only under the write lock. A run that was killed before its row in `runs` gets it now.
    """
    for warning in followed.warnings():
        say(f"warning: {warning}")
    rows = events(catalog)
    recorded = runs.succeeded_ids(catalog) if rows else set()
    for run_id in sorted({row["run_id"] for row in rows if row["undoes"] is None} - recorded):
        _record(catalog, run_id, [value_names.event_of(row) for row in rows if row["run_id"] == run_id], {})
    if followed.pending and catalog.version("products") >= 0:
        run_id, seen = make_run_id(RunKind.RENAME, followed.pending, len(rows)), _seen(catalog, followed.pending)
        _append(catalog, run_id, [event._asdict() for event in followed.pending])
        _record(catalog, run_id, followed.pending, seen)
        for event in followed.pending:
            say(
                f"{event.attribute}: the dictionary says {value_names.said(event)}; readers see another name at "
                f"{seen[event]:,} products (run {run_id})"
            )


def _seen(catalog: Catalog, pending: Sequence[Event]) -> Counter[Event]:
    """Return how many products each event changes what readers see of."""
    import pyarrow as pa
    import pyarrow.compute as pc

    attributes = sorted({event.attribute for event in pending})
    seen: Counter[Event] = Counter()
    for batch in catalog.scan("current_values", ["attribute", "values"]):
        rows = batch.filter(pc.is_in(batch["attribute"], pa.array(attributes)))
        for row in rows.to_pylist():
            seen.update(
                event for event in pending if event.attribute == row["attribute"] and event.was in row["values"]
            )
    return seen


def _record(catalog: Catalog, run_id: str, written: Sequence[Event], seen: Mapping[Event, int]) -> None:
    """Derive what readers see, and write the row of the run. ``seen``: products by event; {} where it is not known."""
    record = RunRecord(kind=RunKind.RENAME, run_id=run_id)
    record.window = {"renames": [event._asdict() for event in written]}
    record.count(events=dict(Counter(event.attribute for event in written)))
    products: Counter[str] = Counter()
    for event, number in seen.items():
        products[event.attribute] += number
    record.count(products=dict(products))
    with runs.recorded(catalog, record):
        catalog.refresh_current_values(run_id)
        runs.write(catalog, record)


def undo(
    catalog: Catalog, run_id: str, attribute: str | None, rollback_id: str, dry_run: bool = False
) -> dict[str, int]:
    """Take back the renames of ``run_id`` (of ``attribute``, if given), or what a rollback of renames took back.

    Returns attribute -> events; {} if nothing of it is in force. Called again under the same id, it changes nothing.
    """
    rows = events(catalog)
    undone = value_names.undone_runs([row for row in rows if row["run_id"] != rollback_id])
    mine = [row for row in rows if row["run_id"] == run_id and attribute in (None, row["attribute"])]
    mine = [row for row in mine if (run_id, row["attribute"]) not in undone]
    if mine and not dry_run:
        _append(catalog, rollback_id, mine, undoes=run_id)
    return dict(Counter(row["attribute"] for row in mine))


def _append(catalog: Catalog, run_id: str, renames: Sequence[Mapping[str, Any]], undoes: str | None = None) -> None:
    newest = max((row["renamed_at"] for row in events(catalog)), default=None)
    facts = {"run_id": run_id, "undoes": undoes, "renamed_at": strictly_later(datetime.now(UTC), newest)}
    rows = [{name: row[name] for name in Event._fields} | facts for row in renames]
    catalog.append_rows(TABLE, rows, run_id)
    catalog.names = value_names.in_force(events(catalog))
