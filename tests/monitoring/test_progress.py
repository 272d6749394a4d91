"""Progress of stages, against a real Spark session and in a real pseudo-terminal."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from catalog_enrichment.config.monitoring import LogsConfig
from catalog_enrichment.monitoring import logs, progress
from catalog_enrichment.monitoring.stages import Stages

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@pytest.fixture
def started() -> Iterator[None]:
    logs.start(LogsConfig(format="text", progress_seconds=1), "enrich_catalog")
    yield
    logs.stop()


@pytest.mark.slow
def test_while_spark_computes_a_line_says_how_many_tasks_are_done(spark: SparkSession, started: None) -> None:
    def slow(number: int) -> int:
        time.sleep(2)
        return number

    said: list[str] = []
    with Stages(said.append)("score"):
        spark.sparkContext.parallelize(range(8), 8).map(slow).count()
    *so_far, end = said
    assert any(re.fullmatch(r"score +\d+ s so far  [1-7] of 8 tasks done, \d running", line) for line in so_far), said
    assert re.match(r"score +\d+\.\d s$", end)
    deadline = time.monotonic() + 20  # Spark reports the end of its tasks later
    while progress.spark_tasks() is not None and time.monotonic() < deadline:
        time.sleep(0.1)
    assert progress.spark_tasks() is None


def test_a_stage_without_spark_says_the_time(started: None) -> None:
    said: list[str] = []
    with Stages(said.append)("fit"):
        time.sleep(1.2)
    *so_far, end = said
    assert so_far
    assert all(re.fullmatch(r"fit +\d+ s so far", line) for line in so_far), said
    assert re.fullmatch(r"fit +\d+\.\d s", end)


def test_a_stage_that_ends_does_not_wait_for_its_next_line(started: None) -> None:
    logs.start(LogsConfig(format="text", progress_seconds=4), "enrich_catalog")
    start = time.monotonic()
    with progress.shown("fit", print):
        pass
    assert time.monotonic() - start < 3


def test_nothing_is_said_in_between_where_the_config_says_0_or_the_log_is_not_started(started: None) -> None:
    said: list[str] = []
    logs.start(LogsConfig(format="text", progress_seconds=0), "enrich_catalog")
    with progress.shown("fit", said.append):
        time.sleep(0.1)
    logs.stop()
    with progress.shown("fit", said.append):
        time.sleep(0.1)
    assert said == []


IN_A_TERMINAL = """
import time
from catalog_enrichment.config.monitoring import LogsConfig
from catalog_enrichment.monitoring import logs, progress
from catalog_enrichment.monitoring.stages import Stages, to_stderr
progress.spark_tasks = lambda: progress.Tasks(total=8, completed=3, running=2, failed=0)  # Spark is in the test above
progress._BAR_AFTER_SECONDS = 0.1
logs.start(LogsConfig(), "enrich_catalog")
with Stages()("score"):
    time.sleep(1.5)
    to_stderr("a line in between")
"""


def test_in_a_terminal_there_is_a_bar_and_lines_are_short() -> None:
    leader, follower = pty.openpty()
    termios.tcsetwinsize(follower, (24, 100))
    process = subprocess.Popen([sys.executable, "-c", IN_A_TERMINAL], stderr=follower)
    os.close(follower)
    written = b""
    try:
        while read := os.read(leader, 4096):
            written += read
    except OSError:  # the other end is closed
        pass
    assert process.wait() == 0
    text = written.decode()
    assert re.search(r"score  38%\|.*\| 3/8 tasks", text), text
    assert re.search(r"\d\d:\d\d:\d\d INFO    a line in between\r\n", text)
    assert re.search(r"\d\d:\d\d:\d\d INFO    score +1\.\d s\r\n$", text)


def test_the_bar_is_not_drawn_into_a_file(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as log:
        subprocess.run([sys.executable, "-c", IN_A_TERMINAL], stderr=log, check=True)
    lines = (tmp_path / "log").read_text().splitlines()
    said = [line.partition("enrich_catalog ")[2] for line in lines]
    assert (said[0], said[1].split()[0], len(said)) == ("a line in between", "score", 2)
