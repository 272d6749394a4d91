"""Pages of a real server on loopback: every way of paging, faults, the rate, the token, hosts that are not allowed."""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from catalog_enrichment.config.remote_sources import ApiConfig
from catalog_enrichment.errors import ConfigError, DataContractError, TemporaryFailure
from catalog_enrichment.ingest.api_client import ApiClient, ApiRequest, fetch_onwards, page_url
from catalog_enrichment.ingest.api_pages import PageHead, check_pages

from ..inputs.picture_server import answer, certificate, picture_server
from .api_server import Api, body, busy, serving

TOKEN = "s3cr3t-t0ken"


@pytest.fixture
def api() -> Iterator[Api]:
    """25 products: pages of 10, 10 and 5."""
    with serving(Api([{"id": number} for number in range(25)])) as server:
        yield server


def request(api: Api, folder: Path, **given: Any) -> ApiRequest:
    usual: dict[str, Any] = {
        "items": "data.items", "requests_per_second": 10_000, "retries": 2, "retry_seconds": 0.001,
        "private_hosts": ("127.0.0.1",),
    }  # fmt: skip
    stop_at, path = given.pop("stop_at", float("inf")), given.pop("path", "/v1/products")
    token = given.pop("token", "")
    url = f"{api.url}{path}"
    return ApiRequest(url=url, api=ApiConfig(**usual | given), folder=str(folder), token=token, stop_at=stop_at)


def fetch(asked: ApiRequest) -> list[int]:
    """Fetch all pages; return the ids on them."""
    list(fetch_onwards(asked))
    texts = [text for number in asked.pages.heads() for text in asked.pages.items(number, asked.api.items)]
    return [json.loads(text)["id"] for text in texts]


# --- paging -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("paging", "pages"),
    [
        ({"paging": "number"}, 4),
        ({"paging": "offset"}, 4),
        ({"paging": "cursor"}, 3),
        ({"paging": "link"}, 3),
        ({"paging": "next_url", "next": "links.next"}, 3),
    ],
    ids=lambda value: value["paging"] if isinstance(value, dict) else "",
)
def test_every_way_of_paging_gives_every_product_once_and_goes_on_after_an_interruption(
    api: Api, tmp_path: Path, paging: dict[str, Any], pages: int
) -> None:
    asked = request(api, tmp_path, retries=0, **paging)
    api.faults[3] = busy()
    with pytest.raises(TemporaryFailure, match=r"page 3: HTTP 503, after 1 attempts. The pages so far are kept"):
        fetch(asked)
    assert api.pages_asked == [1, 2, 3]
    api.faults = {}
    assert fetch(asked) == list(range(25))
    assert api.pages_asked[3:] == [3, 4][: pages - 2]
    assert list(fetch_onwards(asked)) == []
    assert len(api.asked) == pages + 1  # a complete feed is not asked for again


def test_one_page_without_paging(api: Api, tmp_path: Path) -> None:
    assert fetch(request(api, tmp_path, paging="none", path="/v1/products?page=2")) == list(range(10, 20))


def test_parameters_of_a_page() -> None:
    def url(number: int, items_before: int = 0, after: str = "", **given: Any) -> str:
        asked = ApiRequest(url="https://h/p?lang=de&page=9&x=", api=ApiConfig(**given), folder="")
        before = PageHead(number - 1, 1, "", after, None) if after else None
        return page_url(asked, number, before, items_before).removeprefix("https://h/p?")

    assert url(3) == "lang=de&x=&page=3"
    assert url(3, first_page=0, size_param="n", page_size=50) == "lang=de&x=&n=50&page=2"
    assert url(1, paging="offset") == "lang=de&page=9&x=&offset=0"
    assert url(3, 17, paging="offset", page_param="skip") == "lang=de&page=9&x=&skip=17"
    assert url(3, 17, paging="offset", total="n", page_size=10) == "lang=de&page=9&x=&offset=20"
    assert url(1, paging="cursor") == "lang=de&page=9&x="
    assert url(2, after="a b&c", paging="cursor", page_param="after") == "lang=de&page=9&x=&after=a+b%26c"


def test_an_offset_grows_by_what_the_server_really_gave(api: Api, tmp_path: Path) -> None:
    """The server gives at most 10 products although 20 are asked for."""
    assert fetch(request(api, tmp_path, paging="offset", size_param="limit", page_size=20)) == list(range(25))
    assert "limit=20" in api.asked[0][0]


@pytest.mark.parametrize(
    ("header", "pages"),
    [
        ('<a>; rel="first", </v1/products?page=2&b,c;d>; title="x, <y>"; rel="prev next"', 3),
        ("<a>; rel=last , </v1/products?page=2>;rel=NEXT", 3),
        ('<a>; rel="nextish", <b>', 1),
        ("", 1),
    ],
)
def test_the_link_to_the_next_page(api: Api, tmp_path: Path, header: str, pages: int) -> None:
    api.faults = {1: body(api.page(1)[2], Link=header)}
    fetch(request(api, tmp_path, paging="link"))
    assert len(api.asked) == pages


def test_after_the_announced_total_a_refused_page_is_the_end_and_before_it_is_not(api: Api, tmp_path: Path) -> None:
    api.after_last = 404
    assert fetch(request(api, tmp_path / "a", total="meta.total", page_size=10)) == list(range(25))
    api.total = 26
    with pytest.raises(DataContractError, match="page 4: HTTP 404"):
        fetch(request(api, tmp_path / "b", total="meta.total", page_size=10))


def test_a_server_that_ignores_the_parameter_is_noticed_at_once(api: Api, tmp_path: Path) -> None:
    asked = request(api, tmp_path, page_param="p")
    fetch(asked)
    assert len(api.asked) == 2
    with pytest.raises(DataContractError, match="pages 1 and 2 are the same"):
        check_pages(list(asked.pages.heads().values()), asked.shown)


@pytest.mark.parametrize(("limit", "requests"), [({"max_pages": 2}, 2), ({"page_bytes": 100}, 1)])
def test_there_are_a_largest_page_and_a_largest_number_of_pages(
    api: Api, tmp_path: Path, limit: dict[str, int], requests: int
) -> None:
    [(name, value)] = limit.items()
    with pytest.raises(DataContractError, match=rf"more than source.api.{name} = {value} "):
        fetch(request(api, tmp_path, **limit))
    assert len(api.asked) == requests


# --- faults -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 500, 502, 503, 408])
def test_a_page_that_fails_for_a_moment_is_asked_for_again(api: Api, tmp_path: Path, status: int) -> None:
    api.faults = {2: busy(2, status)}
    assert fetch(request(api, tmp_path)) == list(range(25))
    assert api.pages_asked == [1, 2, 2, 2, 3, 4]


def test_a_dropped_or_cut_connection_a_slow_drip_and_broken_json_are_tried_again(api: Api, tmp_path: Path) -> None:
    _, _, whole = api.page(2)
    api.faults = {
        1: body(whole[:50], 1, X_Cut="yes"),  # less than its Content-Length says
        2: body(b"<html>maintenance</html>", 1),
        3: body(whole, 1, X_Drip="yes"),
    }
    started = time.monotonic()
    assert fetch(request(api, tmp_path, page_seconds=0.4)) == list(range(25))
    assert time.monotonic() - started < 3
    assert api.pages_asked == [1, 1, 2, 2, 3, 3, 4]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b'{"data": {"items": [{"id": 1}, {"id"', "page 2 is broken: it is not JSON"),
        (b'{"data": {"rows": []}}', r"page 2 is broken: there is no 'items' at data. Available: \['rows'\]"),
    ],
)
def test_a_page_that_stays_broken_is_an_error_with_its_number(
    api: Api, tmp_path: Path, content: bytes, says: str
) -> None:
    api.faults = {2: body(content)}
    with pytest.raises(DataContractError, match=says):
        fetch(request(api, tmp_path))


def test_a_server_that_is_gone_is_temporary(tmp_path: Path) -> None:
    with serving(Api([])) as gone:
        pass
    with pytest.raises(TemporaryFailure, match=r"page 1: .*after 3 attempts"):
        fetch(request(gone, tmp_path))


@pytest.mark.parametrize(
    ("status", "page", "kind", "says"),
    [
        (401, 1, ConfigError, "HTTP 401, access is refused. Check the token in the environment variable SHOP_TOKEN"),
        (403, 2, ConfigError, "page 2: HTTP 403, access is refused"),
        (404, 1, ConfigError, "page 1: HTTP 404. Check source.path"),
        (404, 2, DataContractError, "page 2: HTTP 404. Nothing was imported"),
        (410, 3, DataContractError, "page 3: HTTP 410"),
    ],
)
def test_a_refused_page_is_not_asked_for_again(
    api: Api, tmp_path: Path, status: int, page: int, kind: type[Exception], says: str
) -> None:
    api.faults = {page: busy(status=status)}
    with pytest.raises(kind, match=says):
        fetch(request(api, tmp_path, auth_env="SHOP_TOKEN", token=TOKEN))
    assert api.pages_asked == list(range(1, page + 1))


# --- time -------------------------------------------------------------------------------------------------------------


def test_retry_after_is_kept_by_every_task(api: Api, tmp_path: Path) -> None:
    api.faults = {2: busy(1, 429, Retry_After="1")}
    asked = request(api, tmp_path)
    others: list[float] = []

    def another_task() -> None:
        while not others:
            if api.pages_asked.count(2):
                time.sleep(0.1)
                assert asked.rate.wait(float("inf"))
                others.append(time.monotonic())
            time.sleep(0.005)

    thread = threading.Thread(target=another_task)
    thread.start()
    fetch(asked)
    thread.join()
    refused, again = (at for path, at, _ in api.asked if "page=2" in path)
    assert again - refused >= 0.99
    assert others[0] - refused >= 0.99


def test_requests_keep_the_rate_over_several_threads(api: Api, tmp_path: Path) -> None:
    def ask(name: str) -> None:
        asked = request(api, tmp_path, requests_per_second=20, paging="none", path=f"/{name}?page=1")
        for _ in range(4):
            ApiClient(asked).fetch(int(name), asked.url)

    threads = [threading.Thread(target=ask, args=(str(number),)) for number in (1, 2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    times = sorted(at for _, at, _ in api.asked)
    assert len(times) == 12
    assert 11 / 20 - 0.04 <= times[-1] - times[0] < 3


def test_a_deadline_for_all_pages(api: Api, tmp_path: Path) -> None:
    with pytest.raises(TemporaryFailure, match=r"source.api.seconds are over"):
        fetch(request(api, tmp_path, requests_per_second=5, stop_at=time.time() + 0.3))
    assert 1 <= len(api.asked) <= 2
    api.faults = {1: busy(status=429, Retry_After="3600")}
    started = time.monotonic()
    with pytest.raises(TemporaryFailure, match=r"HTTP 429, and source.api.seconds are over"):
        fetch(request(api, tmp_path / "b", stop_at=time.time() + 5))
    assert time.monotonic() - started < 1


# --- the token, and hosts ---------------------------------------------------------------------------------------------


def test_the_token_is_sent_as_bearer_or_in_a_header_of_its_own(api: Api, tmp_path: Path) -> None:
    fetch(request(api, tmp_path / "a", token=TOKEN, headers={"X-Shop": "7"}))
    assert {token for _, _, token in api.asked} == {f"Bearer {TOKEN}"}
    assert {headers["x-shop"] for headers in api.headers} == {"7"}
    api.asked, api.headers = [], []
    fetch(request(api, tmp_path / "b", token=TOKEN, auth_header="X-Api-Key"))
    assert {headers.get("x-api-key") for headers in api.headers} == {TOKEN}
    assert {token for _, _, token in api.asked} == {""}
    assert TOKEN not in repr(request(api, tmp_path, token=TOKEN))


def test_a_redirect_is_followed_without_the_token_to_another_host(api: Api, tmp_path: Path) -> None:
    with serving(Api(api.items)) as other:
        api.faults = {1: body(b"", status=302, Location=f"{other.url}/moved?page=1")}
        fetch(request(api, tmp_path, token=TOKEN, paging="none", headers={"X-Shop": "7"}))
        assert [
            (token, "x-shop" in headers) for (_, _, token), headers in zip(other.asked, other.headers, strict=True)
        ] == [("", False)]
    api.faults, api.asked = {1: body(b"", 1, 302, Location="/v2?page=1")}, []
    fetch(request(api, tmp_path / "same", token=TOKEN, paging="none"))
    assert [token for _, _, token in api.asked] == [f"Bearer {TOKEN}"] * 2


def test_private_hosts_are_refused_unless_the_config_allows_them(api: Api, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"127.0.0.1, which is not public; source.api.private_hosts can allow it"):
        fetch(request(api, tmp_path, private_hosts=()))
    assert api.asked == []
    # a redirect is checked, too: an allowed name must not open the way to other addresses
    local = api.url.replace("127.0.0.1", "localhost")
    api.faults = {1: body(b"", status=302, Location="http://127.0.0.1:1/latest/meta-data")}
    asked = ApiRequest(url=f"{local}/p", folder=str(tmp_path), api=ApiConfig(private_hosts=("localhost",), retries=0))
    with pytest.raises(ConfigError, match=r"127.0.0.1, which is not public"):
        fetch(asked)


def test_a_redirect_from_https_to_http_is_refused(api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page could be read and changed on its way then."""
    file = certificate(tmp_path, "localhost")
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    with picture_server(context) as server:
        api_config = ApiConfig(items="data.items", private_hosts=("localhost", "127.0.0.1"), paging="none", retries=0)
        url = server.url("/products", host="localhost")
        asked = ApiRequest(url=url, api=api_config, folder=str(tmp_path / "pages"), token=TOKEN)
        server.answers["/products"] = answer("302 Found", b"", f"Location: {api.url}/v1/products")
        with pytest.raises(ConfigError, match="redirected from https to http"):
            fetch(asked)
        assert api.asked == []
        server.answers["/products"] = answer("200 OK", api.page(1)[2])
        assert fetch(asked) == list(range(10))


def test_a_next_page_on_another_host_is_not_followed(api: Api, tmp_path: Path) -> None:
    api.extra = {"next": "http://other.example/p?page=2&key=abc"}
    with pytest.raises(ConfigError, match=r"next page on another host, http://other.example/p: it is not followed"):
        fetch(request(api, tmp_path, paging="next_url"))
    assert list(tmp_path.glob("*.page")) == []


@pytest.mark.parametrize(
    ("mark", "charset", "named"), [(b"", "latin-1", "ISO-8859-1"), (b"\xef\xbb\xbf", "utf-8", "no")]
)
def test_a_page_in_another_charset_is_decoded(api: Api, tmp_path: Path, mark: bytes, charset: str, named: str) -> None:
    page = mark + '{"data": {"items": [{"id": "Größe"}]}}'.encode(charset)
    api.faults = {1: body(page, Content_Type=f"application/json; charset={named}")}
    assert fetch(request(api, tmp_path, paging="none")) == ["Größe"]
