"""Connections to web servers whose addresses were checked.

A host's name is resolved, every address is checked, and the connection goes to the very address that was checked: a
name that resolves to a private address a moment later (DNS rebinding) changes nothing. Redirects are not followed here.
A request's time limit holds for its whole answer, so a server that sends a byte a second is cut off. Connections are
kept and used again. Proxies from the environment are not used: they would resolve the name.
"""

from __future__ import annotations

import io
import math
import socket
import ssl
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urljoin

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError, LocationParseError
from urllib3.util import Timeout, Url, parse_url
from urllib3.util.retry import Retry
from urllib3.util.ssl_ import create_urllib3_context

from catalog_enrichment.config.fetch import WEB_SCHEMES, FetchConfig
from catalog_enrichment.records import Reason
from catalog_enrichment.web.limits import Deadline, NotFetched, PrivateHosts

Resolve = Callable[[str, int], Sequence[str]]
"""(host, port) -> its addresses. Raises OSError if there are none."""

CHUNK = 1 << 16
"""Bytes read from a connection at a time."""
REDIRECTS = frozenset({301, 302, 303, 307, 308})
RETRIED = frozenset({408, 425, 429})
"""Statuses below 500 after which a request is worth another try."""

_RESOLVED_SECONDS = 60.0
"""How long checked addresses are used. Safe, since the connection goes to the checked address."""
_HOSTS = 512
"""Hosts whose connections and addresses are kept, those used last."""


def system_resolver(host: str, port: int) -> list[str]:
    """The addresses that the system gives for ``host``, each once."""
    answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(answer[4][0]) for answer in answers))


@dataclass(slots=True)
class Host:
    """What is known of one scheme, host and port."""

    addresses: tuple[str, ...] = ()
    """Checked; used in turn."""
    resolved_at: float = float("-inf")
    failures: int = 0
    """Requests in a row that were not answered, as far as the caller counts them."""
    paused_until: float = float("-inf")
    """Until when the caller asks nothing."""
    pools: dict[str, HTTPConnectionPool] = field(default_factory=dict)
    """Address -> its connections."""


class WebHosts:
    """Opens requests to http and https servers; for several threads."""

    def __init__(self, config: FetchConfig, private: PrivateHosts, resolve: Resolve = system_resolver) -> None:
        self._config, self._resolve, self._private = config, resolve, private
        self._hosts: OrderedDict[tuple[str, str, int], Host] = OrderedDict()
        self._lock = threading.Lock()
        self._ssl_context: ssl.SSLContext | None = None

    def parse(self, uri: str) -> Url:
        """Raises NotFetched for what is no URI of a scheme that is allowed, and for one with a user or password."""
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

    def host(self, url: Url) -> Host:
        """What is known of the server, for :meth:`open`."""
        key = (str(url.scheme), str(url.host), port_of(url))
        with self._lock:
            host = self._hosts.setdefault(key, Host())
            self._hosts.move_to_end(key)
            if len(self._hosts) > _HOSTS:
                self._hosts.popitem(last=False)  # idle connections are closed when the pool is collected
        return host

    def _check_addresses(self, url: Url, host: Host, deadline: Deadline) -> None:
        """Resolve and check. Raises NotFetched for an address that is not allowed, OSError without any."""
        now = time.monotonic()
        if now - host.resolved_at < _RESOLVED_SECONDS:
            return
        name = name_of(url)
        try:
            addresses = tuple(deadline.call(lambda: self._resolve(name, port_of(url))))
        except UnicodeError:  # an empty or too long label
            raise NotFetched(Reason.IMAGE_NOT_ALLOWED, "not a valid host name") from None
        if not addresses:
            raise OSError(f"{name} has no address")
        self._private.check(name, addresses)
        host.addresses, host.resolved_at = addresses, now

    def open(self, url: Url, attempt: int, deadline: Deadline, headers: Mapping[str, str]) -> urllib3.BaseHTTPResponse:
        """The answer to a GET, its body not read yet. Raises NotFetched, OSError and urllib3's HTTPError.

        ``attempt``: its number from 0; the next one goes to the next of several addresses.
        """
        host = self.host(url)
        self._check_addresses(url, host, deadline)
        address = host.addresses[attempt % len(host.addresses)]
        with self._lock:
            pool = host.pools.get(address) or host.pools.setdefault(address, self._pool(url, address))
        remaining = deadline.remaining
        return pool.urlopen(
            "GET",
            url.request_uri,
            headers={**headers, "Host": str(url.netloc)},
            retries=False,
            redirect=False,
            assert_same_host=False,
            timeout=Timeout(total=remaining, connect=min(self._config.connect_seconds, remaining)),
            preload_content=False,
            decode_content=False,
        )

    def _pool(self, url: Url, address: str) -> HTTPConnectionPool:
        if url.scheme == "http":
            return _HttpPool(address, port_of(url), maxsize=self._config.threads)
        if self._ssl_context is None:
            context = create_urllib3_context()
            context.load_default_certs()
            self._ssl_context = context
        return _HttpsPool(
            address,
            port_of(url),
            maxsize=self._config.threads,
            ssl_context=self._ssl_context,
            cert_reqs="CERT_REQUIRED",
            server_hostname=name_of(url),  # the certificate must be the host's, not the address's
        )


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


def port_of(url: Url) -> int:
    return url.port or (443 if url.scheme == "https" else 80)


def name_of(url: Url) -> str:
    """The host without the brackets of an IPv6 address."""
    return str(url.host).strip("[]")


def join(url: Url, target: str) -> str:
    """The URI of a redirect or link in the answer of ``url``. Raises NotFetched."""
    try:
        return urljoin(url.url, target)
    except ValueError:
        raise NotFetched(Reason.IMAGE_NOT_ALLOWED, "redirected to something that is not a valid URI") from None


def retry_after(response: urllib3.BaseHTTPResponse) -> float | None:
    """Seconds that the server asks to wait; None without a header that can be read."""
    try:
        return Retry(0).get_retry_after(response)
    except (HTTPError, ValueError, OverflowError):  # thousands of digits, the year 9999999
        return None


def body_within(response: urllib3.BaseHTTPResponse, max_bytes: int) -> bytes | None:
    """The answer's body; None, with the connection closed, if it is larger."""
    declared = _declared_bytes(response)
    content = io.BytesIO()
    if declared is None or declared <= max_bytes:
        while chunk := response.read(CHUNK):
            content.write(chunk)
            if content.tell() > max_bytes:
                break
        else:
            return content.getvalue()
    response.close()
    return None


def _declared_bytes(response: urllib3.BaseHTTPResponse) -> float | None:
    """The length that the header declares, infinite for a number of absurd length; None without one."""
    declared = response.headers.get("Content-Length", "")
    if not declared.isdecimal():
        return None
    return int(declared) if len(declared) < 20 else math.inf


def discard(response: urllib3.BaseHTTPResponse) -> None:
    """Leave the connection ready for the next request, or close it where that would mean reading much."""
    declared = _declared_bytes(response)
    if declared is not None and declared <= CHUNK and "Transfer-Encoding" not in response.headers:
        response.drain_conn()
    else:
        response.close()
