"""The check whether an MLflow server answers."""

from __future__ import annotations

from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

from catalog_enrichment.registry import mlflow_store


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
