"""The log of a job: its lines as text and as JSON, libraries, Spark's output, and what programs get back."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator

import pytest

from catalog_enrichment import masking
from catalog_enrichment.config.operations import LogsConfig
from catalog_enrichment.monitoring import logs
from catalog_enrichment.monitoring.stages import Stages, to_stderr

HEAD = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"


Stderr = Callable[[], str]


@pytest.fixture
def stderr(capfd: pytest.CaptureFixture[str]) -> Iterator[Stderr]:
    """Returns what was written to the file descriptor, by this process and by others."""
    yield lambda: capfd.readouterr().err
    logs.stop()


def test_before_the_start_lines_are_printed_as_they_are(stderr: Stderr) -> None:
    to_stderr("warning: as it is")
    assert stderr() == "warning: as it is\n"


def test_every_line_has_time_level_and_as_soon_as_it_is_known_the_run_id(stderr: Stderr) -> None:
    logs.start(LogsConfig(format="text"), "enrich_catalog")
    run_ids = [""]
    to_stderr("starts")
    with logs.of_run(lambda: run_ids[-1]):
        to_stderr("not known yet")
        run_ids.append("enrich-1")
        to_stderr("\ntable\nof two lines\n")
    to_stderr("report: page.html")
    lines = stderr().splitlines()
    assert [re.sub(HEAD, "TIME", line) for line in lines] == [
        "TIME INFO    enrich_catalog starts",
        "TIME INFO    enrich_catalog not known yet",
        "TIME INFO    enrich-1 table",
        "TIME INFO    enrich-1 of two lines",
        "TIME INFO    enrich-1 report: page.html",
    ]


def test_a_chunks_lines_have_its_id_and_later_lines_the_id_of_the_backfill(stderr: Stderr) -> None:
    logs.start(LogsConfig(format="text"), "backfill")
    with logs.of_run(lambda: "backfill-1"):
        with logs.of_run(lambda: ""):
            to_stderr("a chunk without an id yet")
        with logs.of_run(lambda: "enrich-2"):
            to_stderr("in the chunk")
        to_stderr("between the chunks")
    assert [line.split()[2] for line in stderr().splitlines()] == ["backfill-1", "enrich-2", "backfill-1"]


def test_as_json_a_message_is_one_object_and_a_stage_has_its_numbers(stderr: Stderr) -> None:
    logs.start(LogsConfig(format="json"), "enrich_catalog")
    with logs.of_run(lambda: "enrich-1"), Stages()("score") as stage:
        stage.count(10, 9, 1)
    to_stderr("two\nlines")
    first, second = map(json.loads, stderr().splitlines())
    assert (first["level"], first["job"], first["run_id"]) == ("INFO", "enrich_catalog", "enrich-1")
    assert first["stage"] | {"seconds": 0.0} == {
        "name": "score", "rows_in": 10, "rows_out": 9, "quarantined": 1, "note": "", "seconds": 0.0,
    }  # fmt: skip
    assert second["message"] == "two\nlines"
    assert "stage" not in second
    assert first["invocation"] == second["invocation"]
    assert re.fullmatch(r"[0-9a-f]{8}", first["invocation"])


def test_levels(stderr: Stderr) -> None:
    logs.start(LogsConfig(format="text", level="WARNING"), "x")
    to_stderr("left out")
    to_stderr("warning: a certificate expires soon")
    to_stderr("x: ConfigError: no", logging.ERROR)
    assert [line.split(maxsplit=1)[1] for line in stderr().splitlines()] == [
        "WARNING x a certificate expires soon",
        "ERROR   x x: ConfigError: no",
    ]


def test_libraries_are_heard_from_warning_on_and_in_the_same_form(stderr: Stderr) -> None:
    logs.start(LogsConfig(format="text"), "x")
    library = logging.getLogger("mlflow.store")
    logging.getLogger("mlflow").addHandler(logging.StreamHandler())  # as its import does
    logs.adopt_libraries()
    library.setLevel(logging.DEBUG)
    library.info("creating tables")
    library.warning("deprecated option")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("an old call", FutureWarning, stacklevel=1)
    first, second, *_ = stderr().splitlines()
    assert first.endswith("WARNING x mlflow.store: deprecated option")
    assert "WARNING x py.warnings:" in second
    assert "FutureWarning: an old call" in second


def test_control_characters_and_secrets_do_not_reach_the_log(stderr: Stderr) -> None:
    with masking.masked_output({"hunter22"}):
        logs.start(LogsConfig(format="json"), "x")
        to_stderr("shop \x1b]0;owned\x07 password hunter22")
    assert json.loads(stderr())["message"] == "shop ?]0;owned? password ***"


def _captured(program: str) -> None:
    with logs.jvm_output():
        process = subprocess.Popen([sys.executable, "-c", program])
    process.wait()
    for thread in threading.enumerate():
        if thread.name == "output of Spark":
            thread.join(10)


SAYS = """
import sys
for line in [
    "WARNING: Using incubator modules: jdk.incubator.vector",
    "Using Spark's default log4j profile: org/apache/spark/log4j2-defaults.properties",
    'Setting default log level to "WARN".',
    "26/11/23 20:10:11 WARN NativeCodeLoader: Unable to load native-hadoop library for your platform",
    "26/11/23 20:10:12 ERROR Executor: Exception in task 0.0 password=hunter22",
    "java.lang.RuntimeException: no",
    "26/11/23 20:10:13 INFO Executor: done",
]:
    print(line, file=sys.stderr)
"""


def test_what_spark_prints_has_its_level_and_the_chatter_of_every_start_is_left_out(stderr: Stderr) -> None:
    with masking.masked_output(set()):
        logs.start(LogsConfig(format="text"), "x")
        _captured(SAYS)
    assert [line.split(maxsplit=1)[1] for line in stderr().splitlines()] == [
        "ERROR   x spark: Executor: Exception in task 0.0 password=***",
        "ERROR   x spark: java.lang.RuntimeException: no",
        "INFO    x spark: Executor: done",
    ]


def test_only_programs_that_are_started_meanwhile_are_captured(stderr: Stderr) -> None:
    logs.start(LogsConfig(format="text"), "x")
    _captured("pass")
    subprocess.run([sys.executable, "-c", "import os; os.write(2, b'crash')"], check=True)
    assert stderr() == "crash"
    logs.stop()
    _captured("import os; os.write(2, b'not started')")
    assert stderr() == "not started"


def test_a_program_that_calls_a_job_keeps_its_own_loggers(stderr: Stderr) -> None:
    root, own = logging.getLogger(), logging.getLogger(logs.LOGGER)
    before = (list(root.handlers), root.level, list(own.handlers), own.propagate)
    logs.start(LogsConfig(), "x")
    logs.start(LogsConfig(level="ERROR"), "y")
    assert root.handlers != before[0]
    logs.stop()
    assert (root.handlers, root.level, own.handlers, own.propagate) == before
