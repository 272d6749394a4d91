"""Decides what an import reads: all rows of its source, or those that changed since the position of the last import.

A position is plain data of the source: the version of a Delta table, the newest time of a watermark column, the files
of a folder. It is in the column ``window`` of the import's row in `runs`, which is written last: an import that was
killed, refused or failed leaves the position where it was, and the next one reads the same changes again. All rows are
read where the changes cannot be told, and every `source.full_every_days` days; the reason is said and stored.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from catalog_enrichment.config.source import SourceConfig
from catalog_enrichment.ingest.merchant_values import MERCHANT_VALUES
from catalog_enrichment.ingest.outcomes import DELETIONS
from catalog_enrichment.ingest.source_frame import (
    AllNeeded,
    ChangedRows,
    ChangeSource,
    Location,
    Position,
    ProductSource,
    SourceFrame,
    SourceRows,
)
from catalog_enrichment.spark.frames import few_ids

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame

FEW_ROWS = 1_000
"""Changed rows of which fewer do not refuse an import: the shares of a few rows mean nothing."""

_ALL, _CHANGES = "all", "changes"
"""The values of `read` in the summary and in the window: what an import reads."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LastImport:
    """The row of the last import of a source in `runs`, as far as it decides what the next one reads."""

    row: Mapping[str, Any] | None
    """None before the first import of any source; the newest of all before the first of this one."""
    newest: Mapping[str, Any] | None = None
    """The newest import, which may be of another source; None if it is ``row``."""

    @property
    def window(self) -> dict[str, Any]:
        return json.loads(self.row["window"] or "{}") if self.row is not None else {}

    @property
    def products_version(self) -> int:
        """Return the version of the table `products` that the newest import left."""
        row = self.newest or self.row
        return int((row["table_versions"] or {}).get("products", -1)) if row is not None else -1

    @property
    def read_all(self) -> bool:
        """Return whether it read all rows of its source."""
        return bool(self.window.get("read", _ALL) == _ALL)

    @property
    def compared(self) -> dict[str, Any]:
        """Return ``at``, ``rows``, ``products`` and ``values`` (attribute -> merchant values) of the last import that
        read all rows; numbers of 0 before the first."""
        if "compared" in self.window:
            return dict(self.window["compared"])
        if self.row is None:
            return {"rows": 0, "products": 0, "values": {}}
        counts = self.row["counts"]
        return compared(counts["rows"], counts["products"], json.loads(self.row["attributes"] or "{}"))


def names_source(row: Mapping[str, Any], config: Mapping[str, Any]) -> bool:
    """Return whether the import of ``row`` had the source of ``config`` (without secrets).

    Other settings of the same source are no other source: the products are as the newest import of it left them.
    """
    then, now = json.loads(row["config"])["source"], config["source"]
    return all(then.get(name) == now[name] for name in ("format", "path", "postgres", "api"))


def compared(rows: int, products: int, attributes: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the numbers of an import that read all rows, with which later ones are compared."""
    values = (attributes or {}).get(MERCHANT_VALUES, {})
    return {"rows": rows, "products": products, "values": {name: sum(of.values()) for name, of in values.items()}}


@runtime_checkable
class DeletionSource(ChangeSource, Protocol):
    """A source that can tell which rows were deleted, also where all of its rows are read."""

    def deletions(self, position: Position) -> ChangedRows | None:
        """Return rows that delete the products which were deleted after ``position``; None for none.

        Raises AllNeeded where the deletions cannot be told.
        """


@dataclass(frozen=True, slots=True)
class WithDeletions:
    """All rows of a source, and rows that delete products."""

    source: SourceRows
    deletions: ChangedRows

    @property
    def location(self) -> Location:
        return self.source.location

    def open(self, names: Sequence[str]) -> SourceFrame:
        opened, deleted = self.source.open(names), self.deletions.open(names)
        return replace(opened, frame=opened.frame.unionByName(deleted.frame, allowMissingColumns=True))


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """What an import reads of its source."""

    part: ChangedRows | None = None
    """The rows that changed; None: all rows."""
    deletions: ChangedRows | None = None
    """Rows that delete products, where all rows are read and the source tells what was deleted."""
    why: str = ""
    """What is read and why, in words; empty for a source that tells no changes."""
    position: Position | None = None
    """Where the source was before its rows were read."""

    @property
    def read(self) -> str:
        return _ALL if self.part is None else _CHANGES

    @property
    def key(self) -> tuple[str, ...]:
        """Return what tells the checkpoints of this reading from those of another one of the same source."""
        return () if self.position is None else (self.read,)

    @property
    def is_empty(self) -> bool:
        """Return whether it is known that no row has changed."""
        return self.part is not None and self.part.is_empty

    def rows_of(self, source: SourceRows) -> SourceRows:
        """Return the rows of ``source`` that are read."""
        if self.deletions is not None:
            return WithDeletions(source, self.deletions)
        return self.part or source

    def is_small(self, rows: int) -> bool:
        """Return whether these are so few changed rows that their shares mean nothing."""
        return self.part is not None and rows < FEW_ROWS

    def ids(self, rows: DataFrame) -> pa.Array | None:
        """Return the ids of the products that ``rows`` are about; None for all of the source's, and for many."""
        return None if self.part is None else few_ids(rows.where("product_id IS NOT NULL"))

    def has_moved(self, last: LastImport) -> bool:
        """Return whether the next import is to read something else after this one than after ``last``."""
        return self.position is not None and (self.part is None or self.position != last.window.get("position"))

    def summary(self) -> dict[str, str]:
        """Return the part of the job's summary; empty for a source that tells no changes."""
        return {} if self.position is None else {"read": self.read, "read_because": self.why}

    def window(
        self, last: LastImport, counts: Mapping[str, int], attributes: Mapping[str, Any] | None, at: datetime
    ) -> dict[str, Any] | None:
        """Return `runs.window` of this import, which began ``at``, by its counts and attributes."""
        if self.position is None:
            return None
        full = last.compared
        if self.part is None:
            # a row that only says that a product is deleted will not be in the source at the next import
            rows = counts["rows"] - (counts.get(DELETIONS, 0) if self.deletions else 0)
            full = compared(rows, counts["products"], attributes) | {"at": at.isoformat()}
        return {"read": self.read, "because": self.why, "position": self.position, "compared": full}


def reading_of(
    source: ProductSource,
    config: SourceConfig,
    last: LastImport,
    names: Sequence[str],
    now: datetime,
    all_because: str,
) -> Reading:
    """Return what to read of ``source``.

    ``names``: the columns that will be asked for; ``all_because``: a reason to read all rows, empty for none.
    """
    if not config.reads_changes or not isinstance(source, ChangeSource):
        return Reading()
    position = source.position()
    try:
        if all_because:
            raise AllNeeded(all_because)
        part = source.since(_position(config, last, now), names)
    except AllNeeded as reason:
        return _all_rows(source, position, last.window.get("position"), str(reason))
    return Reading(part=part, why=part.how, position=position)


def _all_rows(source: ChangeSource, now: Position, known: Position | None, why: str) -> Reading:
    """Return the reading of all rows, and of the deletions after the position ``known`` of the last import."""
    if known is None or not isinstance(source, DeletionSource):
        return Reading(why=why, position=now)
    try:
        deletions = source.deletions(known)
    except AllNeeded as problem:
        because = "" if str(problem) == why else f" ({problem})"
        return Reading(why=f"{why}; rows deleted since the last import are not seen{because}", position=now)
    return Reading(deletions=deletions, why=f"{why}, and {deletions.how}" if deletions else why, position=now)


def is_due(config: SourceConfig, last: LastImport, now: datetime) -> bool:
    """Return whether the last comparison of all rows is as long ago as the config allows."""
    at = last.compared.get("at")
    return at is None or now - datetime.fromisoformat(at) >= timedelta(days=config.full_every_days)


def _position(config: SourceConfig, last: LastImport, now: datetime) -> Position:
    """Return where the last import left the source. Raises AllNeeded where it did not say, or all rows are due."""
    position: Position | None = last.window.get("position")
    if last.row is None:
        raise AllNeeded("no import before")
    if position is None:
        raise AllNeeded("the last import noted no position")
    if is_due(config, last, now):
        raise AllNeeded(f"the last comparison of all rows is {config.full_every_days:g} days ago or more")
    return position
