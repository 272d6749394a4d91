"""Answers of web servers that are made to cost time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from catalog_enrichment.inputs import web_pictures
from catalog_enrichment.inputs.picture_sources import Fetched, without_secrets
from catalog_enrichment.records import Reason
from catalog_enrichment.web import hosts
from catalog_enrichment.web.limits import is_public

from .picture_server import PictureServer, answer, picture_server, silence
from .test_web_pictures import PICTURE, resolves_to, sources


@pytest.fixture
def server() -> Iterator[PictureServer]:
    with picture_server() as running:
        running.answers["/good.jpg"] = answer("200 OK", PICTURE)
        yield running


@pytest.mark.parametrize(("status", "found"), [("404 Not Found", False), ("302 Found", True)])
def test_of_an_answer_whose_length_is_a_lie_little_is_read(server: PictureServer, status: str, found: bool) -> None:
    """Chunks override a Content-Length (RFC 9112, 6.3)."""
    sent = 0

    def endless(connection: Any) -> None:
        nonlocal sent
        headers = "Content-Length: 5\r\nTransfer-Encoding: chunked\r\nLocation: /good.jpg\r\n\r\n"
        connection.sendall(f"HTTP/1.1 {status}\r\n{headers}".encode())
        while True:
            connection.sendall(b"2710\r\n" + b"x" * 10_000 + b"\r\n")
            sent += 10_000
            time.sleep(0.001)

    server.answers["/lie.jpg"] = endless
    fetched = sources(seconds=1, retries=0).fetch(server.url("/lie.jpg"))
    assert fetched == Fetched(PICTURE) if found else fetched.reason is Reason.IMAGE_MISSING
    assert sent < 5_000_000  # what the system's buffers take


def test_the_time_that_connecting_takes_is_not_given_again_for_the_answer(
    server: PictureServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[float] = []
    connect = hosts._HttpConnection.connect

    def slow(connection: Any) -> None:
        time.sleep(0.2)
        connect(connection)
        monkeypatch.setattr(connection.sock, "settimeout", given.append)

    monkeypatch.setattr(hosts._HttpConnection, "connect", slow)
    assert sources(seconds=5, connect_seconds=2).fetch(server.url("/good.jpg")) == Fetched(PICTURE)
    assert given
    assert max(given) <= 4.81


@pytest.mark.parametrize("header", ["Retry-After: " + "9" * 5000, "Retry-After: Fri, 31 Dec 99999999 23:59:59 GMT"])
def test_a_wait_of_absurd_length_is_no_wait(server: PictureServer, header: str) -> None:
    server.answers["/busy.jpg"] = [answer("503 Busy", b"", header), answer("200 OK", PICTURE)]
    assert sources(seconds=5).fetch(server.url("/busy.jpg")) == Fetched(PICTURE)


def test_a_length_of_absurd_length_is_too_large(server: PictureServer) -> None:
    for status, reason in (("200 OK", Reason.IMAGE_TOO_LARGE), ("404 Not Found", Reason.IMAGE_MISSING)):
        head = f"HTTP/1.1 {status}\r\nContent-Length: {'9' * 5000}\r\n\r\n".encode()
        server.answers["/long.jpg"] = lambda connection, head=head: connection.sendall(head)  # type: ignore[misc]
        assert sources(seconds=2, retries=0).fetch(server.url("/long.jpg")).reason is reason


def test_a_late_redirect_is_not_the_fault_of_the_host_that_it_names(server: PictureServer) -> None:
    def late(connection: Any) -> None:
        time.sleep(0.17)
        location = server.url("/silent.jpg", host="cdn.test")
        connection.sendall(f"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: {location}\r\n\r\n".encode())

    server.answers |= {"/late.jpg": late, "/silent.jpg": silence}
    pictures = sources(resolves_to("127.0.0.1"), seconds=0.2, connect_seconds=0.2, retries=0)
    for _ in range(web_pictures.PAUSE_AFTER):
        assert pictures.fetch(server.url("/late.jpg", host="slow.test")).reason is Reason.IMAGE_UNREACHABLE
    assert pictures.fetch(server.url("/good.jpg", host="cdn.test")) == Fetched(PICTURE)


@pytest.mark.parametrize("address", ["fec0::1", "feff::1", "3fff::1", "3fff:fff::1"])
def test_site_local_and_documentation_addresses_are_not_public(address: str) -> None:
    assert not is_public(address)
    assert is_public("2606:4700::1111")


def test_a_password_with_an_at_sign_is_not_shown() -> None:
    assert without_secrets("no https://u:p@ssw0rd@cdn.test/a@2x.jpg") == "no https://cdn.test/a@2x.jpg"


def test_proxies_of_the_environment_are_not_used(server: PictureServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """They would resolve the name, and connect to what was never checked."""
    with picture_server() as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url(""))
        monkeypatch.setenv("NO_PROXY", "")
        monkeypatch.setenv("no_proxy", "")
        assert sources().fetch(server.url("/good.jpg")) == Fetched(PICTURE)
        assert (proxy.connections, server.connections) == (0, 1)
