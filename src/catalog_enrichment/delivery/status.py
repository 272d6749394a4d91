"""Lists how far each consumer is: its position, and the commits and runs that it has not had."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from catalog_enrichment.config.operations import DeliveryConfig
from catalog_enrichment.delivery import deliver, feed
from catalog_enrichment.delivery.differences import TABLE
from catalog_enrichment.delivery.export_changes import PositionFiles
from catalog_enrichment.delivery.feed import Position
from catalog_enrichment.errors import DataContractError, TemporaryFailure
from catalog_enrichment.monitoring.text_tables import Column, aligned_table

if TYPE_CHECKING:
    from catalog_enrichment.catalog.lake import Catalog


def delivery_status(catalog: Catalog, config: DeliveryConfig, positions: PositionFiles) -> list[dict[str, Any]]:
    """Return a row per consumer: the sinks that `[delivery]` names a place of, and every consumer of export_changes.

    ``lag_commits`` and ``lag_runs`` count the versions and runs after the position; they are None where the next
    delivery is a snapshot, and ``snapshot`` says why. ``behind_since`` is the time of the first version after it. A
    sink that does not answer or has not this program's tables has ``problem`` instead, so that the others are listed.
    Raises ConfigError where `[delivery]` or the role's rights are wrong.
    """
    rows = []
    for name, kind in deliver.KINDS.items():
        if where := kind.where(config):
            row: dict[str, Any] = {"consumer": name, "where": where}
            try:
                with deliver.open_sink(config, name) as sink:
                    position, known = sink.position(), sink.status()
            except (DataContractError, TemporaryFailure) as problem:
                rows.append(row | {"problem": str(problem)})
            else:
                rows.append(row | known | _lag(catalog, position))
    for moved in positions.all():
        lag = _lag(catalog, Position.parse(moved["position"]))
        where = str(positions.folder)
        rows.append({"consumer": moved["consumer"], "where": where, "moved_at": moved.get("moved_at"), **lag})
    return rows


def as_table(rows: list[dict[str, Any]]) -> str:
    """Return the rows of :func:`delivery_status` as text for a terminal."""
    return aligned_table(rows, _COLUMNS) if rows else "no consumer has had anything yet, and [delivery] names no sink"


def _lag(catalog: Catalog, position: Position | None) -> dict[str, Any]:
    found = feed.steps(catalog, position, 2**31)
    snapshot = found[0].snapshot if found else ""
    runs = list(dict.fromkeys(run_id for step in found for run_id in step.run_ids))
    waiting = [] if snapshot or position is None else catalog.tables.commits(TABLE, position.version)
    since = waiting[0].committed_at if waiting else None
    return {
        "position": str(position) if position else None,
        "newest": str(feed.newest_position(catalog)),
        "lag_commits": None if snapshot else len(found),
        "lag_runs": None if snapshot else len(runs),
        "waiting_runs": [] if snapshot else runs,
        "behind_since": since and since.isoformat(),
        "behind_seconds": since and max(0, round((datetime.now(UTC) - since).total_seconds())),
        "snapshot": snapshot or None,
    }


def _version(position: str | None) -> str:
    return (position or "-").rpartition(":")[2]


def _number(name: str) -> Column:
    def shown(row: Mapping[str, Any]) -> str:
        if "problem" in row:
            return "-"
        return "all" if row[name] is None else f"{row[name]:,}"

    return Column(name.replace("_", " "), shown)


def _note(row: Mapping[str, Any]) -> str:
    if "problem" in row:
        return str(row["problem"])
    return f"next: a snapshot, {row['snapshot']}" if row["snapshot"] else ""


_COLUMNS = (
    Column("consumer", lambda row: str(row["consumer"]), "<"),
    Column("version", lambda row: _version(row.get("position"))),
    Column("newest", lambda row: _version(row.get("newest"))),
    _number("lag_commits"),
    _number("lag_runs"),
    Column("moved (UTC)", lambda row: (row.get("moved_at") or "-")[:16].replace("T", " "), "<"),
    Column("note", _note, "<"),
)
