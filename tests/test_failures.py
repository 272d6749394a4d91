"""Errors of the surroundings get a class, a message and an exit code; everything else stays a bug."""

from __future__ import annotations

import errno
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException, RestException
from py4j.clientserver import JavaClient, JavaParameters, PythonParameters
from py4j.java_gateway import GatewayProperty
from py4j.protocol import Py4JNetworkError
from sqlalchemy.exc import OperationalError as SqlError

from catalog_enrichment import cli, failures
from catalog_enrichment.cli import command
from catalog_enrichment.config.schema import Config
from catalog_enrichment.errors import ConfigError, RegistryError, TemporaryFailure

from .sample_catalog import build

CRASHED = "Python worker exited unexpectedly (crashed)"
ASKED = "API request to http://u/api/x failed with"


@pytest.fixture(autouse=True)
def no_wait_for_the_jvm(monkeypatch: pytest.MonkeyPatch) -> None:
    """The JVM of other tests' Spark lives, so waiting for its end would take all the time."""
    monkeypatch.setattr(failures, "_SECONDS_TO_END", 0.05)


def wrapped(problem: BaseException) -> Exception:
    """As a library raises it: inside an error of its own."""
    outer = RuntimeError("the write failed")
    outer.__cause__ = problem
    return outer


def of_mlflow(message: str) -> Exception:
    """As MLflow's client raises what its database says."""
    return wrapped(SqlError("SELECT 1", None, sqlite3.OperationalError(message)))


@pytest.mark.parametrize(
    ("problem", "kind", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "part-1.parquet"), TemporaryFailure, "disk is full"),
        (wrapped(OSError(errno.EDQUOT, "Disk quota exceeded")), TemporaryFailure, "disk is full"),
        (RuntimeError("java.io.IOException: No space left on device"), TemporaryFailure, "disk is full"),
        (of_mlflow("database is locked"), TemporaryFailure, "the MLflow store is locked by another process"),
        (sqlite3.OperationalError("database is locked"), TemporaryFailure, "an SQLite file is locked by another"),
        (of_mlflow("no such table: experiments"), RegistryError, "the MLflow store is damaged"),
        (sqlite3.DatabaseError("database disk image is malformed"), ConfigError, "an SQLite file cannot be opened or"),
        (PermissionError(errno.EACCES, "Permission denied", "/catalog"), ConfigError, "cannot be used"),
        (OSError(errno.EROFS, "Read-only file system", "/catalog"), ConfigError, "cannot be used"),
        (OSError(errno.EIO, "no", "/catalog"), TemporaryFailure, "network drive fails"),
        (wrapped(OSError(errno.ESTALE, "no")), TemporaryFailure, "network drive fails"),
        (OSError(errno.ENOTCONN, "no"), TemporaryFailure, "network drive fails"),
        (OSError(errno.ETIMEDOUT, "timed out"), TemporaryFailure, "network drive fails"),
        (RuntimeError("java.io.IOException: Stale file handle"), TemporaryFailure, "network drive fails"),
        (wrapped(sqlite3.OperationalError("disk I/O error")), TemporaryFailure, "network drive fails"),
        (OSError(errno.EMFILE, "no more"), TemporaryFailure, "ulimit -n"),
        (RuntimeError("java.io.IOException: Too many open files"), TemporaryFailure, "ulimit -n"),
        (of_mlflow("unable to open database file"), RegistryError, "the MLflow store cannot be opened"),
        (sqlite3.OperationalError("unable to open database file"), ConfigError, "an SQLite file cannot be opened or"),
        (Py4JNetworkError("Answer from Java side is empty"), TemporaryFailure, "JVM has ended"),
        (RuntimeError("Job 7 cancelled because SparkContext was shut down"), TemporaryFailure, "JVM has ended"),
        (RuntimeError(f"Lost task 1.0: {CRASHED}"), TemporaryFailure, "worker"),
        (RuntimeError("ExecutorLostFailure (executor 0 exited)"), TemporaryFailure, "worker or executor"),
        (
            wrapped(RestException({"error_code": "INTERNAL_ERROR", "message": "down"})),
            TemporaryFailure,
            "MLflow server",
        ),
        (wrapped(RestException({"error_code": "REQUEST_LIMIT_EXCEEDED"})), TemporaryFailure, "MLflow server"),
        (wrapped(MlflowException(f"{ASKED} error code 503 != 200.")), TemporaryFailure, "MLflow server"),
        (wrapped(MlflowException(f"{ASKED} error code 429 != 200.")), TemporaryFailure, "MLflow server"),
        (wrapped(MlflowException(f"{ASKED} exception too many 502 responses")), TemporaryFailure, "MLflow server"),
        (wrapped(MlflowException(f"{ASKED} timeout exception read timed out.")), TemporaryFailure, "MLflow server"),
        (RuntimeError("Could not determine home directory."), ConfigError, "~NAME"),
        (ValueError("embedded null byte"), ConfigError, "control characters"),
        (wrapped(MemoryError()), ConfigError, "enrich.forward_rows"),
        (
            RuntimeError("File x.py, line 1, in f\nnumpy._core._exceptions._ArrayMemoryError: no"),
            ConfigError,
            "fit.batch",
        ),
        (RuntimeError("torch.OutOfMemoryError: CUDA out of memory. Tried"), ConfigError, "fit.batch_size"),
        (RuntimeError("java.lang.OutOfMemoryError: Java heap space"), ConfigError, "spark.driver_memory"),
        (RuntimeError(f"Task 1 failed 4 times: {CRASHED}"), ConfigError, "spark.executor.memoryOverhead"),
        (RuntimeError(f"Task 1 failed 1 times: {CRASHED}"), TemporaryFailure, "enrich.forward_rows"),
        (
            RuntimeError("ModuleNotFoundError: No module named 'catalog_enrichment'"),
            ConfigError,
            "Python workers cannot",
        ),
        (
            RuntimeError("No module named 'catalog_enrichment.inputs.x'"),
            ConfigError,
            "install the catalog-enrichment of",
        ),
        (
            RuntimeError("Can't get attribute 'new' on <module 'catalog_enrichment.catalog.reading' from 'x'>"),
            ConfigError,
            "Python workers cannot run this program (Can't get attribute 'new'",
        ),
        (RuntimeError("[PYTHON_VERSION_MISMATCH] Python in worker has"), ConfigError, "let PYSPARK_PYTHON name that"),
        (RuntimeError("ExecutorLostFailure: exit code: 137 (OOMKilled)"), ConfigError, "spark.executor.memory"),
        (RuntimeError("ExecutorLostFailure: Container exited with exit code 1"), TemporaryFailure, "Run again"),
    ],
)
def test_errors_of_the_surroundings_are_recognised(problem: Exception, kind: type[Exception], message: str) -> None:
    found = failures.recognised(problem)
    assert type(found) is kind
    assert message in str(found)


@pytest.mark.parametrize("code", [401, 403, 404])
def test_an_mlflow_server_that_refuses_the_account_is_told_from_a_forbidden_folder(code: int) -> None:
    problem = MlflowException(
        f"API request to endpoint /api/x failed with error code {code} != 200. Response body: 'Permission denied'"
    )
    found = failures.recognised(wrapped(problem))
    assert type(found) is (ConfigError if code == 404 else RegistryError)
    assert ("MLFLOW_TRACKING_USERNAME" in str(found)) == (code != 404)
    as_json = RestException({"error_code": "PERMISSION_DENIED", "message": "not you"})
    assert "the MLflow server refuses" in str(failures.recognised(as_json))


def test_an_error_of_mlflow_itself_is_no_failing_server() -> None:
    """Its client's own errors have INTERNAL_ERROR as their default code."""
    assert failures.recognised(MlflowException("the artifact has no python_function")) is None


RUNS_OUT_OF_MEMORY = """
import sys
from catalog_enrichment import failures
from catalog_enrichment.config.load import load_config
from catalog_enrichment.spark import session
from pyspark.sql import functions as F

spark = session.start(load_config(sys.argv[1], ["spark.driver_memory='512m'"]), "memory")
try:
    if sys.argv[2] == "java":
        long = [F.repeat(F.lit("x"), F.col("id").cast("int") + 200_000_000) for _ in range(6)]
        spark.range(4).select(F.length(F.concat(*long))).collect()
    else:
        @F.pandas_udf("string")
        def unable(ids):
            raise MemoryError("of this many bytes")

        spark.range(4).select(unable("id")).collect()
except Exception as problem:
    found = failures.recognised(problem)
    print(type(found).__name__, found)
"""


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize(("what", "key"), [("java", "spark.driver_memory"), ("python", "enrich.batch_bytes")])
def test_memory_that_every_try_lacks_is_told_from_a_lost_jvm_and_a_bug(what: str, key: str, tmp_path: Path) -> None:
    """Spark's JVM says so in its exit code alone, where a task of it ran out of memory."""
    config = build(tmp_path / "sample").file
    command = [sys.executable, "-W", "ignore", "-c", RUNS_OUT_OF_MEMORY, str(config), what]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.startswith("ConfigError "), done.stdout + done.stderr[-2000:]
    assert key in done.stdout


class UnreadableError(Exception):
    """As Py4JJavaError: its message is asked of the JVM."""

    def __str__(self) -> str:
        raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")


def test_an_error_whose_message_is_in_a_jvm_that_has_ended_is_a_lost_jvm() -> None:
    for problem in (UnreadableError(), wrapped(UnreadableError())):
        found = failures.recognised(problem)
        assert type(found) is TemporaryFailure
        assert "JVM has ended" in str(found)


def test_a_refused_connection_is_a_lost_jvm_only_where_py4j_opened_it() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    client = JavaClient(JavaParameters(port=port), PythonParameters(), GatewayProperty(False, None))
    with pytest.raises(ConnectionRefusedError) as refused:
        client._create_new_connection()
    assert type(failures.recognised(refused.value)) is TemporaryFailure
    with pytest.raises(ConnectionRefusedError) as elsewhere:
        socket.create_connection(("127.0.0.1", port))
    assert failures.recognised(elsewhere.value) is None


@pytest.mark.parametrize(
    "problem",
    [
        KeyError("x"),
        FileNotFoundError(errno.ENOENT, "no such file"),
        OSError("?"),
        sqlite3.OperationalError("no such table: verdicts"),
    ],
)
def test_everything_else_is_a_bug(problem: Exception) -> None:
    assert failures.recognised(problem) is None


def test_a_circle_of_causes_ends() -> None:
    first, second = RuntimeError("a"), RuntimeError("b")
    first.__cause__, second.__cause__ = second, first
    assert failures.recognised(first) is None


@pytest.mark.parametrize(
    ("problem", "code", "status"),
    [(OSError(errno.ENOSPC, "No space left on device"), 4, "error"), (KeyError("x"), 1, "bug")],
)
def test_a_job_ends_with_the_exit_code_of_what_was_recognised(
    problem: Exception,
    code: int,
    status: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def load(*_: object) -> Config:
        raise problem

    monkeypatch.setattr(command, "load_config", load)
    run: Callable[[list[str]], int] = cli.export_suggestions
    assert run(["--config", "c.toml", "--output", str(tmp_path)]) == code
    printed = capsys.readouterr()
    assert f'"status": "{status}"' in printed.out
    assert ("Traceback" in printed.err) == (code == 1)


@pytest.mark.parametrize("path", ["file", "file/below", "x" * 300])
def test_a_catalog_path_that_no_folder_can_have_is_refused_before_spark_starts(
    path: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JAVA_HOME", "/nonexistent")
    sample = build(tmp_path / "sample")
    (sample.folder / "file").write_text("")
    assert cli.import_products(["--config", str(sample.file), "--set", f"catalog.path={path}"]) == 2
    printed = capsys.readouterr()
    assert "is no folder, and no folder can be made there" in printed.out
    assert "Traceback" not in printed.err
