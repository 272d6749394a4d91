"""A stand-in for an open-source Unity Catalog server, on loopback: the part of its REST API about registered models.

Its answers have the form of the API (version 2.1), with which MLflow's own client talks. Files go to a folder.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

_API = "/api/2.1/unity-catalog/models"


@dataclass
class UnityCatalog:
    """The models of the server, by full name."""

    folder: Path
    models: dict[str, dict[str, Any]] = field(default_factory=dict)
    versions: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    fault: tuple[int, str, str] | None = None
    """Status, code and message of the answer to the requests that :attr:`fault_at` finds."""
    fault_at: str = ""
    """A pattern in method and path; empty: in all."""
    uri: str = ""
    page: int = 2
    """Versions in a page of a list."""

    def answer(self, method: str, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if self.fault and re.search(self.fault_at, f"{method} {path}"):
            return self.fault[0], {"error_code": self.fault[1], "message": self.fault[2]}
        path = path.removeprefix(_API).strip("/")
        now = int(time.time() * 1000)
        if method == "POST" and not path:
            name = f"{body['catalog_name']}.{body['schema_name']}.{body['name']}"
            if name in self.models:
                return 409, {"error_code": "ALREADY_EXISTS", "message": "Registered model already exists"}
            self.models[name] = body | {"created_at": now, "updated_at": now, "full_name": name}
            self.versions[name] = []
            return 200, self.models[name]
        if method == "GET" and not path:
            return 200, {"registered_models": list(self.models.values())}
        if method == "POST" and path == "versions":
            name = f"{body['catalog_name']}.{body['schema_name']}.{body['model_name']}"
            number = len(self.versions[name]) + 1
            place = (self.folder / name / str(number)).as_uri()
            created = {"version": number, "created_at": now, "updated_at": now, "storage_location": place}
            self.versions[name].append(body | created | {"status": "PENDING_REGISTRATION"})
            return 200, self.versions[name][-1]
        name, *rest = path.split("/")
        if name not in self.models:
            return 404, {"error_code": "NOT_FOUND", "message": f"Registered model not found: {name}"}
        if not rest:
            return 200, self._changed(self.models[name], method, body)
        if rest == ["versions"]:
            start = int(body.get("page_token") or 0)
            found = self.versions[name][start : start + self.page]
            more = start + self.page < len(self.versions[name])
            return 200, {"model_versions": found} | ({"next_page_token": str(start + self.page)} if more else {})
        if int(rest[1]) > len(self.versions[name]):
            return 404, {"error_code": "NOT_FOUND", "message": f"Model version not found: {rest[1]}"}
        version = self.versions[name][int(rest[1]) - 1]
        if rest[2:] == ["finalize"]:
            version["status"] = "READY"
            return 200, version
        return 200, self._changed(version, method, body)

    @staticmethod
    def _changed(found: dict[str, Any], method: str, body: dict[str, Any]) -> dict[str, Any]:
        if method == "PATCH":
            found["comment"] = body.get("comment", "")
        return found


@contextmanager
def serving(folder: Path) -> Iterator[UnityCatalog]:
    """Run the server for the length of the block."""
    catalog = UnityCatalog(folder)

    class Handler(BaseHTTPRequestHandler):
        def _any(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            path, _, query = self.path.partition("?")
            asked = dict(re.findall(r"([^&=]+)=([^&]*)", query))
            body = json.loads(self.rfile.read(length) or b"{}") | asked
            status, content = catalog.answer(self.command, path, body)
            text = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = do_PATCH = do_DELETE = _any  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    catalog.uri = f"uc:http://127.0.0.1:{server.server_port}"
    try:
        yield catalog
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
