"""Stages of a run: their numbers and lines, and their progress, against a real Spark session and a pseudo-terminal."""

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

from catalog_enrichment.config.operations import LogsConfig
from catalog_enrichment.monitoring import logs
from catalog_enrichment.monitoring.stages import Stages, add_seconds, duration
from catalog_enrichment.spark import api_mode

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def test_stages_with_the_same_name_are_added_up_and_each_is_kept() -> None:
    lines: list[str] = []
    stages = Stages(say=lines.append)
    for rows in (10, 20):
        with stages("score") as stage:
            stage.count(rows, rows - 1, 1, note="a note")
    first, second = stages.done
    first.seconds, second.seconds = 1.25, 2.5
    assert stages.seconds == {"score": 3.75}
    assert [(row["rows_in"], row["rows_out"], row["quarantined"], row["note"]) for row in stages.rows()] == [
        (10, 9, 1, "a note"), (20, 19, 1, "a note"),
    ]  # fmt: skip
    assert [line.split()[0] for line in lines] == ["score", "score"]
    assert "in 10  out 9  quarantined 1" in lines[0]


def test_a_stage_that_raises_is_not_counted() -> None:
    lines: list[str] = []
    stages = Stages(say=lines.append)
    with pytest.raises(OSError, match="full"), stages("score"):
        raise OSError("full")
    assert (stages.done, lines) == ([], [])


def test_seconds_of_several_runs_are_added_by_stage() -> None:
    assert add_seconds({"score": 1.0, "land": 0.5}, {"score": 2.004}) == {"score": 3.0, "land": 0.5}
    assert add_seconds() == {}


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
    while api_mode.running_tasks() is not None and time.monotonic() < deadline:
        time.sleep(0.1)
    assert api_mode.running_tasks() is None


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
    with Stages(lambda _: None)("fit"):
        pass
    assert time.monotonic() - start < 3


def test_there_is_no_progress_where_the_config_says_0_or_the_log_is_not_started(started: None) -> None:
    said: list[str] = []
    logs.start(LogsConfig(format="text", progress_seconds=0), "enrich_catalog")
    for _ in range(2):
        with Stages(said.append)("fit"):
            time.sleep(0.1)
        logs.stop()
    assert len(said) == 2


IN_A_TERMINAL = """
import time
from catalog_enrichment.config.operations import LogsConfig
from catalog_enrichment.monitoring import logs, stages
from catalog_enrichment.monitoring.stages import Stages, to_stderr
tasks = stages.api_mode.Tasks(total=8, completed=3, running=2, failed=0)
stages.api_mode.running_tasks = lambda: tasks  # Spark is in the test above
stages._BAR_AFTER_SECONDS = 0.1
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


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.4, "0 s"), (99, "99 s"), (100, "2 min"), (5999, "100 min"), (6000, "1.7 h")]
)
def test_times_are_said_rounded(seconds: float, said: str) -> None:
    assert duration(seconds) == said
