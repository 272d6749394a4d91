"""Connections that send no whole request: closed in time, and never so many that others are not served."""

from __future__ import annotations

import http.client
import select
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from catalog_enrichment.audit.review_store import ReviewStore
from catalog_enrichment.config.schema import Config

from ..review_server import Client, served

SECONDS, MOST = 1.0, 20
HEAD = b"POST /api/name HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 14\r\n\r\n"


@pytest.fixture
def limited(site_config: Config, page_store: ReviewStore) -> Iterator[int]:
    with served(site_config, page_store, seconds=SECONDS, most=MOST) as port:
        yield port


def _opened(port: int, sent: bytes = b"") -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=10)
    connection.sendall(sent)
    return connection


def _seconds_until_closed(connection: socket.socket, trickle: bytes = b"") -> float:
    """Send a byte of ``trickle`` every 0.1 seconds, until the server has closed the connection."""
    began = time.monotonic()
    while time.monotonic() - began < 10:
        if select.select([connection], [], [], 0.1)[0]:
            try:
                if connection.recv(4096) == b"":
                    break
            except ConnectionError:
                break
        try:
            connection.sendall(trickle[:1])
        except ConnectionError:
            break
        trickle = trickle[1:]
    return time.monotonic() - began


@pytest.mark.parametrize(
    ("sent", "trickle"),
    [
        (b"", b""),
        (b"GET / HTTP/1.1\r\nHost: loc", b""),
        (b"GET / HTTP/1.1\r\n", b"X-Slow: " + b"a" * 500),
        (HEAD, b"{" + b" " * 12),
        (HEAD + b'{"name": "Ana"}'[:14], b"GET / HTTP/1.1\r\nX-Slow: " + b"a" * 500),
    ],
    ids=["nothing", "half a head", "a head byte by byte", "a body byte by byte", "the second request of a connection"],
)
def test_a_request_that_does_not_arrive_in_time_is_ended(limited: int, sent: bytes, trickle: bytes) -> None:
    with _opened(limited, sent) as connection:
        assert SECONDS * 0.8 <= _seconds_until_closed(connection, trickle) < SECONDS + 3


def test_a_request_in_parts_and_several_on_a_connection_are_served(limited: int) -> None:
    with _opened(limited, HEAD[:30]) as connection:
        time.sleep(SECONDS * 0.6)
        connection.sendall(HEAD[30:] + b'{"name":"Ana"}')
        assert connection.recv(4096).startswith(b"HTTP/1.1 200 ")
    connection = http.client.HTTPConnection("127.0.0.1", limited, timeout=10)
    for _ in range(4):
        connection.request("GET", "/api/samples")
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (200, b"[]")
        time.sleep(SECONDS * 0.6)
    connection.close()


def test_of_many_connections_that_send_nothing_the_oldest_are_closed_and_others_are_served(limited: int) -> None:
    with ExitStack() as stack:
        silent = [stack.enter_context(_opened(limited, b"GET / HT")) for _ in range(6 * MOST)]
        began = time.monotonic()
        assert Client(limited).get("/api/samples") == []
        assert time.monotonic() - began < SECONDS / 2
        assert _seconds_until_closed(silent[0]) < SECONDS / 2, "long before its time is over"


def test_a_connection_that_was_answered_has_the_same_time_for_its_next_request(limited: int) -> None:
    with _opened(limited, b"GET /nosuch HTTP/1.1\r\nHost: localhost\r\n\r\n") as connection:
        assert connection.recv(4096).startswith(b"HTTP/1.1 404 ")
        assert SECONDS * 0.8 <= _seconds_until_closed(connection) < SECONDS + 2, "uvicorn alone waits for 5 seconds"


def test_serve_audit_has_limits(site_config: Config, page_store: ReviewStore, monkeypatch: pytest.MonkeyPatch) -> None:
    import uvicorn

    from catalog_enrichment.audit.page import serve
    from catalog_enrichment.audit.page.connections import TimedProtocol

    used: list[uvicorn.Server] = []
    monkeypatch.setattr(uvicorn.Server, "run", lambda server, **_: used.append(server))
    serve.serve_audit(site_config, page_store.path, serve.Listen(port=0), lambda _: None)
    protocol = used[0].config.http
    assert isinstance(protocol, type)
    assert issubclass(protocol, TimedProtocol)
