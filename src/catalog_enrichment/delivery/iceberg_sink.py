"""The Iceberg sink: applies a step exactly once, as one snapshot of a table.

Rows, position and what made them are one snapshot, and the catalog commits it only if the table's newest snapshot is
still the one that the position was read from. Files with a changed row are written again, the others stay.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catalog_enrichment.delivery import iceberg
from catalog_enrichment.delivery.feed import Position, Step
from catalog_enrichment.delivery.iceberg_files import Rewriting, ordered
from catalog_enrichment.delivery.sink import Applied, moved
from catalog_enrichment.monitoring import logs

if TYPE_CHECKING:
    import pyarrow as pa
    from pyiceberg.catalog import Catalog
    from pyiceberg.table import Table

    from catalog_enrichment.config.operations import DeliveryConfig

_MOST_RUNS = 20
"""Run ids that a snapshot names."""


def where(config: DeliveryConfig) -> str:
    """See :class:`~catalog_enrichment.delivery.sink.SinkKind`."""
    return iceberg.place(config.iceberg) if config.iceberg.uri else ""


@contextmanager
def opened(config: DeliveryConfig) -> Iterator[IcebergSink]:
    """See :class:`~catalog_enrichment.delivery.sink.SinkKind`."""
    with iceberg.connected(config.iceberg) as catalog:
        yield IcebergSink(catalog, config.iceberg.table)


def migrate(config: DeliveryConfig) -> tuple[str | None, str]:
    """Make the table and its namespace, or set its properties again."""
    with iceberg.connected(config.iceberg) as catalog:
        return iceberg.migrate(catalog, config.iceberg.table)


class IcebergSink:
    """The table ``name`` of ``catalog``.

    Its methods raise pyiceberg's errors: use it inside :func:`iceberg.connected`.
    """

    def __init__(self, catalog: Catalog, name: str) -> None:
        self._catalog, self._name = catalog, name

    def check(self) -> None:
        """Raise DataContractError unless the table is this program's and of its revision."""
        iceberg.require_newest(self._table())

    def position(self) -> Position | None:
        """Return the position of what the table holds; None if nothing was delivered yet, or if that is not known."""
        table = self._table()
        found = iceberg.position(table)
        if found is None and table.current_snapshot() is not None:
            logs.say(
                f"warning: another program changed rows of the table {self._name}, or snapshots of deliveries have "
                "expired: all rows are compared"
            )
        return found

    def status(self) -> dict[str, Any]:
        """Return when the position was moved, and how many rows the table has."""
        table = self._table()
        delivered, newest = iceberg.delivered_snapshot(table), table.current_snapshot()
        at = None if delivered is None else datetime.fromtimestamp(delivered.timestamp_ms / 1000, UTC).isoformat()
        rows = "0" if newest is None or newest.summary is None else newest.summary["total-records"]
        return {"moved_at": at, "about_rows": int(rows or 0)}

    def apply(self, step: Step, since: Position | None, batches: Iterable[pa.RecordBatch]) -> Applied:
        """Apply the ``batches`` of ``step`` to a table at the position ``since``, as one snapshot.

        Raises TemporaryFailure, with nothing applied, if another delivery or program has changed the table meanwhile.
        """
        from pyiceberg.exceptions import CommitFailedException, ValidationException

        table = self._table()
        if (found := iceberg.position(table)) != since:
            raise moved(since, found)
        rewriting = Rewriting(table, step)
        try:
            with tempfile.TemporaryDirectory() as folder:
                rewriting.run(ordered(batches, step, Path(folder)))
        except BaseException:
            rewriting.remove_written()
            raise
        try:
            self._commit(table, step, rewriting)
        except (CommitFailedException, ValidationException):  # after any other error it may be there
            rewriting.remove_written()
            raise moved(since, None) from None
        return rewriting.applied

    def _commit(self, table: Table, step: Step, rewriting: Rewriting) -> None:
        summary = {
            iceberg.POSITION: str(step.position),
            "catalog-enrichment.kind": step.kind,
            "catalog-enrichment.runs": ",".join(step.run_ids[:_MOST_RUNS]),
        }
        with (
            table.transaction() as transaction,
            transaction.update_snapshot(snapshot_properties=summary).overwrite() as snapshot,
        ):
            # pyiceberg tries a commit that was refused once more. It looks first whether the snapshot is there all the
            # same, as where a proxy has sent the request twice; else it would commit on top of what is there by then
            snapshot._refresh_for_retry = _refuse
            for file in rewriting.added:
                snapshot.append_data_file(file)
            for file in rewriting.gone:
                snapshot.delete_data_file(file)

    def _table(self) -> Table:
        return self._catalog.load_table(self._name)


def _refuse() -> None:
    from pyiceberg.exceptions import CommitFailedException

    raise CommitFailedException("the table is not as it was when its position was read")
