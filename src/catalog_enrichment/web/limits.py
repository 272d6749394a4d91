"""Which hosts may be connected to, and how long a request may take."""

from __future__ import annotations

import ipaddress
import queue
import threading
import time
from collections.abc import Callable, Iterable
from typing import TypeVar

T = TypeVar("T")

_EMBEDDING = tuple(
    ipaddress.ip_network(network)
    for network in ("::ffff:0:0/96", "2002::/16", "2001::/32", "64:ff9b::/96", "64:ff9b:1::/48")
)
"""IPv6 networks whose addresses stand for IPv4 addresses: mapped, 6to4, Teredo, NAT64 (RFC 4291, 3056, 4380,
6052, 8215)."""
_DOCUMENTATION = ipaddress.ip_network("3fff::/20")
"""RFC 9637. The module ipaddress takes its addresses for global addresses."""


class NotAllowed(Exception):
    """A URI, host or redirect that is not asked, because the config does not allow it. Only inside the readers."""


class DeadlineMissed(Exception):
    """An answer that was not complete in time. Only inside the readers."""


class Deadline:
    """A moment before which a request, or a group of requests, must be done."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._at = time.monotonic() + seconds

    @property
    def remaining(self) -> float:
        """Return the remaining seconds, more than 0. Raises DeadlineMissed after the deadline."""
        remaining = self._at - time.monotonic()
        if remaining <= 0:
            raise self._missed()
        return remaining

    def check(self) -> None:
        """Raise DeadlineMissed after the deadline."""
        _ = self.remaining

    def call(self, function: Callable[[], T]) -> T:
        """Run ``function``, which has no time limit of its own, in a thread that is abandoned if it takes too long.

        Raises DeadlineMissed after the deadline, and whatever the function raises.
        """
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
            raise self._missed() from None
        if problem is not None:
            raise problem
        return value  # type: ignore[return-value]

    def _missed(self) -> DeadlineMissed:
        return DeadlineMissed(f"no complete answer within {self.seconds:g} s")


def is_public(address: str) -> bool:
    """Return whether an IP address belongs to a host of the public internet; False for text that is no address."""
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
    """The hosts that the config allows although they are not public."""

    def __init__(self, entries: Iterable[str], option: str) -> None:
        """``entries``: names, addresses and networks; ``option``: their key in the config, for messages."""
        self._option = option
        self._names: set[str] = set()
        self._networks: list[ipaddress.IPv4Network | ipaddress.IPv6Network] = []
        for entry in entries:
            try:
                self._networks.append(ipaddress.ip_network(entry))
            except ValueError:
                self._names.add(entry.lower())

    def check(self, host: str, addresses: Iterable[str]) -> None:
        """Raise NotAllowed if an address that ``host`` resolves to may not be connected to."""
        if host.lower() in self._names:
            return
        for address in addresses:
            if not is_public(address) and not self._has(address):
                raise NotAllowed(
                    f"{host} has the address {address}, which is not public; {self._option} can allow it",
                )

    def _has(self, address: str) -> bool:
        try:
            ip = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(ip in network for network in self._networks)
