"""The benchmark without Spark: its small size on the CPU, in a process that cannot import Spark or MLflow."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent / "benchmarks"))
import gpu

SCRIPT = Path(__file__).parent / "benchmarks" / "gpu.py"
NOT_THERE = ("pyspark", "mlflow", "delta", "pandas", "scipy", "sklearn", "obstore", "psutil", "great_expectations")
"""Packages that a machine for the benchmark need not have."""
BLOCKED = f"""
import runpy, sys
sys.modules.update(dict.fromkeys({NOT_THERE}))  # an import of these raises ModuleNotFoundError
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def run(*arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-c", BLOCKED, str(SCRIPT), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


@pytest.mark.slow
def test_the_small_size_measures_everything_on_a_cpu() -> None:
    answer = run("--small", "--cpu")
    assert answer["device"] == "cpu"
    assert answer["left_out"] == answer["wrong"] == []
    assert answer["goals"] == {
        "of_forward_only": {"goal": 0.9, "met": "not measured"},
        "of_plain": {"goal": 8.0, "met": "not measured"},
    }
    assert list(answer["models"]) == list(gpu.SMALL)
    for figures in answer["models"].values():
        assert 0 <= figures["difference"] <= figures["tolerance"]
        assert figures["forward_only"]["tflop_per_s"] > 0
        assert list(figures["end_to_end"]) == [str(number) for number in gpu.THREADS]
        for found in figures["end_to_end"].values():
            assert found["products_per_s"] > 0
            assert 0 < found["busy"] < 1
        own = figures["end_to_end"][str(figures["threads"])]["products_per_s"]
        assert figures["of_plain"] == pytest.approx(own / figures["plain"]["products_per_s"], rel=0.01)
        recovery = figures["out_of_memory"]
        assert recovery["simulated"]
        assert (recovery["products"], recovery["lost"]) == (gpu.BATCH, 0)
        assert recovery["rows_after"] <= recovery["rows_before"] // 3
        assert recovery["passes_refused"] <= 2  # 32, then 16


def test_what_the_time_budget_does_not_allow_is_left_out() -> None:
    answer = run("--small", "--cpu", "--seconds", "0.5")
    assert answer["left_out"] == list(gpu.SMALL)
    assert answer["models"] == {}


def figures(of_forward: float, of_plain: float, lost: int = 0, difference: float = 0.0) -> dict[str, Any]:
    own, rate = {"products_per_s": 90.0, "busy": 0.5}, {"products_per_s": 100.0}
    recovery = {"lost": lost, "passes_refused": 1}
    return {
        "threads": 8, "end_to_end": {"1": {"products_per_s": 1.0}, "8": own}, "forward_only": rate, "plain": rate,
        "of_forward_only": of_forward, "of_plain": of_plain, "out_of_memory": recovery,
        "difference": difference, "tolerance": 0.1,
    }  # fmt: skip


def test_ratios_are_of_the_engines_own_number_of_threads() -> None:
    assert gpu.ratios(figures(0, 0)) == {"of_forward_only": 0.9, "of_plain": 0.9}


@pytest.mark.parametrize(
    ("model", "wrong"),
    [
        (figures(0.9, 8.0), []),
        (figures(0.89, 8.0), ["goal of_forward_only is missed"]),
        (figures(0.9, 7.9), ["goal of_plain is missed"]),
        (figures(0.9, 8.0, lost=2), ["x: 2 products lost after 1 refused passes"]),
        (figures(0.9, 8.0, difference=0.2), ["x: scores differ by 0.2"]),
    ],
)
def test_missed_goals_lost_products_and_other_scores_are_failures(model: dict[str, Any], wrong: list[str]) -> None:
    models = {"y": figures(0.95, 9.0), "x": model}
    assert gpu.failures(models, gpu.goals(models, "cuda")) == wrong
