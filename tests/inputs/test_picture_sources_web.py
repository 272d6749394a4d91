"""Pictures from web servers: what may be reached.

The server is on the loopback address, which `private_hosts` allows; nothing else is connected to.
"""

from __future__ import annotations

import ssl
import time
from pathlib import Path

import pytest

from catalog_enrichment.config.images import FetchConfig
from catalog_enrichment.inputs.picture_sources import Fetched
from catalog_enrichment.reasons import Reason
from catalog_enrichment.web.limits import is_public

from .conftest import PICTURE, resolves_to
from .conftest import web_sources as sources
from .picture_server import PictureServer, answer, certificate, drip, picture_server


def test_a_picture_is_fetched_and_the_connection_is_used_again(server: PictureServer) -> None:
    pictures = sources()
    server.answers["/more.jpg"] = answer("200 OK", b"more")
    assert pictures.fetch(server.url("/good.jpg")) == Fetched(PICTURE)
    assert pictures.fetch(server.url("/gone.jpg")).reason is Reason.IMAGE_MISSING
    assert pictures.fetch(server.url("/more.jpg?size=1")).reason is Reason.IMAGE_MISSING
    assert pictures.fetch(server.url("/more.jpg")).data == b"more"
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
        *("fec0::1", "feff::1", "3fff::1", "3fff:fff::1"),
    ],
)
def test_an_address_that_is_not_public_is_refused(address: str) -> None:
    assert not is_public(address)
    fetched = sources(resolves_to("8.8.8.8", address), private_hosts=()).fetch("http://shop.test/a.jpg")
    assert fetched.reason is Reason.IMAGE_NOT_ALLOWED


def test_public_addresses_are_not_refused() -> None:
    assert is_public("8.8.8.8")
    assert is_public("2606:4700::1111")


def test_private_hosts_are_names_addresses_and_networks(server: PictureServer) -> None:
    for entry, allowed in {
        "127.0.0.1": True, "127.0.0.0/8": True, "Shop.test": True, "other.test": False, "127.0.0.2": False,
        "10.0.0.0/8": False,
    }.items():  # fmt: skip
        pictures = sources(resolves_to("127.0.0.1"), private_hosts=(entry,))
        fetched = pictures.fetch(server.url("/good.jpg", host="shop.test"))
        assert (fetched.data == PICTURE) is allowed, entry


def test_an_address_with_host_bits_is_no_network() -> None:
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


def test_proxies_of_the_environment_are_not_used(server: PictureServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """They would resolve the name, and connect to what was never checked."""
    with picture_server() as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url(""))
        monkeypatch.setenv("NO_PROXY", "")
        monkeypatch.setenv("no_proxy", "")
        assert sources().fetch(server.url("/good.jpg")) == Fetched(PICTURE)
        assert (proxy.connections, server.connections) == (0, 1)


# ---- TLS


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
