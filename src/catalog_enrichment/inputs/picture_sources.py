"""Pictures by reference: the only place that opens a path or URI of a product.

A feed may name anything, so only the paths and URIs that `[images.fetch]` allows are opened: http and https to public
hosts, files in the allowed folders, objects below the allowed URIs. No fetch raises or waits longer than
`images.fetch.seconds`: a picture that was not fetched has a Reason. Reasons of
:data:`~catalog_enrichment.reasons.TRANSIENT` are outages, which may be over in another run; the others hold until the
feed, the picture or the config changes.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from urllib.parse import unquote

import urllib3
from urllib3.exceptions import HTTPError
from urllib3.util import Url

from catalog_enrichment.config.images import WEB_SCHEMES, FetchConfig, ImagesConfig, StoredImagesConfig
from catalog_enrichment.errors import TemporaryFailure
from catalog_enrichment.inputs.scaled_copies import Validators
from catalog_enrichment.inputs.stored_pictures import StoredPictures
from catalog_enrichment.masking import USER_AND_PASSWORD
from catalog_enrichment.reasons import Reason
from catalog_enrichment.web.hosts import Resolve, WebHosts, body_within, discard, redirect_target, system_resolver
from catalog_enrichment.web.limits import Deadline, DeadlineMissed, NotAllowed
from catalog_enrichment.web.retries import Busy, check_not_busy, pause_seconds

MISSING = "missing"
"""The version of a local picture that does not exist."""
PAUSE_AFTER, PAUSE_SECONDS = 5, 60.0
"""Pictures in a row that a host did not deliver -> seconds for which it is not asked again: 1,000 pictures of a host
that is down do not cost 1,000 times the deadline."""

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*)://")
_NO_TEXT = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""Control characters, line breaks and lone surrogates, which a log or a table must not get from a feed."""
LONGEST_URI = 8192
"""Characters; servers refuse longer ones, and no file system has such paths."""
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EINVAL, errno.EILSEQ}
"""Errors that a path can cause while the storage works."""
_ABSENT = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG}
_LONGEST_VALIDATOR = 200
_FIRST_PAUSE = 0.4
"""Seconds before the first retry."""
_HEADERS = {"Accept": "image/*", "Accept-Encoding": "identity", "User-Agent": "catalog-enrichment"}


@dataclass(frozen=True, slots=True)
class Fetched:
    """A picture's encoded bytes, or the reason why there are none: exactly one of ``data`` and ``reason`` is None."""

    data: bytes | None
    reason: Reason | None = None
    detail: str = ""
    validators: Validators = ("", "")
    """What a web server sent to ask later whether the picture has changed."""
    is_unchanged: bool = False
    """The server says that the picture is the one with the validators that it was asked with; both are None then."""


class _NotFetched(Exception):
    """A picture that was not fetched, and why. It does not leave this file."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason, self.detail = reason, detail


@contextmanager
def _as_not_fetched() -> Iterator[None]:
    """Raise _NotFetched in place of the errors of :mod:`catalog_enrichment.web`."""
    try:
        yield
    except NotAllowed as problem:
        raise _NotFetched(Reason.IMAGE_NOT_ALLOWED, str(problem)) from None
    except DeadlineMissed as problem:
        raise _NotFetched(Reason.IMAGE_UNREACHABLE, str(problem)) from None


class PictureSources:
    """Opens pictures by reference, under a config; for several threads. Keeps connections open."""

    def __init__(self, limits: ImagesConfig, resolve: Resolve = system_resolver) -> None:
        """``limits``: with absolute folders (:meth:`Config.pictures`)."""
        self._config, self._max_bytes = limits.fetch, limits.max_bytes
        self._store, self._remote = StoredPictures.of(limits), "://" in limits.store
        self._root = limits.root if isinstance(limits, StoredImagesConfig) else ""
        folders = limits.fetch.allowed_folders
        self._folders = [os.path.realpath(folder) for folder in folders if "://" not in folder]
        self._roots = [folder.rstrip("/") for folder in folders if "://" in folder]
        self._web = _WebPictures(limits.fetch, limits.max_bytes, resolve)

    def fetch(self, uri: str, deadline: Deadline | None = None, known: Validators = ("", "")) -> Fetched:
        """Return the picture at a path or URI; from a server or store before ``deadline``. Never raises.

        ``known``: the validators of the picture as it was; a web server need not send it again.
        """
        try:
            with _as_not_fetched():
                return self._read(uri, deadline, known)
        except _NotFetched as problem:
            return Fetched(None, problem.reason, f"{without_secrets(uri)}: {without_secrets(problem.detail)}")
        except Exception as problem:  # every library behind a scheme has its own exceptions
            detail = without_secrets(f"{type(problem).__name__}: {problem}")
            return Fetched(None, Reason.IMAGE_UNREACHABLE, f"{without_secrets(uri)}: {detail}")

    def stored(self, version: str, of_product: Deadline | None = None) -> Fetched:
        """Return the picture that the catalog keeps under this version; from an object store in time. Never raises."""
        try:
            if not self._remote:
                return Fetched(self._store.get(version))
            with _as_not_fetched():
                return Fetched(self._deadline(of_product).call(lambda: self._store.get(version)))
        except _NotFetched as problem:
            return Fetched(None, problem.reason, f"images.store: {problem.detail} for {version}")
        except ValueError:
            return Fetched(None, Reason.IMAGE_MISSING, "neither bytes nor a uri")
        except FileNotFoundError:
            return Fetched(None, Reason.IMAGE_MISSING, f"not in images.store any more: {version}")
        except Exception as problem:  # obstore has its own exceptions
            return Fetched(None, Reason.IMAGE_UNREACHABLE, f"images.store: {type(problem).__name__} for {version}")

    def version(self, uri: str, realpath: Callable[[str], str] = os.path.realpath) -> str:
        """Return a local file's size and modification time, or MISSING; for everything else the URI itself.

        Nothing is opened, and a file outside the allowed folders is not looked at: its version is its URI.
        ``realpath`` is asked for folders and links; a caller with many URIs passes a function that remembers. Raises
        TemporaryFailure where the storage does not answer or a whole allowed folder may not be read: another version
        would mean another picture, whose values are decided anew and retracted. Where only this path may not be looked
        at, its version is its URI: a single row must not stop an import.
        """
        try:
            scheme, path = self._split(uri)
            if scheme != "file":
                return uri
            _, status = self._stat(path, realpath)
        except _NotFetched as problem:
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
        """Return whether the allowed folders that ``path`` is in can be read themselves."""
        inside = [folder for folder in self._folders if path.startswith(folder.rstrip("/") + "/")]
        return all(os.access(folder, os.R_OK | os.X_OK) for folder in inside)

    def _read(self, uri: str, of_product: Deadline | None, known: Validators) -> Fetched:
        scheme, path = self._split(uri)
        if scheme == "file":
            return Fetched(self._read_file(path))
        deadline = self._deadline(of_product)
        if scheme in WEB_SCHEMES:
            return self._web.read(uri, deadline, known)
        if "::" in uri:
            raise _NotFetched(Reason.IMAGE_NOT_ALLOWED, "chained URIs (::) are not allowed")
        if ".." in uri.split("/") or not any(uri.startswith(root + "/") for root in self._roots):
            raise _NotFetched(Reason.IMAGE_NOT_ALLOWED, "not below one of images.fetch.allowed_folders")
        return Fetched(deadline.call(lambda: _read_object(uri, self._max_bytes)))

    def _deadline(self, of_product: Deadline | None) -> Deadline:
        """Return the deadline of a picture, or of its product where that is earlier."""
        seconds = self._config.seconds
        return of_product if of_product and of_product.remaining < seconds else Deadline(seconds)

    def _split(self, uri: str) -> tuple[str, str]:
        """Return the scheme (`file` for a plain path), and for files the path; a relative path starts at the config's
        root. Raises _NotFetched if not allowed."""
        if len(uri) > LONGEST_URI:
            raise _NotFetched(Reason.IMAGE_NOT_ALLOWED, f"a URI of more than {LONGEST_URI:,} characters")
        found = _SCHEME.match(uri)
        if not found and "://" in uri:
            raise _NotFetched(Reason.IMAGE_NOT_ALLOWED, "not a valid URI, or a chain of several")
        scheme = found[1].lower() if found else "file"
        if scheme not in self._config.schemes:
            raise _NotFetched(Reason.IMAGE_NOT_ALLOWED, f"scheme {scheme!r} is not one of images.fetch.schemes")
        if not found:
            return scheme, os.path.join(self._root, uri) if uri else uri  # noqa: PTH118  Path would change the path
        if scheme != "file":
            return scheme, uri
        host, slash, rest = uri[found.end() :].partition("/")
        if host not in ("", "localhost"):
            raise _NotFetched(Reason.IMAGE_NOT_ALLOWED, "a file URI with a host")
        return scheme, unquote(re.split("[?#]", slash + rest, maxsplit=1)[0])

    def _stat(self, path: str, realpath: Callable[[str], str] = os.path.realpath) -> tuple[str, os.stat_result]:
        """Return the file's real path and status. Raises _NotFetched outside the folders and without a regular file."""
        if not path or "\0" in path:
            raise _NotFetched(Reason.IMAGE_MISSING, "not a path")
        folder, name = os.path.split(path)
        if ".." in path.split("/") or not name:
            raise _NotFetched(Reason.IMAGE_NOT_ALLOWED, "a path with .. or without a file name")
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
                raise _NotFetched(Reason.IMAGE_MISSING, "no such file") from None
            raise
        except ValueError:  # characters that no path has
            raise _NotFetched(Reason.IMAGE_MISSING, "not a path") from None
        if not stat.S_ISREG(status.st_mode):  # a folder, a device, or a pipe, which might never end
            raise _NotFetched(Reason.IMAGE_MISSING, "not a regular file")
        return real, status

    def _check_inside(self, real: str) -> None:
        if not any(real.startswith(folder.rstrip("/") + "/") for folder in self._folders):
            raise _NotFetched(Reason.IMAGE_NOT_ALLOWED, "not in one of images.fetch.allowed_folders")

    def _read_file(self, path: str) -> bytes:
        real, _ = self._stat(path)
        # NOFOLLOW, NONBLOCK: it may have been replaced by a link or a pipe since
        descriptor = os.open(real, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:  # noqa: PTH123  Path cannot open a descriptor
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise _NotFetched(Reason.IMAGE_MISSING, "not a regular file")
            if status.st_size > self._max_bytes:
                raise _NotFetched(Reason.IMAGE_TOO_LARGE, f"more than {self._max_bytes} bytes")
            return file.read(status.st_size)  # 0 bytes of the files in /proc, which have no size and may never end


class _WebPictures:
    """Fetches pictures by http and https; for several threads.

    Connections go to the addresses that :mod:`catalog_enrichment.web.hosts` checks. Redirects are followed here, and
    each target is checked like the first URI. A single deadline holds for all requests of a picture.
    """

    def __init__(self, config: FetchConfig, max_bytes: int, resolve: Resolve = system_resolver) -> None:
        self._config, self._max_bytes = config, max_bytes
        self._hosts = WebHosts(config, "images.fetch.private_hosts", resolve)

    def read(self, uri: str, deadline: Deadline, known: Validators) -> Fetched:
        """Return the picture, or that it is unchanged.

        Raises _NotFetched and the errors that :func:`_as_not_fetched` turns into it.
        """
        for _ in range(self._config.redirects + 1):
            url = self._hosts.parse(uri)
            answer = self._read(url, deadline, known)
            if isinstance(answer, Fetched):
                return answer
            uri = answer
        raise _NotFetched(Reason.IMAGE_NOT_ALLOWED, f"more than {self._config.redirects} redirects")

    def _read(self, url: Url, deadline: Deadline, known: Validators) -> Fetched | str:
        """Return the picture, or the URI of a redirect, and count the failures of the host."""
        host = self._hosts.host(url)
        if time.monotonic() < host.paused_until:
            raise _NotFetched(
                Reason.IMAGE_UNREACHABLE, f"{url.host} is not asked for {PAUSE_SECONDS:g} s: it did not answer before"
            )
        had_time = deadline.remaining >= min(self._config.connect_seconds, self._config.seconds / 2)
        try:
            with _as_not_fetched():
                answer = self._with_retries(url, deadline, known)
        except _NotFetched as problem:
            if problem.reason is Reason.IMAGE_UNREACHABLE and not had_time:
                pass  # not the fault of the host: another host redirected to it late, or other pictures took the time
            elif problem.reason is Reason.IMAGE_UNREACHABLE:
                host.failures += 1
                if host.failures >= PAUSE_AFTER:
                    host.paused_until = time.monotonic() + PAUSE_SECONDS
                    host.failures = PAUSE_AFTER - 1  # a single failure after the pause is enough for the next
            else:
                host.failures = 0
            raise
        host.failures = 0
        return answer

    def _with_retries(self, url: Url, deadline: Deadline, known: Validators) -> Fetched | str:
        attempt, conditions = 0, zip(("If-None-Match", "If-Modified-Since"), known, strict=True)
        headers = _HEADERS | {name: value for name, value in conditions if value}
        while True:
            asked = None
            try:
                response = self._hosts.open(url, attempt, deadline, headers)
                check_not_busy(response)
                if response.status == 304 and any(known):
                    discard(response)
                    return Fetched(None, is_unchanged=True)
                return self._body(response, url)
            except Busy as busy:
                problem, asked = str(busy), busy.asked_seconds
            except (HTTPError, OSError) as failed:
                deadline.check()  # that may be why it failed
                problem = f"{type(failed).__name__}: {failed}"[:200]
            pause = pause_seconds(attempt, _FIRST_PAUSE, asked)
            if attempt == self._config.retries or pause >= deadline.remaining:
                raise _NotFetched(Reason.IMAGE_UNREACHABLE, problem)
            time.sleep(pause)
            attempt += 1

    def _body(self, response: urllib3.BaseHTTPResponse, url: Url) -> Fetched | str:
        """Return the picture, or the target of a redirect. Raises _NotFetched for another status and too many bytes."""
        status = response.status
        if status == 200:
            content = body_within(response, self._max_bytes)
            if content is None:
                raise _NotFetched(Reason.IMAGE_TOO_LARGE, f"more than {self._max_bytes} bytes")
            return Fetched(content, validators=_validators(response))
        if target := redirect_target(response, url):
            return target
        discard(response)
        if 400 <= status < 500:
            raise _NotFetched(Reason.IMAGE_MISSING, f"HTTP {status}")
        raise _NotFetched(Reason.IMAGE_UNREADABLE, f"HTTP {status}")


def _validators(response: urllib3.BaseHTTPResponse) -> Validators:
    """Return the validators of an answer; a header that could not be sent back is left out."""
    given = [response.headers.get(name, "") for name in ("ETag", "Last-Modified")]
    etag, modified = (value if len(value) <= _LONGEST_VALIDATOR and value.isprintable() else "" for value in given)
    return etag, modified


@cache
def picture_sources(limits: ImagesConfig) -> PictureSources:
    """Return this process's sources for a config: all its threads and tasks share the connections."""
    return PictureSources(limits)


def without_secrets(text: str) -> str:
    """Return a URI, or a message with URIs, without users, passwords and queries (which may hold a signature).

    The result is a single line of at most 200 characters.
    """
    without_queries = re.sub(r"[?#]\S*", "", text[: 2 * LONGEST_URI])
    return _NO_TEXT.sub("?", re.sub(USER_AND_PASSWORD, "://", without_queries))[:200]


def _read_object(uri: str, max_bytes: int) -> bytes:
    """Read an object of a store, by fsspec; a byte more than ``max_bytes``, so that a too large object is noticed."""
    import fsspec

    try:
        with fsspec.open(uri, "rb") as remote:
            return bytes(remote.read(max_bytes + 1))
    except FileNotFoundError:
        raise _NotFetched(Reason.IMAGE_MISSING, "no such object") from None
