"""A real review server in a thread, over the sample catalog's files, and a client that speaks HTTP to it."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import uvicorn

from catalog_enrichment.audit.page.app import create_app
from catalog_enrichment.audit.page.connections import timed
from catalog_enrichment.audit.page.guard import Guard
from catalog_enrichment.audit.page.serve import Listen, bound, site_of
from catalog_enrichment.audit.review_store import ReviewStore
from catalog_enrichment.config.load import load_config
from catalog_enrichment.config.schema import Config
from tests.sample_catalog import build


@dataclass(frozen=True)
class Client:
    port: int
    reviewer: str = ""
    headers: dict[str, str] = field(default_factory=dict)

    def send(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, dict[str, str], bytes]:
        """Return status, headers and body; ``headers`` replace the usual headers, an underscore stands for a hyphen."""
        given = dict(self.headers)
        if self.reviewer:
            given["X-Reviewer"] = quote(self.reviewer)
        data = None
        if method != "GET":
            data = body if isinstance(body, bytes) else json.dumps(body if body is not None else {}).encode()
            given["Content-Type"] = "application/json"
        given |= {name.replace("_", "-"): value for name, value in headers.items()}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, path, data, given)
            answer = connection.getresponse()
            return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def get(self, path: str) -> Any:
        return self._content("GET", path, None)

    def post(self, path: str, body: Any = None) -> Any:
        return self._content("POST", path, body)

    def _content(self, method: str, path: str, body: Any) -> Any:
        status, _, content = self.send(method, path, body)
        assert status == 200, (status, content)
        return json.loads(content)

    def refused(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, str]:
        """Return status and message of a request that must fail."""
        status, _, content = self.send(method, path, body, **headers)
        assert status >= 400, content
        return status, json.loads(content)["error"]


@contextmanager
def served(
    config: Config, store: ReviewStore, guard: Guard | None = None, port: int = 0, **limits: Any
) -> Iterator[int]:
    """Yield the port of a server that runs until the block ends. ``limits``: of its connections."""
    app = create_app(site_of(config, store, guard or Guard()))
    with bound(Listen(port=port)) as listening:
        server = uvicorn.Server(uvicorn.Config(app, http=timed(**limits), log_level="warning", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        deadline = time.monotonic() + 20
        while not server.started:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        try:
            yield listening.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join(20)


def config_of(folder: Path, attributes: list[dict[str, Any]] | None = None) -> Config:
    """Return the config of a sample catalog without products; with another dictionary, if ``attributes`` are given."""
    sample = build(folder)
    if attributes is not None:
        (folder / "attributes.json").write_text(json.dumps({"attributes": attributes}))
    return load_config(sample.file)
