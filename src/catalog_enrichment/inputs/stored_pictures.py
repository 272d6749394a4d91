"""The pictures that merchants send as bytes: one file each, named by the hash of its content.

A picture is written once, whichever products have it and however often they are imported. A file is complete before it
has its name, and never changes: writers need no lock, and a task that is tried again or was killed does no harm. What
no product names any more is removed by maintain_catalog. So a store belongs to one catalog, which a file in it names.
"""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from catalog_enrichment.errors import ConfigError

OWNER = "_catalog"
"""The file in a store that names its catalog, by its path from the store: both can be moved or copied together."""

_VERSION = re.compile(r"[0-9a-f]{64}")
"""SHA-256, as hexadecimal digits."""
_FILE = re.compile(r"([0-9a-f]{64})(\.[0-9a-f-]{36})?")
"""A picture, or what is left where its write was cut off."""


class StoredPictures:
    """The pictures in ``folder``, which all executors share."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def claim(self, catalog: Path) -> None:
        """Make the store that of the catalog in the folder ``catalog``, if it is not yet.

        Raises ConfigError if it is another catalog's: each would remove the pictures of the other.
        """
        own = os.path.relpath(catalog.resolve(), self._folder.resolve())
        marker = self._folder / OWNER
        self._folder.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError), marker.open("x", encoding="utf-8") as file:
            file.write(own)
        owner = marker.read_text(encoding="utf-8")
        if owner != own:
            raise ConfigError(
                f"images.store = {self._folder} keeps the pictures of the catalog {self._folder / owner}, not of "
                f"{catalog}: set another folder. If that catalog was moved here, delete {marker}"
            )

    def path(self, version: str) -> Path:
        """Where the picture with this SHA-256 is, or would be. Raises ValueError for anything but such a hash."""
        if not _VERSION.fullmatch(version):
            raise ValueError(f"{version!r} is no SHA-256 of a picture")
        return self._folder / version[:2] / version[2:4] / version

    def put(self, version: str, data: bytes) -> None:
        """Write a picture; one that is there, with all its bytes, is only marked as used now."""
        target = self.path(version)
        with suppress(FileNotFoundError):
            os.utime(target)
            if target.stat().st_size == len(data):
                return
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = target.with_name(f"{version}.{uuid.uuid4()}")
        with scratch.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())  # else a power failure may leave the name without the bytes
        scratch.replace(target)

    def get(self, version: str) -> bytes:
        """Raises FileNotFoundError for a picture that was never written, or was removed."""
        return self.path(version).read_bytes()

    def files(self) -> Iterator[Path]:
        """Every file that :meth:`put` wrote; its name is the picture's version, or longer where a write was cut off.

        What others have put into the folder is not among them.
        """
        for file in self._folder.glob("??/??/*"):
            found = _FILE.fullmatch(file.name)
            if found and file.is_relative_to(self.path(found[1]).parent):
                yield file
