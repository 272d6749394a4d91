"""Connections to web servers whose addresses were checked.

A host's name is resolved, every address is checked, and the connection goes to the address that was checked, so a name
that resolves to a private address a moment later (DNS rebinding) changes nothing. Redirects are left to the caller. A
request's time limit holds for its whole answer. Proxies from the environment are not used: they would resolve the name.
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
from urllib3.exceptions import LocationParseError
from urllib3.util import Timeout, Url, parse_url
from urllib3.util.ssl_ import create_urllib3_context

from catalog_enrichment.config.images import WEB_SCHEMES, FetchConfig
from catalog_enrichment.web.limits import Deadline, NotAllowed, PrivateHosts

Resolve = Callable[[str, int], Sequence[str]]
"""(host, port) -> its addresses. Raises OSError if there are none."""

CHUNK = 1 << 16
"""Bytes read from a connection at a time."""
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_RESOLVED_SECONDS = 60.0
"""How long checked addresses are used. That is safe: the connection goes to the checked address."""
_HOSTS = 512
"""The most recently used hosts, whose connections and addresses are kept."""


def system_resolver(host: str, port: int) -> list[str]:
    """Return the distinct addresses that the system gives for ``host``."""
    answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(answer[4][0]) for answer in answers))


@dataclass(slots=True)
class Host:
    """The facts about a scheme, host and port."""

    addresses: tuple[str, ...] = ()
    """Checked addresses, used in turn."""
    resolved_at: float = float("-inf")
    failures: int = 0
    """Requests in a row that were not answered, if the caller counts them."""
    paused_until: float = float("-inf")
    """Time before which the caller asks nothing."""
    pools: dict[str, HTTPConnectionPool] = field(default_factory=dict)
    """Address -> its connections."""


class WebHosts:
    """Opens requests to http and https servers; for several threads."""

    def __init__(self, config: FetchConfig, option: str, resolve: Resolve = system_resolver) -> None:
        """``option``: the config key of ``config.private_hosts``, for messages."""
        self._config, self._resolve = config, resolve
        self._private = PrivateHosts(config.private_hosts, option)
        self._hosts: OrderedDict[tuple[str, str, int], Host] = OrderedDict()
        self._lock = threading.Lock()
        self._ssl_context: ssl.SSLContext | None = None

    def parse(self, uri: str) -> Url:
        """Parse a URI. Raises NotAllowed if it is malformed, has another scheme than allowed, or a user or password."""
        try:
            url = parse_url(uri)
            port = url.port
        except (LocationParseError, ValueError):
            raise NotAllowed("not a valid URI") from None
        if url.scheme not in WEB_SCHEMES or url.scheme not in self._config.schemes:
            raise NotAllowed(f"scheme {url.scheme!r} is not allowed here")
        if not url.host or port == 0 or "%" in url.host:
            raise NotAllowed("not a valid URI: no host or port")
        if url.auth is not None:
            raise NotAllowed("a user name or password in the URI")
        return url

    def host(self, url: Url) -> Host:
        """Return what is known of the server of ``url``."""
        key = (str(url.scheme), str(url.host), port_of(url))
        with self._lock:
            host = self._hosts.setdefault(key, Host())
            self._hosts.move_to_end(key)
            if len(self._hosts) > _HOSTS:
                self._hosts.popitem(last=False)  # idle connections are closed when the pool is collected
        return host

    def _check_addresses(self, url: Url, host: Host, deadline: Deadline) -> None:
        """Resolve the host and check its addresses. Raises NotAllowed for an address, OSError without any."""
        now = time.monotonic()
        if now - host.resolved_at < _RESOLVED_SECONDS:
            return
        name = name_of(url)
        try:
            addresses = tuple(deadline.call(lambda: self._resolve(name, port_of(url))))
        except UnicodeError:  # an empty or too long label
            raise NotAllowed("not a valid host name") from None
        if not addresses:
            raise OSError(f"{name} has no address")
        self._private.check(name, addresses)
        host.addresses, host.resolved_at = addresses, now

    def open(self, url: Url, attempt: int, deadline: Deadline, headers: Mapping[str, str]) -> urllib3.BaseHTTPResponse:
        """Send a GET and return the answer, whose body is not read yet.

        ``attempt``: its number from 0; each attempt goes to the next of several addresses. Raises NotAllowed,
        DeadlineMissed, OSError and urllib3's HTTPError.
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
    """A connected socket whose ``settimeout(s)`` allows s seconds for everything that is read until the next call.

    A plain socket's time limit begins again with every byte. urllib3 calls settimeout before it reads an answer.
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
    """Return the host without the brackets of an IPv6 address."""
    return str(url.host).strip("[]")


def redirect_target(response: urllib3.BaseHTTPResponse, url: Url) -> str | None:
    """Return the URI that the answer of ``url`` redirects to, with the connection free again; None if it does not.

    Raises NotAllowed for a target that is no valid URI.
    """
    target = response.headers.get("Location")
    if response.status not in _REDIRECTS or not target:
        return None
    discard(response)
    try:
        return urljoin(url.url, target)
    except ValueError:
        raise NotAllowed("redirected to something that is not a valid URI") from None


def body_within(response: urllib3.BaseHTTPResponse, max_bytes: int) -> bytes | None:
    """Return the answer's body; None, with the connection closed, if it has more than ``max_bytes``."""
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
    """Return the length that the header declares, infinity for a number of absurd length; None without a length."""
    declared = response.headers.get("Content-Length", "")
    if not declared.isdecimal():
        return None
    return int(declared) if len(declared) < 20 else math.inf


def discard(response: urllib3.BaseHTTPResponse) -> None:
    """Make the connection ready for the next request, or close it if much would have to be read."""
    declared = _declared_bytes(response)
    if declared is not None and declared <= CHUNK and "Transfer-Encoding" not in response.headers:
        response.drain_conn()
    else:
        response.close()
