"""A real HTTP server on loopback that pages through products in every way, with faults that a test chooses."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

Answer = tuple[int, dict[str, str], bytes]
Fault = Callable[["Api", int, dict[str, str]], Answer | None]
"""(server, how often the page was asked for before, query) -> an answer instead of the page; None: the page."""


class Api:
    """Products in pages of ``size``. ``asked``: path and query of every request, with the time and the token."""

    def __init__(self, items: list[Any], size: int = 10) -> None:
        self.items, self.size = items, size
        self.faults: dict[int, Fault] = {}
        """Page number (from 1) -> what goes wrong with it."""
        self.extra: dict[str, Any] = {}
        self.total: int | None = None
        self.after_last = 200
        self.asked: list[tuple[str, float, str]] = []
        self.headers: list[dict[str, str]] = []
        self.url = ""
        self._lock = threading.Lock()

    @property
    def pages_asked(self) -> list[int]:
        """The page number of every request, in order."""
        return [self.page_of(dict(parse_qsl(urlsplit(path).query))) for path, _, _ in self.asked]

    def page_of(self, query: dict[str, str]) -> int:
        if "offset" in query:
            return -(-int(query["offset"]) // self.size) + 1
        cursor = query.get("cursor", "")
        return int(cursor.removeprefix("after-")) + 1 if cursor else int(query.get("page", 1))

    def answer(self, path: str, headers: dict[str, str]) -> Answer:
        query = dict(parse_qsl(urlsplit(path).query))
        number = self.page_of(query)
        with self._lock:
            before = self.pages_asked.count(number)
            self.asked.append((path, time.monotonic(), headers.get("authorization", "")))
            self.headers.append(headers)
        fault = self.faults.get(number)
        given = fault(self, before, query) if fault else None
        start = int(query["offset"]) if "offset" in query else None
        return given or self.page(number, urlsplit(path).path, start)

    def page(self, number: int, path: str = "/v1/products", start: int | None = None) -> Answer:
        start = (number - 1) * self.size if start is None else start
        some = self.items[start : start + self.size]
        more = number * self.size < len(self.items)
        if not some and number > 1 and self.after_last != 200:
            return self.after_last, {}, b"no such page"
        following = f"{path}?page={number + 1}"
        body = {
            "data": {"items": some},
            "meta": {"total": len(self.items) if self.total is None else self.total, "request": time.time()},
            "next": f"after-{number}" if more else None,
            "links": {"next": following if more else None},
            **self.extra,
        }
        headers = {"X-Total": str(len(self.items))}
        if more:
            first, second = f'<{self.url}{path}?page=1>; rel="first"', f'<{self.url}{following}>; title="a, b"'
            headers["Link"] = f'{first}, {second}; rel="next"'
        return 200, headers, json.dumps(body).encode()


def busy(times: int = 10**6, status: int = 503, **headers: str) -> Fault:
    """The first ``times`` requests of the page get this status."""
    return body(b"busy", times, status, **headers)


def body(content: bytes, times: int = 10**6, status: int = 200, **headers: str) -> Fault:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda _, before, __: (status, given, content) if before < times else None


@contextmanager
def serving(api: Api) -> Iterator[Api]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            status, headers, content = api.answer(self.path, {k.lower(): v for k, v in self.headers.items()})
            cut, drip = "X-Cut" in headers, "X-Drip" in headers
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content) + 10 * cut))
            self.end_headers()
            self.close_connection = cut or drip
            for part in [bytes([byte]) for byte in content] if drip else [content]:
                try:
                    self.wfile.write(part)
                except OSError:
                    return
                time.sleep(0.02 * drip)

        def log_message(self, format: str, *args: Any) -> None:
            """Print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.02), daemon=True)
    thread.start()
    api.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield api
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
