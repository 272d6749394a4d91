"""Threads that wait sleep: a job sets it before torch is imported, unless its environment says otherwise."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SHOWS = """
import os, sys
from catalog_enrichment import cli
cli.train_model(["--config", "nosuch.toml"])
print(os.environ["OMP_WAIT_POLICY"], "torch" in sys.modules)
"""


@pytest.mark.parametrize(("given", "expected"), [({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE")])
def test_a_job_lets_threads_sleep_before_torch_is_there(given: dict[str, str], expected: str, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"} | given
    ended = subprocess.run(
        [sys.executable, "-c", SHOWS], env=environment, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert ended.stdout.splitlines()[-1] == f"{expected} False"
