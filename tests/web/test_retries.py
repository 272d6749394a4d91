"""Pauses between attempts, and one rate for all who share a folder."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
import urllib3

from catalog_enrichment.web.retries import LONGEST_PAUSE, Busy, RateLimiter, check_not_busy, pause_seconds


@pytest.mark.parametrize(
    ("attempt", "asked", "least"),
    [(0, None, 0.5), (1, None, 1.0), (3, None, 4.0), (20, None, LONGEST_PAUSE), (0, 7.0, 7.0), (20, 90.0, 90.0)],
)
def test_a_pause_doubles_up_to_a_minute_and_is_not_shorter_than_the_server_asks(
    attempt: int, asked: float | None, least: float
) -> None:
    pauses = {pause_seconds(attempt, 0.5, asked) for _ in range(50)}
    assert len(pauses) > 1  # clients that failed together do not return together
    assert least <= min(pauses) <= max(pauses) <= 1.25 * least


@pytest.mark.parametrize("status", [408, 425, 429, 500, 503, 599])
def test_a_busy_server_may_say_how_long(status: int) -> None:
    for headers, asked in (({}, None), ({"Retry-After": "3"}, 3.0), ({"Retry-After": "9" * 5000}, None)):
        with pytest.raises(Busy, match=f"HTTP {status}") as busy:
            check_not_busy(urllib3.HTTPResponse(status=status, headers=headers))
        assert busy.value.asked_seconds == asked


@pytest.mark.parametrize("status", [200, 302, 400, 404, 499])
def test_other_answers_are_not_busy(status: int) -> None:
    check_not_busy(urllib3.HTTPResponse(status=status))


def test_requests_of_all_who_share_a_folder_are_apart(tmp_path: Path) -> None:
    times: list[float] = []

    def ask() -> None:
        limiter = RateLimiter(tmp_path, per_second=50)
        for _ in range(5):
            assert limiter.wait(float("inf"))
            times.append(time.monotonic())

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(times) == 10
    assert max(times) - min(times) >= 9 / 50 - 0.02


def test_nobody_asks_while_the_rate_is_held_and_after_the_end(tmp_path: Path) -> None:
    limiter, other = RateLimiter(tmp_path, 1000), RateLimiter(tmp_path, 1000)
    limiter.hold(30)
    assert not other.wait(time.time() + 1)
    limiter.reset()
    assert other.wait(time.time() + 1)
