"""The place of a catalog's files: a folder that all machines share, or a place in an object store (object_storage.py).

Both are a :class:`Storage`: files with names, relative to its root and with ``/`` between the parts. A storage is
pickled into Spark's tasks with everything that they need to use it.
"""

from __future__ import annotations

import os
import shutil
import stat
import uuid
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import pyarrow.parquet as pq

MARKER = "_SUCCESS"
"""The file of a checkpoint that is there when all others are; in an object store it lists them."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A file, or a folder with everything below it."""

    path: str
    """Relative to the storage."""
    size: int
    """Bytes."""
    modified: float
    """When it was last written, in seconds since 1970, by the clock of the storage."""

    @property
    def name(self) -> str:
        """Return the last part of the path."""
        return self.path.rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class DataFile:
    """A file of a table or checkpoint."""

    name: str
    """Relative to the table's or checkpoint's folder."""
    size: int
    """Bytes."""
    rows: int | None
    """None where another program wrote the file, and did not say."""
    ids: tuple[str, str] | None = None
    """The smallest and the largest ``product_id``; None where it is not known."""


class Storage(Protocol):
    """Files below one root.

    Every method raises the errors of the library behind it; :mod:`catalog_enrichment.failures` knows the outages.
    """

    @property
    def uri(self) -> str:
        """The root, for people and for deltalake: an absolute path, or a URI without a slash at its end."""

    @property
    def folder(self) -> Path | None:
        """The root as a local folder; None for an object store."""

    @property
    def delta_uri(self) -> str:
        """The root as a URI for deltalake."""

    @property
    def delta_options(self) -> dict[str, str] | None:
        """deltalake's ``storage_options``: settings and credentials, which must not be printed."""

    def below(self, name: str) -> Storage:
        """Return the storage below ``name``."""

    def parquet(self, path: str) -> pq.ParquetFile:
        """Open a parquet file, which the caller closes. Raises FileNotFoundError."""

    def sink(self, path: str) -> AbstractContextManager[Path]:
        """Give a local file to write. After the block the file ``path`` is there, whole; after an error it is not."""

    def read(self, path: str) -> bytes:
        """Return the content of a file. Raises FileNotFoundError."""

    def size(self, path: str) -> int | None:
        """Return the bytes of a file; None if it is not there."""

    def put(self, path: str, data: bytes) -> None:
        """Write a file, in place of an earlier file. Readers see the old content or the new, never a mixture."""

    def put_new(self, path: str, data: bytes) -> bool:
        """Write a file that is not there, and return whether this call did it: of several at once, the first does."""

    def files(self, folder: str = "") -> Iterator[Stored]:
        """Yield all files below ``folder``, at any depth."""

    def folders(self, folder: str = "") -> Iterator[Stored]:
        """Yield the folders in ``folder``, with the bytes of all files below each and the newest of their times."""

    def delete(self, paths: Iterable[str]) -> None:
        """Delete these files; a file that is not there is no error."""

    def discard(self, folder: str) -> None:
        """Delete everything below ``folder``, so that no half of it is taken for the whole."""


@dataclass(frozen=True, slots=True)
class FolderStorage:
    """A folder that the driver and all executors share."""

    root: Path

    @property
    def uri(self) -> str:
        return str(self.root)

    @property
    def folder(self) -> Path | None:
        return self.root

    @property
    def delta_uri(self) -> str:
        return self.root.as_uri()

    @property
    def delta_options(self) -> dict[str, str] | None:
        return None

    def below(self, name: str) -> FolderStorage:
        return FolderStorage(self.root / name)

    def parquet(self, path: str) -> pq.ParquetFile:
        import pyarrow.parquet as pq

        return pq.ParquetFile(self.root / path)

    @contextmanager
    def sink(self, path: str) -> Iterator[Path]:
        # under its own name at once: a table's file counts only when it is committed
        yield self.root / path
        sync(self.root / path, self.root)

    def read(self, path: str) -> bytes:
        return (self.root / path).read_bytes()

    def size(self, path: str) -> int | None:
        file = self.root / path
        return file.stat().st_size if file.is_file() else None

    def put(self, path: str, data: bytes) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        _written_beside(file, data).replace(file)
        sync(file.parent)

    def put_new(self, path: str, data: bytes) -> bool:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        whole = _written_beside(file, data)
        try:
            os.link(whole, file)  # the name and the content in a single step
        except FileExistsError:
            return False
        finally:
            whole.unlink()
        sync(file.parent)
        return True

    def files(self, folder: str = "") -> Iterator[Stored]:
        for where, _, names in os.walk(self.root / folder):
            for name in names:
                file = Path(where, name)
                with suppress(FileNotFoundError):  # deleted meanwhile
                    status = file.stat()
                    yield Stored(file.relative_to(self.root).as_posix(), status.st_size, status.st_mtime)

    def folders(self, folder: str = "") -> Iterator[Stored]:
        where = self.root / folder
        for found in sorted(where.iterdir()) if where.is_dir() else ():
            if found.is_dir():
                below = [path.stat() for path in (found, *found.rglob("*"))]
                size = sum(status.st_size for status in below if not stat.S_ISDIR(status.st_mode))
                yield Stored(found.relative_to(self.root).as_posix(), size, max(status.st_mtime for status in below))

    def delete(self, paths: Iterable[str]) -> None:
        for path in paths:
            (self.root / path).unlink(missing_ok=True)

    def discard(self, folder: str) -> None:
        target = self.root / folder
        gone = target.with_name(f"_gone-{uuid.uuid4()}")
        with suppress(FileNotFoundError):
            target.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)


def sync(*paths: Path) -> None:
    """Have the disk write these files and folders: after a power failure a file may else have its name and no bytes."""
    for path in paths:
        opened = os.open(path, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


def _written_beside(file: Path, data: bytes) -> Path:
    """Write ``data`` to a new file in the folder of ``file``, and return it."""
    whole = file.with_name(f"{uuid.uuid4()}{file.suffix}")
    whole.write_bytes(data)
    sync(whole)
    return whole
