"""A server that takes what jobs post."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest


@dataclass
class Listener:
    """The URL of the server, the status of its answers, and (path, body) of what it got."""

    url: str
    status: int = 200
    got: list[tuple[str, str]] = field(default_factory=list)


@pytest.fixture
def listener() -> Iterator[Listener]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            found.got.append((self.path, self.rfile.read(int(self.headers["Content-Length"])).decode()))
            self.send_response(found.status)
            self.send_header("Content-Length", "4")
            self.end_headers()
            self.wfile.write(b"why?")

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        found = Listener(f"http://127.0.0.1:{server.server_port}")
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield found
        server.shutdown()
