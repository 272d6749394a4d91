"""Who may use the page: Host and Origin checked, a token wherever the server does not listen on loopback alone.

The token is given once, in a form, and the browser then has a cookie with a random session value, which nobody can
guess and which ends with the server. Only tokens are guessed, so only they are limited (:mod:`page.guesses`).

A web page that a reviewer has open elsewhere can send requests to this server from the reviewer's browser. It cannot
send them with another Host or Origin header, read the answer, or send JSON without being asked first (CORS preflight,
which is never answered). So a request is served if its Host is a name of this server (DNS rebinding comes with the
attacker's name), and changes something only as JSON and with an Origin of this server.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
import secrets
import socket
from dataclasses import dataclass, field
from enum import IntEnum
from urllib.parse import urlsplit

from catalog_enrichment.audit.page.guesses import Guesses
from catalog_enrichment.errors import ConfigError

TOKEN_VARIABLE = "CATALOG_ENRICHMENT_AUDIT_TOKEN"
"""Environment variable with the token; where it is not set, a token is made and printed."""
MANAGER_VARIABLE = "CATALOG_ENRICHMENT_AUDIT_MANAGER_TOKEN"
"""Environment variable with the managers' token; where it is not set, there are no managers."""
SHORTEST_TOKEN = 16
LARGEST_BODY = 65_536
"""Bytes of a request's body."""
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""Headers of every answer. No script or style in the page itself is run, so that no merchant's text is run."""


_HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[0-9a-zA-Z._-]+)(:[0-9]{1,5})?")
"""A Host header: a name or address, and a port (RFC 9112, 3.2)."""


class Role(IntEnum):
    STRANGER = 0
    REVIEWER = 1
    MANAGER = 2
    """May adjudicate items that are settled."""


class TooManyGuessesError(Exception):
    """The address gave too many wrong tokens, and its tokens are not looked at for :attr:`seconds`."""

    def __init__(self, seconds: float) -> None:
        self.seconds = int(seconds) + 1
        super().__init__(f"too many wrong tokens came from this address: wait {self.seconds} seconds")


@dataclass(frozen=True, kw_only=True, slots=True)
class Guard:
    host: str = "127.0.0.1"
    """Address that the server listens on."""
    public_url: str = ""
    """The server's address for people, if a proxy is between: https://audit.example.org."""
    token: str = field(default="", repr=False)
    """The token that requests must carry; empty where none is asked for, which is possible on loopback only."""
    manager_token: str = field(default="", repr=False)
    """The token of those who may change what is settled and, where it is set, are the only people who adjudicate."""
    sessions: dict[Role, str] = field(
        default_factory=lambda: {role: secrets.token_urlsafe(32) for role in (Role.REVIEWER, Role.MANAGER)}, repr=False
    )
    """The value of the cookie of those who gave a token."""
    guesses: Guesses = field(default_factory=Guesses, repr=False)

    def __post_init__(self) -> None:
        parts = urlsplit(self.public_url)
        if self.public_url and (parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/")):
            raise ConfigError(
                f"--public-url must be like https://audit.example.org, without a path: {self.public_url!r}"
            )
        if not self.token and (not is_loopback(self.host) or self.public_url):
            raise ConfigError(f"a server on {self.host} needs a token: set {TOKEN_VARIABLE}")
        for name, token in ((TOKEN_VARIABLE, self.token), (MANAGER_VARIABLE, self.manager_token)):
            if token and len(token) < SHORTEST_TOKEN:
                raise ConfigError(f"the token in {name} is shorter than {SHORTEST_TOKEN} characters")
        if self.token and self.token == self.manager_token:
            raise ConfigError(f"{TOKEN_VARIABLE} and {MANAGER_VARIABLE} are the same token: choose two")

    @property
    def secure(self) -> bool:
        """Browsers reach the server by https alone: then cookies are sent by https alone."""
        return self.public_url.startswith("https://")

    def knows_host(self, header: str) -> bool:
        """Return whether the Host header names this server; on loopback a loopback address or localhost does."""
        name = _host_of(header)
        if self.public_url and name == urlsplit(self.public_url).hostname:
            return True
        if name == "localhost" or _is_address(name, loopback=True):
            return True
        if is_loopback(self.host):
            return False
        own = {self.host.lower(), socket.gethostname().lower(), socket.getfqdn().lower()}
        return name in own or _is_address(name)

    def knows_origin(self, origin: str, host_header: str) -> bool:
        """Return whether a page with this Origin may change something: a page of this server or its public URL."""
        if self.public_url and origin.lower() == self.public_url.rstrip("/").lower():
            return True
        return origin.lower() in (f"http://{host_header.lower()}", f"https://{host_header.lower()}")

    def role_of_session(self, cookie: str) -> Role:
        """Return the role of those whose cookie has this value."""
        found = (role for role, session in self.sessions.items() if _is_same(cookie, session))
        return max(found, default=Role.STRANGER if self.token else Role.REVIEWER)

    def role_of_token(self, given: str, address: str) -> Role:
        """Return the role that the token ``given`` from the client's ``address`` has. For a single thread.

        Raises TooManyGuessesError, whatever the token, while the address has to wait.
        """
        if not self.asks_token:
            return Role.REVIEWER
        if wait := self.guesses.wait(address):
            raise TooManyGuessesError(wait)
        for role, token in ((Role.MANAGER, self.manager_token), (Role.REVIEWER, self.token)):
            if token and _is_same(given, token):
                return role
        self.guesses.wrong(address, given)
        return Role.STRANGER

    @property
    def asks_token(self) -> bool:
        """Some of what the page does needs a token."""
        return bool(self.token or self.manager_token)

    def refusal(self, method: str, headers: dict[str, str]) -> tuple[int, str] | None:
        """Return status and message of a request that is not served. ``headers``: names in lower case."""
        host = headers.get("host", "")
        if not self.knows_host(host):
            return (
                421,
                f"this server is not called {host!r}; start serve_audit with --public-url if a proxy calls it so",
            )
        if method in SAFE:
            return None
        origin, site = headers.get("origin"), headers.get("sec-fetch-site", "same-origin")
        if (origin is not None and not self.knows_origin(origin, host)) or site not in ("same-origin", "none"):
            return 403, "the request comes from a page of another site"
        if headers.get("content-type", "").split(";")[0].strip().lower() != "application/json":
            return 415, "send JSON, with the header Content-Type: application/json"
        length = headers.get("content-length", "")
        if not length.isascii() or not length.isdigit() or "transfer-encoding" in headers:
            return 411, "send the header Content-Length, and the body in one piece"
        is_large = len(length) > 9 or int(length) > LARGEST_BODY
        return (413, f"send at most {LARGEST_BODY} bytes") if is_large else None


def is_loopback(host: str) -> bool:
    """Return whether only programs of this machine reach a server that listens on ``host``."""
    return host.lower() == "localhost" or _is_address(host, loopback=True)


def _host_of(header: str) -> str:
    """Return the name or address in a Host header, without port and brackets; "" for a malformed header."""
    found = _HOST.fullmatch(header)
    return found[1].strip("[]").lower() if found else ""


def _is_same(given: str, secret: str) -> bool:
    """Return whether the two are equal, compared in constant time."""
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), secret.encode())


def _is_address(name: str, loopback: bool = False) -> bool:
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    return address.is_loopback or not loopback
