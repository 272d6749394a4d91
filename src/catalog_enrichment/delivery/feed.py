"""The steps that a consumer has to apply, in commit order, from its position to what readers see now.

A step is one commit of `current_values`, so that a consumer sees all of a run or none of it (I4); or the difference of
many commits; or, where the consumer's version can no longer be read, a snapshot of everything: never a gap.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from catalog_enrichment.catalog import runs
from catalog_enrichment.delivery import differences
from catalog_enrichment.delivery.differences import NOTHING, TABLE
from catalog_enrichment.errors import ConfigError, MissingFileError, TemporaryFailure

if TYPE_CHECKING:
    import pyarrow as pa

    from catalog_enrichment.catalog.delta_tables import Commit
    from catalog_enrichment.catalog.lake import Catalog

_POSITION = re.compile(r"([\w-]+):(\d+)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Position:
    """How far a consumer is: it has what readers saw at this version."""

    catalog_id: str
    """Identity of the table: a catalog that was made anew has other versions."""
    version: int

    def __str__(self) -> str:
        return f"{self.catalog_id}:{self.version}"

    @classmethod
    def parse(cls, text: str) -> Position:
        """Read what str() gives. Raises ConfigError for another text."""
        match = _POSITION.fullmatch(text.strip())
        if match is None:
            raise ConfigError(
                f"{text!r} is no position. A position is the text that export_changes gave as `position`, "
                "CATALOG:VERSION; without a position, --since start writes everything"
            )
        return cls(match[1], int(match[2]))


@dataclass(frozen=True, slots=True)
class Step:
    """The change from the state at version ``after`` to that at version ``version``."""

    catalog_id: str
    after: int
    """:data:`NOTHING` for a snapshot."""
    version: int
    run_ids: tuple[str, ...] = ()
    """The runs that made it, oldest first; for a snapshot the newest run."""
    snapshot: str = ""
    """Why the step is a snapshot, which replaces everything that the consumer has; empty if it is none."""

    @property
    def position(self) -> Position:
        """The position of a consumer that has applied the step."""
        return Position(self.catalog_id, self.version)

    @property
    def kind(self) -> str:
        return "snapshot" if self.snapshot else "changes"

    def changes(self, catalog: Catalog) -> Iterator[pa.RecordBatch]:
        """Yield rows of differences.SCHEMA, each product and attribute at most once.

        Raises TemporaryFailure if upkeep deletes the files of ``after`` meanwhile: the next plan is a snapshot.
        """
        try:
            yield from differences.changes(catalog, self.after, self.version)
        except MissingFileError as problem:
            if not catalog.tables.readable(TABLE, catalog.version(TABLE)):  # the table is damaged
                raise
            raise TemporaryFailure(
                f"a file of version {self.after} or {self.version} of {catalog.location(TABLE)} was deleted while it "
                f"was read ({problem}). Run again: what cannot be read any more is replaced by a snapshot"
            ) from problem


def steps(catalog: Catalog, since: Position | None, merge_after: int) -> list[Step]:
    """Return the steps from ``since`` (None: from nothing) to the newest version; no step if the consumer has that.

    More than ``merge_after`` commits become one step, as do commits that the log does not list any more, or between
    which upkeep has deleted files. Raises ConfigError for a catalog without values.
    """
    newest = newest_position(catalog)
    snapshot = _why_snapshot(catalog, since, newest)
    if since is None or snapshot:
        run_ids = _runs_of(catalog.tables.commits(TABLE, newest.version - 1))
        return [Step(newest.catalog_id, NOTHING, newest.version, run_ids, snapshot)]
    waiting = [commit for commit in catalog.tables.commits(TABLE, since.version) if commit.version <= newest.version]
    each = len(waiting) <= merge_after and len(waiting) == newest.version - since.version
    # log entries in between may have expired, and files: those of the consumer's version may outlast later ones
    if each and catalog.tables.readable(TABLE, *(commit.version for commit in waiting)):
        return [_step_of(newest.catalog_id, commit) for commit in waiting]
    return [Step(newest.catalog_id, since.version, newest.version, _runs_of(waiting))] if waiting else []


def steps_of_run(catalog: Catalog, run_id: str) -> list[Step]:
    """Return the steps that ``run_id``, or the chunks of this backfill, made for readers.

    Raises ConfigError for a run that changed nothing for readers, and where the version before it cannot be read.
    """
    newest = newest_position(catalog)
    chunks = {row["run_id"] for row in runs.rows(catalog, ["run_id", "parent_run_id", "kind", "finished_at"])
              if row["parent_run_id"] == run_id and row["kind"] == "enrich"}  # fmt: skip
    commits = catalog.tables.commits(TABLE, NOTHING)
    made = [commit for commit in commits if commit.run_id in {run_id, *chunks}]
    if not made:
        raise ConfigError(
            f"run {run_id!r} made no version of {catalog.location(TABLE)}, or so long ago that its log entry is "
            f"deleted. The newest that did: {list(_runs_of(commits[::-1]))[:5]}"
        )
    for commit in made:
        if not catalog.tables.readable(TABLE, commit.version - 1, commit.version):
            raise ConfigError(
                f"run {run_id!r} made version {commit.version} of {catalog.location(TABLE)}; upkeep has deleted files "
                "of it or of the version before it, so what it changed is not known. export_values --run writes its "
                "values that readers still see"
            )
    return [_step_of(newest.catalog_id, commit) for commit in made]


def newest_position(catalog: Catalog) -> Position:
    """Return the position of what readers see now. Raises ConfigError for a catalog without values."""
    catalog_id = catalog.tables.identity(TABLE)
    if catalog_id is None:
        raise ConfigError(f"there are no values in {catalog.location(TABLE)}: run import_products first")
    return Position(catalog_id, catalog.version(TABLE))


def _why_snapshot(catalog: Catalog, since: Position | None, newest: Position) -> str:
    """Return why the changes after ``since`` cannot be told; empty if they can."""
    if since is None:
        return "the consumer has no position yet"
    if since.catalog_id != newest.catalog_id:
        return f"its position {since} is of another catalog"
    if since.version > newest.version:
        return f"its version {since.version} is not there: the newest is {newest.version}"
    if not catalog.tables.readable(TABLE, since.version):
        return f"upkeep has deleted files of its version {since.version}"
    return ""


def _step_of(catalog_id: str, commit: Commit) -> Step:
    return Step(catalog_id, commit.version - 1, commit.version, _runs_of([commit]))


def _runs_of(commits: Sequence[Commit]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(commit.run_id for commit in commits if commit.run_id))
