"""Sources that are no files: the config's sections `[source.postgres]` and `[source.api]`."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import SplitResult, parse_qsl, urlsplit

from catalog_enrichment.config.strict import check_folder, check_hosts, check_ranges
from catalog_enrichment.masking import secrets_in

_ENVIRONMENT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_SET_BY_THE_READER = frozenset({"host", "authorization", "accept-encoding", "content-length", "transfer-encoding"})


@dataclass(frozen=True, kw_only=True, slots=True)
class PostgresConfig:
    """Products from PostgreSQL 13 or newer. `source.path` is the server's URI, without a password. Needs the extra
    `postgres`. All connections of an import read one snapshot of the database, in transactions that cannot write."""

    table: str = ""
    """Table, view or materialized view as SQL writes it: `products`, `shop.products`, `shop."Products"`."""
    query: str = ""
    """A SELECT instead of a table."""
    key: str = ""
    """Column whose ranges the connections read; any type that has an order, nulls included. Empty: ranges of disk pages
    for a table; one connection for a view or a query. Finding the ranges costs the server one pass over this column."""
    partitions: int = 4
    """Ranges, and so connections that read at the same time, at most; one more connection is held open meanwhile."""
    auth_env: str = ""
    """Environment variable of the job's process with the password. Empty: what libpq uses (PGPASSWORD, `~/.pgpass`)."""
    fetch_rows: int = 2000
    """Rows that a connection fetches at a time; fewer where they are large: about 16 MiB."""
    connect_seconds: int = 10
    """Limit for opening one connection."""
    lock_seconds: int = 60
    """Give up (exit 4) where another transaction locks the table for longer."""

    def __post_init__(self) -> None:
        if bool(self.table.strip()) == bool(self.query.strip()):
            raise ValueError("source.postgres needs either table or query, and not both")
        check_ranges("source.postgres", self, partitions=(1, 256), fetch_rows=(1, 1_000_000))
        check_ranges("source.postgres", self, connect_seconds=(2, 600), lock_seconds=(1, 86_400))
        _check_environment_name("source.postgres.auth_env", self.auth_env)


@dataclass(frozen=True, kw_only=True, slots=True)
class ApiConfig:
    """Products from an HTTP API that answers with pages of JSON. `source.path` is the URL of the first page, without
    the parameters that ask for a page. Fetched pages are kept until the import is done: after an interruption the next
    import goes on at the next page."""

    paging: Literal["number", "offset", "cursor", "link", "next_url", "none"] = "number"
    """How the next page is asked for. `number`: pages 1, 2, ...; `offset`: items to skip; `cursor`: a text in the page
    before; `link`: its header `Link` with rel="next"; `next_url`: a URL in it; `none`: there is one page."""
    items: str = "items"
    """Where in a page the list of products is: names joined by dots (`data.products`); empty: the page is the list."""
    page_param: str = ""
    """Query parameter with number, offset or cursor. Empty: `page`, `offset` or `cursor`."""
    first_page: int = 1
    """Number of the first page; for APIs that count from 0."""
    size_param: str = ""
    """Query parameter with the number of items per page (`page_size`); empty: it is not sent."""
    page_size: int = 0
    """Items per page: the value of `size_param`, and what `total` is divided by. 0: the server's own number."""
    next: str = ""
    """Where in a page the next cursor or URL is (`paging.next`); where there is none, the page is the last. Empty:
    `next`."""
    total: str = ""
    """Where in a page the number of all products is (`meta.total`), or `header:NAME`. With it, page numbers and offsets
    are fetched in parallel, and an import that got fewer products is refused. Empty: page after page,
    until a page without items or without a next page."""
    auth_env: str = ""
    """Environment variable of the job's process with the access token; empty: no token. Never sent to another host."""
    auth_header: str = ""
    """Header that carries the token as it is. Empty: `Authorization: Bearer TOKEN`."""
    headers: dict[str, str] = field(default_factory=dict)
    """Further headers of every request; no secrets."""
    requests_per_second: float = 5.0
    """Limit for all tasks together."""
    tasks: int = 4
    """Pages fetched at the same time, where `total` is known."""
    retries: int = 6
    """Retries of one page, after connection errors, broken pages, status 408, 425, 429 and 5xx."""
    retry_seconds: float = 1.0
    """Pause before the first retry; it doubles up to a minute. The header `Retry-After` can make it longer."""
    page_seconds: float = 60.0
    """Limit for one attempt at one page: resolving, connecting, redirects, the whole transfer."""
    seconds: float = 14_400.0
    """Limit for all pages, pauses included; then the import ends (exit 4), and the next import continues."""
    page_bytes: int = 64_000_000
    """A larger page ends the import (exit 2)."""
    max_pages: int = 1_000_000
    """More pages end the import (exit 2): the API may never end."""
    private_hosts: tuple[str, ...] = ()
    """Names, addresses and networks (10.1.0.0/16) that may be connected to although they are not public."""
    pages_folder: str = ""
    """Folder of the fetched pages, which all executors share. Empty: in `catalog.path`. Relative to `root`."""
    keep_hours: float = 24.0
    """Pages that an interrupted import left are used again for so long; then all are fetched anew, because pages of two
    times may lack products that moved between them. 0: never."""

    def __post_init__(self) -> None:
        check_ranges("source.api", self, first_page=(0, 1_000_000), page_size=(0, 1_000_000), tasks=(1, 256))
        check_ranges(
            "source.api", self, requests_per_second=(0.001, 10_000), retries=(0, 20), retry_seconds=(0.001, 60)
        )
        check_ranges("source.api", self, page_seconds=(0.05, 3600), seconds=(0.1, 604_800), keep_hours=(0, 8760))
        check_ranges("source.api", self, page_bytes=(1, 2**31), max_pages=(1, 10**9))
        if self.size_param and not self.page_size:
            raise ValueError("source.api.page_size is needed for size_param: it is its value")
        if self.total and self.paging in ("number", "offset") and not self.page_size:
            raise ValueError("source.api.page_size is needed for total: the number of pages is their quotient")
        check_folder("source.api.pages_folder", self.pages_folder)
        _check_environment_name("source.api.auth_env", self.auth_env)
        self._check_headers()
        check_hosts("source.api.private_hosts", self.private_hosts)

    def _check_headers(self) -> None:
        names = [*self.headers, *([self.auth_header] if self.auth_header else [])]
        if unusable := sorted(name for name in names if not _HEADER_NAME.fullmatch(name)):
            raise ValueError(f"source.api.headers: {unusable} are no names of headers")
        if taken := sorted(name for name in self.headers if name.lower() in _SET_BY_THE_READER):
            raise ValueError(f"source.api.headers cannot have {taken}; the token's header is auth_env and auth_header")
        if secret := sorted(name for name, value in self.headers.items() if secrets_in({name: value})):
            raise ValueError(f"source.api.headers.{secret[0]} looks like a secret: use auth_env and auth_header")
        if any(not value.isprintable() or not value.isascii() for value in self.headers.values()):
            raise ValueError("source.api.headers: values are printable ASCII")

    @property
    def parameter(self) -> str:
        """Return the query parameter that asks for a page."""
        return self.page_param or {"number": "page"}.get(self.paging, self.paging)

    @property
    def next_path(self) -> str:
        return self.next or "next"

    def content_keys(self) -> dict[str, Any]:
        """Return the keys that decide which pages there are and what they contain.

        Other keys may change while pages are kept.
        """
        names = ("paging", "items", "parameter", "first_page", "size_param", "page_size", "next_path", "headers")
        return {name: getattr(self, name) for name in names} | {"in_parallel": self.in_parallel}

    @property
    def in_parallel(self) -> bool:
        """Return whether a page can be asked for without the page before it, and the number of pages is known."""
        return bool(self.total) and self.paging in ("number", "offset")


def check_remote_path(source_format: str, path: str) -> None:
    """Raise ValueError for a `source.path` that does not fit the format or has a secret, without repeating it."""
    schemes = {"postgres": ("postgresql", "postgres"), "http_api": ("http", "https")}[source_format]
    try:
        parts = urlsplit(path)
        parts.port  # noqa: B018  parsed when it is asked for
    except ValueError:
        raise ValueError("source.path is no valid URI") from None
    if parts.scheme not in schemes:
        example = "postgresql://reader@db.example/shop" if source_format == "postgres" else "https://api.example/items"
        raise ValueError(f"source.path of format {source_format!r} is a URI like {example}")
    if source_format == "http_api":
        _check_api_url(parts)
    elif parts.password is not None or "password" in dict(parse_qsl(parts.query)):
        raise ValueError(
            "source.path must not have a password: put it into an environment variable (source.postgres.auth_env), "
            "PGPASSWORD or ~/.pgpass"
        )


def _check_api_url(parts: SplitResult) -> None:
    if parts.username is not None or parts.password is not None:
        raise ValueError("source.path must not have a user or password: use source.api.auth_env")
    if not parts.hostname:
        raise ValueError("source.path has no host")
    if secrets_in(dict(parse_qsl(parts.query))):
        raise ValueError("source.path must not have a token in its query: use source.api.auth_env and auth_header")
    if parts.fragment:
        raise ValueError("source.path must not have a fragment (#)")


def _check_environment_name(option: str, name: str) -> None:
    if name and not _ENVIRONMENT_NAME.fullmatch(name):
        raise ValueError(f"{option} is the name of an environment variable, not its value")
