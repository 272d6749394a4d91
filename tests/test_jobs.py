"""The jobs as Airflow or cron runs them: separate processes, another working directory, a cluster of two executors."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from . import sample_catalog
from .sample_catalog import PRODUCTS, SampleCatalog, listing, run_job, table, values

ROOT = Path(__file__).parents[1]
PYTHON = [sys.executable]
SUBMIT = [str(Path(sys.executable).parent / "spark-submit"), "--master", "local[2]", "--driver-memory", "1g"]
LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ (INFO|WARNING|ERROR) +[a-z_]+")
CLUSTER = "spark.master='local-cluster[2,1,1024]'"


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> SampleCatalog:
    sample = sample_catalog.build(tmp_path_factory.mktemp("jobs") / "sample")
    sample.feed([listing(number) for number in range(PRODUCTS)])
    sample_catalog.register(sample, tmp_path_factory.mktemp("artifacts"))
    return sample


def run(
    launcher: Sequence[str], name: str, sample: SampleCatalog, cwd: Path, *arguments: str
) -> tuple[int, dict[str, object]]:
    """Run a job from ``cwd``; returns its exit code and summary."""
    command = [*launcher, str(ROOT / "jobs" / f"{name}.py"), "--config", str(sample.file), *arguments]
    environment = os.environ | {"PYSPARK_PYTHON": sys.executable, "PYSPARK_DRIVER_PYTHON": sys.executable}
    ended = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=400, check=False)
    assert ended.stdout.strip(), ended.stderr[-3000:]
    summary = json.loads(ended.stdout.splitlines()[-1])
    assert summary["exit_code"] == ended.returncode, ended.stderr[-3000:]
    if launcher == PYTHON:  # with spark-submit the JVM is not the job's: deploy/spark/log4j2.properties
        assert [line for line in ended.stderr.splitlines() if not LINE.match(line)] == []
        assert "log4j" not in ended.stderr
    return ended.returncode, summary


@pytest.mark.parametrize(
    ("launcher", "settings"),
    [
        pytest.param(PYTHON, [], id="local"),
        pytest.param(PYTHON, ["--set", CLUSTER], id="local-cluster"),
        pytest.param(SUBMIT, [], id="spark-submit"),
    ],
)
@pytest.mark.slow
def test_import_promote_enrich_and_roll_back_as_separate_processes(
    template: SampleCatalog, tmp_path: Path, launcher: list[str], settings: list[str]
) -> None:
    sample = template.copy_to(tmp_path / "a folder with spaces")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()

    code, imported = run(launcher, "import_products", sample, elsewhere, *settings)
    assert (code, imported["products"]) == (0, PRODUCTS)
    code, promoted = run(PYTHON, "promote_model", sample, elsewhere, "--expect-current", "none")
    assert (code, promoted["status"]) == (0, "promoted")
    before = values(sample)
    code, enriched = run(launcher, "enrich_catalog", sample, elsewhere, "--no-report", *settings)
    assert (code, enriched["predicted"]) == (0, PRODUCTS)
    assert len(table(sample, "predictions")) >= PRODUCTS
    assert values(sample) != before
    code, undone = run(launcher, "rollback_run", sample, elsewhere, "--run-id", str(enriched["run_id"]), *settings)
    assert (code, undone["undoes"]) == (0, enriched["run_id"])
    assert values(sample) == before
    assert not list(elsewhere.iterdir()), "a job leaves nothing in the working directory"


@pytest.mark.usefixtures("spark")
@pytest.mark.slow
def test_contracts_end_with_exit_2_and_gates_with_exit_3(template: SampleCatalog, tmp_path: Path) -> None:
    """The jobs' mains in this process, which join its Spark session: a process each would cost minutes."""
    sample = template.copy_to(tmp_path / "sample")

    def job(name: str, *arguments: str) -> tuple[int, dict[str, object]]:
        code, summary, _ = run_job(name, "--config", str(sample.file), *arguments)
        assert summary["exit_code"] == code
        return code, summary

    other = (sample.folder / "attributes.json").read_text().replace('"Blue"', '"Navy"')
    (sample.folder / "other.json").write_text(other)
    code, missing = job("enrich_catalog")
    assert (code, missing["error"]) == (2, "NoModelError")
    assert f"there is no champion to score with. Next: promote_model --config {sample.file} " in str(missing["message"])
    assert "--version 1 (no alias 'champion'" in str(missing["message"])
    code, mismatch = job("promote_model", "--set", "catalog.dictionary=other.json")
    assert (code, mismatch["error"]) == (2, "ModelContractError")
    assert "Blue" in str(mismatch["message"])
    assert job("promote_model", "--expect-current", "7")[0] == 3
    assert job("promote_model")[0] == 0
    code, history = job("promote_model", "--history")
    assert code == 0
    assert [event["version"] for event in history["history"]] == ["1"]  # type: ignore[attr-defined]
    assert "diff" not in job("promote_model", "--dry-run")[1]  # there are no products yet
    assert job("import_products")[0] == 0
    code, dry_run = job("promote_model", "--dry-run", "--all-products")
    assert (code, dry_run["status"], dry_run["diff"]["products"]) == (0, "dry_run", PRODUCTS)  # type: ignore[index]
    code, refused = job("enrich_catalog", "--set", "enrich.max_changes=1")
    assert (code, refused["status"]) == (3, "refused")
    assert not table(sample, "predictions")


def test_while_one_job_writes_another_is_refused_before_spark_starts(
    template: SampleCatalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from catalog_enrichment.catalog.lake import Catalog

    monkeypatch.setenv("JAVA_HOME", "/nonexistent")
    sample = template.copy_to(tmp_path / "sample")
    with Catalog(sample.config.path("catalog")).writing():
        code, refused = run(PYTHON, "import_products", sample, tmp_path)
    assert (code, refused["error"]) == (3, "GateRefused")
    assert "another job is writing" in str(refused["message"])
