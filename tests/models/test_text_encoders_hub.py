"""Text encoders of a hub, loaded by a process with a user's settings of the hub and not the tests'."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .families import HIDDEN, camembert

SCRIPT = """
import json, socket, time
from catalog_enrichment.errors import ConfigError
from catalog_enrichment.models.spec import TextSpec
from catalog_enrichment.models.text_encoders import build_text_encoder, build_tokenizer

def width(name):
    spec = TextSpec(name=name, max_length=24)
    return build_text_encoder(spec, len(build_tokenizer(spec, []))).width

def unreachable(*_, **__):
    raise OSError("Name or service not known")

answers = {"with the hub": width("acme/tiny")}
socket.socket.connect = socket.getaddrinfo = unreachable
answers["from the cache"] = width("acme/tiny")
start = time.monotonic()
try:
    width("acme/other")
except ConfigError as problem:
    answers["not there"] = str(problem)
answers["seconds"] = time.monotonic() - start
print(json.dumps(answers))
"""


@contextmanager
def hub(folder: Path) -> Iterator[str]:
    """Yield the address of a server that answers like the hub, with ``folder`` as its repository acme/tiny."""

    class Hub(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.removeprefix("/acme/tiny/resolve/main/")
            known = name != self.path and (folder / name).is_file()
            body = (folder / name).read_bytes() if known else b""
            self.send_response(200 if known else 404)
            if not known:
                self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("X-Repo-Commit", "0" * 40)
            self.send_header("ETag", f'"{hashlib.sha1(body).hexdigest()}"')
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def test_a_hub_name_is_downloaded_and_from_then_on_found_without_the_hub(tmp_path: Path) -> None:
    settings = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    with hub(camembert(tmp_path / "hub")) as address:
        settings |= {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "cache"), "HF_HUB_DISABLE_TELEMETRY": "1"}
        ended = subprocess.run([sys.executable, "-c", SCRIPT], env=settings, check=True, capture_output=True, text=True)
    answers = json.loads(ended.stdout.splitlines()[-1])
    assert answers["with the hub"] == answers["from the cache"] == HIDDEN
    assert answers["not there"].startswith("model.text.name: cannot load 'acme/other'")
    assert "local folder" in answers["not there"]
    assert answers["seconds"] < 5  # transformers alone tries for most of a minute
