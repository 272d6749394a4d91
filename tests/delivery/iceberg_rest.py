"""An Iceberg REST catalog on loopback, as far as deliveries use one: a sqlite catalog behind HTTP, with faults.

It checks the requirements of a commit as pyiceberg's own sqlite catalog does.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from pyiceberg.catalog import load_catalog
from pyiceberg.exceptions import CommitFailedException, NamespaceAlreadyExistsError, NoSuchTableError
from pyiceberg.schema import Schema
from pyiceberg.table import CommitTableRequest, Table

from catalog_enrichment.delivery import iceberg

TOKEN, SECRET = "s3cret-token-of-the-delivery", "s3cret-of-the-client"
CUT, SILENT = 1, 2
_ERRORS = {NoSuchTableError: 404, CommitFailedException: 409, NamespaceAlreadyExistsError: 409}


class RestCatalog(ThreadingHTTPServer):
    """``fault``: the status to answer to the next commit, CUT for none before the connection ends, SILENT for none for
    some seconds; ``applied``: whether that commit is applied all the same."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.fault, self.applied = 0, False
        self.requests: list[str] = []
        self.catalog = load_catalog(iceberg.NAME, uri=f"sqlite:///{folder}/catalog.db", warehouse=f"file://{folder}")

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/catalog"

    def answer(self, method: str, path: str, content: Any) -> tuple[int, Any]:
        parts = path.removeprefix("/catalog/v1/").split("/")
        match method, parts:
            case "GET", ["config"]:
                return 200, {"defaults": {}, "overrides": {}}
            case "POST", ["namespaces"]:
                self.catalog.create_namespace(tuple(content["namespace"]))
                return 200, {"namespace": content["namespace"], "properties": {}}
            case "POST", ["namespaces", namespace, "tables"]:
                columns = Schema.model_validate(content["schema"])
                name = (namespace, content["name"])
                return 200, _loaded(self.catalog.create_table(name, columns, properties=content["properties"]))
            case "GET", ["namespaces", namespace, "tables", name]:
                return 200, _loaded(self.catalog.load_table((namespace, name)))
            case "POST", ["namespaces", namespace, "tables", name]:
                fault, self.fault = self.fault, 0
                if not fault or self.applied:
                    asked = CommitTableRequest.model_validate(content)
                    table = self.catalog.load_table((namespace, name))
                    self.catalog.commit_table(table, asked.requirements, asked.updates)
                if fault:
                    return fault, {"error": {"message": "as the test wants", "type": "Fault", "code": fault}}
                return 200, _loaded(self.catalog.load_table((namespace, name)))
        return 404, {"error": {"message": path, "type": "NoSuchPath", "code": 404}}


def _loaded(table: Table) -> dict[str, Any]:
    metadata = json.loads(table.metadata.model_dump_json())
    return {"metadata-location": table.metadata_location, "metadata": metadata, "config": {}}


class _Handler(BaseHTTPRequestHandler):
    server: RestCatalog

    def _handle(self) -> None:
        text = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        self.server.requests.append(f"{self.command} {self.path}")
        content = None if self.path.endswith("/oauth/tokens") else json.loads(text or "null")
        if self.path.endswith("/oauth/tokens") and f"client_secret={SECRET}" in text:
            status, answer = 200, {"access_token": TOKEN, "token_type": "bearer", "expires_in": 3600}
        elif self.headers.get("Authorization") != f"Bearer {TOKEN}":
            message = f"{self.headers.get('Authorization')} is not known"
            status, answer = 401, {"error": {"message": message, "type": "NotAuthorized", "code": 401}}
        else:
            try:
                status, answer = self.server.answer(self.command, self.path, content)
            except tuple(_ERRORS) as problem:
                status = _ERRORS[type(problem)]
                answer = {"error": {"message": str(problem), "type": type(problem).__name__, "code": status}}
        if status in (CUT, SILENT):
            time.sleep(0 if status == CUT else 3)
            self.close_connection = True
            return
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = _handle  # noqa: N815

    def log_message(self, *_: Any) -> None:
        """Print nothing."""


@contextmanager
def rest_catalog(folder: Path) -> Iterator[RestCatalog]:
    server = RestCatalog(folder)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
