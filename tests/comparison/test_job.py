"""The job compare_models and a small `make compare` as separate processes: JSON summary, reports, MLflow runs."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from catalog_enrichment.catalog.lake import Catalog
from catalog_enrichment.config.comparison import REFERENCES

from ..config_texts import WITH_OWN_DICTIONARY
from ..training.toy import COLORS, MATERIALS, product, recipe_toml

if TYPE_CHECKING:
    from mlflow.entities import Run

ROOT = Path(__file__).parents[2]
CONFIG = f"""{WITH_OWN_DICTIONARY}artifact_path = "mlartifacts"
[training]
recipe = "toy.toml"
min_label_count = 5
threads = 1
[compare]
resamples = 100
max_epochs = 1
label_shares = [0.5]
label_share_recipes = ["words"]
[[compare.recipes]]
name = "words"
set = {{ "model.fusion.kind" = "text_only" }}
[[compare.recipes]]
name = "concat"
set = {{ "model.fusion.kind" = "concat" }}
[[compare.tables]]
title = "Both"
recipes = ["words", "concat", "reference_both"]
metrics = ["f1_macro", "f1_head"]
baseline = "words"
[[compare.tables]]
title = "Shares"
kind = "label_shares"
recipes = ["words"]
metrics = ["accuracy"]
"""
NO_SHARES = ("compare.label_shares=[]", "compare.label_share_recipes=[]")
JOB_KEYS = {"job", "status", "exit_code", "report", "markdown", "mlflow_run_id"}
MODELS = {"words", "concat", *REFERENCES}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A catalog of 200 products, and a config beside it."""
    folder = tmp_path_factory.mktemp("compare") / "a folder with spaces"
    folder.mkdir()
    attributes = [
        {"name": "color", "cardinality": "one", "values": list(COLORS)},
        {"name": "material", "cardinality": "many", "values": list(MATERIALS)},
    ]
    (folder / "attributes.json").write_text(json.dumps({"attributes": attributes}))
    (folder / "toy.toml").write_text(recipe_toml(epochs=2))
    (folder / "config.toml").write_text(CONFIG)
    Catalog(folder / "catalog").append_rows("products", [product(number) for number in range(260)], "import-1")
    return folder


@pytest.fixture(scope="module")
def finished(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[str]:
    return run_job(folder, tmp_path_factory.mktemp("elsewhere"))


def run_job(folder: Path, cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    script = str(ROOT / "jobs" / "compare_models.py")
    command = [sys.executable, script, "--config", str(folder / "config.toml"), *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=400, check=False)
    assert not list(cwd.iterdir()), "a job leaves nothing in the working directory"
    return done


def last_line(finished: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    summary: dict[str, Any] = json.loads(finished.stdout.splitlines()[-1])
    return summary


def test_the_last_line_has_every_model_and_the_references(finished: subprocess.CompletedProcess[str]) -> None:
    assert finished.returncode == 0, finished.stderr[-3000:]
    summary = last_line(finished)
    assert set(summary) == JOB_KEYS | MODELS
    assert (summary["job"], summary["status"], summary["exit_code"]) == ("compare_models", "succeeded", 0)
    for name in MODELS:
        assert set(summary[name]) == {"color", "material", "seconds"}
        assert summary[name]["seconds"] > 0
        for attribute in ("color", "material"):
            assert set(summary[name][attribute]) == {"r_at_p95", "macro_f1", "accuracy"}
            assert all(0 <= value <= 1 for value in summary[name][attribute].values())
    assert not [name for name in JOB_KEYS if isinstance(summary[name], dict)], "every object in the summary is a model"


def test_both_reports_are_in_the_folder_of_the_config_and_agree(
    folder: Path, finished: subprocess.CompletedProcess[str]
) -> None:
    summary = last_line(finished)
    pages = [Path(summary[name]) for name in ("report", "markdown")]
    assert pages == [folder / "reports" / "comparison" / name for name in ("comparison.html", "comparison.md")]
    html, markdown = (page.read_text() for page in pages)
    figures = re.findall(r"[+-]?\d+\.\d \[[^]]+\]", markdown)
    assert len(figures) > 30
    assert all(figure in html for figure in figures)
    accuracy = f"{100 * summary['reference_both']['color']['accuracy']:.1f} ["
    (row,) = [line for line in markdown.split("## material")[0].splitlines() if line.startswith("| reference_both | b")]
    assert f"| {accuracy}" in row


def test_mlflow_has_a_child_run_per_model(folder: Path, finished: subprocess.CompletedProcess[str]) -> None:
    import mlflow

    store = f"sqlite:///{folder / 'mlflow.db'}"
    # the registry's URI too: other tests of this process have set a different one for all clients
    summary, client = last_line(finished), mlflow.MlflowClient(store, registry_uri=store)
    experiment = client.get_experiment_by_name("catalog-enrichment")
    runs: dict[str, Run] = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    parent = client.get_run(summary["mlflow_run_id"])
    assert set(runs) == MODELS | {parent.info.run_name}
    assert {file.path for file in client.list_artifacts(parent.info.run_id)} == {"comparison.html", "comparison.md"}
    for name in MODELS:
        run = runs[name]
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert run.info.status == "FINISHED"
        logged = run.data.metrics
        assert logged["color/r_at_p95_micro"] == pytest.approx(summary[name]["color"]["r_at_p95"], abs=1e-4)
        assert logged["material/f1_macro"] == pytest.approx(summary[name]["material"]["macro_f1"], abs=1e-4)
        assert logged["color/accuracy_low"] <= logged["color/accuracy"] <= logged["color/accuracy_high"]
        assert "tables" in {file.path for file in client.list_artifacts(run.info.run_id)}
    assert runs["concat"].data.params["model.fusion.kind"] == "concat"
    assert runs["concat"].data.params["fit.epochs"] == "1"
    at_half = client.get_metric_history(runs["words"].info.run_id, "label_permille/color/accuracy")
    assert [metric.step for metric in at_half] == [500]
    assert "curves.json" in {file.path for file in client.list_artifacts(runs["concat"].info.run_id)}
    assert not client.search_registered_models(), "a comparison registers no model"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["compare.recipes=[{name = 'x', recipe = 'nosuch.toml'}]", "compare.tables=[]", *NO_SHARES],
            "compare.recipes: x: nosuch.toml: no such file",
        ),
        (["compare.tables=[{title = 't', recipes = ['nosuch'], metrics = ['accuracy']}]"], "no such recipe"),
        (["catalog.path=nothing"], "run import_products first"),
    ],
)
def test_a_mistake_ends_with_exit_2_before_anything_is_fitted(
    folder: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    copy = tmp_path / "sample"
    copy.mkdir()
    for name in ("config.toml", "toy.toml", "attributes.json"):
        shutil.copy(folder / name, copy)
    (tmp_path / "cwd").mkdir()
    finished = run_job(copy, tmp_path / "cwd", *(part for argument in arguments for part in ("--set", argument)))
    summary = last_line(finished)
    assert finished.returncode == summary["exit_code"] == 2, finished.stderr
    assert message in summary["message"]
    assert "Traceback" not in finished.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--config", "config:compare_fashion.toml"], "make compare DATA=FILE"), ([], "no such file")],
)
def test_make_compare_without_data_names_the_option_or_the_file_and_generates_none(
    arguments: list[str], message: str, tmp_path: Path
) -> None:
    root = f"root={json.dumps(str(tmp_path))}"
    command = [sys.executable, "-m", "catalog_enrichment.demo.compare", *arguments, "--set", root]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Spark" not in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_make_compare_generates_imports_and_prints_the_models_only(tmp_path: Path) -> None:
    """The shipped config with a small recipe in place of its own."""
    settings = {
        "root": json.dumps(str(tmp_path)),
        "compare.recipes": '[{name = "words", set = {"model.fusion.kind" = "text_only"}}]',
        "compare.tables": "[]",
        "compare.label_shares": "[]",
        "compare.label_share_recipes": "[]",
        "compare.max_epochs": "1",
        "training.threads": "1",
    }
    overrides = [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]
    command = [sys.executable, "-m", "catalog_enrichment.demo.compare", "--generate", "--products", "400", *overrides]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    models = last_line(done)
    assert set(models) == {"words", *REFERENCES}
    assert all(set(model) == {"color", "material", "seconds"} for model in models.values())
    assert (tmp_path / "reports" / "comparison" / "comparison.html").is_file()
    assert str(tmp_path / "reports" / "comparison" / "comparison.md") in done.stdout
