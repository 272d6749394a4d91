"""Limits how often an address may give a wrong token: after some wrong tokens it waits, longer after each."""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable

FREE = 5
"""Wrong tokens of an address before it has to wait."""
LONGEST_WAIT = 900.0
"""Seconds."""
FORGOTTEN_AFTER = 3600.0
"""Seconds after its last wrong token, after which an address begins anew."""
MOST_ADDRESSES = 10_000
"""Addresses that are remembered; of more, the address whose last wrong token is the oldest is forgotten."""


class Guesses:
    """The wrong tokens of each address. For a single thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        # network -> number of wrong tokens, time and hash of the last
        self._wrong: OrderedDict[str, tuple[int, float, int]] = OrderedDict()

    def wait(self, address: str) -> float:
        """Return the seconds until the address may give a token again; 0 if it may give a token now."""
        wrong, last, _ = self._wrong.get(_network(address), (0, 0.0, 0))
        if wrong < FREE:
            return 0.0
        wait = min(2.0 ** min(wrong - FREE + 1, 30), LONGEST_WAIT)
        return max(0.0, last + wait - self._clock())

    def wrong(self, address: str, token: str) -> None:
        """Count a wrong token of the address; the same token again is no guess and does not count."""
        network, now = _network(address), self._clock()
        wrong, last, known = self._wrong.get(network, (0, now, None))
        if hash(token) == known:
            return
        self._wrong[network] = (1 if now - last > FORGOTTEN_AFTER else wrong + 1, now, hash(token))
        self._wrong.move_to_end(network)
        while len(self._wrong) > MOST_ADDRESSES:
            self._wrong.popitem(last=False)


def _network(address: str) -> str:
    """Return the IPv4 address, or the /64 network of an IPv6 address, all of which a single host may have."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    return str(found.ipv4_mapped or ipaddress.IPv6Network((found, 64), strict=False))
