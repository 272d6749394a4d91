"""The jobs as subprocesses. Config errors are found before Spark starts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from .config_texts import WITH_DEMO_DICTIONARY

ROOT = Path(__file__).parents[1]
JOBS = sorted(file.stem for file in (ROOT / "jobs").glob("*.py"))
CONFIG = f"""{WITH_DEMO_DICTIONARY}[source]
format = "jsonl"
path = "feed.jsonl"
[training]
recipe = "recipes:demo.toml"
"""


def job(name: str, *arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "jobs" / f"{name}.py"), *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=300)


def write_config(folder: Path) -> Path:
    (folder / "config.toml").write_text(CONFIG)
    return folder / "config.toml"


@pytest.mark.parametrize("name", JOBS)
def test_help_lists_the_config_argument_and_the_exit_codes(name: str, tmp_path: Path) -> None:
    ended = job(name, "--help", cwd=tmp_path)
    assert ended.returncode == 0
    assert ("--from FILE" if name == "init_project" else "--config FILE") in ended.stdout
    assert "Exit codes:" in ended.stdout


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("import_products", ["--config", "nosuch.toml"], "nosuch.toml"),
        ("import_products", ["--set", "source.pth=x"], "unknown key 'source.pth'"),
        ("enrich_catalog", ["--set", "enrich.max_products=ten"], "must be of type int"),
        ("enrich_catalog", ["--set", "catalog.dictionary=missing.json"], "missing.json"),
        ("enrich_catalog", [], "run train_model first"),
        ("backfill", ["--chunk-products", "0"], "chunk_products"),
        ("backfill", ["--updated-from", "01/02/2026"], "ISO date"),
        ("train_model", ["--set", "precision.step=1.0"], "precision.step"),
        ("import_products", ["--set", "catalog.path='s3a://bucket/catalog'"], "write s3://"),
        ("backfill", ["--product-ids-file", "ids.txt"], "ids.txt"),
        ("train_model", ["--set", "training.recipe=recipes:nosuch.toml"], "demo.toml"),
        ("promote_model", ["--override", " "], "needs a reason"),
        ("set_value", ["p1", "color", "Purpel"], "the nearest are ['Purple'"),
        ("set_value", ["--by", " ", "p1", "color", "navy"], "--by needs a name"),
        ("export_values", ["--out", "values.csv"], "run import_products first"),
        ("export_values", ["--out", "values.ods"], "give --format"),
        ("list_runs", [], "there are no runs"),
    ],
)
def test_a_config_error_ends_with_exit_2_before_spark_starts(
    name: str, arguments: list[str], message: str, tmp_path: Path
) -> None:
    ended = job(name, "--config", write_config(tmp_path), *arguments, cwd=tmp_path)
    summary = json.loads(ended.stdout.splitlines()[-1])
    assert ended.returncode == summary["exit_code"] == 2, ended.stderr
    assert message in summary["message"]
    assert "Traceback" not in ended.stderr
    assert "Spark" not in ended.stderr
    assert not (tmp_path / "catalog").exists()


def test_without_java_the_message_says_what_to_install(tmp_path: Path) -> None:
    environment = {"PATH": "/nonexistent", "HOME": str(tmp_path), "PYTHONPATH": str(ROOT / "src")}
    (tmp_path / "feed.jsonl").write_text('{"product_id": "1", "title": "x"}\n')
    command = [sys.executable, str(ROOT / "jobs" / "import_products.py"), "--config", str(write_config(tmp_path))]
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    message = json.loads(ended.stdout.splitlines()[-1])["message"]
    assert "there is no java in PATH. Spark needs Java 17" in message
    assert "apt-get install openjdk-17-jre-headless" in message


SHOWS = """
import os, sys
from catalog_enrichment import cli
cli.train_model(["--config", "nosuch.toml"])
print(os.environ["OMP_WAIT_POLICY"], "torch" in sys.modules)
"""


@pytest.mark.parametrize(("given", "expected"), [({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE")])
def test_a_job_lets_threads_sleep_before_torch_is_imported(
    given: dict[str, str], expected: str, tmp_path: Path
) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"} | given
    command = [sys.executable, "-c", SHOWS]
    ended = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines()[-1] == f"{expected} False"
