"""Pictures by reference: the one place that opens a path or URI of a product.

A feed names what it likes, so only what `[images.fetch]` allows is opened: http and https to public hosts, files in
the allowed folders, objects below the allowed URIs. Nothing here raises or waits longer than `images.fetch.seconds`: a
picture that was not fetched has a Reason. Reasons of :data:`~catalog_enrichment.records.TRANSIENT` are outages, which
another run may find gone; the others hold until somebody changes the feed, the picture or the config.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from urllib.parse import unquote

from catalog_enrichment.config.fetch import WEB_SCHEMES
from catalog_enrichment.config.schema import ImagesConfig
from catalog_enrichment.errors import TemporaryFailure
from catalog_enrichment.inputs.stored_pictures import StoredPictures
from catalog_enrichment.inputs.web_pictures import WebPictures
from catalog_enrichment.masking import USER_AND_PASSWORD
from catalog_enrichment.records import Reason
from catalog_enrichment.web.hosts import Resolve, system_resolver
from catalog_enrichment.web.limits import Deadline, NotFetched

MISSING = "missing"
"""Version of a local picture that does not exist."""

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*)://")
_NO_TEXT = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""Control characters, line breaks and lone surrogates, which a log or a table must not get from a feed."""
LONGEST_URI = 8192
"""Characters; servers refuse longer ones, and no file system has such paths."""
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EINVAL, errno.EILSEQ}
"""What one path can cause, and not the storage."""
_ABSENT = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG}


@dataclass(frozen=True, slots=True)
class Fetched:
    """A picture's encoded bytes, or the reason why there are none: exactly one of ``data`` and ``reason`` is None."""

    data: bytes | None
    reason: Reason | None = None
    detail: str = ""


class PictureSources:
    """Opens pictures by reference, under one config; for several threads. Keeps connections open."""

    def __init__(self, limits: ImagesConfig, resolve: Resolve = system_resolver) -> None:
        """``limits``: with absolute folders (:meth:`Config.pictures`)."""
        self._config, self._max_bytes = limits.fetch, limits.max_bytes
        self._store, self._remote = StoredPictures.of(limits), "://" in limits.store
        folders = limits.fetch.allowed_folders
        self._folders = [os.path.realpath(folder) for folder in folders if "://" not in folder]
        self._roots = [folder.rstrip("/") for folder in folders if "://" in folder]
        self._web = WebPictures(limits.fetch, limits.max_bytes, resolve)

    def fetch(self, uri: str, deadline: Deadline | None = None) -> Fetched:
        """The picture at a path or URI; from a server or store before ``deadline``. Never raises."""
        try:
            return Fetched(self._read(uri, deadline))
        except NotFetched as problem:
            return Fetched(None, problem.reason, f"{without_secrets(uri)}: {without_secrets(problem.detail)}")
        except Exception as problem:  # every library behind a scheme has its own exceptions
            detail = without_secrets(f"{type(problem).__name__}: {problem}")
            return Fetched(None, Reason.IMAGE_UNREACHABLE, f"{without_secrets(uri)}: {detail}")

    def stored(self, version: str, of_product: Deadline | None = None) -> Fetched:
        """The picture that the catalog keeps under this version; from an object store in time. Never raises."""
        try:
            if not self._remote:
                return Fetched(self._store.get(version))
            return Fetched(self._deadline(of_product).call(lambda: self._store.get(version)))
        except NotFetched as problem:
            return Fetched(None, problem.reason, f"images.store: {problem.detail} for {version}")
        except ValueError:
            return Fetched(None, Reason.IMAGE_MISSING, "neither bytes nor a uri")
        except FileNotFoundError:
            return Fetched(None, Reason.IMAGE_MISSING, f"not in images.store any more: {version}")
        except Exception as problem:  # obstore has its own exceptions
            return Fetched(None, Reason.IMAGE_UNREACHABLE, f"images.store: {type(problem).__name__} for {version}")

    def version(self, uri: str, realpath: Callable[[str], str] = os.path.realpath) -> str:
        """A local file's size and modification time, or MISSING; of everything else the URI itself.

        Nothing is opened, and a file outside the allowed folders is not looked at: its version is its URI.
        ``realpath`` is asked for folders and links; a caller with many URIs passes one that remembers. Raises
        TemporaryFailure where the storage does not answer or a whole allowed folder may not be read: another version
        would mean another picture, whose values are decided anew and retracted. Where only this path may not be looked
        at, its version is its URI: one row must not stop an import.
        """
        try:
            scheme, path = self._split(uri)
            if scheme != "file":
                return uri
            _, status = self._stat(path, realpath)
        except NotFetched as problem:
            return MISSING if problem.reason is Reason.IMAGE_MISSING else uri
        except OSError as problem:
            if problem.errno in _FORBIDDEN and self._can_list(path):
                return uri
            raise TemporaryFailure(
                f"whether the picture {without_secrets(uri)} has changed cannot be told: {type(problem).__name__} "
                f"({os.strerror(problem.errno or 0)}). Nothing was imported; run again when the folder can be read"
            ) from problem
        return f"{status.st_size}-{status.st_mtime_ns}"

    def _can_list(self, path: str) -> bool:
        """Whether the allowed folders that ``path`` is in can be read themselves."""
        inside = [folder for folder in self._folders if path.startswith(folder.rstrip("/") + "/")]
        return all(os.access(folder, os.R_OK | os.X_OK) for folder in inside)

    def _read(self, uri: str, of_product: Deadline | None) -> bytes:
        scheme, path = self._split(uri)
        if scheme == "file":
            return self._read_file(path)
        deadline = self._deadline(of_product)
        if scheme in WEB_SCHEMES:
            return self._web.read(uri, deadline)
        if "::" in uri:
            raise NotFetched(Reason.IMAGE_NOT_ALLOWED, "chained URIs (::) are not allowed")
        if ".." in uri.split("/") or not any(uri.startswith(root + "/") for root in self._roots):
            raise NotFetched(Reason.IMAGE_NOT_ALLOWED, "not below one of images.fetch.allowed_folders")
        return deadline.call(lambda: _read_object(uri, self._max_bytes))

    def _deadline(self, of_product: Deadline | None) -> Deadline:
        """That of one picture, or of its product where it is earlier."""
        seconds = self._config.seconds
        return of_product if of_product and of_product.remaining < seconds else Deadline(seconds)

    def _split(self, uri: str) -> tuple[str, str]:
        """The scheme (`file` for a plain path), and for files the path. Raises NotFetched if it is not allowed."""
        if len(uri) > LONGEST_URI:
            raise NotFetched(Reason.IMAGE_NOT_ALLOWED, f"a URI of more than {LONGEST_URI:,} characters")
        found = _SCHEME.match(uri)
        if not found and "://" in uri:
            raise NotFetched(Reason.IMAGE_NOT_ALLOWED, "not a valid URI, or a chain of several")
        scheme = found[1].lower() if found else "file"
        if scheme not in self._config.schemes:
            raise NotFetched(Reason.IMAGE_NOT_ALLOWED, f"scheme {scheme!r} is not one of images.fetch.schemes")
        if scheme != "file" or not found:
            return scheme, uri
        host, slash, rest = uri[found.end() :].partition("/")
        if host not in ("", "localhost"):
            raise NotFetched(Reason.IMAGE_NOT_ALLOWED, "a file URI with a host")
        return scheme, unquote(re.split("[?#]", slash + rest, maxsplit=1)[0])

    def _stat(self, path: str, realpath: Callable[[str], str] = os.path.realpath) -> tuple[str, os.stat_result]:
        """The file's real path and status. Raises NotFetched if it is outside the folders, missing, or no file."""
        if not path or "\0" in path:
            raise NotFetched(Reason.IMAGE_MISSING, "not a path")
        folder, name = os.path.split(path)
        if ".." in path.split("/") or not name:
            raise NotFetched(Reason.IMAGE_NOT_ALLOWED, "a path with .. or without a file name")
        try:
            real = os.path.join(realpath(folder or "."), name)  # noqa: PTH118  Path would change the path
            self._check_inside(real)
            status = os.lstat(real)
            if stat.S_ISLNK(status.st_mode):
                real = realpath(real)
                self._check_inside(real)
                status = os.lstat(real)
        except OSError as problem:
            if problem.errno in _ABSENT:
                raise NotFetched(Reason.IMAGE_MISSING, "no such file") from None
            raise
        except ValueError:  # characters that no path has
            raise NotFetched(Reason.IMAGE_MISSING, "not a path") from None
        if not stat.S_ISREG(status.st_mode):  # a folder, a device, or a pipe, which might never end
            raise NotFetched(Reason.IMAGE_MISSING, "not a regular file")
        return real, status

    def _check_inside(self, real: str) -> None:
        if not any(real.startswith(folder.rstrip("/") + "/") for folder in self._folders):
            raise NotFetched(Reason.IMAGE_NOT_ALLOWED, "not in one of images.fetch.allowed_folders")

    def _read_file(self, path: str) -> bytes:
        real, _ = self._stat(path)
        # NOFOLLOW, NONBLOCK: it may have been replaced by a link or a pipe since
        descriptor = os.open(real, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:  # noqa: PTH123  Path cannot open a descriptor
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise NotFetched(Reason.IMAGE_MISSING, "not a regular file")
            if status.st_size > self._max_bytes:
                raise NotFetched(Reason.IMAGE_TOO_LARGE, f"more than {self._max_bytes} bytes")
            return file.read(status.st_size)  # 0 bytes of the files in /proc, which have no size and may never end


@cache
def picture_sources(limits: ImagesConfig) -> PictureSources:
    """The sources of this process for one config: all its threads and tasks share the connections."""
    return PictureSources(limits)


def without_secrets(text: str) -> str:
    """A URI, or a message with URIs, without users, passwords and queries (they may hold a signature), on one line, and
    short."""
    without_queries = re.sub(r"[?#]\S*", "", text[: 2 * LONGEST_URI])
    return _NO_TEXT.sub("?", re.sub(USER_AND_PASSWORD, "://", without_queries))[:200]


def _read_object(uri: str, max_bytes: int) -> bytes:
    """An object of a store, by fsspec; one byte more than ``max_bytes``, so that a too large one is noticed."""
    import fsspec

    try:
        with fsspec.open(uri, "rb") as remote:
            return bytes(remote.read(max_bytes + 1))
    except FileNotFoundError:
        raise NotFetched(Reason.IMAGE_MISSING, "no such object") from None
