"""Pictures from web servers: what may be reached, for how long, and how often it is tried.

The server is on the loopback address, which `private_hosts` allows; nothing else is connected to.
"""

from __future__ import annotations

import datetime
import ipaddress
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from catalog_enrichment.config.fetch import FetchConfig
from catalog_enrichment.config.schema import ImagesConfig
from catalog_enrichment.inputs import web_pictures
from catalog_enrichment.inputs.picture_sources import Fetched, PictureSources
from catalog_enrichment.records import Reason
from catalog_enrichment.web.limits import is_public

from .picture_server import PictureServer, answer, drip, picture_server, silence

PICTURE = b"an encoded picture"
LOOPBACK = ("127.0.0.1",)


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_pictures, "_BACKOFF_SECONDS", 0.01)


@pytest.fixture
def server() -> Iterator[PictureServer]:
    with picture_server() as running:
        running.answers["/good.jpg"] = answer("200 OK", PICTURE)
        yield running


def resolves_to(*addresses: str, asked: list[str] | None = None) -> web_pictures.Resolve:
    """A resolver that gives the same addresses for every name."""

    def resolve(host: str, port: int) -> list[str]:
        if asked is not None:
            asked.append(host)
        return list(addresses)

    return resolve


def sources(
    resolve: web_pictures.Resolve = web_pictures.system_resolver, max_bytes: int = 1000, **config: Any
) -> PictureSources:
    fetch = FetchConfig(**{"private_hosts": LOOPBACK, "seconds": 0.4, "connect_seconds": 0.2} | config)
    return PictureSources(ImagesConfig(max_bytes=max_bytes, fetch=fetch), resolve)


# ---- what may be reached


def test_a_picture_is_fetched_and_the_connection_is_used_again(server: PictureServer) -> None:
    pictures = sources()
    server.answers["/more.jpg"] = answer("200 OK", b"more")
    assert pictures.fetch(server.url("/good.jpg")) == Fetched(PICTURE)
    assert pictures.fetch(server.url("/gone.jpg")).reason is Reason.IMAGE_MISSING
    assert [pictures.fetch(server.url("/more.jpg?size=1")).reason, pictures.fetch(server.url("/more.jpg")).data] == [
        Reason.IMAGE_MISSING, b"more",
    ]  # fmt: skip
    assert (server.connections, len(server.requests)) == (1, 4)


def test_without_permission_the_loopback_address_is_not_connected_to(server: PictureServer) -> None:
    fetched = sources(private_hosts=()).fetch(server.url("/good.jpg"))
    assert fetched.reason is Reason.IMAGE_NOT_ALLOWED
    assert "127.0.0.1, which is not public; images.fetch.private_hosts can allow it" in fetched.detail
    assert server.connections == 0


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.8.8.8", "10.0.0.1", "172.16.3.4", "192.168.1.1", "169.254.169.254", "100.64.0.1"),
        *("0.0.0.0", "224.0.0.1", "240.0.0.1", "255.255.255.255", "192.0.2.1", "198.18.0.1"),
        *("::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "ff02::1", "2001:db8::1"),
        *("::ffff:127.0.0.1", "::ffff:8.8.8.8", "2002:7f00:1::", "2002:808:808::", "2001:0:1::1", "::127.0.0.1"),
        *("64:ff9b::7f00:1", "64:ff9b::808:808", "64:ff9b:1::1", "::8.8.8.8", "no address", ""),
    ],
)
def test_an_address_that_is_not_public_is_refused(address: str) -> None:
    assert not is_public(address)
    fetched = sources(resolves_to("8.8.8.8", address), private_hosts=()).fetch("http://shop.test/a.jpg")
    assert fetched.reason is Reason.IMAGE_NOT_ALLOWED


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111"])
def test_a_public_address_is_not_refused(address: str) -> None:
    assert is_public(address)


def test_private_hosts_are_names_addresses_and_networks(server: PictureServer) -> None:
    for entry, allowed in {
        "127.0.0.1": True, "127.0.0.0/8": True, "Shop.test": True, "other.test": False, "127.0.0.2": False,
        "10.0.0.0/8": False,
    }.items():  # fmt: skip
        pictures = sources(resolves_to("127.0.0.1"), private_hosts=(entry,))
        fetched = pictures.fetch(server.url("/good.jpg", host="shop.test"))
        assert (fetched.data == PICTURE) is allowed, entry


def test_a_network_must_be_one(server: PictureServer) -> None:
    with pytest.raises(ValueError, match="private_hosts"):
        FetchConfig(private_hosts=("10.0.0.1/8",))


def test_the_connection_goes_to_the_address_that_was_checked(server: PictureServer) -> None:
    """DNS rebinding: the second answer for the name is never asked for."""
    asked: list[str] = []
    pictures = sources(resolves_to("127.0.0.1", asked=asked))
    for _ in range(2):
        assert pictures.fetch(server.url("/good.jpg", host="shop.test")).data == PICTURE
    assert asked == ["shop.test"]
    assert server.requests == [("/good.jpg", f"shop.test:{server.port}")] * 2


def test_a_redirect_is_followed_and_its_target_checked_anew(server: PictureServer) -> None:
    def resolve(host: str, port: int) -> list[str]:
        return {"shop.test": ["127.0.0.1"], "inside.test": ["10.0.0.1"]}[host]

    pictures = sources(resolve)
    for target, expected in {
        "/good.jpg": None,
        server.url("/good.jpg", host="shop.test"): None,
        "http://inside.test/latest": Reason.IMAGE_NOT_ALLOWED,
        "http://[::1": Reason.IMAGE_NOT_ALLOWED,
        "file:///etc/passwd": Reason.IMAGE_NOT_ALLOWED,
        "ftp://shop.test/a.jpg": Reason.IMAGE_NOT_ALLOWED,
    }.items():
        server.answers["/moved.jpg"] = answer("302 Found", b"", f"Location: {target}")
        fetched = pictures.fetch(server.url("/moved.jpg", host="shop.test"))
        assert fetched.reason is expected, (target, fetched)
        assert (fetched.data == PICTURE) is (expected is None)


def test_redirects_are_followed_at_most_so_often(server: PictureServer) -> None:
    for number in range(4):
        server.answers[f"/{number}"] = answer("301 Moved", b"", f"Location: /{number + 1}")
    server.answers["/4"] = answer("200 OK", PICTURE)
    assert sources(redirects=3).fetch(server.url("/1")).data == PICTURE
    assert sources(redirects=3).fetch(server.url("/0")).reason is Reason.IMAGE_NOT_ALLOWED
    assert sources(redirects=4).fetch(server.url("/0")).data == PICTURE


MALFORMED = ["http://[::1", "https://a\u2100b/x", "http://", "http:///x", "http://h:99999/x", "http://h:0/x"]
MALFORMED += ["http://\ud800/x", "http://a..b/x", f"https://{'a' * 300}/x", "http://[fe80::1%25eth0]/x"]
LOOPBACK_IN_OTHER_WORDS = ["http://2130706433:1/", "http://0x7f.1:1/", "http://0:1/"]


@pytest.mark.parametrize("uri", [*MALFORMED, *LOOPBACK_IN_OTHER_WORDS])
def test_a_malformed_or_disguised_uri_is_refused_and_raises_nothing(uri: str) -> None:
    fetched = sources(private_hosts=()).fetch(uri)
    assert fetched.reason is Reason.IMAGE_NOT_ALLOWED, fetched


def test_a_uri_with_a_password_is_refused_and_not_repeated(server: PictureServer) -> None:
    for user in ("user:secret", "secret"):
        fetched = sources().fetch(server.url("/good.jpg", host=f"{user}@127.0.0.1"))
        assert fetched.reason is Reason.IMAGE_NOT_ALLOWED
        assert "secret" not in fetched.detail
    assert server.requests == []


def test_an_ipv6_address_is_connected_to() -> None:
    try:
        with picture_server(address="::1") as server:
            server.answers["/good.jpg"] = answer("200 OK", PICTURE)
            pictures = sources(private_hosts=("::1",))
            assert pictures.fetch(server.url("/good.jpg", host="[::1]")).data == PICTURE
            assert server.requests[0][1] == f"[::1]:{server.port}"
    except OSError:
        pytest.skip("no IPv6 here")


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
    monkeypatch.setattr(web_pictures, "PAUSE_SECONDS", 0.2)
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
    assert pictures.fetch(server.url("/good.jpg")).reason is Reason.IMAGE_UNREACHABLE  # one failure is enough now
    time.sleep(0.25)
    assert pictures.fetch(server.url("/good.jpg")).data == PICTURE


# ---- TLS


def certificate(folder: Path, name: str) -> Path:
    """A certificate for ``name`` that signs itself, with its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, subject = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    now = datetime.datetime.now(datetime.UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=True)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = signed.public_bytes(serialization.Encoding.PEM)
    pem += key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file = folder / "certificate.pem"
    file.write_bytes(pem)
    return file


def test_the_certificate_must_be_the_hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = certificate(tmp_path, "shop.test")
    asked_for: list[str | None] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    context.sni_callback = lambda _socket, name, _context: asked_for.append(name)
    with picture_server(context) as server:
        server.answers["/good.jpg"] = answer("200 OK", PICTURE)
        url = server.url("/good.jpg", host="shop.test")
        unknown_signer = sources(resolves_to("127.0.0.1"), seconds=5, retries=0).fetch(url)
        assert unknown_signer.reason is Reason.IMAGE_UNREACHABLE
        assert "CERTIFICATE_VERIFY_FAILED" in unknown_signer.detail
        monkeypatch.setenv("SSL_CERT_FILE", str(file))
        pictures = sources(resolves_to("127.0.0.1"), seconds=5, retries=0)
        assert [pictures.fetch(url).data for _ in range(2)] == [PICTURE] * 2
        other = pictures.fetch(server.url("/good.jpg", host="other.test"))
        assert other.reason is Reason.IMAGE_UNREACHABLE
        assert "CERTIFICATE_VERIFY_FAILED" in other.detail
        assert asked_for == ["shop.test", "shop.test", "other.test"]
        server.answers["/slow.jpg"] = drip(b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 50, 0.05)
        began = time.monotonic()
        slow = sources(resolves_to("127.0.0.1"), seconds=0.5)
        assert slow.fetch(server.url("/slow.jpg", host="shop.test")).reason is Reason.IMAGE_UNREACHABLE
        assert time.monotonic() - began < 2


def test_addresses_of_the_loopback_name() -> None:
    addresses = web_pictures.system_resolver("127.0.0.1", 80)
    assert [ipaddress.ip_address(address).is_loopback for address in addresses] == [True]
