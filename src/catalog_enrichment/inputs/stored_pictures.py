"""The pictures that merchants send as bytes: a file each, named by the hash of its content.

A picture is written once, whichever products have it and however often they are imported. A file is complete before it
has its name, and never changes: writers need no lock, and a task that is tried again or was killed does no harm.
maintain_catalog removes the pictures that no product names any more. So a store belongs to a single catalog, which a
file in the store names.
"""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from catalog_enrichment.catalog.storage import FolderStorage, Storage, Stored
from catalog_enrichment.errors import ConfigError

if TYPE_CHECKING:
    from catalog_enrichment.config.images import ImagesConfig

OWNER = "_catalog"
"""The file in a store that names its catalog, by its path from the store: both can be moved or copied together."""

_VERSION = re.compile(r"[0-9a-f]{64}")
"""SHA-256, as hexadecimal digits."""
_FILE = re.compile(r"(([0-9a-f]{2})([0-9a-f]{2})[0-9a-f]{60})(\.[0-9a-f-]{36})?")
"""A picture, or a part of it whose write was cut off."""


class StoredPictures:
    """The pictures in ``place``: a folder that all executors share, or a place in an object store."""

    def __init__(self, place: Path | Storage) -> None:
        self._storage: Storage = FolderStorage(place) if isinstance(place, Path) else place

    @classmethod
    def of(cls, images: ImagesConfig) -> StoredPictures:
        """Return the store of ``images``; :meth:`Config.pictures` gives the settings of an object store, too."""
        from catalog_enrichment.config.images import StoredImagesConfig

        if isinstance(images, StoredImagesConfig) and "://" in images.store:
            # a worker that scores from folders needs none of the object stores' client
            from catalog_enrichment.catalog.object_storage import ObjectStorage

            return cls(ObjectStorage(images.store, images.store_settings))
        return cls(Path(images.store))

    def claim(self, catalog: Path | str) -> None:
        """Assign the store to the catalog ``catalog``, a folder or a URI, if it has no catalog yet.

        Raises ConfigError if it belongs to another catalog: each would remove the pictures of the other.
        """
        own = self._from_here(catalog)
        self._storage.put_new(OWNER, own.encode())
        owner = self._storage.read(OWNER).decode()
        if owner != own:
            folder, marker = self._storage.uri, f"{self._storage.uri}/{OWNER}"
            other = owner if "://" in owner else f"{folder}/{owner}"
            raise ConfigError(
                f"images.store = {folder} keeps the pictures of the catalog {other}, not of {catalog}: set another "
                f"folder. If that catalog was moved here, delete {marker}"
            )

    def _from_here(self, catalog: Path | str) -> str:
        """Return the marker's name for the catalog: relative if both are folders, or the store is in the catalog."""
        folder = self._storage.folder
        if folder is not None and "://" not in str(catalog):
            return os.path.relpath(Path(catalog).resolve(), folder.resolve())
        below = self._storage.uri.removeprefix(f"{catalog}/")
        return "/".join([".."] * (below.count("/") + 1)) if below != self._storage.uri else str(catalog)

    def path(self, version: str) -> Path:
        """Return the path of the picture with this SHA-256 in the store's folder, written or not.

        It is relative where the store is no folder. Raises ValueError for anything but such a hash.
        """
        return (self._storage.folder or Path()) / self._path(version)

    def _path(self, version: str) -> str:
        if not _VERSION.fullmatch(version):
            raise ValueError(f"{version!r} is no SHA-256 of a picture")
        return f"{version[:2]}/{version[2:4]}/{version}"

    def put(self, version: str, data: bytes) -> None:
        """Write a picture. If it is there with all its bytes, it is only marked as used now."""
        if self._storage.folder is None:
            # written again, which marks it as used now: to ask whether it is there would be another request
            self._storage.put(self._path(version), data)
        else:
            _put_file(self.path(version), data)

    def get(self, version: str) -> bytes:
        """Read a picture. Raises FileNotFoundError if it was never written, or was removed."""
        return self._storage.read(self._path(version))

    def files(self) -> Iterator[Stored]:
        """Yield the files that :meth:`put` wrote; a name is the picture's version, or longer if a write was cut off.

        Files that others have put into the folder are left out.
        """
        for file in self._storage.files():
            found = _FILE.fullmatch(file.name)
            if found and file.path == f"{found[2]}/{found[3]}/{file.name}":
                yield file

    @property
    def storage(self) -> Storage:
        return self._storage


def _put_file(target: Path, data: bytes) -> None:
    with suppress(FileNotFoundError):
        os.utime(target)
        if target.stat().st_size == len(data):
            return
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = target.with_name(f"{target.name}.{uuid.uuid4()}")
    with scratch.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())  # else a power failure may leave the name without the bytes
    scratch.replace(target)
