"""The pictures that merchants send as bytes: one file each, named by the hash of its content.

A picture is written once, whichever products have it and however often they are imported. A file is complete before it
has its name, and never changes: writers need no lock, and a task that is tried again or was killed does no harm. What
no product names any more is removed by maintain_catalog.
"""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_VERSION = re.compile(r"[0-9a-f]{64}")
"""SHA-256, as hexadecimal digits."""


class StoredPictures:
    """The pictures in ``folder``, which all executors share."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, version: str) -> Path:
        """Where the picture with this SHA-256 is, or would be. Raises ValueError for anything but such a hash."""
        if not _VERSION.fullmatch(version):
            raise ValueError(f"{version!r} is no SHA-256 of a picture")
        return self._folder / version[:2] / version[2:4] / version

    def put(self, version: str, data: bytes) -> None:
        """Write a picture; one that is there is only marked as used now."""
        target = self.path(version)
        with suppress(FileNotFoundError):
            os.utime(target)
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = target.with_name(f"{version}.{uuid.uuid4()}")
        scratch.write_bytes(data)
        scratch.replace(target)

    def get(self, version: str) -> bytes:
        """Raises FileNotFoundError for a picture that was never written, or was removed."""
        return self.path(version).read_bytes()

    def files(self) -> Iterator[Path]:
        """Every file; its name is the picture's version, or longer where a write was cut off."""
        yield from self._folder.glob("??/??/*")
