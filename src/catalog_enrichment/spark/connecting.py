"""The connection to a Spark Connect server: `spark.remote`."""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from catalog_enrichment import extras
from catalog_enrichment.errors import ConfigError, TemporaryFailure
from catalog_enrichment.monitoring import logs
from catalog_enrichment.spark import api_mode
from catalog_enrichment.spark.connect_server import LocalServer

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from catalog_enrichment.config.schema import SparkConfig

LOCAL = "local-connect"
PLATFORM = "platform"

WAIT_SECONDS = 20
"""Time that a server has to take the connection."""

RETRIES = 6
"""Tries after a call that got no answer; the pauses before them grow, to 68 seconds in all."""


def connected(
    config: SparkConfig, classic: Mapping[str, str | int], of_session: Mapping[str, str | int]
) -> SparkSession:
    """Return a session on the server `spark.remote`, or the session that this process has.

    ``classic``: settings for a server that is started here. ``of_session``: settings that a session may have of its
    own; those of `spark.conf` come on top. Raises ConfigError where the URL, the token, a setting or the version of
    Spark is wrong, or a package is missing, and TemporaryFailure where no server answers.
    """
    from pyspark.sql import SparkSession

    if config.remote == PLATFORM:
        named = os.environ.get("SPARK_REMOTE", "").startswith("sc://")
        if named:
            _require_server(os.environ["SPARK_REMOTE"])
        spark = SparkSession.builder.getOrCreate()
        if named:
            _require_same_version(spark)
    else:
        url = config.remote
        if url == LOCAL:
            _require_packages()
            url = _local_server(tuple(sorted(classic.items())))
        else:
            _require_server(url)
        spark = SparkSession.builder.remote(url).getOrCreate()
        _give_up_once(spark)
        _require_same_version(spark)
        atexit.register(spark.stop)  # else the server keeps the session, with the model's files, for an hour
    own = {} if config.remote == LOCAL else dict(config.conf)
    for name, value in {**of_session, **own}.items():
        _set(spark, name, value, required=name in own)
    return spark


def _give_up_once(spark: SparkSession) -> None:
    """Let the session wait about a minute for a server that does not answer, and after that no more.

    Spark's client waits ten minutes, and as long again in each call that follows: where persisted frames are given
    back, and when the process ends. A server that comes back does not know the session.
    """
    from pyspark.sql.connect.client.retries import DefaultPolicy, RetryPolicyState

    class GivesUpOnce(DefaultPolicy):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(max_retries=RETRIES)
            self.given_up = False

        def can_retry(self, e: BaseException) -> bool:
            return not self.given_up and bool(super().can_retry(e))

        def to_state(self) -> RetryPolicyState:
            return State(self)

    class State(RetryPolicyState):  # type: ignore[misc]
        def next_attempt(self, *arguments: Any) -> int | None:
            wait: int | None = super().next_attempt(*arguments)
            policy.given_up = policy.given_up or wait is None
            return wait

    policy = GivesUpOnce()
    spark.client.set_retry_policies([policy])


def _require_packages() -> None:
    for package in ("grpc", "grpc_status", "zstandard"):
        if find_spec(package) is None:
            raise ConfigError(f"spark.remote: {extras.missing(package)}")


@cache
def _local_server(settings: tuple[tuple[str, str | int], ...]) -> str:
    """Start a server in a process of its own, and return its URL. It ends with this process."""
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    with logs.jvm_output():
        return LocalServer({name: str(value) for name, value in settings}).url


def _require_server(url: str) -> None:
    """Check that a server takes connections at ``url``: Spark's client would try for ten minutes."""
    _require_packages()
    import grpc  # type: ignore[import-untyped]
    from pyspark.errors import PySparkValueError
    from pyspark.sql.connect.client import DefaultChannelBuilder

    try:
        builder = DefaultChannelBuilder(url)
    except (PySparkValueError, ValueError) as problem:
        detail = str(problem).splitlines()[0]
        raise ConfigError(
            f"spark.remote is no URL of a Spark Connect server (sc://HOST:PORT, {LOCAL} or {PLATFORM}): {detail}"
        ) from None
    channel = builder.toChannel()
    try:
        grpc.channel_ready_future(channel).result(WAIT_SECONDS)
    except grpc.FutureTimeoutError:
        raise TemporaryFailure(
            f"spark.remote: no Spark Connect server answers at {builder.endpoint} within {WAIT_SECONDS} seconds. Check "
            "host, port and use_ssl, start the server (sbin/start-connect-server.sh), and run again"
        ) from None
    finally:
        channel.close()


def _require_same_version(spark: SparkSession) -> None:
    """Check that the server is of this pyspark's feature release: its workers read what this one has pickled."""
    import pyspark

    try:
        there = spark.version
    except Exception as problem:
        spark.stop()
        if "UNAUTHENTICATED" in str(problem) or "PERMISSION_DENIED" in str(problem):
            raise ConfigError(
                f"spark.remote: the server refuses the token, or there is none: {str(problem).splitlines()[0]}"
            ) from None
        raise
    here = pyspark.__version__
    if there.split(".")[:2] != here.split(".")[:2]:
        spark.stop()
        raise ConfigError(
            f"spark.remote: the server has Spark {there} and this Python has pyspark {here}; Python functions of one "
            f"feature release do not run on another. Install pyspark=={'.'.join(there.split('.')[:2])}.*, or use a "
            "server of this release"
        )


def _set(spark: SparkSession, name: str, value: str | int, required: bool) -> None:
    """Set a setting of the session. Raises ConfigError for a ``required`` setting that the server does not take."""
    from pyspark.errors import PySparkException

    try:
        done = api_mode.of(spark).set(name, value)
    except PySparkException as problem:
        if not required:
            raise
        raise ConfigError(f"spark.conf: the server does not take {name}: {str(problem).splitlines()[0]}") from None
    if not done and required:
        raise ConfigError(f"spark.conf: the platform lets nobody set {name}: leave it out")
