"""Requests that are worth another try: after which answers, after what pause, and at which rate."""

from __future__ import annotations

import random
import time
from contextlib import suppress
from pathlib import Path

import urllib3
from urllib3.exceptions import HTTPError
from urllib3.util.retry import Retry

LONGEST_PAUSE = 60.0
"""Seconds. Only a server can ask for a longer pause."""

_RETRIED = frozenset({408, 425, 429})
"""Statuses below 500 after which another try may succeed."""


class Busy(Exception):
    """An answer whose status may differ at the next try."""

    def __init__(self, status: int, asked_seconds: float | None) -> None:
        """``asked_seconds``: the pause in the header `Retry-After`; None without the header."""
        super().__init__(f"HTTP {status}")
        self.asked_seconds = asked_seconds


def check_not_busy(response: urllib3.BaseHTTPResponse) -> None:
    """Raise Busy, with the connection closed, for a status that may differ at the next try."""
    if response.status in _RETRIED or response.status >= 500:
        busy = Busy(response.status, _retry_after(response))
        response.close()
        raise busy


def _retry_after(response: urllib3.BaseHTTPResponse) -> float | None:
    try:
        return Retry(0).get_retry_after(response)
    except (HTTPError, ValueError, OverflowError):  # thousands of digits, the year 9999999
        return None


def pause_seconds(attempt: int, first: float, asked: float | None = None) -> float:
    """Return how long to wait after a failed attempt: ``first`` seconds after attempt 0, then twice as long each time.

    Not less than the server ``asked`` for. A random part keeps clients that failed together from returning together.
    """
    pause: float = max(min(first * 2**attempt, LONGEST_PAUSE), asked or 0.0)
    return pause * random.uniform(1.0, 1.25)


class RateLimiter:
    """Gives each request of all processes that share a folder its own start time, 1 / rate seconds apart."""

    def __init__(self, folder: Path, per_second: float) -> None:
        self._times, self._step = folder / "rate", 1 / per_second

    def wait(self, stop_at: float) -> bool:
        """Sleep until this request's start time and return True; return False if that is after ``stop_at``.

        ``stop_at``: seconds since 1970.
        """
        at = self._reserve(self._step, self._step)
        if at > stop_at:
            return False
        time.sleep(max(0.0, at - time.time()))
        return True

    def hold(self, seconds: float) -> None:
        """Let no process ask before ``seconds`` are over."""
        self._reserve(seconds, 0.0)

    def reset(self) -> None:
        """Forget the start times, which may be those of another clock."""
        for file in (self._times, self._lock):
            file.unlink(missing_ok=True)

    @property
    def _lock(self) -> Path:
        return self._times.with_suffix(".lock")

    def _reserve(self, at_least: float, step: float) -> float:
        """Return the next free time; the time after it is ``step`` later, and at least ``at_least`` from now."""
        from filelock import FileLock

        self._times.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(self._lock):
            free = 0.0
            with suppress(OSError, ValueError):
                free = float(self._times.read_text())
            now = time.time()
            at = max(now, free)
            self._times.write_text(repr(max(at + step, now + at_least)))
        return at
