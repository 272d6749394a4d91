"""A Spark Connect server on this machine: the process of `spark.remote = "local-connect"`.

    python -m catalog_enrichment.spark.connect_server

It reads Spark's settings from the first line of stdin, a JSON object, starts Spark, prints a line of JSON with the key
`port`, and ends when stdin is closed: with the process that started it, also if that is killed. Only who has the token
of the environment variable SPARK_CONNECT_AUTHENTICATE_TOKEN can connect, and only from this machine.
"""

from __future__ import annotations

import atexit
import json
import os
import secrets
import subprocess
import sys

TOKEN = "SPARK_CONNECT_AUTHENTICATE_TOKEN"
"""Environment variable that Spark's server takes its token from."""

_SETTINGS = {
    "spark.plugins": "org.apache.spark.sql.connect.SparkConnectPlugin",
    "spark.connect.grpc.binding.address": "127.0.0.1",
    "spark.connect.grpc.binding.port": "0",
    # files that a session sends are seen by its own tasks
    "spark.sql.artifact.isolation.enabled": "true",
    "spark.sql.artifact.isolation.alwaysApplyClassloader": "true",
}

_MODES = ("SPARK_REMOTE", "SPARK_CONNECT_MODE_ENABLED", "SPARK_API_MODE")
"""Environment variables with which pyspark would start a client."""


class LocalServer:
    """A server that was started by this process, and ends with it."""

    def __init__(self, settings: dict[str, str]) -> None:
        """Start a server with Spark's ``settings`` and wait until it takes connections.

        Raises RuntimeError if it ends before; what it printed is on stderr.
        """
        token = secrets.token_urlsafe(16)
        environment = {name: value for name, value in os.environ.items() if name not in _MODES} | {TOKEN: token}
        if paths := environment.get("PYTHONPATH"):  # workers start in a folder of their session
            environment["PYTHONPATH"] = os.pathsep.join(map(os.path.abspath, paths.split(os.pathsep)))
        self.process = subprocess.Popen(
            [sys.executable, "-m", __spec__.name], env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        atexit.register(self.stop)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(settings) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError(f"the local Spark Connect server ended with exit code {self.process.wait()}")
        self.url = f"sc://localhost:{json.loads(answer)['port']}/;token={token}"

    def stop(self) -> None:
        """Close the server's stdin and wait for its end."""
        atexit.unregister(self.stop)
        if self.process.stdin is not None:
            self.process.stdin.close()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


def main() -> None:
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.appName("Spark Connect server")
    for name, value in (json.loads(sys.stdin.readline()) | _SETTINGS).items():
        builder = builder.config(name, value)
    spark = builder.getOrCreate()
    service = getattr(spark.sparkContext._jvm, "org.apache.spark.sql.connect.service.SparkConnectService$")
    print(json.dumps({"port": getattr(service, "MODULE$").localPort()}), flush=True)
    sys.stdin.read()
    spark.stop()


if __name__ == "__main__":
    main()
