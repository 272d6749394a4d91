"""Sessions on a Spark Connect server, and servers that cannot be used."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pyspark.errors import PySparkAssertionError
from pyspark.errors.exceptions.connect import SparkConnectGrpcException

from catalog_enrichment import extras, failures
from catalog_enrichment.config.schema import SparkConfig
from catalog_enrichment.errors import ConfigError, TemporaryFailure
from catalog_enrichment.spark import connecting
from catalog_enrichment.spark.connect_server import LocalServer

from ..sample_catalog import SampleCatalog
from .conftest import SETTINGS
from .connect_client import client

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

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


def test_where_the_platform_names_no_server_that_answers_the_job_may_be_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connecting, "WAIT_SECONDS", 1)
    monkeypatch.setenv("SPARK_REMOTE", "sc://127.0.0.1:1")
    with pytest.raises(TemporaryFailure, match=r"no Spark Connect server answers at 127\.0\.0\.1:1 within 1 sec"):
        connect(connecting.PLATFORM)


def test_a_classic_session_of_the_platform_gets_the_settings_that_the_code_relies_on(spark: SparkSession) -> None:
    name = "spark.sql.session.timeZone"
    spark.conf.set(name, "Asia/Tokyo")
    found = connecting.connected(SparkConfig(remote=connecting.PLATFORM), {}, {name: "UTC"})
    assert (found, spark.conf.get(name)) == (spark, "UTC")


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


@pytest.mark.parametrize(
    "message",
    [
        "<_InactiveRpcError: StatusCode.UNAVAILABLE, failed to connect to all addresses>",
        "<_MultiThreadedRendezvous: StatusCode.DEADLINE_EXCEEDED>: RPC deadline exceeded. The client applies",
        "[INVALID_HANDLE.SESSION_CHANGED] The Spark server has restarted. Please reconnect",
    ],
)
def test_a_server_that_fails_during_a_job_is_a_temporary_failure(message: str) -> None:
    assert isinstance(failures.recognised(SparkConnectGrpcException(message)), TemporaryFailure)


def test_another_server_at_the_same_address_is_a_temporary_failure_and_a_wrong_query_is_a_bug() -> None:
    other = PySparkAssertionError("Received incorrect server side session identifier for request. (a != b)")
    assert isinstance(failures.recognised(other), TemporaryFailure)
    assert failures.recognised(SparkConnectGrpcException("[TABLE_OR_VIEW_NOT_FOUND] no table x")) is None
    assert failures.recognised(ValueError("UNAVAILABLE")) is None


LOST = """
import json, sys, time, warnings
from pyspark.sql.connect.client import retries
from catalog_enrichment.config.schema import SparkConfig
from catalog_enrichment.spark import connecting
from catalog_enrichment.spark.connect_server import LocalServer
from catalog_enrichment.spark.frames import persisted_frames

warnings.simplefilter("ignore")
pauses = []
retries.time.sleep = pauses.append  # no time passes
retries.Retrying.__init__.__defaults__ = (pauses.append, *retries.Retrying.__init__.__defaults__[1:])
server = LocalServer(json.loads(sys.argv[1]))
spark = connecting.connected(SparkConfig(remote=server.url), {}, {})
started = time.monotonic()
try:
    with persisted_frames() as persist:
        frames = [persist(spark.range(number)) for number in range(1, 4)]
        server.process.kill()
        server.process.wait()
        print(json.dumps({"rows": frames[0].count()}))
except Exception as problem:
    from catalog_enrichment import failures
    print(json.dumps({"error": type(failures.recognised(problem)).__name__, "waited": sum(pauses)}))
spark.stop()
print(json.dumps({"waited": sum(pauses)}))
"""


OTHER_WORKERS = """
import json, sys, types
import pyspark.sql.connect.udf as udf
from catalog_enrichment import failures
from catalog_enrichment.config.schema import SparkConfig
from catalog_enrichment.spark import connecting

def same(batches):
    yield from batches

def only_here(batches):
    yield from batches

sys.modules["catalog_enrichment.newer"] = newer = types.ModuleType("catalog_enrichment.newer")
newer.only_here, only_here.__module__ = only_here, newer.__name__
spark = connecting.connected(SparkConfig(remote=sys.argv[1]), {}, {})
for function, version in [(only_here, sys.version_info), (same, (3, 99))]:
    udf.sys = types.SimpleNamespace(version_info=version)
    try:
        spark.range(1).mapInArrow(function, "id long").collect()
    except Exception as problem:
        found = failures.recognised(problem)
        print(json.dumps({"error": type(found).__name__, "message": str(found)}))
"""


def test_workers_that_lack_the_package_or_have_another_python_are_named(server: LocalServer) -> None:
    lacking, other = client(OTHER_WORKERS, server.url)
    assert (lacking["error"], other["error"]) == ("ConfigError", "ConfigError")
    assert "cannot run this program (No module named 'catalog_enrichment" in lacking["message"]
    assert "cannot run this program (PYTHON_VERSION_MISMATCH)" in other["message"]


def test_a_lost_server_is_waited_for_once_for_a_minute() -> None:
    """Not again where three persisted frames are given back and the session is released."""
    lost, ended = client(LOST, json.dumps(SETTINGS))
    assert lost["error"] == "TemporaryFailure"
    assert 60 < lost["waited"] < 90
    assert ended == {"waited": lost["waited"]}


def test_the_token_is_in_no_stored_config(sample: SampleCatalog) -> None:
    config = sample.with_settings('spark.remote="sc://host:1/;token=Wq7rT9sx;use_ssl=true"').config
    assert "Wq7rT9sx" not in json.dumps(config.without_secrets())
