"""Threads of the numeric libraries, on machines that other programs use too."""

from __future__ import annotations

import os


def sleep_while_waiting() -> None:
    """Let the threads of torch sleep where they wait for each other, unless the environment says otherwise.

    By default they spin: where another program has one of the cores, each of thousands of short waits then takes the
    scheduler's whole time slice. Without effect after torch has been imported.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
