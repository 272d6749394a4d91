"""Writes what changed for readers to a file: since a position, for a named consumer, or of a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catalog_enrichment.delivery import change_files, feed
from catalog_enrichment.delivery.differences import DELETE, UPSERT
from catalog_enrichment.delivery.feed import Step
from catalog_enrichment.delivery.position import Position, PositionFiles
from catalog_enrichment.errors import ConfigError
from catalog_enrichment.monitoring.stages import Say, Stages, to_stderr
from catalog_enrichment.operations.value_files import Format, require_free
from catalog_enrichment.records import NOTHING_TO_DO, RunStatus

if TYPE_CHECKING:
    from catalog_enrichment.catalog.base import Catalog

START = "start"
"""The position of a consumer that has nothing."""

EVERY_COMMIT = 2**31
"""Commits that are told one by one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ChangesRequest:
    """What to write and where to. Exactly one of ``since``, ``consumer`` and ``run_id`` is given."""

    output: str
    """A file, or a folder (one that is there, or named with a slash at the end)."""
    kind: Format | None = None
    """None: that of the file's suffix; JSON lines in a folder."""
    since: str | None = None
    consumer: str | None = None
    """Its position is read before and moved after the file has been written; ``output`` is then a folder."""
    run_id: str | None = None
    net: bool = False
    """One change per product and attribute, not one per commit."""
    overwrite: bool = False


def export_changes(
    catalog: Catalog, positions: PositionFiles, request: ChangesRequest, say: Say = to_stderr
) -> dict[str, Any]:
    """Write the changes that ``request`` asks for; returns the job's summary. No file where the position is the newest.

    The files of a consumer have the positions in their names, so that one that was written twice, because the job was
    killed before it moved the position, has the same name or begins at the same position. Raises ConfigError for a
    request that cannot be carried out.
    """
    stages = Stages(say)
    with stages("plan"):
        if request.consumer is not None:
            since = positions.of(request.consumer)
        else:
            since = None if request.since in (None, START) else Position.parse(str(request.since))
        if request.run_id is not None:
            found = feed.steps_of_run(catalog, request.run_id)
        else:
            found = feed.steps(catalog, since, 1 if request.net else EVERY_COMMIT)
    newest = found[-1].position if found else feed.newest_position(catalog)
    summary: dict[str, Any] = {"since": str(since) if since else None, "position": str(newest)}
    if request.run_id is not None:
        summary = {"run_id": request.run_id}  # other runs may have changed something in between: no position
    if not found:
        say(f"nothing changed since {newest}")
        return {"status": NOTHING_TO_DO} | summary | {"file": None, "upserts": 0, "deletes": 0}
    target, kind = _target(request, found)
    require_free(target, request.overwrite or request.consumer is not None)
    with stages("export") as stage:
        counts = change_files.write(change_files.rows_of(catalog, found, request.run_id is None), target, kind)
        stage.rows_out = counts[UPSERT] + counts[DELETE]
    if request.consumer is not None:
        positions.move(request.consumer, newest)
    _say(say, found, counts, target)
    return (
        {"status": RunStatus.SUCCEEDED}
        | summary
        | {
            "kind": found[0].kind,
            "reason": found[0].snapshot or None,
            "file": str(target),
            "format": kind,
            "commits": found[-1].version - found[0].after if not found[0].snapshot else None,
            "upserts": counts[UPSERT],
            "deletes": counts[DELETE],
            "seconds": stages.seconds,
        }
    )


def _say(say: Say, found: Sequence[Step], counts: Counter[str], target: Path) -> None:
    what = f"a snapshot ({found[0].snapshot})" if found[0].snapshot else "changes"
    say(f"wrote {what}: {counts[UPSERT]:,} upserts and {counts[DELETE]:,} deletes to {target}")


def _target(request: ChangesRequest, found: Sequence[Step]) -> tuple[Path, Format]:
    """The file to write, and its format. Raises ConfigError for a suffix that is no format."""
    path = Path(request.output).expanduser().resolve()
    first, last = found[0], found[-1]
    if request.consumer is not None or path.is_dir() or request.output.endswith("/"):
        if path.is_file():
            raise ConfigError(f"--output {path} is a file; the files of a consumer are written into a folder")
        kind: Format = request.kind or "jsonl"
        # the order in which they are to be applied is that of the last number
        span = f"{last.version:012d}" if first.snapshot else f"{first.after:012d}-{last.version:012d}"
        return path / f"{first.kind}-{span}.{kind}", kind
    if request.kind is not None:
        return path, request.kind
    for known in change_files.FORMATS:
        if path.suffix.lower() == f".{known}":
            return path, known
    raise ConfigError(f"--output {path}: the suffix is none of {', '.join(change_files.FORMATS)}; give --format")
