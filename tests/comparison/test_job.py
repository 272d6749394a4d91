"""compare_models as cron runs it, and `make compare` in small: separate processes, JSON last, runs in MLflow."""

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

from catalog_enrichment.catalog.lake import LakeCatalog
from catalog_enrichment.config.comparison import REFERENCES

from ..training.toy import COLORS, MATERIALS, product, recipe_toml

if TYPE_CHECKING:
    from mlflow.entities import Run

ROOT = Path(__file__).parents[2]
CONFIG = """
[catalog]
path = "catalog"
dictionary = "attributes.json"
[mlflow]
tracking_uri = "sqlite:///mlflow.db"
artifact_path = "mlartifacts"
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
set = { "model.fusion.kind" = "text_only" }
[[compare.recipes]]
name = "concat"
set = { "model.fusion.kind" = "concat" }
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
USUAL = {"job", "status", "exit_code", "report", "markdown", "mlflow_run_id"}
MODELS = {"words", "concat", *REFERENCES}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A catalog of 200 products, and a config beside it."""
    folder = tmp_path_factory.mktemp("compare") / "a folder with spaces"
    folder.mkdir()
    words = {"color": ("one", list(COLORS)), "material": ("many", list(MATERIALS))}
    attributes = [{"name": name, "cardinality": kind, "values": values} for name, (kind, values) in words.items()]
    (folder / "attributes.json").write_text(json.dumps({"attributes": attributes}))
    (folder / "toy.toml").write_text(recipe_toml(epochs=2))
    (folder / "config.toml").write_text(CONFIG)
    LakeCatalog(folder / "catalog").append_rows("products", [product(number) for number in range(260)], "import-1")
    return folder


@pytest.fixture(scope="module")
def ended(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[str]:
    return job(folder, tmp_path_factory.mktemp("elsewhere"))


def job(folder: Path, cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    script = str(ROOT / "jobs" / "compare_models.py")
    command = [sys.executable, script, "--config", str(folder / "config.toml"), *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=400, check=False)
    assert not list(cwd.iterdir()), "a job leaves nothing in the working directory"
    return done


def last_line(ended: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return found


def test_the_last_line_has_every_model_and_the_references(ended: subprocess.CompletedProcess[str]) -> None:
    assert ended.returncode == 0, ended.stderr[-3000:]
    summary = last_line(ended)
    assert set(summary) == USUAL | MODELS
    assert (summary["job"], summary["status"], summary["exit_code"]) == ("compare_models", "succeeded", 0)
    for name in MODELS:
        assert set(summary[name]) == {"color", "material", "seconds"}
        assert summary[name]["seconds"] > 0
        for attribute in ("color", "material"):
            assert set(summary[name][attribute]) == {"r_at_p95", "macro_f1", "accuracy"}
            assert all(0 <= value <= 1 for value in summary[name][attribute].values())
    assert not [name for name in USUAL if isinstance(summary[name], dict)], "what is an object is a model"


def test_both_reports_lie_where_the_config_says_and_agree(
    folder: Path, ended: subprocess.CompletedProcess[str]
) -> None:
    summary = last_line(ended)
    pages = [Path(summary[name]) for name in ("report", "markdown")]
    assert pages == [folder / "reports" / "comparison" / name for name in ("comparison.html", "comparison.md")]
    html, markdown = (page.read_text() for page in pages)
    figures = re.findall(r"[+-]?\d+\.\d \[[^]]+\]", markdown)
    assert len(figures) > 30
    assert all(figure in html for figure in figures)
    accuracy = f"{100 * summary['reference_both']['color']['accuracy']:.1f} ["
    (row,) = [line for line in markdown.split("## material")[0].splitlines() if line.startswith("| reference_both | b")]
    assert f"| {accuracy}" in row


def test_mlflow_has_a_run_per_model_below_the_comparisons(
    folder: Path, ended: subprocess.CompletedProcess[str]
) -> None:
    import mlflow

    store = f"sqlite:///{folder / 'mlflow.db'}"
    # the registry's place too: other tests of this process have set another one for all clients
    summary, client = last_line(ended), mlflow.MlflowClient(store, registry_uri=store)
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
    plots = {file.path for file in client.list_artifacts(runs["concat"].info.run_id, "plots/color")}
    assert plots >= {f"plots/color/{name}.png" for name in ("precision_recall", "reliability", "values")}
    assert not client.search_registered_models(), "a comparison registers nothing"


@pytest.mark.parametrize(
    ("arguments", "says"),
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
    folder: Path, tmp_path: Path, arguments: list[str], says: str
) -> None:
    copy = tmp_path / "sample"
    copy.mkdir()
    for name in ("config.toml", "toy.toml", "attributes.json"):
        shutil.copy(folder / name, copy)
    (tmp_path / "cwd").mkdir()
    ended = job(copy, tmp_path / "cwd", *(part for one in arguments for part in ("--set", one)))
    summary = last_line(ended)
    assert ended.returncode == summary["exit_code"] == 2, ended.stderr
    assert says in summary["message"]
    assert "Traceback" not in ended.stderr


def test_make_compare_asks_for_data_that_is_not_there_before_it_starts(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "catalog_enrichment.demo.compare", "--config", "config:compare_fashion.toml"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 2
    assert "make compare DATA=FILE" in done.stderr
    assert "Spark" not in done.stderr


def test_no_marketplace_is_made_in_place_of_a_mistyped_source(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "catalog_enrichment.demo.compare", "--set", f"root={json.dumps(str(tmp_path))}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 2
    assert "no such file" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_make_compare_generates_imports_and_ends_with_the_models_alone(tmp_path: Path) -> None:
    """The shipped config with one small recipe in place of its own; the same code."""
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
