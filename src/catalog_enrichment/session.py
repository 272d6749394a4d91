"""The Spark session of a job: one place for the settings that the house relies on."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from catalog_enrichment.errors import ConfigError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from catalog_enrichment.config.schema import Config

_SETTINGS = {
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.execution.arrow.pyspark.enabled": "true",
    # a column that comes back in another order is an error that says so, not a cryptic getLong
    "spark.sql.execution.arrow.pyspark.validateSchema.enabled": "true",
    # a worker that lives on keeps its model
    "spark.python.worker.reuse": "true",
    "spark.ui.showConsoleProgress": "false",
    "spark.ui.enabled": "false",
    "spark.log.level": "ERROR",
}


def start(config: Config, app_name: str) -> SparkSession:
    """Start (or join) the Spark session. Under spark-submit the master and its resources are spark-submit's.

    Raises ConfigError if there is no Java for a session that has to start its own JVM.
    """
    from pyspark.sql import SparkSession

    submitted = "PYSPARK_GATEWAY_PORT" in os.environ
    builder = SparkSession.builder.appName(app_name)
    for name, value in (_SETTINGS | _arrow_batches(config)).items():
        builder = builder.config(name, value)
    if not submitted:
        require_java()
        # the workers' Python is this one, not whatever python3 is first on PATH
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
        builder = builder.master(config.spark.master).config("spark.driver.memory", config.spark.driver_memory)
        builder = builder.config("spark.sql.shuffle.partitions", str(config.spark.shuffle_partitions))
    for name, value in config.spark.conf.items():
        builder = builder.config(name, value)
    return builder.getOrCreate()


def _arrow_batches(config: Config) -> dict[str, str]:
    return {
        "spark.sql.execution.arrow.maxRecordsPerBatch": str(config.enrich.batch_rows),
        "spark.sql.execution.arrow.maxBytesPerBatch": config.enrich.batch_bytes,
    }


def require_java() -> None:
    """Raises ConfigError, with what to install, if Spark would not find a Java runtime."""
    home = os.environ.get("JAVA_HOME")
    found = shutil.which("java", path=str(Path(home) / "bin")) if home else shutil.which("java")
    if found is None:
        where = f"JAVA_HOME={home}" if home else "PATH"
        raise ConfigError(
            f"Spark needs Java 17 or newer and there is no java in {where}. Install one (Debian: apt-get install "
            "openjdk-17-jre-headless; macOS: brew install openjdk@17) and set JAVA_HOME if it is not on PATH."
        )
