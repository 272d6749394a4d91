"""The Spark session of a job: the settings that the code relies on, and a check that there is a Java to run it."""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from catalog_enrichment.errors import ConfigError
from catalog_enrichment.monitoring import logs
from catalog_enrichment.spark import api_mode, connecting

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from catalog_enrichment.config.schema import Config

OLDEST_JAVA = 17
"""Major version that Spark needs at least."""

_HOW_TO_INSTALL = (
    f"Spark needs Java {OLDEST_JAVA} or newer. Install it (Debian: apt-get install openjdk-17-jre-headless; macOS: "
    "brew install openjdk@17; conda install openjdk), and set JAVA_HOME if java is not on PATH"
)

_SESSION_SETTINGS: dict[str, str | int] = {
    "spark.sql.session.timeZone": "UTC",
    # a source may have the columns Title and title
    "spark.sql.caseSensitive": "true",
    "spark.sql.execution.arrow.pyspark.enabled": "true",
    # columns that a pandas UDF returns in another order raise a readable error
    "spark.sql.execution.arrow.pyspark.validateSchema.enabled": "true",
    # of tables; products are scored in smaller batches (enrichment/score.py)
    "spark.sql.execution.arrow.maxRecordsPerBatch": "4096",
}

_SETTINGS: dict[str, str | int] = {
    # a reused worker keeps its loaded model
    "spark.python.worker.reuse": "true",
    # else each function of a column also tells the JVM where it was called, in several round trips
    "spark.python.sql.dataFrameDebugging.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.ui.enabled": "false",
    "spark.log.level": "ERROR",
}
"""Settings of a session that starts Spark, beside :data:`_SESSION_SETTINGS`."""

_JAVA_OPTIONS = "-XX:MetaspaceSize=256m"
"""Options of the JVMs. The metadata of Spark's classes outgrows the JVM's first limit, 21 MiB, several times, and each
time the whole heap is collected: a quarter of what the JVM computes while Python scores a thousand products. The
config's `spark.conf` overrides them (`spark.driver.defaultJavaOptions`), as do the files of deploy/spark."""

_SHUFFLE_PARTITIONS = "8"
"""Tasks of every shuffle, where neither spark-submit nor `spark.conf` says otherwise."""


def _glibc_is_at_least(*version: int) -> bool:
    name, found = platform.libc_ver()
    return name != "glibc" or tuple(int(part) for part in found.split(".")[:2] if part.isdigit()) >= version


_WORKER_ENVIRONMENT = {
    # glibc returns every large block to the kernel, which clears it page by page when it is asked for again: a third of
    # the time of a forward pass. With these settings it keeps what a worker has used
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_TOP_PAD_": str(64 * 2**20),
    "MALLOC_MMAP_THRESHOLD_": str(2**30 if _glibc_is_at_least(2, 35) else 2**25),  # older releases take no more
    "MALLOC_TRIM_THRESHOLD_": str(2**31),
}
"""Variables of the Python workers. The config's `spark.conf` and spark-submit override them
(`spark.executorEnv.NAME`)."""


def start(config: Config, app_name: str) -> SparkSession:
    """Start the Spark session, or return the running session. spark-submit, if used, sets master and resources.

    Raises ConfigError if the session has to start a JVM and there is no Java for it, and as
    :func:`~catalog_enrichment.spark.connecting.connected` with `spark.remote`.
    """
    if config.spark.remote:
        return connecting.connected(config.spark, _classic_settings(config, False), _session_settings(config))
    from pyspark.sql import SparkSession

    submitted = "PYSPARK_GATEWAY_PORT" in os.environ
    builder = SparkSession.builder.appName(app_name)
    if not submitted:
        require_java()
        # workers run this Python, not the first python3 on PATH
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    for name, value in _classic_settings(config, submitted).items():
        builder = builder.config(name, value)
    with logs.jvm_output():
        session = builder.getOrCreate()
    api_mode.remember_names(session)
    return session


def _classic_settings(config: Config, submitted: bool) -> dict[str, str | int]:
    """Return all settings of a session that starts Spark; what spark-submit sets is left out if it was used."""
    settings = _SETTINGS | _worker_environment(submitted) | _session_settings(config)
    if not submitted:
        settings["spark.master"] = config.spark.master
        settings["spark.driver.memory"] = config.spark.driver_memory
        settings |= dict.fromkeys(
            ("spark.driver.defaultJavaOptions", "spark.executor.defaultJavaOptions"), _JAVA_OPTIONS
        )
        settings["spark.sql.shuffle.partitions"] = _SHUFFLE_PARTITIONS
    return settings | config.spark.conf


def _session_settings(config: Config) -> dict[str, str | int]:
    """Return the settings that a session may have of its own, on a server that others use too."""
    return _SESSION_SETTINGS | {"spark.sql.execution.arrow.maxBytesPerBatch": config.enrich.batch_bytes}


def require_java() -> None:
    """Check that Spark will find a Java that is new enough. Raises ConfigError, which says how to install it."""
    home = os.environ.get("JAVA_HOME")
    found = shutil.which("java", path=str(Path(home) / "bin")) if home else shutil.which("java")
    if found is None:
        raise ConfigError(f"there is no java in {f'JAVA_HOME={home}' if home else 'PATH'}. {_HOW_TO_INSTALL}")
    version = _major_version(Path(found))
    if version is not None and version < OLDEST_JAVA:
        raise ConfigError(f"{found} is Java {version}. {_HOW_TO_INSTALL}")


def _major_version(java: Path) -> int | None:
    """Return the version in the file `release` that every OpenJDK has; None where there is no such file.

    No JVM is started for it.
    """
    try:
        text = (java.resolve().parents[1] / "release").read_text()
    except (OSError, IndexError):
        return None
    found = re.search(r'^JAVA_VERSION="(?:1\.)?(\d+)', text, re.MULTILINE)
    return int(found[1]) if found else None


def _worker_environment(submitted: bool) -> dict[str, str]:
    """Return Spark's settings for :data:`_WORKER_ENVIRONMENT`, without those that spark-submit has set."""
    from pyspark import SparkConf

    given = SparkConf() if submitted else SparkConf(loadDefaults=False)
    wanted = {f"spark.executorEnv.{name}": value for name, value in _WORKER_ENVIRONMENT.items()}
    return {name: value for name, value in wanted.items() if not given.contains(name)}
