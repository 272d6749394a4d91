"""Jobs against an MLflow server with user accounts, from several terminals; `mlflow run`."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .. import sample_catalog
from ..mlflow_server import ADMIN, PASSWORD, MlflowServer
from ..sample_catalog import SampleCatalog

ROOT = Path(__file__).parents[2]
READER, SECRET = "nightly", "reads-and-writes-nothing-2"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    if importlib.util.find_spec("flask_wtf") is None:
        pytest.skip("mlflow's accounts need Flask-WTF, which is not installed: make ops PROOF=mlflow_accounts")
    running = MlflowServer(tmp_path_factory.mktemp("mlflow"))
    try:
        running.wait()
        running.add_user(READER, SECRET)
        yield running
    finally:
        running.stop()


@pytest.fixture(scope="module")
def shop(server: MlflowServer, template: SampleCatalog, tmp_path_factory: pytest.TempPathFactory) -> SampleCatalog:
    """Products, and two versions that the administrator registered; the first is the champion."""
    folder = tmp_path_factory.mktemp("shop")
    copy = template.copy_to(folder / "sample")
    text = copy.file.read_text().replace("sqlite:///mlflow.db", server.uri)
    copy.file.write_text(text.replace('artifact_path = "mlartifacts"\n', ""))
    sample = copy.with_settings()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in user(ADMIN, PASSWORD).items():
            patch.setenv(name, value)
        for seed in (1, 2):
            sample_catalog.register(sample, folder, seed=seed)
        sample.promotion.promote("1", expected_current=None)
    return sample


def user(name: str, password: str) -> dict[str, str]:
    return {"MLFLOW_TRACKING_USERNAME": name, "MLFLOW_TRACKING_PASSWORD": password}


def start(job: str, sample: SampleCatalog, who: dict[str, str], *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(ROOT / "jobs" / f"{job}.py"), "--config", str(sample.file), *options]
    outer = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    return subprocess.Popen(
        command, env=outer | who, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def ended(job: str, sample: SampleCatalog, who: dict[str, str], *options: str) -> tuple[int, dict[str, Any], str]:
    """Exit code, summary and stderr of the job."""
    process = start(job, sample, who, *options)
    output, errors = process.communicate(timeout=300)
    return process.returncode, json.loads(output.splitlines()[-1]), errors


@pytest.mark.parametrize(("who", "password"), [("", ""), (READER, "wrong")])
def test_without_an_account_the_message_says_which_variables_to_set(
    shop: SampleCatalog, who: str, password: str
) -> None:
    code, summary, errors = ended("enrich_catalog", shop, user(who, password) if who else {})
    assert (code, summary["error"]) == (2, "RegistryError")
    assert "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD" in summary["message"]
    assert "Traceback" not in errors


def test_promotion_during_a_running_batch_does_not_change_that_batch(shop: SampleCatalog) -> None:
    """I3, from two terminals: the batch is stopped in the middle, the other terminal promotes, the batch goes on."""
    batch = start("enrich_catalog", shop, user(READER, SECRET), "--no-report")
    lines: list[str] = []
    assert batch.stderr is not None
    for line in batch.stderr:
        lines.append(line)
        if re.search(r"INFO .*\bselect\b", line):  # the first stage of the run has ended, nothing is scored yet
            os.killpg(batch.pid, signal.SIGSTOP)
            break
    try:
        code, refused, _ = ended(
            "promote_model", shop, user(READER, SECRET), "--version", "2", "--override", "I say so"
        )
        assert (code, refused["error"]) == (2, "RegistryError"), "a user who may only read"
        assert "MLflow server refuses the request" in refused["message"]
        assert shop.folder.exists()
        code, promoted, errors = ended(
            "promote_model", shop, user(ADMIN, PASSWORD), "--version", "2", "--override", "nothing to compare yet"
        )
        assert code == 0, errors
        assert (promoted["champion_before"], promoted["model_version"]) == ("1", "2")
        assert batch.poll() is None, "the batch has ended before the promotion"
        assert versions(shop) == set(), "the batch has written before the promotion"
    finally:
        os.killpg(batch.pid, signal.SIGCONT)
    output, errors = batch.communicate(timeout=300)
    assert batch.returncode == 0, "".join(lines) + errors
    assert json.loads(output.splitlines()[-1])["model_version"] == "1"
    assert versions(shop) == {"1"}

    code, night, _ = ended("enrich_catalog", shop, user(READER, SECRET), "--no-report")
    assert (code, night["model_version"]) == (0, "2")
    assert versions(shop) == {"1", "2"}


def versions(sample: SampleCatalog) -> set[str]:
    """Model versions in predictions and ledger."""
    tables = ("predictions", "attribute_values")
    return {row["model_version"] for name in tables for row in sample_catalog.table(sample, name)} - {None}


def test_mlflow_run_logs_the_training_in_its_own_run_and_leaves_nothing_in_the_repository(tmp_path: Path) -> None:
    from catalog_enrichment import resources
    from catalog_enrichment.config.load import load_config
    from catalog_enrichment.demo import marketplace

    repository, shop = tmp_path / "repository", tmp_path / "shop"
    for name in ("mlflow", "jobs"):
        shutil.copytree(ROOT / name, repository / name, ignore=shutil.ignore_patterns("__pycache__"))
    config = load_config("config:demo.toml", [f"root={json.dumps(str(shop))}"])
    marketplace.generate(config.path("marketplace"), 500, 7, progress=False, wholesale=100)
    recipe = resources.locate("recipes:demo.toml").read_text().replace("epochs = 7", "epochs = 2")
    (shop / "recipe.toml").write_text(recipe)
    demo = resources.locate("config:demo.toml").read_text().replace("recipes:demo.toml", str(shop / "recipe.toml"))
    lines = [line for line in demo.splitlines() if not line.startswith("root")]
    (shop / "demo.toml").write_text("\n".join([f"root = {json.dumps(str(shop))}", *lines]))
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT / "src"),
        "PYTHONDONTWRITEBYTECODE": "1",
        "MLFLOW_TRACKING_URI": f"sqlite:///{shop}/mlflow.db",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    imported = [sys.executable, ROOT / "jobs" / "import_products.py", "--config", shop / "demo.toml"]
    subprocess.run(imported, env=environment, check=True, capture_output=True)
    before = sorted(repository.rglob("*"))
    started = time.time()
    # as mlflow/MLproject says it
    done = subprocess.run(
        [
            *(sys.executable, "-m", "mlflow", "run", "mlflow", "--env-manager", "local", "-e", "train"),
            *("--experiment-name", "catalog-enrichment", "-P", f"config={shop}/demo.toml"),
        ],
        cwd=repository, env=environment, capture_output=True, text=True, check=False, timeout=500,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert sorted(repository.rglob("*")) == before

    import mlflow

    store = f"sqlite:///{shop}/mlflow.db"
    client = mlflow.MlflowClient(store, registry_uri=store)  # else the registry is that of the tests before
    [run] = client.search_runs([client.get_experiment_by_name("catalog-enrichment").experiment_id])
    assert (run.info.status, run.data.tags["recipe"], run.data.tags["mlflow.source.type"]) == (
        *("FINISHED", "demo", "PROJECT"),
    )
    assert run.info.run_name.startswith("demo 20")
    seconds = (run.info.end_time - run.info.start_time) / 1000
    assert run.data.metrics["seconds/fit"] < seconds < time.time() - started
    for name in ("color", "material", "country_of_origin"):
        history = client.get_metric_history(run.info.run_id, f"fit/demo/validation_loss/{name}")
        assert [metric.step for metric in history] == [1, 2]
        assert all(run.info.start_time < metric.timestamp < run.info.end_time for metric in history)
    version = client.get_model_version_by_alias("demo-enrichment", "candidate")
    assert version.run_id == run.info.run_id
    assert "| color | with text and picture | fp32-cpu |" in version.description
