"""MLflow servers that answer, that fail, and that do not answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from catalog_enrichment import cli
from catalog_enrichment.registry import mlflow_store

from ..sample_catalog import build


def test_a_server_whose_uri_has_a_password_is_found() -> None:
    class Health(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    asked: list[str] = []
    with HTTPServer(("127.0.0.1", 0), Health) as server:
        Thread(target=server.handle_request, daemon=True).start()
        mlflow_store._check_server(f"http://user:secret@127.0.0.1:{server.server_port}/mlflow", timeout_seconds=5)
    assert asked == ["/mlflow/health"]


@contextmanager
def mlflow_server(status: int, body: bytes, *answered: str) -> Iterator[str]:
    """A server that answers requests for the paths that end with one of ``answered``, and no others."""

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            good = self.path.partition("?")[0].endswith(answered)
            content = b"{}" if good else body
            self.send_response(200 if good else status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_GET  # noqa: N815  the name that http.server asks for

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join(5)


CONNECTED = ("/health", "/experiments/search")
DATABASE_DOWN = json.dumps({"error_code": "INTERNAL_ERROR", "message": "(OperationalError) server closed"}).encode()
GONE = json.dumps({"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no such model"}).encode()
FORBIDDEN = json.dumps({"error_code": "PERMISSION_DENIED", "message": "not you"}).encode()


@pytest.mark.parametrize(
    ("answered", "status", "body", "retries", "code", "message"),
    [
        (("/health",), 503, b"<html>busy", "0", 4, "MLflow server fails or does not answer"),
        (("/health",), 503, b"<html>busy", "1", 4, "MLflow server fails or does not answer"),
        (CONNECTED, 503, b"<html>busy", "0", 4, "MLflow server fails or does not answer"),
        (CONNECTED, 503, b"<html>busy", "1", 4, "MLflow server fails or does not answer"),
        (CONNECTED, 500, DATABASE_DOWN, "0", 4, "MLflow server fails or does not answer"),
        (CONNECTED, 429, b"slower", "0", 4, "MLflow server fails or does not answer"),
        (CONNECTED, 403, FORBIDDEN, "0", 2, "MLflow server refuses the request"),
        (CONNECTED, 403, b"Permission denied", "0", 2, "MLflow server refuses the request"),
        (
            ("/health",),
            401,
            b"You are not authenticated",
            "0",
            2,
            "Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASS",
        ),
        ((*CONNECTED, "/registered-models/search"), 404, GONE, "0", 2, "no alias 'champion' of model"),
    ],
)
def test_a_failing_server_is_no_missing_version_and_no_bug(
    answered: tuple[str, ...],
    status: int,
    body: bytes,
    retries: str,
    code: int,
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in {"MAX_RETRIES": retries, "BACKOFF_FACTOR": "0", "BACKOFF_JITTER": "0"}.items():
        monkeypatch.setenv(f"MLFLOW_HTTP_REQUEST_{name}", value)
    config = ["--config", str(build(tmp_path / "sample").file)]
    with mlflow_server(status, body, *answered) as uri:
        assert cli.enrich_catalog([*config, "--set", f"mlflow.tracking_uri={uri}"]) == code
    printed = capsys.readouterr()
    assert message in json.loads(printed.out.splitlines()[-1])["message"]
    assert "Traceback" not in printed.err
