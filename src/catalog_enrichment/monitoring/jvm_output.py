"""What Spark's JVM and its Python workers print, as lines of the job's log, with secrets masked.

They write to the file descriptor of stderr, past Python. Only the JVM gets the pipe: what this process itself prints
when it crashes goes to the real stderr.
"""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from catalog_enrichment.monitoring import logs

LOGGER = f"{logs.LOGGER}.spark"

_LEVEL = re.compile(r"\d\d/\d\d/\d\d \d\d:\d\d:\d\d (TRACE|DEBUG|INFO|WARN|ERROR|FATAL) ")
"""The head of a line by Spark's own log4j pattern and by deploy/spark/log4j2.properties."""
_LEVELS = {"INFO": logging.INFO, "WARN": logging.WARNING, "ERROR": logging.ERROR, "FATAL": logging.CRITICAL}
_CHATTER = re.compile(
    r"WARNING: Using incubator modules: jdk\.incubator\.vector$"
    r"|Using Spark's default log4j profile: |Setting default log level to |To adjust logging level use "
    r"|Setting Spark log level to |\d\d/\d\d/\d\d \d\d:\d\d:\d\d WARN (NativeCodeLoader|Utils|SparkConf|Client): "
)
"""What every start of Spark prints, also a good one."""


@contextmanager
def captured() -> Iterator[None]:
    """The stderr of programs that are started meanwhile goes to the log, until they end.

    Nothing is captured where the log is not started.
    """
    if logs.started() is None:
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
            if found := _LEVEL.match(line):
                level = _LEVELS.get(found[1], logging.DEBUG)
                line = line[found.end() :]
            logging.getLogger(LOGGER).log(level, "%s", line)
