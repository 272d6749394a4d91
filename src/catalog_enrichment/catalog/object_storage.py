"""A catalog's files in an object store (Amazon S3 and stores with its API, Google Cloud Storage, Azure), by obstore.

Spark's tasks and the driver read and write the objects themselves, without jars, and deltalake keeps the tables' logs
with the same settings. The store must know conditional puts, as S3, Google and Azure do: only the first of several
writers may create an object, and a writer may replace an object only if it knows the present entity tag.
"""

from __future__ import annotations

import io
import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError
from obstore.store import from_url

from catalog_enrichment import failures
from catalog_enrichment.catalog.storage import MARKER, FolderStorage, Storage, Stored
from catalog_enrichment.config.catalog import CATALOG_STORES, CLIENT_SETTINGS
from catalog_enrichment.errors import ConfigError, TemporaryFailure

if TYPE_CHECKING:
    import pyarrow.parquet as pq

    from catalog_enrichment.config.schema import Config

WHOLE_BYTES = 4 * 2**20
"""An object up to this size is read by a single request."""

RETRY_SECONDS = 90
"""How long a request is tried again while the store does not answer or says that it is overloaded."""

_RETRIES = 1000
"""More than fit into that time: a refused connection is tried again after a fraction of a second."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 3.0
"""Seconds between two tries."""
_CHECK_RETRIES, _CHECK_SECONDS = 3, 10
_DELETED_AT_ONCE = 1000


def storage_of(config: Config) -> Storage:
    """Return the place of `catalog.path`. Reads the environment: only for the driver, which sends it to the tasks."""
    path = config.catalog.path
    if "://" in path:
        return ObjectStorage(path.rstrip("/"), config.catalog.store_settings())
    return FolderStorage(config.path(path))


@dataclass(frozen=True, slots=True)
class ObjectStorage:
    """The objects whose key begins with the path of ``location``."""

    location: str
    """`s3://BUCKET/PATH`, without a slash at its end."""
    settings: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    """Settings and credentials, by the names that obstore and deltalake share."""
    prefix: str = ""
    """Part of the path below ``location``, with a slash at its end; the connections belong to the location."""

    @property
    def uri(self) -> str:
        return f"{self.location}/{self.prefix}".rstrip("/")

    @property
    def folder(self) -> Path | None:
        return None

    @property
    def delta_uri(self) -> str:
        return self.uri

    @property
    def delta_options(self) -> dict[str, str] | None:
        retries = {
            "max_retries": str(_RETRIES),
            "retry_timeout": f"{RETRY_SECONDS}s",
            "backoff_config.init_backoff": f"{_FIRST_PAUSE * 1000:g}ms",
            "backoff_config.max_backoff": f"{_LONGEST_PAUSE:g}s",
        }
        return retries | dict(self.settings)

    def below(self, name: str) -> ObjectStorage:
        return replace(self, prefix=f"{self.prefix}{name}/")

    def parquet(self, path: str) -> pq.ParquetFile:
        import pyarrow as pa
        import pyarrow.parquet as pq

        found = obstore.get(self._store, self._key(path))
        size = found.meta["size"]
        if size <= WHOLE_BYTES:
            return pq.ParquetFile(pa.BufferReader(pa.py_buffer(found.bytes())))
        # columns of a row group that lie together are fetched together
        return pq.ParquetFile(_Ranges(self._store, self._key(path), size), pre_buffer=True)

    @contextmanager
    def sink(self, path: str) -> Iterator[Path]:
        # first on the disk: an upload that ends early must not look like a whole object
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "object")
            yield file
            obstore.put(self._store, self._key(path), file)

    def read(self, path: str) -> bytes:
        return bytes(obstore.get(self._store, self._key(path)).bytes())

    def size(self, path: str) -> int | None:
        try:
            return int(obstore.head(self._store, self._key(path))["size"])
        except FileNotFoundError:
            return None

    def put(self, path: str, data: bytes) -> None:
        obstore.put(self._store, self._key(path), data)

    def put_new(self, path: str, data: bytes) -> bool:
        try:
            obstore.put(self._store, self._key(path), data, mode="create")
        except AlreadyExistsError:
            return False
        return True

    def read_tagged(self, path: str) -> tuple[bytes, str, float] | None:
        """Return the object, a tag of its version and when it was put by the store's clock; None if it is not there."""
        try:
            found = obstore.get(self._store, self._key(path))
        except FileNotFoundError:
            return None
        return bytes(found.bytes()), _tag(found.meta), found.meta["last_modified"].timestamp()

    def replace_tagged(self, path: str, data: bytes, tag: str) -> str | None:
        """Write the object if it is still the version ``tag``, and return the new tag; None where it was another."""
        try:
            return _tag(obstore.put(self._store, self._key(path), data, mode=json.loads(tag)))
        except (PreconditionError, FileNotFoundError):
            return None

    def files(self, folder: str = "") -> Iterator[Stored]:
        below = self._key(f"{folder}/" if folder else "")
        for batch in obstore.list(self._store, below or None):
            for meta in batch:
                path = meta["path"].removeprefix(self.prefix)
                yield Stored(path, int(meta["size"]), meta["last_modified"].timestamp())

    def folders(self, folder: str = "") -> Iterator[Stored]:
        start = f"{folder}/" if folder else ""
        found: dict[str, Stored] = {}
        for file in self.files(folder):
            name, below, _ = file.path.removeprefix(start).partition("/")
            if below:
                before = found.get(name, Stored(f"{start}{name}", 0, 0.0))
                found[name] = Stored(before.path, before.size + file.size, max(before.modified, file.modified))
        yield from found.values()

    def delete(self, paths: Iterable[str]) -> None:
        keys = [self._key(path) for path in paths]
        for begin in range(0, len(keys), _DELETED_AT_ONCE):
            obstore.delete(self._store, keys[begin : begin + _DELETED_AT_ONCE])

    def discard(self, folder: str) -> None:
        paths = [file.path for file in self.files(folder)]
        # the marker first: without it the rest of a checkpoint is not read
        self.delete(path for path in paths if path.endswith(f"/{MARKER}"))
        self.delete(path for path in paths if not path.endswith(f"/{MARKER}"))

    def check(self) -> None:
        """Ask the store once. Raises ConfigError if it refuses or has no such bucket, and TemporaryFailure if it does
        not answer within some seconds."""
        store = _connect(self.location, self.settings, _CHECK_RETRIES, _CHECK_SECONDS)
        try:
            obstore.list_with_delimiter(store, "_nothing")
        except Exception as problem:
            if isinstance(problem, FileNotFoundError):
                raise ConfigError(f"catalog.path {self.uri}: the store has no such bucket. Make it first") from None
            raise failures.recognised(problem) or TemporaryFailure(
                f"catalog.path {self.uri}: the object store does not answer: {type(problem).__name__}. Run again when "
                "it does"
            ) from problem

    @property
    def _store(self) -> Any:
        return _connect(self.location, self.settings, _RETRIES, RETRY_SECONDS)

    def _key(self, path: str) -> str:
        return f"{self.prefix}{path}"


class _Ranges(io.RawIOBase):
    """An object as a file to read; every read is a request for a range."""

    def __init__(self, store: Any, key: str, size: int) -> None:
        self._store, self._key, self._size, self._at = store, key, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        end = self._size if size is None or size < 0 else min(self._at + size, self._size)
        if end <= self._at:
            return b""
        data = bytes(obstore.get_range(self._store, self._key, start=self._at, end=end))
        self._at = end
        return data


@cache
def _connect(location: str, settings: tuple[tuple[str, str], ...], retries: int, seconds: int) -> Any:
    """Return the store of this process, whose connections all threads and tasks share. Raises ConfigError."""
    given = dict(settings)
    client: dict[str, Any] = {name: given.pop(name) for name in list(given) if name in CLIENT_SETTINGS}
    for name in ("allow_http", "allow_invalid_certificates"):
        if name in client:
            client[name] = str(client[name]).lower() == "true"
    prefix = CATALOG_STORES[location.partition("://")[0]]
    if wrong := sorted(name for name in given if not name.startswith(prefix)):
        raise ConfigError(f"catalog.storage has {wrong}; the names for {location} begin with {prefix}")
    pauses = {"init_backoff": timedelta(seconds=_FIRST_PAUSE), "max_backoff": timedelta(seconds=_LONGEST_PAUSE)}
    limits = {
        "max_retries": retries,
        "retry_timeout": timedelta(seconds=seconds),
        "backoff": {**pauses, "base": 2},
    }
    try:
        return from_url(location, config=given, client_options=client, retry_config=limits)  # type: ignore[call-overload]
    except (BaseError, ValueError) as problem:
        reason = str(problem).splitlines()[0]
        raise ConfigError(f"catalog.storage cannot be used for {location}: {reason}") from None


def _tag(meta: Any) -> str:
    """Return what a conditional put compares: the entity tag on S3 and Azure, on Google the generation, which obstore
    calls `version`."""
    return json.dumps({name: meta[name] for name in ("e_tag", "version") if meta.get(name) is not None})
