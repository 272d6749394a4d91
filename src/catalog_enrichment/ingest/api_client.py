"""Asks an HTTP API for pages: at the configured rate, again after a failure that may pass, and only allowed hosts.

Runs on the driver and in tasks, which share the rate by a file beside the pages. Redirects and links are checked as the
first URL is, and the token is sent to the host of `source.path` only. No Spark here.
"""

from __future__ import annotations

import codecs
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urljoin, urlsplit, urlunsplit

import urllib3
from urllib3.exceptions import HTTPError

from catalog_enrichment.config.images import WEB_SCHEMES, FetchConfig
from catalog_enrichment.config.remote_sources import ApiConfig
from catalog_enrichment.errors import CatalogEnrichmentError, ConfigError, DataContractError, TemporaryFailure
from catalog_enrichment.ingest.api_pages import BrokenPage, KeptPages, PageHead, PagePaths, parse_page
from catalog_enrichment.inputs.picture_sources import without_secrets
from catalog_enrichment.web.hosts import WebHosts, body_within, discard, redirect_target
from catalog_enrichment.web.limits import Deadline, DeadlineMissed, NotAllowed
from catalog_enrichment.web.retries import Busy, RateLimiter, check_not_busy, pause_seconds

_MAX_REDIRECTS = 5
_USER_AGENT = "catalog-enrichment"
_BEYOND_THE_END = frozenset({400, 404, 416, 422})
"""Statuses that servers give for a page after the last one, if they do not give an empty page."""
_NEXT_LINK = re.compile(r"<([^<>]*)>((?:\s*;\s*[\w!#$&+.^`|~*-]+\s*=\s*(?:\"[^\"]*\"|[^\s\",;]+))*)")
"""An entry of the header `Link` (RFC 8288): the target and its parameters."""
_GO_ON = "The pages so far are kept: run again to go on"


@dataclass(frozen=True, kw_only=True, slots=True)
class ApiRequest:
    """All that is needed to fetch pages of one source, on any machine."""

    url: str
    api: ApiConfig
    folder: str
    """The folder of the kept pages."""
    token: str = field(default="", repr=False)
    stop_at: float = float("inf")
    """Time in seconds since 1970 after which no page is asked for."""

    @property
    def pages(self) -> KeptPages:
        return KeptPages(Path(self.folder))

    @property
    def rate(self) -> RateLimiter:
        return RateLimiter(Path(self.folder), self.api.requests_per_second)

    @property
    def shown(self) -> str:
        """Return the URL for messages and for the rows' origin."""
        return without_secrets(self.url)


class _Refused(Exception):
    """An answer with a status that another try does not change."""

    def __init__(self, status: int) -> None:
        super().__init__(f"HTTP {status}")
        self.status = status


class ApiClient:
    """Fetches pages and keeps them; for one thread."""

    def __init__(self, request: ApiRequest) -> None:
        self.request, self._api, self._rate = request, request.api, request.rate
        fetch = FetchConfig(schemes=WEB_SCHEMES, private_hosts=self._api.private_hosts, threads=1)
        self._hosts = WebHosts(fetch, "source.api.private_hosts")
        next_path = self._api.next_path if self._api.paging in ("cursor", "next_url") else None
        self._paths = PagePaths(self._api.items, next_path, self._api.total)

    def fetch(self, number: int, url: str, may_be_after_the_last: bool = False) -> PageHead | None:
        """Fetch and keep a page; return None for a page after the last one, where that is possible.

        Raises ConfigError where the API refuses access or the host is not allowed, DataContractError for a page that is
        broken or refused, TemporaryFailure where the server does not answer.
        """
        where = f"{self.request.shown}: page {number}"
        for attempt in range(self._api.retries + 1):
            if not self._rate.wait(self.request.stop_at):
                raise TemporaryFailure(f"source.api.seconds are over. {_GO_ON}")
            asked: float | None = None
            broken = False
            try:
                return self._attempt(number, url, attempt)
            except _Refused as refused:
                if may_be_after_the_last and refused.status in _BEYOND_THE_END:
                    return None
                raise self._refusal(refused, where, number) from None
            except NotAllowed as found:
                raise ConfigError(f"{where}: {without_secrets(str(found))}") from None
            except Busy as busy:
                problem, asked = str(busy), busy.asked_seconds
                self._rate.hold(asked or 0.0)
            except BrokenPage as found:
                problem, broken = str(found), True
            except DeadlineMissed as found:
                problem = str(found)
            except (HTTPError, OSError) as found:
                problem = without_secrets(f"{type(found).__name__}: {found}")
            if attempt < self._api.retries:
                self._pause(pause_seconds(attempt, self._api.retry_seconds, asked), f"{where}: {problem}")
        if broken:
            raise DataContractError(f"{where} is broken: {problem}. Nothing was imported")
        raise TemporaryFailure(f"{where}: {problem}, after {self._api.retries + 1} attempts. {_GO_ON}")

    def _pause(self, seconds: float, why: str) -> None:
        if time.time() + seconds > self.request.stop_at:
            raise TemporaryFailure(f"{why}, and source.api.seconds are over. {_GO_ON}")
        time.sleep(seconds)

    def _attempt(self, number: int, url: str, attempt: int) -> PageHead:
        deadline = Deadline(min(self._api.page_seconds, max(0.001, self.request.stop_at - time.time())))
        text, headers = self._text(url, attempt, deadline)
        head = parse_page(number, text, self._paths, headers)
        if self._api.paging in ("link", "next_url") and head.next is not None:
            absolute = urljoin(url, head.next)
            if _origin(absolute) != _origin(self.request.url):
                raise ConfigError(
                    f"{self.request.shown}: page {number} names a next page on another host, "
                    f"{without_secrets(absolute)}: it is not followed"
                )
            head = replace(head, next=absolute)
        self.request.pages.put(head, text)
        return head

    def _text(self, url: str, attempt: int, deadline: Deadline) -> tuple[str, dict[str, str]]:
        """Follow redirects; return the body of the answer, and its headers by lower-case name."""
        for _ in range(_MAX_REDIRECTS + 1):
            parsed = self._hosts.parse(url)
            response = self._hosts.open(parsed, attempt, deadline, self._headers(url))
            target = redirect_target(response, parsed)
            if target is None:
                return self._body(response, deadline)
            url = target
            if urlsplit(self.request.url).scheme == "https" and urlsplit(url).scheme == "http":
                raise NotAllowed("redirected from https to http")
        raise NotAllowed(f"more than {_MAX_REDIRECTS} redirects")

    def _body(self, response: urllib3.BaseHTTPResponse, deadline: Deadline) -> tuple[str, dict[str, str]]:
        check_not_busy(response)
        if response.status != 200:
            discard(response)
            raise _Refused(response.status)
        body = body_within(response, self._api.page_bytes)
        deadline.check()
        if body is None:
            raise DataContractError(
                f"{self.request.shown}: a page has more than source.api.page_bytes = {self._api.page_bytes:,} bytes. "
                "Ask for fewer items per page, or raise it"
            )
        headers = {name.lower(): value for name, value in response.headers.items()}
        headers["link"] = next_link(response.headers.get("Link") or "")
        return body.decode(_charset(headers.get("content-type", "")), "replace").removeprefix("\ufeff"), headers

    def _headers(self, url: str) -> Mapping[str, str]:
        """Return the headers of a request, with the token only for the host of `source.path`."""
        headers = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": _USER_AGENT}
        if _origin(url) != _origin(self.request.url):
            return headers
        headers |= self._api.headers
        if self.request.token:
            name, value = self._api.auth_header, self.request.token
            headers |= {name: value} if name else {"Authorization": f"Bearer {value}"}
        return headers

    def _refusal(self, refused: _Refused, where: str, number: int) -> CatalogEnrichmentError:
        if refused.status in (401, 403):
            name = self._api.auth_env
            check = f"the token in the environment variable {name}" if name else "whether it needs source.api.auth_env"
            return ConfigError(f"{where}: {refused}, access is refused. Check {check}")
        if number == 1:
            return ConfigError(f"{where}: {refused}. Check source.path and the parameters in source.api")
        return DataContractError(
            f"{where}: {refused}. Nothing was imported; if pages after the last one give this status, set "
            "source.api.total or use next_url"
        )


def page_url(request: ApiRequest, number: int, before: PageHead | None, items_before: int) -> str:
    """Return the URL of page ``number`` (from 1).

    ``before``: the page before it; ``items_before``: the number of items on all pages before.
    """
    api = request.api
    parts = urlsplit(request.url)
    query = parse_qsl(parts.query, keep_blank_values=True)
    if api.paging in ("link", "next_url") and before is not None:
        return str(before.next)
    asked: dict[str, str] = {api.size_param: str(api.page_size)} if api.size_param else {}
    if api.paging == "number":
        asked[api.parameter] = str(api.first_page + number - 1)
    elif api.paging == "offset":
        asked[api.parameter] = str((number - 1) * api.page_size if api.in_parallel else items_before)
    elif api.paging == "cursor" and before is not None:
        asked[api.parameter] = str(before.next)
    kept = [(name, value) for name, value in query if name not in asked]
    return urlunsplit(parts._replace(query=urlencode([*kept, *asked.items()])))


def is_last(api: ApiConfig, head: PageHead) -> bool:
    """Return whether no page follows.

    With numbers and offsets, only a page without items is known to be the last page: a page with fewer items than were
    asked for may be the server's limit.
    """
    if api.paging in ("number", "offset"):
        return head.items == 0
    return api.paging == "none" or head.next is None


def fetch_onwards(request: ApiRequest) -> Iterator[PageHead]:
    """Fetch and keep the pages that follow the kept pages, one after the other, until the last page.

    Raises as :meth:`ApiClient.fetch`, and DataContractError for too many pages. Stops at a page that was there before.
    """
    client, api, known = ApiClient(request), request.api, request.pages.heads()
    number, before, items = 1, None, 0
    seen: set[str] = set()
    while True:
        head = known.get(number)
        if head is None:
            if number > api.max_pages:
                raise DataContractError(f"{request.shown} has more than source.api.max_pages = {api.max_pages:,} pages")
            after_total = api.in_parallel and before is not None and before.total is not None and items >= before.total
            head = client.fetch(number, page_url(request, number, before, items), after_total)
            if head is None:
                return
            yield head
            if head.items and head.items_hash in seen:
                return  # check_pages names both
        if is_last(api, head):
            return
        seen.add(head.items_hash)
        number, before, items = number + 1, head, items + head.items


def next_link(links: str) -> str:
    """Return the target of rel="next" in a header `Link` (RFC 8288), as it is written there; empty if there is none."""
    for target, parameters in _NEXT_LINK.findall(links):
        found = re.search(r";\s*rel\s*=\s*(?:\"([^\"]*)\"|([^\s\",;]+))", parameters, re.IGNORECASE)
        if found and "next" in (found[1] or found[2]).lower().split():
            return str(target)
    return ""


def _origin(url: str) -> tuple[str, str, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def _charset(content_type: str) -> str:
    """Return the charset of the header `Content-Type`; UTF-8 where it names no known charset."""
    found = re.search(r"charset\s*=\s*\"?([\w.:-]+)", content_type, re.IGNORECASE)
    try:
        return "utf-8" if found is None else codecs.lookup(found[1]).name
    except LookupError:
        return "utf-8"
