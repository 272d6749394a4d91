"""Jobs on a Spark Connect server: the decisions of classic Spark, and servers that cannot be used."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from catalog_enrichment import extras, failures
from catalog_enrichment.config.schema import SparkConfig
from catalog_enrichment.errors import ConfigError, TemporaryFailure
from catalog_enrichment.spark import connecting
from catalog_enrichment.spark.connect_server import LocalServer

from ..sample_catalog import SampleCatalog, table

ROOT = Path(__file__).parents[2]
MINUTES = 6 * 60
TIMES = ("asserted_at", "started_at", "finished_at", "decided_at", "quarantined_at", "scored_at")


@pytest.fixture(scope="module")
def server() -> Iterator[LocalServer]:
    """A server of Spark Connect on this machine."""
    settings = {
        "spark.master": "local[2]",
        "spark.driver.memory": "1g",
        "spark.ui.enabled": "false",
        "spark.sql.shuffle.partitions": "1",
        "spark.sql.codegen.wholeStage": "false",
        "spark.task.maxFailures": "1",
        "spark.log.level": "ERROR",
    }
    started = LocalServer(settings)
    yield started
    started.stop()


def client(code: str, *arguments: str, **environment: str) -> list[Any]:
    """Run Python code in a process of its own, which can be a client; return the JSON lines that it prints."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], text=True, capture_output=True, timeout=MINUTES, check=False,
        cwd=ROOT, env={**os.environ, **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


JOBS = """
import json, sys
from catalog_enrichment import cli
for name, *arguments in json.loads(sys.argv[1]):
    assert getattr(cli, name)(arguments) == 0
from pyspark import SparkContext
assert SparkContext._active_spark_context is None and SparkContext._gateway is None  # no JVM in this process
"""


def rows(sample: SampleCatalog, name: str) -> list[dict[str, Any]]:
    """The rows of a table without times of the clock, in one order."""
    kept = [{key: value for key, value in row.items() if key not in TIMES} for row in table(sample, name)]
    return sorted(kept, key=lambda row: json.dumps(row, default=str, sort_keys=True))


def outcomes(sample: SampleCatalog) -> list[tuple[Any, ...]]:
    return sorted((run["kind"], run["run_id"], run["status"], run["counts"]) for run in table(sample, "runs"))


@pytest.mark.slow
def test_a_run_decides_on_a_connect_server_what_it_decides_in_classic_spark(
    template: SampleCatalog, first_run: tuple[SampleCatalog, dict[str, Any]], server: LocalServer, tmp_path: Path
) -> None:
    connect = template.copy_to(tmp_path / "connect")
    options = ["--config", str(connect.file), "--set", f"spark.remote={json.dumps(server.url)}"]
    client(JOBS, json.dumps([["enrich_catalog", *options, "--no-report"]]))
    classic, _ = first_run
    for name in ("predictions", "attribute_values", "current_values"):
        assert rows(connect, name) == rows(classic, name), name
    assert outcomes(connect) == outcomes(classic)
    assert rows(connect, "attribute_values")  # some were published


SHIPPED = """
import json, sys
from pathlib import Path
import pyarrow as pa
from catalog_enrichment.config.schema import SparkConfig
from catalog_enrichment.spark import api_mode, connecting

def read(batches):
    for _ in batches:
        yield pa.RecordBatch.from_pydict({"text": [(api_mode.shipped(n) / "file").read_text() for n in ("a", "b")]})

spark = connecting.connected(SparkConfig(remote=sys.argv[1]), {}, {})
mode = api_mode.of(spark)
for name in ("a", "b", "a"):
    mode.ship(Path(sys.argv[2]) / name, name)
rows = mode.persist(spark.range(0, 1, 1, 1).mapInArrow(read, "text string")).collect()
print(json.dumps({"texts": [row["text"] for row in rows], "parallelism": mode.parallelism()}))
"""


def test_tasks_find_every_folder_that_a_session_sends(server: LocalServer, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(f"in {name}")
    (found,) = client(SHIPPED, server.url, str(tmp_path))
    assert found == {"texts": ["in a", "in b"], "parallelism": 2}


# --- servers that cannot be used --------------------------------------------------------------------------------------


def connect(url: str, **settings: Any) -> None:
    connecting.connected(SparkConfig(remote=url, **settings), {}, {})


@pytest.mark.parametrize(
    ("url", "detail"),
    [
        ("http://host:15002", "must start with 'sc://'"),
        ("sc://host:15002/path", "'/path' must be empty"),
        ("sc://:15002", "Hostname is missing"),
        ("sc://host:port", "port"),
        ("local", "must start with 'sc://'"),
    ],
)
def test_a_wrong_url_is_a_wrong_config(url: str, detail: str) -> None:
    with pytest.raises(
        ConfigError, match=r"spark.remote is no URL of a Spark Connect server \(sc://HOST:PORT"
    ) as found:
        connect(url)
    assert detail.lower() in str(found.value).lower()


def test_where_no_server_answers_the_job_may_be_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connecting, "WAIT_SECONDS", 1)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        port = silent.getsockname()[1]
        with pytest.raises(TemporaryFailure, match=f"no Spark Connect server answers at 127.0.0.1:{port} within 1 sec"):
            connect(f"sc://127.0.0.1:{port}")


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connecting, "find_spec", lambda package: None if package == "grpc_status" else package)
    with pytest.raises(ConfigError, match=r"grpc_status is not installed: pip install .catalog-enrichment\[connect\]"):
        connect("sc://127.0.0.1:1")
    assert {extras.EXTRA_OF[package] for package in ("grpc", "grpc_status", "zstandard")} == {"connect"}


OTHER_VERSION = """
import json
from concurrent.futures import ThreadPoolExecutor
import grpc
from pyspark.sql.connect.proto import base_pb2, base_pb2_grpc
from catalog_enrichment.config.schema import SparkConfig
from catalog_enrichment.errors import ConfigError
from catalog_enrichment.spark import connecting

class Older(base_pb2_grpc.SparkConnectServiceServicer):
    def AnalyzePlan(self, request, context):
        version = base_pb2.AnalyzePlanResponse.SparkVersion(version="3.5.7")
        return base_pb2.AnalyzePlanResponse(session_id=request.session_id, spark_version=version)
    def Config(self, request, context):
        return base_pb2.ConfigResponse(session_id=request.session_id)
    def ReleaseSession(self, request, context):
        return base_pb2.ReleaseSessionResponse(session_id=request.session_id)

server = grpc.server(ThreadPoolExecutor(2))
base_pb2_grpc.add_SparkConnectServiceServicer_to_server(Older(), server)
port = server.add_insecure_port("127.0.0.1:0")
server.start()
try:
    connecting.connected(SparkConfig(remote=f"sc://127.0.0.1:{port}"), {}, {})
except ConfigError as problem:
    print(json.dumps({"message": str(problem)}))
server.stop(None)
"""


def test_a_server_of_another_release_is_refused() -> None:
    (found,) = client(OTHER_VERSION)
    assert "the server has Spark 3.5.7 and this Python has pyspark 4." in found["message"]
    assert "Install pyspark==3.5.*" in found["message"]


REFUSED = """
import json, sys
from catalog_enrichment.config.schema import SparkConfig
from catalog_enrichment.errors import ConfigError
from catalog_enrichment.spark import connecting
url = sys.argv[1]
for remote, conf in [(url.partition("token=")[0] + "token=wrong", {}), (url, {"spark.executor.memory": "1g"})]:
    try:
        connecting.connected(SparkConfig(remote=remote, conf=conf), {}, {"spark.sql.session.timeZone": "UTC"})
    except ConfigError as problem:
        print(json.dumps({"message": str(problem)}))
"""


def test_a_wrong_token_and_a_setting_of_the_server_are_refused(server: LocalServer) -> None:
    token, setting = [found["message"] for found in client(REFUSED, server.url)]
    assert token.startswith("spark.remote: the server refuses the token")
    assert setting.startswith("spark.conf: the server does not take spark.executor.memory: ")


def test_a_server_that_fails_during_a_job_is_a_temporary_failure() -> None:
    from pyspark.errors.exceptions.connect import SparkConnectGrpcException

    lost = SparkConnectGrpcException("<_InactiveRpcError: StatusCode.UNAVAILABLE, failed to connect to all addresses>")
    assert isinstance(failures.recognised(lost), TemporaryFailure)
    assert failures.recognised(SparkConnectGrpcException("[TABLE_OR_VIEW_NOT_FOUND] no table x")) is None
    assert failures.recognised(ValueError("UNAVAILABLE")) is None


def test_the_token_is_in_no_stored_config(sample: SampleCatalog) -> None:
    config = sample.with_settings('spark.remote="sc://host:1/;token=Wq7rT9sx;use_ssl=true"').config
    assert "Wq7rT9sx" not in json.dumps(config.without_secrets())
