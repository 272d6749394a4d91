"""The house keeps its shape: layers, the mlflow folder, imports without side effects, shipped files."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from catalog_enrichment import config, contract, dictionary, resources

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "catalog_enrichment"

LAYERS = [
    ["demo", "compare_demo"],
    ["cli"],
    ["vocabulary"],
    ["pipeline", "backfill", "importing", "operate", "reporting", "retrain", "compare", "steps", "work", "context"],
    ["fitting"],
    ["registry"],
    ["mlflow_store", "promotion"],
    ["report"],
    ["training"],
    ["inference"],
    ["catalog", "validation"],
    ["models"],
    ["inputs", "precision"],
    ["marketplace", "marketplace_pictures", "session", "stages"],
    ["dictionary"],
    ["config", "contract"],
    ["source_config", "compare_config"],
    ["resources"],
    ["records", "errors"],
]
"""Top first. A module imports from its own line or from lines below it."""


def _level(room: str) -> int:
    found = [index for index, layer in enumerate(LAYERS) if room in layer]
    assert found, f"{room} has no place in LAYERS: give it one"
    return found[0]


def _imports(file: Path) -> set[str]:
    """Rooms of this package that a file imports, also inside functions."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "catalog_enrichment":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("catalog_enrichment."):
            found.add(str(node.module).split(".")[1])
        elif isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("catalog_enrichment.")}
    return found - {"__version__"}


def test_imports_point_downwards_only() -> None:
    wrong = []
    for file in PACKAGE.rglob("*.py"):
        room = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if room == "__init__":
            continue
        wrong += [f"{room} -> {other} ({file.name})" for other in _imports(file) if _level(other) < _level(room)]
    assert not wrong


def test_import_mlflow_from_the_repository_root_is_the_real_one() -> None:
    assert not (ROOT / "mlflow" / "__init__.py").exists()
    for folder in ("mlflow", "jobs"):
        assert not (ROOT / folder / "evaluate.py").exists(), "an evaluate.py there shadows mlflow's"
    found = subprocess.run(
        [sys.executable, "-c", "import importlib.util as u; print(u.find_spec('mlflow').origin)"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "site-packages" in found.stdout


@pytest.mark.parametrize(
    "module",
    ["", ".config", ".pipeline", ".cli", ".registry", ".importing", ".operate", ".report.html", ".catalog.lake"],
)
def test_no_torch_spark_or_mlflow_at_import_time(module: str) -> None:
    heavy = ["torch", "pyspark", "mlflow", "great_expectations", "transformers", "timm"]
    code = f"import sys, catalog_enrichment{module}; print([m for m in {heavy} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize("module", [".models.predictor", ".training.job", ".inference.engine", ".inputs.images"])
def test_the_model_rooms_import_without_spark_and_mlflow(module: str) -> None:
    heavy = ["pyspark", "mlflow", "great_expectations", "pydantic", "deltalake"]
    code = f"import sys\nfor name in {heavy}: sys.modules[name] = None\nimport catalog_enrichment{module}"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("file", sorted(resources.folder("config").glob("*.toml")), ids=lambda f: f.name)
def test_every_shipped_config_loads(file: Path) -> None:
    loaded = config.load(file)
    assert dictionary.load(resources.locate(loaded.catalog.dictionary)).enabled
    assert loaded.training is not None
    resources.locate(loaded.training.recipe)
    resources.locate(loaded.mlflow.promotion_policy)


@pytest.mark.parametrize("table", contract.TABLES)
def test_spark_and_delta_read_the_same_contract(table: str) -> None:
    spark_names = contract.spark_schema(table).fieldNames()
    assert spark_names == contract.arrow_schema(table).names == contract.columns(table)
    assert json.loads(contract.table_json(table))["type"] == "struct"
    assert set(contract.required(table)) < set(spark_names)


def test_every_job_is_a_script_and_a_console_script_of_the_same_name() -> None:
    import tomllib

    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    jobs = {file.stem for file in (ROOT / "jobs").glob("*.py")}
    assert jobs == set(scripts)
    assert all(target == f"catalog_enrichment.cli:{name}" for name, target in scripts.items())
