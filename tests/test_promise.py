"""`make promise` with few draws: its last line has every key, and its scenarios certify."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "benchmarks" / "promise.py"


@pytest.mark.slow
def test_the_last_line_has_every_scenario() -> None:
    command = [sys.executable, str(SCRIPT), "--draws", "10"]
    finished = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert finished.returncode == 0, finished.stderr[-3000:]
    assert "n/2000: 10 of 10 draws" in finished.stdout
    found = json.loads(finished.stdout.splitlines()[-1])
    assert list(found) == ["n", "labels", "clusters", "shift", "uses", "versions", "none", "verdicts"]
    assert list(found["n"]) == ["2000", "5000", "10000"]
    measured = {"violations", "recall_vs_oracle", "abstain", "draws"}
    for methods in found["n"].values():
        assert set(methods) == {"certified", "plain"}
        assert set(methods["certified"]) == set(methods["plain"]) == measured
        assert methods["certified"]["draws"] == 10
    assert list(found["labels"])[1:3] == ["1% of 10,000", "2% of 10,000"]
    assert len(found["clusters"]) >= 4
    assert sum("worse" in name for name in found["clusters"]) >= 3
    assert set(found["shift"]) == {"2x", "4x"}
    assert set(found["uses"]) == {"3", "10"}
    assert set(found["versions"]["4"]) == {"visible_precision", "draws"}
    certified = found["n"]["10000"]["certified"]
    assert certified["recall_vs_oracle"] > 0.5
    assert certified["violations"] <= 0.3
