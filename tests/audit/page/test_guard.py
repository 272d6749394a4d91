"""Who may use the page: Host, Origin, token, content type, headers of every answer."""

from __future__ import annotations

import pytest

from catalog_enrichment.audit.page import guesses
from catalog_enrichment.audit.page.guard import LARGEST_BODY, Guard, Role, TooManyGuessesError, is_loopback
from catalog_enrichment.audit.page.guesses import Guesses
from catalog_enrichment.audit.page.serve import Listen, guard_of
from catalog_enrichment.audit.review_records import Answer
from catalog_enrichment.audit.review_store import ReviewStore
from catalog_enrichment.config.schema import Config
from catalog_enrichment.errors import ConfigError

from ..review_samples import item, outcome, sample
from ..review_server import Client, served

TOKEN = "a-token-of-enough-characters"
MANAGERS = "the-token-of-the-managers"
MALFORMED = (
    *("localhost/static/", "localhost/static/?", "localhost/sign-in#", "localhost/api/token?", "localhost\\static"),
    *("user@localhost", "localhost:1:2", "localhost:", "localhost:port", "[::1", "::1]", "[::1]x", "local host", "a,b"),
    *("localhost:123456", "localh\u00f6st", "localhost\u0660", " ", "[localhost]", "http://localhost"),
)
JSON = {"content-type": "application/json", "content-length": "2"}


def test_on_loopback_only_loopback_names_are_served() -> None:
    guard = Guard()
    known = ("127.0.0.1:8765", "localhost:1", "LOCALHOST", "[::1]:8765", "127.9.9.9")
    unknown = ("evil.example:8765", "", "192.168.0.7:8765", "localhost.evil.example", "[::1", "127.0.0.1.evil.example")
    assert all(map(guard.knows_host, known))
    assert not any(map(guard.knows_host, unknown))
    assert [header for header in MALFORMED if guard.knows_host(header)] == []
    refused = guard.refusal("GET", {"host": "evil.example"})
    assert refused is not None
    assert refused[0] == 421


def test_elsewhere_addresses_and_the_public_name_are_served() -> None:
    guard = Guard(host="0.0.0.0", token=TOKEN, public_url="https://audit.example.org")
    assert all(map(guard.knows_host, ("10.0.0.7:8765", "audit.example.org", "localhost")))
    assert not guard.knows_host("evil.example")
    assert [header for header in MALFORMED if guard.knows_host(header)] == []
    assert guard.secure
    assert not Guard(host="0.0.0.0", token=TOKEN, public_url="http://audit.example.org").secure


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, None),
        ({"origin": "http://127.0.0.1:8765"}, None),
        ({"origin": "http://127.0.0.1:9999"}, 403),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://["}, 403),
        ({"origin": "ftp://127.0.0.1:8765"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-origin"}, None),
        ({"content-type": "text/plain"}, 415),
        ({"content-type": "application/json; charset=utf-8"}, None),
        ({"content-length": str(LARGEST_BODY)}, None),
        ({"content-length": str(LARGEST_BODY + 1)}, 413),
        ({"content-length": ""}, 411),
        ({"content-length": "-1"}, 411),
        ({"content-length": "9" * 5000}, 413),
        ({"transfer-encoding": "chunked"}, 411),
    ],
)
def test_a_change_comes_as_json_from_this_servers_pages(headers: dict[str, str], status: int | None) -> None:
    given = {"host": "127.0.0.1:8765"} | JSON | headers
    found = Guard().refusal("POST", given)
    assert (found[0] if found else None) == status
    assert Guard().refusal("GET", given) is None


def test_behind_a_proxy_its_origin_is_known() -> None:
    guard = Guard(token=TOKEN, public_url="https://audit.example.org/")
    assert guard.knows_origin("https://audit.example.org", "127.0.0.1:8765")
    assert not guard.knows_origin("http://audit.example.org", "127.0.0.1:8765")
    assert not guard.knows_origin("https://audit.example.org.evil.example", "127.0.0.1:8765")


@pytest.mark.parametrize("host", ["0.0.0.0", "10.1.2.3", "::", "audit.internal"])
def test_elsewhere_than_on_loopback_there_is_always_a_token(host: str) -> None:
    said: list[str] = []
    made = guard_of(Listen(host=host), {}, said.append)
    assert len(made.token) >= 32
    assert sum(made.token in line for line in said) == 1
    assert guard_of(Listen(host=host), {}, said.append).token != made.token
    said.clear()
    given = guard_of(Listen(host=host), {"CATALOG_ENRICHMENT_AUDIT_TOKEN": f" {TOKEN}\n"}, said.append)
    assert (given.token, said) == (TOKEN, [])
    with pytest.raises(ConfigError, match="needs a token"):
        Guard(host=host)
    with pytest.raises(ConfigError, match="shorter than 16"):
        guard_of(Listen(host=host), {"CATALOG_ENRICHMENT_AUDIT_TOKEN": "short"}, said.append)


def test_on_loopback_a_token_is_asked_for_where_one_is_set_or_a_proxy_is_before_it() -> None:
    assert guard_of(Listen(), {}).token == ""
    assert guard_of(Listen(), {"CATALOG_ENRICHMENT_AUDIT_TOKEN": TOKEN}).token == TOKEN
    assert guard_of(Listen(public_url="https://audit.example.org"), {}, lambda _: None).token
    assert all(map(is_loopback, ("localhost", "127.0.0.1", "::1")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "example.org")))
    for wrong in ("audit.example.org", "ftp://audit.example.org", "https://audit.example.org/path"):
        with pytest.raises(ConfigError, match="--public-url must be like"):
            Guard(token=TOKEN, public_url=wrong)


def test_a_server_with_a_token_shows_nothing_without_it(site_config: Config, page_store: ReviewStore) -> None:
    page_store.add_sample(sample(title="A secret title"), [item(1)])
    with served(site_config, page_store, Guard(token=TOKEN)) as port:
        stranger, wrong = Client(port, "Ana"), Client(port, "Ana", {"Authorization": "Bearer wrong"})
        for client in (stranger, wrong):
            status, _, body = client.send("GET", "/")
            assert (status, b"secret title" in body, b"asks for its token" in body) == (401, False, True)
            for path in ("/api/samples", f"/pictures/{item(1).item_id}/0", "/api/openapi.json"):
                assert client.refused("GET", path)[0] == 401
            assert client.refused("POST", "/api/name", {"name": "Ana"})[0] == 401
        assert stranger.send("GET", "/static/page.css")[0] == 200
        assert stranger.refused("POST", "/api/token", {"token": "wrong"})[0] == 401
        status, headers, _ = stranger.send("POST", "/api/token", {"token": TOKEN})
        assert status == 200
        assert "HttpOnly" in headers["set-cookie"]
        assert "SameSite=strict" in headers["set-cookie"]
        known = Client(port, "Ana", {"Cookie": headers["set-cookie"].split(";")[0]})
        assert b"A secret title" in known.send("GET", "/")[2]
        assert len(Client(port, "Ana", {"Authorization": f"Bearer {TOKEN}"}).get("/api/samples")) == 1


def test_every_answer_forbids_scripts_from_elsewhere_and_in_the_page(page_store: ReviewStore, ana: Client) -> None:
    page_store.add_sample(sample(), [item(1)])
    for path in ("/", "/samples/s1/review", "/static/review.js", "/api/samples", "/nosuch"):
        _, headers, body = ana.send("GET", path)
        policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
        assert policy["default-src"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == policy["img-src"] == "'self'"
        assert policy["frame-ancestors"] == "'none'"
        assert headers["x-content-type-options"] == "nosniff"
        assert b"http://" not in body.replace(b"http://www.w3.org/", b"")
        assert b"https://" not in body
        assert b" style=" not in body
        assert b" onclick=" not in body


def test_host_and_origin_are_checked_by_the_server(page_store: ReviewStore, ana: Client) -> None:
    page_store.add_sample(sample(), [item(1)])
    body = {"item_id": item(1).item_id, "answer": "yes"}
    assert ana.refused("GET", "/api/samples", Host="evil.example")[0] == 421
    assert ana.refused("POST", "/api/verdicts", body, Origin="http://evil.example")[0] == 403
    assert ana.refused("POST", "/api/verdicts", body, Content_Type="text/plain")[0] == 415
    assert ana.refused("POST", "/api/verdicts", {"x": "y" * LARGEST_BODY})[0] == 413
    assert page_store.verdicts("s1") == {}


def test_no_host_header_opens_a_server_with_a_token(site_config: Config, page_store: ReviewStore) -> None:
    page_store.add_sample(sample(title="A secret title"), [item(1)])
    with served(site_config, page_store, Guard(token=TOKEN)) as port:
        stranger = Client(port, "Ana")
        for header in filter(str.isascii, MALFORMED):
            status, headers, body = stranger.send("GET", "/api/samples", Host=header)
            assert (header, status, b"secret" in body) in ((header, 421, False), (header, 400, False))
            assert "content-security-policy" in headers or body == b"Invalid HTTP request received."
        for path in ("/api/tokens", "/sign-in/../api/samples", "/api/token/../samples", "//static/../api/samples"):
            assert stranger.send("GET", path)[0] in (401, 404)
            assert b"secret" not in stranger.send("GET", path)[2]


def test_after_some_wrong_tokens_an_address_waits_and_longer_after_each() -> None:
    now = [0.0]
    found = Guesses(lambda: now[0])
    waits = []
    for number in range(20):
        for _ in range(3):  # a program with a wrong token does not guess
            found.wrong("10.0.0.1", f"wrong {number}")
        waits.append(found.wait("10.0.0.1"))
        now[0] += waits[-1]
        assert found.wait("10.0.0.1") == 0
    assert waits[:8] == [0, 0, 0, 0, 2, 4, 8, 16]
    assert waits[-1] == guesses.LONGEST_WAIT
    found.wrong("10.0.0.1", "wrong")
    now[0] += 1
    assert found.wait("::ffff:10.0.0.1") == guesses.LONGEST_WAIT - 1
    assert found.wait("10.0.0.2") == 0
    now[0] += guesses.FORGOTTEN_AFTER
    found.wrong("10.0.0.1", "again")
    assert found.wait("10.0.0.1") == 0


def test_the_addresses_of_a_network_wait_together_and_only_so_many_are_remembered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(guesses, "MOST_ADDRESSES", 3)
    found = Guesses(lambda: 0.0)
    for number in range(guesses.FREE):
        found.wrong(f"2001:db8:1:2::{number}", str(number))
    assert found.wait("2001:db8:1:2:ffff::1") > 0
    assert found.wait("2001:db8:1:3::1") == 0
    for number in range(3):
        found.wrong(f"10.0.0.{number}", "wrong")
    assert found.wait("2001:db8:1:2::1") == 0, "the oldest is forgotten"
    assert len(found._wrong) == 3


def test_a_server_without_a_token_does_not_count_tokens() -> None:
    guard = Guard()
    assert {guard.role_of_token(f"of server {number}", "127.0.0.1") for number in range(99)} == {Role.REVIEWER}


def test_guessed_tokens_wait_and_sessions_do_not(site_config: Config, page_store: ReviewStore) -> None:
    guard = Guard(token=TOKEN, manager_token=MANAGERS)
    with served(site_config, page_store, guard) as port:
        stranger = Client(port)
        _, headers, _ = stranger.send("POST", "/api/token", {"token": TOKEN})
        cookie = headers["set-cookie"].split(";")[0]
        assert TOKEN not in cookie
        for number in range(guesses.FREE):
            if number % 2:
                assert stranger.refused("POST", "/api/token", {"token": f"wrong {number}"})[0] == 401
            else:
                assert stranger.refused("GET", "/api/samples", Authorization=f"Bearer wrong {number}")[0] == 401
        for sent in (TOKEN, MANAGERS, "wrong"):
            status, headers, _ = stranger.send("POST", "/api/token", {"token": sent})
            assert (status, 0 < int(headers["retry-after"]) <= 3) == (429, True)
            assert "content-security-policy" in headers
            assert stranger.refused("GET", "/api/samples", Authorization=f"Bearer {sent}")[0] == 429
        assert stranger.send("GET", "/sign-in")[0] == 200
        assert Client(port, headers={"Cookie": cookie}).get("/api/samples") == []
        assert stranger.refused("GET", "/api/samples", Cookie=f"audit_token={TOKEN}")[0] == 401
    with pytest.raises(TooManyGuessesError, match=r"wait [123] seconds"):
        guard.role_of_token(TOKEN, "127.0.0.1")
    assert TOKEN not in repr(guard)
    assert MANAGERS not in repr(guard)


def test_only_managers_adjudicate_and_change_what_is_settled(site_config: Config, page_store: ReviewStore) -> None:
    one, two = item(1), item(2)
    page_store.add_sample(sample(), [one, two])
    with served(site_config, page_store, Guard(manager_token=MANAGERS)) as port:
        ana, ben, eve = (Client(port, name) for name in ("Ana", "Ben", "Eve"))
        manager = Client(port, "Max", {"Authorization": f"Bearer {MANAGERS}"})
        for client, answers in ((ana, ("yes", "yes")), (ben, ("yes", "no"))):
            for of, answer in zip((one, two), answers, strict=True):
                client.post("/api/verdicts", {"item_id": of.item_id, "answer": answer})
        decides = {"answer": "no", "adjudicates": True}
        for of in (one, two):
            assert eve.refused("POST", "/api/verdicts", decides | {"item_id": of.item_id})[0] == 403
            assert manager.post("/api/verdicts", decides | {"item_id": of.item_id})["new"]
            assert outcome(page_store, of).answer is Answer.NO
        assert eve.refused("POST", "/api/verdicts", {"item_id": one.item_id, "answer": "yes"})[0] == 422
        manager.post("/api/samples/s1/undo", {"adjudicates": True})
        _, headers, _ = Client(port).send("POST", "/api/token", {"token": MANAGERS})
        by_cookie = Client(port, "Mia", {"Cookie": headers["set-cookie"].split(";")[0]})
        by_cookie.post("/api/verdicts", decides | {"item_id": two.item_id, "answer": "yes"})
        assert outcome(page_store, two).reviewers == ("Ana", "Ben", "Mia")
    for wrong in ({"manager_token": "short"}, {"token": TOKEN, "manager_token": TOKEN}):
        with pytest.raises(ConfigError, match="AUDIT_MANAGER_TOKEN"):
            Guard(**wrong)
    given = {"CATALOG_ENRICHMENT_AUDIT_MANAGER_TOKEN": f"{MANAGERS} "}
    assert guard_of(Listen(), given).manager_token == MANAGERS
