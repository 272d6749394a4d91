"""Connections of the page's server: each has to send a whole request in time, and only so many may wait for a request.

uvicorn has a time limit between two requests of a connection, which ends with the first byte, and none before the first
request. A client that sends nothing, or a byte now and then, would keep its connection, and a thousand such connections
are all that a process may have open (https://github.com/Kludex/uvicorn/issues/157).
"""

from __future__ import annotations

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

REQUEST_SECONDS = 20.0
"""The time within which a request arrives, head and body."""
MOST_WAITING = 200
"""Connections that wait for a request at the same time; the oldest of more is closed."""


def timed(seconds: float = REQUEST_SECONDS, most: int = MOST_WAITING) -> type[H11Protocol]:
    """Return uvicorn's protocol for HTTP with these limits, for one server: `uvicorn.Config(http=timed())`."""
    waiting: dict[TimedProtocol, asyncio.TimerHandle] = {}  # in the order in which they began to wait

    class Protocol(TimedProtocol):
        def wait_for_request(self) -> None:
            incomplete = self.conn.their_state in (h11.IDLE, h11.SEND_BODY) and not self.transport.is_closing()
            if not incomplete:
                self.stop_waiting()
            elif self not in waiting:
                waiting[self] = self.loop.call_later(seconds, self.transport.abort)
                if len(waiting) > most:
                    oldest = next(iter(waiting))
                    oldest.stop_waiting()
                    oldest.transport.abort()

        def stop_waiting(self) -> None:
            if timer := waiting.pop(self, None):
                timer.cancel()

    return Protocol


class TimedProtocol(H11Protocol):
    """Calls :meth:`wait_for_request` wherever a request may have begun or ended."""

    def wait_for_request(self) -> None:
        """Start the time limit if the connection waits for a request or the rest of it, and end it if it does not."""
        raise NotImplementedError

    def stop_waiting(self) -> None:
        """End the time limit."""
        raise NotImplementedError

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.wait_for_request()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self.wait_for_request()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self.wait_for_request()

    def connection_lost(self, exc: Exception | None) -> None:
        self.stop_waiting()
        super().connection_lost(exc)
