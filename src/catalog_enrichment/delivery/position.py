"""How far a consumer of the catalog's values is: a table and one of its versions. Positions that are kept in files."""

from __future__ import annotations

import json
import os
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from catalog_enrichment.errors import ConfigError, DataContractError

TABLE = "current_values"
"""What readers see. Its versions are the positions."""

_TEXT = re.compile(r"([\w-]+):(\d+)", re.ASCII)
_CONSUMER = re.compile(r"\w[\w.-]{0,99}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Position:
    """A consumer with this position has what readers saw at this version."""

    catalog_id: str
    """Identity of the table: versions of a catalog that was made anew are others."""
    version: int

    def __str__(self) -> str:
        return f"{self.catalog_id}:{self.version}"

    @classmethod
    def parse(cls, text: str) -> Position:
        """The inverse of str(). Raises ConfigError for another text."""
        match = _TEXT.fullmatch(text.strip())
        if match is None:
            raise ConfigError(
                f"{text!r} is no position. A position is the text that export_changes gave as `position`, "
                "CATALOG:VERSION; without one, --since start writes everything"
            )
        return cls(match[1], int(match[2]))


class PositionFiles:
    """The positions of the consumers of export_changes: ``folder``/NAME.json, each replaced at once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def of(self, consumer: str) -> Position | None:
        """None for a consumer that has had nothing yet. Raises DataContractError for a damaged file."""
        content = self._content(self._file(consumer))
        return None if content is None else Position.parse(content["position"])

    def move(self, consumer: str, to: Position) -> None:
        """On the disk when it returns."""
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
        """consumer, position (as text) and moved_at of every consumer, by name."""
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
            text = file.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        try:
            content = json.loads(text)
            Position.parse(str(content["position"]))
            return {"consumer": file.stem, **content}
        except (ValueError, KeyError, TypeError, ConfigError):
            raise DataContractError(
                f"{file} does not hold a position. Delete it, and the consumer gets everything as a snapshot"
            ) from None
