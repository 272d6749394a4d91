"""A real S3 server on loopback, in a folder of its own: for tests and for proofs that stop and kill it.

The server is moto's, in a process of its own. moto keeps its objects in memory; here every change that it accepted is
in a journal on the disk before the client has its answer, and a server that starts on the folder does the journal's
changes again. So a server that was killed comes back with all that it had acknowledged, as a real server does. Changes
are made one at a time, which makes moto's conditional puts atomic.

    python -m tests.object_store FOLDER PORT SECONDS_UNTIL_IT_STARTS
"""

from __future__ import annotations

import pickle
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from contextlib import suppress
from io import BytesIO
from itertools import count
from pathlib import Path
from typing import Any

from .postgres_server import free_port

BUCKET = "catalogs"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "a-key-of-the-tests", "AWS_SECRET_ACCESS_KEY": "a-secret-of-the-tests"}
_CHANGES = {"PUT", "POST", "DELETE"}
_KEPT = ("REQUEST_METHOD", "PATH_INFO", "QUERY_STRING", "CONTENT_TYPE", "HTTP_", "RAW_URI", "REQUEST_URI")


class ObjectStoreServer:
    """An S3 server over ``folder``, which an earlier server may have made, with the bucket :data:`BUCKET`."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, and return when it answers."""
        self._launch(0)
        deadline = time.monotonic() + 180  # a long journal takes its time
        while True:
            with suppress(OSError):
                urllib.request.urlopen(urllib.request.Request(f"{self.endpoint}/{BUCKET}", method="PUT"), timeout=5)
                return
            if self._process is None or self._process.poll() is not None or time.monotonic() > deadline:
                log = (self.folder / "server.log").read_text()
                raise RuntimeError(f"the S3 server does not start: {log[-2000:]}")
            time.sleep(0.05)

    def restart(self, down_seconds: float) -> None:
        """Kill it; it starts again after ``down_seconds``, by itself: deltalake keeps Python's lock while it waits for
        a server, so that no thread of this process could start it."""
        self.kill()
        self._launch(down_seconds)

    def _launch(self, after_seconds: float) -> None:
        with (self.folder / "server.log").open("ab") as sink:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.object_store", str(self.folder), str(self.port), str(after_seconds)],
                cwd=Path(__file__).parents[1], stdout=sink, stderr=sink,
            )  # fmt: skip

    def kill(self) -> None:
        """SIGKILL, as the kernel does when memory runs out."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def uri(self, name: str) -> str:
        """A place in the bucket that nothing else uses, if ``name`` is new."""
        return f"s3://{BUCKET}/{name}"

    def storage(self) -> dict[str, str]:
        """`catalog.storage`; the credentials are in :data:`CREDENTIALS`."""
        return {"aws_endpoint": self.endpoint, "aws_region": "us-east-1"}

    def settings(self) -> tuple[tuple[str, str], ...]:
        """Return the settings of an ObjectStorage."""
        named = {name.lower(): value for name, value in CREDENTIALS.items()}
        return tuple(sorted({**self.storage(), "allow_http": "true", **named}.items()))


class Journal:
    """A WSGI application around ``serve`` that keeps the changes in the file ``path``."""

    def __init__(self, serve: Callable[..., Iterable[bytes]], path: Path) -> None:
        self._serve, self._path = serve, path
        self._changing = threading.Lock()

    def replay(self) -> None:
        """Do the changes of an earlier server again; what it had not written whole it had not acknowledged."""
        if self._path.is_file():
            with self._path.open("rb") as file, suppress(EOFError, pickle.UnpicklingError):
                while True:
                    environ, body = pickle.load(file)
                    self._do(environ, body)

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] not in _CHANGES:
            return self._serve(environ, start_response)
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        if environ.get("HTTP_TRANSFER_ENCODING", "").lower() == "chunked":
            body = environ["wsgi.input"].read()
        with self._changing:
            status, headers, answer = self._do(environ, body)
            if status.startswith("2"):
                kept = {name: value for name, value in environ.items() if name.startswith(_KEPT)}
                with self._path.open("ab") as file:
                    pickle.dump((kept, body), file)
        start_response(status, headers)
        return [answer]

    def _do(self, environ: dict[str, Any], body: bytes) -> tuple[str, list[tuple[str, str]], bytes]:
        base = {
            "wsgi.url_scheme": "http", "SERVER_NAME": "127.0.0.1", "SERVER_PORT": "80", "SCRIPT_NAME": "",
            "SERVER_PROTOCOL": "HTTP/1.1", "wsgi.errors": sys.stderr, "wsgi.multithread": True, "wsgi.version": (1, 0),
            "wsgi.multiprocess": False, "wsgi.run_once": False,
        }  # fmt: skip
        found: dict[str, Any] = {}

        def answered(status: str, headers: list[tuple[str, str]], _: Any = None) -> None:
            found.update(status=status, headers=headers)

        whole = base | environ | {"wsgi.input": BytesIO(body), "CONTENT_LENGTH": str(len(body))}
        answer = b"".join(self._serve(whole, answered))
        return found["status"], found["headers"], answer


def main(folder: str, port: str, after_seconds: str) -> None:
    time.sleep(float(after_seconds))
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
    from moto.s3.models import FakeMultipart
    from werkzeug.serving import run_simple

    numbered(FakeMultipart)
    application = Journal(DomainDispatcherApplication(create_backend_app), Path(folder) / "journal")
    application.replay()
    run_simple("127.0.0.1", int(port), application, threaded=True, request_handler=MotoRequestHandler)


def numbered(uploads: Any) -> None:
    """Give uploads in parts numbers for ids: the requests in the journal name them."""
    first, numbers = uploads.__init__, count(1)

    def init(self: Any, *arguments: Any, **named: Any) -> None:
        first(self, *arguments, **named)
        self.id = f"upload-{next(numbers)}"

    uploads.__init__ = init


if __name__ == "__main__":
    main(*sys.argv[1:])
