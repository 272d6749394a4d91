"""The log of a job: every line on stderr has a time, a level and, as soon as it is known, the run id.

Before :func:`start` (library use, tests, `make demo`) lines are printed as they are. After it, what libraries log and
warn of gets the same form, from WARNING on.
"""

from __future__ import annotations

import json
import logging
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from catalog_enrichment.config.monitoring import LogsConfig
from catalog_enrichment.masking import printable

LOGGER = "catalog_enrichment"

_LIBRARIES = ("mlflow", "alembic", "great_expectations", "py.warnings")
"""Loggers with handlers of their own, or which are set up after :func:`start`."""


@dataclass
class _Log:
    """The log of this process. A process runs one job."""

    settings: LogsConfig | None = None
    """None: not started; lines are printed as they are."""
    job: str = ""
    invocation: str = ""
    runs: list[Callable[[], str]] = field(default_factory=list)
    """Of the runs going on, outermost first: what gives their run id, empty until it is known."""
    last_run: str = ""
    """The last run that ended: what follows, for example where its report is, belongs to it."""
    fields: dict[str, Any] = field(default_factory=dict)
    """Further keys of a line as JSON."""
    before: list[tuple[logging.Logger, list[logging.Handler], int, bool]] = field(default_factory=list)
    """The loggers as they were before :func:`start`: a job that is called in a program leaves its logs alone."""

    def run_id(self) -> str:
        """Of the innermost run whose id is known; empty where none is."""
        return next((found for of in reversed(self.runs) if (found := of())), self.last_run)


_log = _Log()


def start(settings: LogsConfig, job: str) -> None:
    """Give every line of this process the form of ``settings``."""
    _log.settings, _log.job, _log.invocation = settings, job, uuid.uuid4().hex[:8]
    _log.runs, _log.last_run = [], ""
    if not _log.before:
        loggers = [logging.getLogger(name) for name in (None, LOGGER, *_LIBRARIES)]
        _log.before = [(one, one.handlers, one.level, one.propagate) for one in loggers]
    own, root = logging.getLogger(LOGGER), logging.getLogger()
    own.handlers, own.propagate = [_handler(settings)], False
    own.setLevel(settings.level)
    root.handlers = [_handler(settings)]
    # the handler's, because libraries set levels of their own loggers, which the root's does not limit
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
    """The settings in force; None where lines are printed as they are."""
    return _log.settings


def say(line: str, level: int = logging.INFO) -> None:
    """One message on stderr, without control characters. One that begins with "warning:" has the level WARNING."""
    if _log.settings is None:
        print(printable(line), file=sys.stderr, flush=True)
        return
    if level == logging.INFO and line.lower().startswith("warning:"):
        level, line = logging.WARNING, line.partition(":")[2].strip()
    logging.getLogger(LOGGER).log(level, "%s", line)


@contextmanager
def of_run(run_id: Callable[[], str]) -> Iterator[None]:
    """Lines meanwhile, and after it, belong to the run; ``run_id()`` is empty until it is known."""
    _log.runs.append(run_id)
    try:
        yield
    finally:
        _log.runs.remove(run_id)
        _log.last_run = run_id() or _log.last_run


@contextmanager
def with_fields(**fields: Any) -> Iterator[None]:
    """Add keys to the lines that are said meanwhile, where they are JSON."""
    before, _log.fields = _log.fields, _log.fields | fields
    try:
        yield
    finally:
        _log.fields = before


class _Stderr(logging.StreamHandler[Any]):
    """Writes to what ``sys.stderr`` is at that time: it is replaced by the stream that masks secrets."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        bars = sys.modules.get("tqdm")
        if bars is None:
            super().emit(record)
        else:  # a bar in the terminal is taken away while the line is written
            with bars.tqdm.external_write_mode(file=sys.stderr):
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
    """``2026-01-31T01:15:00Z INFO    RUN message``: each line of a message with them, so that a search finds all."""

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
    """One object per message: time, level, job, invocation (of this process), run_id (null until known), message."""

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
