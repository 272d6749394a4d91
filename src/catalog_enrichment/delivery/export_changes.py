"""Writes what changed for readers to a file: since a position, for a named consumer, or of a run."""

from __future__ import annotations

import json
import os
import re
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catalog_enrichment.delivery import change_files, feed
from catalog_enrichment.delivery.differences import DELETE, UPSERT
from catalog_enrichment.delivery.feed import Position, Step
from catalog_enrichment.errors import ConfigError, DataContractError
from catalog_enrichment.monitoring.stages import Say, Stages, to_stderr
from catalog_enrichment.operations.exported_values import FORMATS, Format, require_free
from catalog_enrichment.records import NOTHING_TO_DO, RunStatus

if TYPE_CHECKING:
    from catalog_enrichment.catalog.lake import Catalog

START = "start"
"""The position of a consumer that has nothing."""

EVERY_COMMIT = 2**31
"""More commits than there are: each is a step of its own."""

_CONSUMER = re.compile(r"\w[\w.-]{0,99}", re.ASCII)


@dataclass(frozen=True, kw_only=True, slots=True)
class ChangesRequest:
    """What to write and where to. Exactly one of ``since``, ``consumer`` and ``run_id`` is given."""

    output: str
    """A file, or a folder (an existing folder, or a name with a slash at the end)."""
    kind: Format | None = None
    """By default the format of the file's suffix; JSON lines in a folder."""
    since: str | None = None
    consumer: str | None = None
    """The consumer's position is moved after the file has been written; ``output`` is then a folder."""
    run_id: str | None = None
    net: bool = False
    """A single change per product and attribute, instead of a change per commit."""
    overwrite: bool = False


class PositionFiles:
    """The positions of the consumers of export_changes: files ``folder``/NAME.json, each replaced at once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def of(self, consumer: str) -> Position | None:
        """Return None for a consumer that has had nothing yet. Raises DataContractError for a damaged file."""
        content = self._content(self._file(consumer))
        return None if content is None else Position.parse(content["position"])

    def move(self, consumer: str, to: Position) -> None:
        """Write the position; it is on the disk when the method returns."""
        file = self._file(consumer)
        self.folder.mkdir(parents=True, exist_ok=True)
        content = {"consumer": consumer, "position": str(to), "moved_at": datetime.now(UTC).isoformat()}
        scratch = file.with_name(f".{uuid.uuid4().hex}.tmp")
        try:
            with scratch.open("w", encoding="utf-8") as stream:
                stream.write(json.dumps(content) + "\n")
                stream.flush()
                os.fsync(stream.fileno())
            scratch.replace(file)
        finally:
            scratch.unlink(missing_ok=True)

    def all(self) -> Iterator[dict[str, Any]]:
        """Yield consumer, position (as text) and moved_at of every consumer, by name."""
        for file in sorted(self.folder.glob("*.json")):
            if (content := self._content(file)) is not None:
                yield content

    def _file(self, consumer: str) -> Path:
        if not _CONSUMER.fullmatch(consumer):
            raise ConfigError(
                f"--consumer {consumer!r}: a name has letters, digits, '_', '-' and '.', begins with a letter or "
                "digit, and has at most 100 characters"
            )
        return self.folder / f"{consumer}.json"

    def _content(self, file: Path) -> dict[str, Any] | None:
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            Position.parse(str(content["position"]))
            return {"consumer": file.stem, **content}
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, ConfigError):
            raise DataContractError(
                f"{file} does not hold a position. Delete it, and the consumer gets everything as a snapshot"
            ) from None


def export_changes(
    catalog: Catalog, positions: PositionFiles, request: ChangesRequest, say: Say = to_stderr
) -> dict[str, Any]:
    """Write the changes that ``request`` asks for; returns the job's summary. Without changes no file is written.

    The files of a consumer have the positions in their names: a file that is written twice, because the job was killed
    before it moved the position, has the same name or begins at the same position. Raises ConfigError for a request
    that cannot be carried out.
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
        summary = {"run_id": request.run_id}  # no position: other runs may have changed something in between
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
    snapshot = found[0].snapshot
    what = f"a snapshot ({snapshot})" if snapshot else "changes"
    say(f"wrote {what}: {counts[UPSERT]:,} upserts and {counts[DELETE]:,} deletes to {target}")
    return {
        "status": RunStatus.SUCCEEDED,
        **summary,
        "kind": found[0].kind,
        "reason": snapshot or None,
        "file": str(target),
        "format": kind,
        "commits": None if snapshot else found[-1].version - found[0].after,
        "upserts": counts[UPSERT],
        "deletes": counts[DELETE],
        "seconds": stages.seconds,
    }


def _target(request: ChangesRequest, found: Sequence[Step]) -> tuple[Path, Format]:
    """Return the file to write, and its format. Raises ConfigError for a suffix that is no format."""
    path = Path(request.output).expanduser().resolve()
    first, last = found[0], found[-1]
    if request.consumer is not None or path.is_dir() or request.output.endswith("/"):
        if path.is_file():
            raise ConfigError(f"--output {path} is a file; the files of a consumer are written into a folder")
        kind: Format = request.kind or "jsonl"
        # files are applied in the order of their last number
        span = f"{last.version:012d}" if first.snapshot else f"{first.after:012d}-{last.version:012d}"
        return path / f"{first.kind}-{span}.{kind}", kind
    if request.kind is not None:
        return path, request.kind
    for known in FORMATS:
        if path.suffix.lower() == f".{known}":
            return path, known
    raise ConfigError(f"--output {path}: the suffix is none of {', '.join(FORMATS)}; give --format")
