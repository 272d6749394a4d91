"""Pictures from http and https servers.

A host's name is resolved, every address is checked, and the connection goes to the very address that was checked: a
name that resolves to a private address a moment later (DNS rebinding) changes nothing. Redirects are followed here, and
each target is checked like the first URI. One deadline holds for all of it, so a server that sends a byte a second is
cut off. Connections are kept and used again. Proxies from the environment are not used: they would resolve the name.
"""

from __future__ import annotations

import io
import math
import random
import socket
import ssl
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urljoin

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError, LocationParseError, MaxRetryError
from urllib3.util import Timeout, Url, parse_url
from urllib3.util.retry import Retry
from urllib3.util.ssl_ import create_urllib3_context

from catalog_enrichment.config.fetch import WEB_SCHEMES, FetchConfig
from catalog_enrichment.inputs.fetch_limits import Deadline, NotFetched, PrivateHosts
from catalog_enrichment.records import Reason

Resolve = Callable[[str, int], Sequence[str]]
"""(host, port) -> its addresses. Raises OSError if there are none."""

PAUSE_AFTER, PAUSE_SECONDS = 5, 60.0
"""After so many pictures in a row that a host did not deliver, it is not asked for so long: 1,000 pictures of a host
that is down do not cost 1,000 times the deadline."""

_RESOLVED_SECONDS = 60.0
"""How long checked addresses are used. Safe, since the connection goes to the checked address."""
_HOSTS = 512
"""Hosts whose connections and addresses are kept, those used last."""
_BACKOFF_SECONDS = 0.5
_CHUNK = 1 << 16
_RETRIED = frozenset({408, 425, 429})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_HEADERS = {"Accept": "image/*", "Accept-Encoding": "identity", "User-Agent": "catalog-enrichment"}


def system_resolver(host: str, port: int) -> list[str]:
    """The addresses that the system gives for ``host``, each once."""
    answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(answer[4][0]) for answer in answers))


@dataclass(slots=True)
class _Host:
    """What is known of one scheme, host and port."""

    addresses: tuple[str, ...] = ()
    """Checked; used in turn."""
    resolved_at: float = float("-inf")
    failures: int = 0
    """Pictures in a row that could not be reached."""
    paused_until: float = float("-inf")
    pools: dict[str, HTTPConnectionPool] = field(default_factory=dict)
    """Address -> its connections."""


class WebPictures:
    """Fetches pictures by http and https; for several threads."""

    def __init__(self, config: FetchConfig, max_bytes: int, resolve: Resolve = system_resolver) -> None:
        self._config, self._max_bytes, self._resolve = config, max_bytes, resolve
        self._private = PrivateHosts(config.private_hosts)
        self._hosts: OrderedDict[tuple[str, str, int], _Host] = OrderedDict()
        self._lock = threading.Lock()
        self._ssl_context: ssl.SSLContext | None = None

    def read(self, uri: str, deadline: Deadline) -> bytes:
        """The picture's bytes. Raises NotFetched."""
        for _ in range(self._config.redirects + 1):
            url = self._parse(uri)
            answer = self._read(url, deadline)
            if isinstance(answer, bytes):
                return answer
            uri = answer
        raise NotFetched(Reason.IMAGE_NOT_ALLOWED, f"more than {self._config.redirects} redirects")

    def _parse(self, uri: str) -> Url:
        try:
            url = parse_url(uri)
            port = url.port
        except (LocationParseError, ValueError):
            raise NotFetched(Reason.IMAGE_NOT_ALLOWED, "not a valid URI") from None
        if url.scheme not in WEB_SCHEMES or url.scheme not in self._config.schemes:
            raise NotFetched(Reason.IMAGE_NOT_ALLOWED, f"scheme {url.scheme!r} is not allowed here")
        if not url.host or port == 0 or "%" in url.host:
            raise NotFetched(Reason.IMAGE_NOT_ALLOWED, "not a valid URI: no host or port")
        if url.auth is not None:
            raise NotFetched(Reason.IMAGE_NOT_ALLOWED, "a user name or password in the URI")
        return url

    def _read(self, url: Url, deadline: Deadline) -> bytes | str:
        """The bytes, or the URI of a redirect. Tries again what may work a moment later."""
        host = self._host(url)
        if time.monotonic() < host.paused_until:
            raise NotFetched(
                Reason.IMAGE_UNREACHABLE, f"{url.host} is not asked for {PAUSE_SECONDS:g} s: it did not answer before"
            )
        had_time = deadline.remaining >= min(self._config.connect_seconds, self._config.seconds / 2)
        try:
            answer = self._with_retries(url, host, deadline)
        except NotFetched as problem:
            if problem.reason is Reason.IMAGE_UNREACHABLE and not had_time:
                pass  # not the fault of the host: another one redirected to it late, or other pictures took the time
            elif problem.reason is Reason.IMAGE_UNREACHABLE:
                host.failures += 1
                if host.failures >= PAUSE_AFTER:
                    host.paused_until = time.monotonic() + PAUSE_SECONDS
                    host.failures = PAUSE_AFTER - 1  # one more failure after the pause is enough for the next
            else:
                host.failures = 0
            raise
        host.failures = 0
        return answer

    def _with_retries(self, url: Url, host: _Host, deadline: Deadline) -> bytes | str:
        tries = Retry(total=self._config.retries, backoff_factor=_BACKOFF_SECONDS / 2, backoff_jitter=_BACKOFF_SECONDS)
        while True:
            retry_after = None
            try:
                self._check_addresses(url, host, deadline)
                response = self._open(url, host, len(tries.history), deadline)
                if response.status not in _RETRIED and response.status < 500:
                    return self._body(response, url)
                problem = f"HTTP {response.status}"
                retry_after = _retry_after(tries, response)
                response.close()
            except (HTTPError, OSError) as failed:
                deadline.check()  # that may be why it failed
                problem = f"{type(failed).__name__}: {failed}"[:200]
            try:
                tries = tries.increment(method="GET", url=url.path)
            except MaxRetryError:
                raise NotFetched(Reason.IMAGE_UNREACHABLE, problem) from None
            moment = random.uniform(0.5, 1) * _BACKOFF_SECONDS if retry_after is None else retry_after
            wait = max(tries.get_backoff_time(), moment)
            if wait >= deadline.remaining:
                raise NotFetched(Reason.IMAGE_UNREACHABLE, problem)
            time.sleep(wait)

    def _host(self, url: Url) -> _Host:
        key = (str(url.scheme), str(url.host), _port(url))
        with self._lock:
            host = self._hosts.setdefault(key, _Host())
            self._hosts.move_to_end(key)
            if len(self._hosts) > _HOSTS:
                self._hosts.popitem(last=False)  # idle connections are closed when the pool is collected
        return host

    def _check_addresses(self, url: Url, host: _Host, deadline: Deadline) -> None:
        """Resolve and check. Raises NotFetched for an address that is not allowed, OSError without any."""
        now = time.monotonic()
        if now - host.resolved_at < _RESOLVED_SECONDS:
            return
        name = _name(url)
        try:
            addresses = tuple(deadline.call(lambda: self._resolve(name, _port(url))))
        except UnicodeError:  # an empty or too long label
            raise NotFetched(Reason.IMAGE_NOT_ALLOWED, "not a valid host name") from None
        if not addresses:
            raise OSError(f"{name} has no address")
        self._private.check(name, addresses)
        host.addresses, host.resolved_at = addresses, now

    def _open(self, url: Url, host: _Host, attempt: int, deadline: Deadline) -> urllib3.BaseHTTPResponse:
        address = host.addresses[attempt % len(host.addresses)]
        with self._lock:
            pool = host.pools.get(address) or host.pools.setdefault(address, self._pool(url, address))
        remaining = deadline.remaining
        return pool.urlopen(
            "GET",
            url.request_uri,
            headers=_HEADERS | {"Host": str(url.netloc)},
            retries=False,
            redirect=False,
            assert_same_host=False,
            timeout=Timeout(total=remaining, connect=min(self._config.connect_seconds, remaining)),
            preload_content=False,
            decode_content=False,
        )

    def _pool(self, url: Url, address: str) -> HTTPConnectionPool:
        if url.scheme == "http":
            return _HttpPool(address, _port(url), maxsize=self._config.threads)
        if self._ssl_context is None:
            context = create_urllib3_context()
            context.load_default_certs()
            self._ssl_context = context
        return _HttpsPool(
            address,
            _port(url),
            maxsize=self._config.threads,
            ssl_context=self._ssl_context,
            cert_reqs="CERT_REQUIRED",
            server_hostname=_name(url),  # the certificate must be the host's, not the address's
        )

    def _body(self, response: urllib3.BaseHTTPResponse, url: Url) -> bytes | str:
        """The body, or the target of a redirect. Raises NotFetched for another status and for too many bytes."""
        status = response.status
        if status == 200:
            return self._content(response)
        target = response.headers.get("Location")
        _discard(response)
        if status in _REDIRECTS and target:
            return _join(url, target)
        if 400 <= status < 500:
            raise NotFetched(Reason.IMAGE_MISSING, f"HTTP {status}")
        raise NotFetched(Reason.IMAGE_UNREADABLE, f"HTTP {status}")

    def _content(self, response: urllib3.BaseHTTPResponse) -> bytes:
        declared = _declared_bytes(response)
        too_large = NotFetched(Reason.IMAGE_TOO_LARGE, f"more than {self._max_bytes} bytes")
        if declared is not None and declared > self._max_bytes:
            response.close()
            raise too_large
        content = io.BytesIO()
        while chunk := response.read(_CHUNK):
            content.write(chunk)
            if content.tell() > self._max_bytes:
                response.close()
                raise too_large
        return content.getvalue()


class _TimedSocket:
    """A connected socket for which ``settimeout(s)`` means s seconds for all that is read until it is called again.

    A socket's own time limit begins again with every byte. urllib3 calls settimeout before it reads an answer.
    """

    def __init__(self, plain: Any) -> None:
        self.plain = plain
        self.reads_until: float | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.plain, name)

    def settimeout(self, seconds: float | None) -> None:
        self.plain.settimeout(seconds)
        self.reads_until = None if seconds is None else time.monotonic() + seconds

    def makefile(self, mode: str, *_: Any, **__: Any) -> io.BufferedReader:
        return io.BufferedReader(_TimedReads(self, self.plain.makefile(mode, buffering=0)))


class _TimedReads(io.RawIOBase):
    def __init__(self, timed: _TimedSocket, raw: Any) -> None:
        self._timed, self._raw = timed, raw

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        if self._timed.reads_until is not None:
            remaining = self._timed.reads_until - time.monotonic()
            if remaining <= 0:
                raise TimeoutError("timed out")
            self._timed.plain.settimeout(remaining)
        return int(self._raw.readinto(buffer))

    def close(self) -> None:
        self._raw.close()
        super().close()


class _HttpConnection(HTTPConnection):
    def connect(self) -> None:
        super().connect()
        self.sock = _TimedSocket(self.sock)


class _HttpsConnection(HTTPSConnection):
    def connect(self) -> None:
        super().connect()
        self.sock = _TimedSocket(self.sock)


class _HttpPool(HTTPConnectionPool):
    ConnectionCls = _HttpConnection


class _HttpsPool(HTTPSConnectionPool):
    ConnectionCls = _HttpsConnection


def _port(url: Url) -> int:
    return url.port or (443 if url.scheme == "https" else 80)


def _name(url: Url) -> str:
    """The host without the brackets of an IPv6 address."""
    return str(url.host).strip("[]")


def _join(url: Url, target: str) -> str:
    try:
        return urljoin(url.url, target)
    except ValueError:
        raise NotFetched(Reason.IMAGE_NOT_ALLOWED, "redirected to something that is not a valid URI") from None


def _retry_after(tries: Retry, response: urllib3.BaseHTTPResponse) -> float | None:
    """Seconds that the server asks to wait; None without a header that can be read."""
    try:
        return tries.get_retry_after(response)
    except (HTTPError, ValueError, OverflowError):  # thousands of digits, the year 9999999
        return None


def _declared_bytes(response: urllib3.BaseHTTPResponse) -> float | None:
    """The length that the header declares, infinite for a number of absurd length; None without one."""
    declared = response.headers.get("Content-Length", "")
    if not declared.isdecimal():
        return None
    return int(declared) if len(declared) < 20 else math.inf


def _discard(response: urllib3.BaseHTTPResponse) -> None:
    """Leave the connection ready for the next request, or close it where that would mean reading much."""
    declared = _declared_bytes(response)
    if declared is not None and declared <= _CHUNK and "Transfer-Encoding" not in response.headers:
        response.drain_conn()
    else:
        response.close()
