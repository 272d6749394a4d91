"""The interface of a catalog: tables, checkpoints and what readers see, independent of the storage."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame

    from catalog_enrichment.catalog.table_versions import Commit


class Catalog(Protocol):
    """Tables named in :data:`catalog_enrichment.contract.TABLES`, written by runs.

    Every write is one commit, labelled with a run id. Readers, in any process, see all of it or none (I4). Writing
    again under the same run id changes nothing, in any process and at any later time (I5).
    """

    def read(self, table: str, version: int | None = None, columns: Sequence[str] | None = None) -> DataFrame:
        """The newest version of the table, or ``version``; empty if the table does not exist yet.

        ``columns``: only these. From an object store Spark cannot leave out the others by itself.
        The frame keeps reading that version, whatever is committed later.
        """

    def scan(
        self, table: str, columns: Sequence[str] | None = None, version: int | None = None
    ) -> Iterator[pa.RecordBatch]:
        """The same rows without Spark, in batches small enough for pictures."""

    def version(self, table: str) -> int:
        """Grows with every commit; -1 before the first."""

    def written_versions(self, table: str, count: int = 1) -> list[int]:
        """The newest ``count`` versions that a run or a person made, newest first; -1 and below before the first one.

        Left out are those that change no row and only keep an earlier holder of the write lease away.
        """

    def readable(self, table: str, version: int) -> bool:
        """Whether this version, or -1, can still be read: later upkeep may have deleted its files."""

    def identity(self, table: str) -> str | None:
        """An id that only this table has: one that was removed and made again has another. None: it does not exist."""

    def commits(self, table: str, after: int) -> list[Commit]:
        """The commits that made the versions later than ``after``, oldest first."""

    def scan_differing(
        self, table: str, version: int, other: int, columns: Sequence[str] | None = None
    ) -> Iterator[pa.RecordBatch]:
        """The rows of ``version`` but for files that the version ``other`` has too; -1 has no rows. No Spark.

        Some of the rows may be in ``other`` as well, in another file. Raises FileNotFoundError where upkeep has deleted
        a file.
        """

    def committed(self, table: str, run_id: str) -> bool:
        """Whether ``run_id`` has committed to ``table``, also if it was zero rows."""

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

    def replace_products(self, table: str, df: DataFrame, changed: DataFrame, run_id: str) -> int:
        """Put the rows of ``df`` in place of those about the products whose ``product_id`` is in ``changed``; otherwise
        as :meth:`replace`. The rows of all other products stay; returns how many rows the table has."""

    def checkpoint(self, run_id: str, name: str, df: DataFrame) -> DataFrame:
        """``df`` computed once and stored until :meth:`drop_checkpoints`; ``run_id`` run again reads what is stored."""

    def has_checkpoint(self, run_id: str, name: str) -> bool:
        """Whether :meth:`checkpoint` of this name would read what is stored, if its columns are the same."""

    def remember(self, run_id: str, name: str, content: dict[str, Any]) -> dict[str, Any]:
        """``content``, plain data; of ``run_id`` run again what it was the first time. Kept as a checkpoint is."""

    def drop_checkpoints(self, run_id: str) -> None:
        """Remove the checkpoints of ``run_id``; nothing happens if it has none."""

    def dropping_checkpoints(self, run_id: str, keep: Sequence[str] = ()) -> AbstractContextManager[None]:
        """A block after which, also after an error, the checkpoints of ``run_id`` are removed but for those named."""

    def writing(self) -> AbstractContextManager[None]:
        """A block in which this is the only job that writes. Raises GateRefused if another job does."""

    def locked(self, name: str, wait_seconds: float) -> AbstractContextManager[Callable[[], None]]:
        """A block that one process at a time can be in, per ``name``. Raises GateRefused after ``wait_seconds``.

        What it yields raises TemporaryFailure if another process may be in it by now: it is to be called before what
        must not happen twice.
        """

    def location(self, table: str) -> str:
        """Where the table lies, for people and other tools."""

    def current_values_stale(self) -> bool:
        """Whether products or ledger have changed since ``current_values`` was derived from them."""

    def refresh_current_values(self, run_id: str, changed: DataFrame | None = None) -> bool:
        """Derive ``current_values`` again if it is stale; returns whether it was.

        ``changed``: has the ``product_id`` of every product that ``run_id`` changed, in the products or the ledger.
        Where nothing else was committed since the last refresh, only these products are derived again.
        """
