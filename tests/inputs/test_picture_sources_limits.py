"""Pictures from web servers: for how long, how much, and how often they are asked."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from catalog_enrichment.config.images import FetchConfig, ImagesConfig
from catalog_enrichment.inputs import picture_sources
from catalog_enrichment.inputs.images import first_usable
from catalog_enrichment.inputs.picture_sources import Fetched, PictureSources
from catalog_enrichment.inputs.square import Square
from catalog_enrichment.reasons import Reason
from catalog_enrichment.web import hosts

from ..sample_catalog import jpeg
from .conftest import PICTURE, resolves_to
from .conftest import web_sources as sources
from .picture_server import PictureServer, answer, drip, picture_server, silence

# ---- for how long


def test_a_silent_server_costs_the_deadline_and_no_more(server: PictureServer) -> None:
    server.answers["/silent.jpg"] = silence
    began = time.monotonic()
    fetched = sources().fetch(server.url("/silent.jpg"))
    assert fetched.reason is Reason.IMAGE_UNREACHABLE
    assert "within 0.4 s" in fetched.detail
    assert 0.3 < time.monotonic() - began < 2


@pytest.mark.parametrize(
    "sent",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n" + b"x" * 100,
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 50,
    ],
)
def test_a_server_that_drips_is_cut_off(server: PictureServer, sent: bytes) -> None:
    """Each byte arrives in time; head and body together do not."""
    head, _, body = sent.partition(b"\r\n\r\n")
    for slow in (drip(sent, 0.05), lambda c: (c.sendall(head + b"\r\n\r\n"), drip(body * 3, 0.05)(c))):
        server.answers["/slow.jpg"] = slow  # type: ignore[assignment]
        began = time.monotonic()
        assert sources().fetch(server.url("/slow.jpg")).reason is Reason.IMAGE_UNREACHABLE
        assert time.monotonic() - began < 2


def test_a_server_that_falls_silent_midway_gets_no_second_time_limit(server: PictureServer) -> None:
    def halfway(connection: Any) -> None:
        time.sleep(0.7)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nx")
        silence(connection)

    server.answers["/half.jpg"] = halfway
    began = time.monotonic()
    assert sources(seconds=0.8).fetch(server.url("/half.jpg")).reason is Reason.IMAGE_UNREACHABLE
    assert time.monotonic() - began < 1.3


def test_a_resolver_that_hangs_is_not_waited_for() -> None:
    released = threading.Event()

    def resolve(host: str, port: int) -> list[str]:
        released.wait(10)
        return ["127.0.0.1"]

    began = time.monotonic()
    assert sources(resolve).fetch("http://shop.test/a.jpg").reason is Reason.IMAGE_UNREACHABLE
    released.set()
    assert time.monotonic() - began < 2


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


NAMES = 15


def silent(port: int) -> list[dict[str, str | None]]:
    """Return pictures on NAMES hosts, as of a name server that knows every name below a domain."""
    uris = [f"http://cdn-{number}.test:{port}/silent.jpg" for number in range(NAMES)]
    return [{"bytes": None, "uri": uri, "version": uri} for uri in uris]


@pytest.mark.parametrize(("product_seconds", "fewest", "most"), [(0.12, 1, 6), (60.0, NAMES, NAMES)])
def test_silent_hosts_of_many_names_cost_a_single_time_limit(
    product_seconds: float, fewest: int, most: int, tmp_path: Path
) -> None:
    fetch = FetchConfig(
        private_hosts=("127.0.0.1",), seconds=0.03, product_seconds=product_seconds, retries=0,
        allowed_folders=(str(tmp_path),),
    )  # fmt: skip
    limits = ImagesConfig(fetch=fetch)
    with picture_server() as server:
        server.answers["/silent.jpg"] = silence
        pictures = silent(server.port)
        sources = PictureSources(limits, lambda *_: ["127.0.0.1"])
        decoded = first_usable(pictures, Square(8), limits, sources.fetch)
        assert fewest <= server.connections <= most
        assert decoded.reason is Reason.IMAGE_UNREACHABLE
        (tmp_path / "last.jpg").write_bytes(jpeg((1, 2, 3)))  # a local file costs no time, and is tried
        last = {"bytes": None, "uri": str(tmp_path / "last.jpg"), "version": ""}
        assert first_usable([*pictures, last], Square(8), limits, sources.fetch).pixels is not None


# ---- how many bytes


@pytest.mark.parametrize("declared", [True, False])
def test_a_body_without_end_is_not_read_past_the_limit(server: PictureServer, declared: bool) -> None:
    sent = 0

    def endless(connection: Any) -> None:
        nonlocal sent
        connection.sendall(b"HTTP/1.1 200 OK\r\n" + (b"Content-Length: 3000000000\r\n" if declared else b"") + b"\r\n")
        while True:
            connection.sendall(b"x" * 10_000)
            sent += 10_000

    server.answers["/large.jpg"] = endless
    fetched = sources(max_bytes=50_000, seconds=5).fetch(server.url("/large.jpg"))
    assert fetched.reason is Reason.IMAGE_TOO_LARGE
    assert sent < 20_000_000  # what the system's buffers take


def test_a_picture_of_exactly_the_limit_is_fetched(server: PictureServer) -> None:
    assert sources(max_bytes=len(PICTURE)).fetch(server.url("/good.jpg")).data == PICTURE
    assert sources(max_bytes=len(PICTURE) - 1).fetch(server.url("/good.jpg")).reason is Reason.IMAGE_TOO_LARGE


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


def test_a_length_of_absurd_length_is_too_large(server: PictureServer) -> None:
    for status, reason in (("200 OK", Reason.IMAGE_TOO_LARGE), ("404 Not Found", Reason.IMAGE_MISSING)):
        head = f"HTTP/1.1 {status}\r\nContent-Length: {'9' * 5000}\r\n\r\n".encode()
        server.answers["/long.jpg"] = lambda connection, head=head: connection.sendall(head)  # type: ignore[misc]
        assert sources(seconds=2, retries=0).fetch(server.url("/long.jpg")).reason is reason


# ---- how often


@pytest.mark.parametrize("failure", ["503 Busy", "500 Oops", "429 Slow down", "408 Timeout"])
def test_what_fails_for_a_moment_is_tried_again(server: PictureServer, failure: str) -> None:
    server.answers["/busy.jpg"] = [answer(failure), answer(failure), answer("200 OK", PICTURE)]
    assert sources(seconds=5, retries=2).fetch(server.url("/busy.jpg")).data == PICTURE
    server.answers["/busy.jpg"] = [answer(failure), answer(failure), answer("200 OK", PICTURE)]
    fetched = sources(seconds=5, retries=1).fetch(server.url("/busy.jpg"))
    assert fetched.reason is Reason.IMAGE_UNREACHABLE
    assert f"HTTP {failure[:3]}" in fetched.detail


def test_a_broken_connection_is_tried_again(server: PictureServer) -> None:
    def cut(connection: Any) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this")
        raise OSError

    server.answers["/cut.jpg"] = [cut, answer("200 OK", PICTURE)]
    assert sources(seconds=5).fetch(server.url("/cut.jpg")).data == PICTURE
    server.answers["/cut.jpg"] = cut
    assert sources(seconds=5).fetch(server.url("/cut.jpg")).reason is Reason.IMAGE_UNREACHABLE


def test_the_wait_that_a_server_asks_for_is_not_longer_than_the_deadline(server: PictureServer) -> None:
    server.answers["/busy.jpg"] = [answer("503 Busy", b"", "Retry-After: 100"), answer("200 OK", PICTURE)]
    began = time.monotonic()
    assert sources().fetch(server.url("/busy.jpg")).reason is Reason.IMAGE_UNREACHABLE
    assert time.monotonic() - began < 0.3
    assert len(server.requests) == 1


@pytest.mark.parametrize("header", ["Retry-After: " + "9" * 5000, "Retry-After: Fri, 31 Dec 99999999 23:59:59 GMT"])
def test_a_wait_of_absurd_length_is_no_wait(server: PictureServer, header: str) -> None:
    server.answers["/busy.jpg"] = [answer("503 Busy", b"", header), answer("200 OK", PICTURE)]
    assert sources(seconds=5).fetch(server.url("/busy.jpg")) == Fetched(PICTURE)


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        ("404 Not Found", Reason.IMAGE_MISSING),
        ("410 Gone", Reason.IMAGE_MISSING),
        ("403 Forbidden", Reason.IMAGE_MISSING),
        ("304 Not Modified", Reason.IMAGE_UNREADABLE),
        ("302 Found", Reason.IMAGE_UNREADABLE),
    ],
)
def test_an_answer_that_another_try_does_not_change_is_taken(
    server: PictureServer, status: str, reason: Reason
) -> None:
    server.answers["/other.jpg"] = answer(status)
    assert sources(seconds=5).fetch(server.url("/other.jpg")).reason is reason
    assert len(server.requests) == 1


def test_no_server_and_no_address_are_outages(server: PictureServer) -> None:
    def nobody(host: str, port: int) -> list[str]:
        raise OSError("Name or service not known")

    server.close()
    assert sources().fetch(server.url("/good.jpg")).reason is Reason.IMAGE_UNREACHABLE
    assert sources(nobody).fetch("http://shop.test/a.jpg").reason is Reason.IMAGE_UNREACHABLE
    assert sources(resolves_to()).fetch("http://shop.test/a.jpg").reason is Reason.IMAGE_UNREACHABLE


def test_another_address_of_the_host_is_tried(server: PictureServer) -> None:
    pictures = sources(resolves_to("127.0.0.2", "127.0.0.1"), private_hosts=("127.0.0.0/8",))
    assert pictures.fetch(server.url("/good.jpg", host="shop.test")).data == PICTURE


def test_a_host_that_is_down_is_left_alone_for_a_while(server: PictureServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picture_sources, "PAUSE_SECONDS", 0.2)
    pictures = sources(retries=0)
    server.answers["/busy.jpg"] = answer("503 Busy")
    for _ in range(4):
        pictures.fetch(server.url("/busy.jpg"))
    assert pictures.fetch(server.url("/good.jpg")).data == PICTURE  # a success between: the count begins again
    for _ in range(7):
        fetched = pictures.fetch(server.url("/busy.jpg"))
    assert fetched.reason is Reason.IMAGE_UNREACHABLE
    assert "is not asked" in fetched.detail
    assert len(server.requests) == 4 + 1 + 5
    time.sleep(0.25)
    assert pictures.fetch(server.url("/busy.jpg")).reason is Reason.IMAGE_UNREACHABLE
    assert pictures.fetch(server.url("/good.jpg")).reason is Reason.IMAGE_UNREACHABLE  # a single failure is enough now
    time.sleep(0.25)
    assert pictures.fetch(server.url("/good.jpg")).data == PICTURE


def test_a_late_redirect_is_not_the_fault_of_the_host_that_it_names(server: PictureServer) -> None:
    def late(connection: Any) -> None:
        time.sleep(0.17)
        location = server.url("/silent.jpg", host="cdn.test")
        connection.sendall(f"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: {location}\r\n\r\n".encode())

    server.answers |= {"/late.jpg": late, "/silent.jpg": silence}
    pictures = sources(resolves_to("127.0.0.1"), seconds=0.2, connect_seconds=0.2, retries=0)
    for _ in range(picture_sources.PAUSE_AFTER):
        assert pictures.fetch(server.url("/late.jpg", host="slow.test")).reason is Reason.IMAGE_UNREACHABLE
    assert pictures.fetch(server.url("/good.jpg", host="cdn.test")) == Fetched(PICTURE)
