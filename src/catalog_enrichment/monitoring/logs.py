"""The log of a job: every line on stderr has a time, a level and, as soon as it is known, the run id.

Before :func:`start` (library use, tests, `make demo`) lines are printed as they are. After it, the log has also what
libraries log and warn of, from WARNING on, and the output of Spark's JVM and its Python workers.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, BinaryIO

from catalog_enrichment.config.operations import LogsConfig
from catalog_enrichment.masking import printable

LOGGER = "catalog_enrichment"

_LIBRARIES = ("mlflow", "alembic", "great_expectations", "py.warnings")
"""Loggers with handlers of their own, or which are set up after :func:`start`."""

_SPARK_LEVEL = re.compile(r"\d\d/\d\d/\d\d \d\d:\d\d:\d\d (TRACE|DEBUG|INFO|WARN|ERROR|FATAL) ")
"""The head of a line by Spark's own log4j pattern and by deploy/spark/log4j2.properties."""
_LEVELS = {"INFO": logging.INFO, "WARN": logging.WARNING, "ERROR": logging.ERROR, "FATAL": logging.CRITICAL}
_CHATTER = re.compile(
    r"WARNING: Using incubator modules: jdk\.incubator\.vector$"
    r"|Using Spark's default log4j profile: |Setting default log level to |To adjust logging level use "
    r"|Setting Spark log level to |\d\d/\d\d/\d\d \d\d:\d\d:\d\d WARN (NativeCodeLoader|Utils|SparkConf|Client): "
)
"""Lines that every start of Spark prints, also a good start."""


@dataclass
class _Log:
    """The log of this process. A process runs one job."""

    settings: LogsConfig | None = None
    """The settings in force; None before :func:`start`: lines are printed as they are."""
    job: str = ""
    invocation: str = ""
    runs: list[Callable[[], str]] = field(default_factory=list)
    """Functions that return the ids of the runs in progress, outermost first; an id is empty until it is known."""
    last_run: str = ""
    """The last run that ended: the lines after it, for example where its report is, belong to it."""
    fields: dict[str, Any] = field(default_factory=dict)
    """Further keys of a line as JSON."""
    before: list[tuple[logging.Logger, list[logging.Handler], int, bool]] = field(default_factory=list)
    """The loggers as they were before :func:`start`: a program that calls a job gets its logs back."""

    def run_id(self) -> str:
        """Return the id of the innermost run whose id is known; empty if none is known."""
        return next((run_id for run in reversed(self.runs) if (run_id := run())), self.last_run)


_log = _Log()


def start(settings: LogsConfig, job: str) -> None:
    """Give every line of this process the form of ``settings``."""
    _log.settings, _log.job, _log.invocation = settings, job, uuid.uuid4().hex[:8]
    _log.runs, _log.last_run = [], ""
    if not _log.before:
        loggers = [logging.getLogger(name) for name in (None, LOGGER, *_LIBRARIES)]
        _log.before = [(logger, logger.handlers, logger.level, logger.propagate) for logger in loggers]
    own, root = logging.getLogger(LOGGER), logging.getLogger()
    own.handlers, own.propagate = [_handler(settings)], False
    own.setLevel(settings.level)
    root.handlers = [_handler(settings)]
    # the level of the handler, because the root's level does not limit the loggers for which libraries set levels
    root.handlers[0].setLevel(max(logging.WARNING, logging.getLevelName(settings.level)))
    logging.captureWarnings(True)
    adopt_libraries()


def stop() -> None:
    """Print lines as they are again, and leave the loggers as they were before :func:`start`."""
    _log.settings = None
    logging.captureWarnings(False)
    for logger, handlers, level, propagate in _log.before:
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)
    _log.before = []


def adopt_libraries() -> None:
    """Take the handlers of :data:`_LIBRARIES`: some set theirs when they are imported, which is after :func:`start`."""
    if _log.settings is None:
        return
    for name in _LIBRARIES:
        library = logging.getLogger(name)
        library.handlers, library.propagate = [], True


def started() -> LogsConfig | None:
    """Return the settings in force; None where lines are printed as they are."""
    return _log.settings


def say(line: str, level: int = logging.INFO) -> None:
    """Print a message on stderr, without control characters; the level is WARNING if it begins with "warning:"."""
    if _log.settings is None:
        print(printable(line), file=sys.stderr, flush=True)
        return
    if level == logging.INFO and line.lower().startswith("warning:"):
        level, line = logging.WARNING, line.partition(":")[2].strip()
    logging.getLogger(LOGGER).log(level, "%s", line)


@contextmanager
def of_run(run_id: Callable[[], str]) -> Iterator[None]:
    """Let the lines inside the block, and after it, belong to the run; ``run_id()`` is empty until it is known."""
    _log.runs.append(run_id)
    try:
        yield
    finally:
        _log.runs.remove(run_id)
        _log.last_run = run_id() or _log.last_run


@contextmanager
def with_fields(**fields: Any) -> Iterator[None]:
    """Add keys to the JSON lines inside the block."""
    before, _log.fields = _log.fields, _log.fields | fields
    try:
        yield
    finally:
        _log.fields = before


@contextmanager
def jvm_output() -> Iterator[None]:
    """Send the stderr of programs that are started inside the block to the log, until they end.

    They write to its file descriptor, past Python. Only they get the pipe: what this process prints when it crashes
    goes to the real stderr. Before :func:`start` nothing is captured.
    """
    if started() is None:
        yield
        return
    reading, writing = os.pipe()
    threading.Thread(target=_forward, args=(os.fdopen(reading, "rb"),), name="output of Spark", daemon=True).start()
    real = os.dup(2)
    try:
        os.dup2(writing, 2)
        yield
    finally:
        os.dup2(real, 2)
        os.close(real)
        os.close(writing)


def _forward(lines: BinaryIO) -> None:
    level = logging.WARNING
    with lines:
        for raw in lines:
            line = raw.decode(errors="replace").rstrip()
            if not line or _CHATTER.match(line):
                continue
            # the lines of a stack trace have the level of the line before them
            if found := _SPARK_LEVEL.match(line):
                level = _LEVELS.get(found[1], logging.DEBUG)
                line = line[found.end() :]
            logging.getLogger(f"{LOGGER}.spark").log(level, "%s", line)


class _Stderr(logging.StreamHandler[Any]):
    """A handler that writes to the current ``sys.stderr``, which a stream that masks secrets replaces later."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        bars = sys.modules.get("tqdm")
        # a bar in the terminal is taken away while the line is written
        with bars.tqdm.external_write_mode(file=sys.stderr) if bars else nullcontext():
            super().emit(record)


def _handler(settings: LogsConfig) -> logging.Handler:
    handler = _Stderr(sys.stderr)
    short = settings.format == "auto" and sys.stderr.isatty()
    handler.setFormatter(_Json() if settings.format == "json" else _Text(short))
    return handler


def _message(record: logging.LogRecord) -> str:
    text = record.getMessage()
    if record.exc_info:
        text = f"{text}\n{logging.Formatter().formatException(record.exc_info)}"
    return printable(text).strip("\n")


class _Text(logging.Formatter):
    """The form ``2026-01-31T01:15:00Z INFO    RUN message``, for each line of a message, so that a search finds all."""

    def __init__(self, short: bool) -> None:
        super().__init__()
        self._short = short

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC)
        head = f"{record.levelname:<7}"
        if self._short:
            head = f"{time.astimezone():%H:%M:%S} {head}"
        else:
            head = f"{time:%Y-%m-%dT%H:%M:%SZ} {head} {_log.run_id() or _log.job}"
        source = "" if record.name == LOGGER else f"{record.name.removeprefix(f'{LOGGER}.')}: "
        return "\n".join(f"{head} {source}{line}".rstrip() for line in _message(record).split("\n"))


class _Json(logging.Formatter):
    """An object per message: time, level, job, invocation (of this process), run_id (null until known), message."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "job": _log.job,
            "invocation": _log.invocation,
            "run_id": _log.run_id() or None,
            "message": _message(record),
        }
        return json.dumps(line | _log.fields, ensure_ascii=False, default=str)
