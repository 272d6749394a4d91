"""What a fetch of a picture may reach, and how long it may take."""

from __future__ import annotations

import ipaddress
import queue
import threading
import time
from collections.abc import Callable, Iterable
from typing import TypeVar

from catalog_enrichment.records import Reason

T = TypeVar("T")

_EMBEDDING = tuple(
    ipaddress.ip_network(network)
    for network in ("::ffff:0:0/96", "2002::/16", "2001::/32", "64:ff9b::/96", "64:ff9b:1::/48")
)
"""IPv6 networks whose addresses stand for IPv4 ones: mapped, 6to4, Teredo, NAT64 (RFC 4291, 3056, 4380,
6052, 8215)."""
_DOCUMENTATION = ipaddress.ip_network("3fff::/20")
"""RFC 9637, which ipaddress takes for global."""


class NotFetched(Exception):
    """A picture that was not fetched, and why; only inside the files that fetch."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason, self.detail = reason, detail


class Deadline:
    """A moment before which everything that belongs to one picture, or to one product's pictures, must be done."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._at = time.monotonic() + seconds

    @property
    def remaining(self) -> float:
        """Seconds, more than 0. Raises NotFetched after the deadline."""
        remaining = self._at - time.monotonic()
        if remaining <= 0:
            raise self.missed()
        return remaining

    def check(self) -> None:
        """Raises NotFetched after the deadline."""
        _ = self.remaining

    def missed(self) -> NotFetched:
        return NotFetched(Reason.IMAGE_UNREACHABLE, f"no complete answer within {self.seconds:g} s")

    def call(self, function: Callable[[], T]) -> T:
        """``function()`` in a thread of its own, which is left behind if it takes too long. For calls without a time
        limit of their own. Raises NotFetched after the deadline, and whatever the function raises."""
        results: queue.SimpleQueue[tuple[T | None, BaseException | None]] = queue.SimpleQueue()

        def run() -> None:
            try:
                results.put((function(), None))
            except BaseException as problem:
                results.put((None, problem))

        threading.Thread(target=run, name="fetch", daemon=True).start()
        try:
            value, problem = results.get(timeout=self.remaining)
        except queue.Empty:
            raise self.missed() from None
        if problem is not None:
            raise problem
        return value  # type: ignore[return-value]


def is_public(address: str) -> bool:
    """Whether an IP address belongs to one host of the public internet; False for text that is no address."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    if ip.version == 6 and any(ip in network for network in _EMBEDDING):
        return False
    if ip.version == 6 and (ip.is_site_local or ip in _DOCUMENTATION):
        return False
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or ip.is_unspecified)


class PrivateHosts:
    """The exceptions from :func:`is_public` that the config makes."""

    def __init__(self, entries: Iterable[str], option: str = "images.fetch.private_hosts") -> None:
        """``option``: the config key of ``entries``, for messages."""
        self._option = option
        self._names: set[str] = set()
        self._networks: list[ipaddress.IPv4Network | ipaddress.IPv6Network] = []
        for entry in entries:
            try:
                self._networks.append(ipaddress.ip_network(entry))
            except ValueError:
                self._names.add(entry.lower())

    def check(self, host: str, addresses: Iterable[str]) -> None:
        """Raises NotFetched if one of the addresses that ``host`` resolves to may not be connected to."""
        if host.lower() in self._names:
            return
        for address in addresses:
            if not is_public(address) and not self._has(address):
                raise NotFetched(
                    Reason.IMAGE_NOT_ALLOWED,
                    f"{host} has the address {address}, which is not public; {self._option} can allow it",
                )

    def _has(self, address: str) -> bool:
        try:
            ip = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(ip in network for network in self._networks)
