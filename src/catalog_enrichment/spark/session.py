"""The Spark session of a job, with the settings that the code relies on."""

from __future__ import annotations

import os
import platform
import sys
from typing import TYPE_CHECKING, Any

from catalog_enrichment.monitoring import jvm_output
from catalog_enrichment.spark import java

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from catalog_enrichment.config.schema import Config

_SETTINGS = {
    "spark.sql.session.timeZone": "UTC",
    # a source may have the columns Title and title
    "spark.sql.caseSensitive": "true",
    "spark.sql.execution.arrow.pyspark.enabled": "true",
    # columns that a pandas UDF returns in another order raise a readable error
    "spark.sql.execution.arrow.pyspark.validateSchema.enabled": "true",
    # of tables; products are scored in smaller batches (enrichment/score.py)
    "spark.sql.execution.arrow.maxRecordsPerBatch": "4096",
    # a reused worker keeps its loaded model
    "spark.python.worker.reuse": "true",
    # else each function of a column also tells the JVM where it was called, in several round trips
    "spark.python.sql.dataFrameDebugging.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.ui.enabled": "false",
    "spark.log.level": "ERROR",
}


def _glibc_is_at_least(*version: int) -> bool:
    name, found = platform.libc_ver()
    return name != "glibc" or tuple(int(part) for part in found.split(".")[:2] if part.isdigit()) >= version


_WORKER_ENVIRONMENT = {
    # glibc returns every large block to the kernel, which clears it page by page when it is asked for again: a third of
    # the time of a forward pass. These keep what a worker has used
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_TOP_PAD_": str(64 * 2**20),
    "MALLOC_MMAP_THRESHOLD_": str(2**30 if _glibc_is_at_least(2, 35) else 2**25),  # older ones take no more
    "MALLOC_TRIM_THRESHOLD_": str(2**31),
}
"""Of the Python workers; the config's `spark.conf` and spark-submit go before (`spark.executorEnv.NAME`)."""


def start(config: Config, app_name: str) -> SparkSession:
    """Start the Spark session or return the running one. Under spark-submit, it sets the master and the resources.

    Raises ConfigError if the session has to start a JVM and there is no Java (:mod:`java`).
    """
    from pyspark.sql import SparkSession

    submitted = "PYSPARK_GATEWAY_PORT" in os.environ
    builder = SparkSession.builder.appName(app_name)
    for name, value in _SETTINGS.items():
        builder = builder.config(name, value)
    for name, value in _worker_environment(submitted).items():
        builder = builder.config(name, value)
    builder = builder.config("spark.sql.execution.arrow.maxBytesPerBatch", config.enrich.batch_bytes)
    if not submitted:
        java.require()
        # workers run this Python, not the first python3 on PATH
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
        builder = builder.master(config.spark.master).config("spark.driver.memory", config.spark.driver_memory)
        builder = builder.config("spark.sql.shuffle.partitions", str(config.spark.shuffle_partitions))
    for name, value in config.spark.conf.items():
        builder = builder.config(name, value)
    with jvm_output.captured():
        spark = builder.getOrCreate()
    remember_functions(spark)
    return spark


_CLASSES = ("functions", "org.apache.spark.sql.functions", "PythonUtils", "PythonSQLUtils")
"""The names by which pyspark asks the JVM for what makes columns."""


class _Remembering:
    """A class of the JVM whose members are asked for once."""

    def __init__(self, of: Any) -> None:
        self._of = of

    def __getattr__(self, name: str) -> Any:
        member = getattr(self._of, name)
        setattr(self, name, member)
        return member


def remember_functions(spark: SparkSession) -> None:
    """Let the driver keep what py4j knows of the JVM's functions.

    For each column py4j asks the JVM whether the class is there, and whether it has the function: two messages of
    five, and a run of a few products sends ten thousand.
    """
    jvm: Any = spark.sparkContext._jvm
    for name in _CLASSES:
        if not isinstance(getattr(jvm, name), _Remembering):
            setattr(jvm, name, _Remembering(getattr(jvm, name)))


def _worker_environment(submitted: bool) -> dict[str, str]:
    """Settings of Spark for :data:`_WORKER_ENVIRONMENT`, without what spark-submit has set."""
    from pyspark import SparkConf

    given = SparkConf() if submitted else SparkConf(loadDefaults=False)
    wanted = {f"spark.executorEnv.{name}": value for name, value in _WORKER_ENVIRONMENT.items()}
    return {name: value for name, value in wanted.items() if not given.contains(name)}
