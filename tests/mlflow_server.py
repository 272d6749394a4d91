"""A real MLflow server on loopback, with MLflow's own user accounts (`--app-name basic-auth`)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from base64 import b64encode
from pathlib import Path
from typing import Any

from .postgres_server import free_port

ADMIN, PASSWORD = "admin", "a-long-password-1"
ACCOUNTS = """\
[mlflow]
default_permission = READ
database_uri = sqlite:///{folder}/accounts.db
admin_username = {admin}
admin_password = {password}
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
auth_cache_ttl_seconds = 60
auth_cache_max_size = 100
"""
"""The cache: a model's files are several hundred requests, each of which would compute the password's hash."""


class MlflowServer:
    """A server over ``folder``: users read everything, and the administrator writes."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.port = folder, free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        accounts = folder / "accounts.ini"
        accounts.write_text(ACCOUNTS.format(folder=folder, admin=ADMIN, password=PASSWORD))
        command = [
            *(sys.executable, "-m", "mlflow", "server", "--app-name", "basic-auth", "--workers", "1"),
            *("--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", f"{folder}/artifacts"),
            *("--host", "127.0.0.1", "--port", str(self.port)),
        ]
        settings = {
            "MLFLOW_AUTH_CONFIG_PATH": str(accounts),
            "MLFLOW_FLASK_SERVER_SECRET_KEY": "of-the-tests",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
        }
        outer = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
        with (folder / "server.log").open("w") as log:
            self._process = subprocess.Popen(
                command, cwd=folder, env=outer | settings, stdout=log, stderr=log, start_new_session=True
            )

    def wait(self, seconds: float = 90) -> None:
        """Until it answers. Raises RuntimeError with the end of its log."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and self._process.poll() is None:
            try:
                with urllib.request.urlopen(f"{self.uri}/health", timeout=2):
                    return
            except OSError:
                time.sleep(0.3)
        raise RuntimeError(f"the MLflow server does not answer: {(self.folder / 'server.log').read_text()[-2000:]}")

    def add_user(self, name: str, password: str) -> None:
        self._post("/api/2.0/mlflow/users/create", {"username": name, "password": password})

    def _post(self, path: str, content: dict[str, Any]) -> None:
        secret = b64encode(f"{ADMIN}:{PASSWORD}".encode()).decode()
        headers = {"Content-Type": "application/json", "Authorization": f"Basic {secret}"}
        request = urllib.request.Request(f"{self.uri}{path}", json.dumps(content).encode(), headers)
        with urllib.request.urlopen(request, timeout=30):
            return

    def stop(self) -> None:
        import psutil

        try:
            processes = psutil.Process(self._process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            processes = []
        for process in [self._process, *processes]:
            process.terminate()
        self._process.wait(30)
        psutil.wait_procs(processes, timeout=10)
