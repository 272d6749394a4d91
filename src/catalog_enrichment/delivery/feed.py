"""What a consumer has to apply, in commit order: the steps from its position to what readers see now.

A step is one commit of `current_values`, so that a consumer sees all of a run or none of it (I4); or the difference of
many commits; or, where the consumer's version can no longer be read, a snapshot of everything: never a gap.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from catalog_enrichment.catalog import runs
from catalog_enrichment.delivery import differences
from catalog_enrichment.delivery.position import TABLE, Position
from catalog_enrichment.errors import ConfigError, TemporaryFailure

if TYPE_CHECKING:
    import pyarrow as pa

    from catalog_enrichment.catalog.base import Catalog
    from catalog_enrichment.catalog.table_versions import Commit

NOTHING = -1
"""The version before the first: it has no rows."""


@dataclass(frozen=True, slots=True)
class Step:
    """What makes of the state at version ``after`` that at version ``version``."""

    catalog_id: str
    after: int
    """:data:`NOTHING` for a snapshot."""
    version: int
    run_ids: tuple[str, ...] = ()
    """The runs that made it, oldest first; of a snapshot the newest."""
    snapshot: str = ""
    """Why it is a snapshot, which replaces everything that the consumer has; empty: it is not."""

    @property
    def position(self) -> Position:
        """That of a consumer that has applied it."""
        return Position(self.catalog_id, self.version)

    @property
    def kind(self) -> str:
        return "snapshot" if self.snapshot else "changes"

    def changes(self, catalog: Catalog) -> Iterator[pa.RecordBatch]:
        """Rows of differences.SCHEMA, each product and attribute at most once.

        Raises TemporaryFailure if upkeep deletes the files of ``after`` meanwhile: the next plan is a snapshot.
        """
        try:
            yield from differences.changes(catalog, self.after, self.version)
        except FileNotFoundError as problem:
            raise TemporaryFailure(
                f"a file of version {self.after} or {self.version} of {catalog.location(TABLE)} was deleted while it "
                f"was read ({problem}). Run again: what cannot be read any more is replaced by a snapshot"
            ) from problem


def steps(catalog: Catalog, since: Position | None, merge_after: int) -> list[Step]:
    """The steps from ``since`` (None: from nothing) to the newest version; none if that is the consumer's.

    More than ``merge_after`` commits become one step, as do commits that the log does not list any more. Raises
    ConfigError for a catalog without values.
    """
    newest = newest_position(catalog)
    snapshot = _why_snapshot(catalog, since, newest)
    if since is None or snapshot:
        made_by = tuple(one.run_id for one in catalog.commits(TABLE, newest.version - 1) if one.run_id)
        return [Step(newest.catalog_id, NOTHING, newest.version, made_by, snapshot)]
    waiting = catalog.commits(TABLE, since.version)
    waiting = [one for one in waiting if one.version <= newest.version]
    told = len(waiting) == newest.version - since.version  # not where log entries in between have expired
    if len(waiting) > merge_after or not told:
        return [Step(newest.catalog_id, since.version, newest.version, _runs_of(waiting))]
    return [Step(newest.catalog_id, one.version - 1, one.version, _runs_of([one])) for one in waiting]


def steps_of_run(catalog: Catalog, run_id: str) -> list[Step]:
    """The steps that ``run_id``, or the chunks of this backfill, made for readers.

    Raises ConfigError for a run that changed nothing for readers, and where the version before it cannot be read.
    """
    newest = newest_position(catalog)
    chunks = {row["run_id"] for row in runs.rows(catalog, ["run_id", "parent_run_id", "kind", "finished_at"])
              if row["parent_run_id"] == run_id and row["kind"] == "enrich"}  # fmt: skip
    commits = catalog.commits(TABLE, NOTHING)
    made = [one for one in commits if one.run_id in {run_id, *chunks}]
    if not made:
        known = list(dict.fromkeys(one.run_id for one in reversed(commits) if one.run_id))
        raise ConfigError(
            f"run {run_id!r} made no version of {catalog.location(TABLE)}, or so long ago that its log entry is "
            f"deleted. The newest that did: {known[:5]}"
        )
    for one in made:
        if not catalog.readable(TABLE, one.version - 1):
            raise ConfigError(
                f"run {run_id!r} made version {one.version} of {catalog.location(TABLE)}; upkeep has deleted files of "
                "the version before it, so what it changed is not known. export_values --run writes its values that "
                "readers still see"
            )
    return [Step(newest.catalog_id, one.version - 1, one.version, _runs_of([one])) for one in made]


def newest_position(catalog: Catalog) -> Position:
    """What readers see now. Raises ConfigError for a catalog without values."""
    catalog_id = catalog.identity(TABLE)
    if catalog_id is None:
        raise ConfigError(f"there are no values in {catalog.location(TABLE)}: run import_products first")
    return Position(catalog_id, catalog.version(TABLE))


def _why_snapshot(catalog: Catalog, since: Position | None, newest: Position) -> str:
    """Why the changes after ``since`` cannot be told; empty if they can."""
    if since is None:
        return "the consumer has no position yet"
    if since.catalog_id != newest.catalog_id:
        return f"its position {since} is of another catalog"
    if since.version > newest.version:
        return f"its version {since.version} is not there: the newest is {newest.version}"
    if not catalog.readable(TABLE, since.version):
        return f"upkeep has deleted files of its version {since.version}"
    return ""


def _runs_of(commits: Sequence[Commit]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(one.run_id for one in commits if one.run_id))
