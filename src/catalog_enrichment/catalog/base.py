"""What the rest of the house asks of a catalog, whatever stores it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame


class Catalog(Protocol):
    """Tables named in :data:`catalog_enrichment.contract.TABLES`, written by runs.

    Every write is one commit in the name of a run. Readers, in any process, see all of it or none (I4). Writing
    again under the same run id changes nothing, in any process and at any later time (I5).
    """

    def read(self, table: str, version: int | None = None) -> DataFrame:
        """The table as it stands, or as it stood at ``version``; empty if there is nothing yet.

        The frame keeps reading that version, whatever is committed later.
        """

    def scan(self, table: str, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """The same rows without Spark, in batches small enough for pictures."""

    def version(self, table: str) -> int:
        """Grows with every commit; -1 before the first."""

    def committed(self, table: str, run_id: str) -> bool:
        """Whether ``run_id`` has written ``table``, were it zero rows."""

    def append(self, table: str, df: DataFrame, run_id: str) -> int:
        """Add the rows of ``df``; returns how many the run wrote, also when an earlier call did it.

        Raises DataContractError, with nothing committed, if ``df`` does not keep the table's contract.
        """

    def append_rows(self, table: str, rows: Sequence[dict[str, Any]], run_id: str) -> int:
        """:meth:`append` for a few rows of the driver's, without Spark. Columns left out are null."""

    def replace(self, table: str, df: DataFrame, run_id: str) -> int:
        """Put the rows of ``df`` in place of all others; otherwise as :meth:`append`.

        Of two runs that replace a table at once the second to commit gets a DataContractError.
        """

    def stage(self, run_id: str, name: str, df: DataFrame) -> DataFrame:
        """A checkpoint: ``df`` computed once, kept until :meth:`unstage`, reused by whoever runs ``run_id`` again."""

    def unstage(self, run_id: str) -> None:
        """Remove the checkpoints of ``run_id``; nothing happens if it has none."""

    def location(self, table: str) -> str:
        """Where the table lies, for people and other tools."""

    def current_values_stale(self) -> bool:
        """Whether products or ledger have moved on since ``current_values`` was derived from them."""

    def refresh_current_values(self, run_id: str) -> bool:
        """Derive ``current_values`` again if it is stale; returns whether it was."""
