"""A Spark Connect server on this machine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from catalog_enrichment.spark.connect_server import LocalServer

SETTINGS = {
    "spark.master": "local[2]",
    "spark.driver.memory": "1g",
    "spark.ui.enabled": "false",
    "spark.sql.shuffle.partitions": "1",
    "spark.sql.codegen.wholeStage": "false",
    "spark.task.maxFailures": "1",
    "spark.log.level": "ERROR",
}


@pytest.fixture(scope="package")
def server() -> Iterator[LocalServer]:
    """A server with the settings of the tests' own session."""
    started = LocalServer(SETTINGS)
    yield started
    started.stop()
