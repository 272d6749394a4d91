"""The package's structure: layers, forbidden imports, no circles, imports without side effects, shipped files."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import networkx
import pytest

from catalog_enrichment import contract, dictionary, resources
from catalog_enrichment.config.load import load_config

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "catalog_enrichment"

LAYERS = [
    ["demo"],
    ["cli"],
    ["enrichment", "comparison.job", "training.job", "ingest.job", "ingest.draft_dictionary", "operations"],
    ["report.run", "context"],
    ["training.launcher"],
    ["comparison"],
    ["training.train"],
    ["registry"],
    ["report"],
    ["training"],
    ["inference"],
    ["ingest", "catalog", "validation"],
    ["models"],
    ["inputs", "precision"],
    ["classification_metrics"],
    ["frames", "session", "stages"],
    ["dictionary"],
    ["config", "contract"],
    ["resources"],
    ["records", "errors"],
]
"""Top first: rooms, and files in another layer than their room. A file imports from its own layer or from below."""

NEVER = [
    ("registry", "training"),
    ("models", "registry"),
    ("models", "precision"),
    ("inference", "registry"),
    ("precision", "models"),
    ("catalog", "ingest"),
    ("catalog", "models"),
    ("ingest", "catalog"),
    ("comparison", "training.certification"),
    ("comparison", "precision.certify"),
]
"""(importer, imported): rooms or files between which no import is allowed, whatever their layers."""

EXCEPT = {("ingest.job", "catalog"), ("ingest.draft_dictionary", "catalog")}
"""Files of a room to which its row of :data:`NEVER` does not apply."""


def _module(file: Path) -> str:
    return ".".join(file.relative_to(PACKAGE).with_suffix("").parts)


MODULES = {_module(file): file for file in PACKAGE.rglob("*.py") if file.name != "__init__.py"}


def _imported_modules(file: Path) -> set[str]:
    """Modules of this package that ``file`` imports, also inside functions, also for type checking alone."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    own = {name.removeprefix("catalog_enrichment.") for name in names if name.startswith("catalog_enrichment.")}
    return own & set(MODULES)


IMPORTS = {module: _imported_modules(file) for module, file in MODULES.items()}


def _inside(module: str, room: str) -> bool:
    """Whether ``module`` is ``room`` (a room or a file) or lies in it."""
    return module == room or module.startswith(f"{room}.")


def _layer(module: str) -> int:
    """The index of the layer that names ``module`` most exactly."""
    matches = [(len(room), index) for index, layer in enumerate(LAYERS) for room in layer if _inside(module, room)]
    assert matches, f"{module} is in no layer of LAYERS"
    return max(matches)[1]


def test_imports_point_downwards_only() -> None:
    wrong = [f"{a} -> {b}" for a, imported in IMPORTS.items() for b in imported if _layer(b) < _layer(a)]
    assert wrong == []


def test_no_files_import_each_other_in_a_circle() -> None:
    graph = networkx.DiGraph([(a, b) for a, imported in IMPORTS.items() for b in imported])
    assert [sorted(circle) for circle in networkx.strongly_connected_components(graph) if len(circle) > 1] == []


@pytest.mark.parametrize(("importer", "imported"), NEVER, ids=lambda room: room)
def test_never(importer: str, imported: str) -> None:
    wrong = [
        f"{a} -> {b}"
        for a, modules in IMPORTS.items()
        for b in modules
        if _inside(a, importer) and _inside(b, imported) and (a, imported) not in EXCEPT
    ]
    assert wrong == []


def test_every_layer_and_every_never_names_something_that_exists() -> None:
    rooms = [room for layer in LAYERS for room in layer] + [room for pair in NEVER for room in pair]
    assert [room for room in rooms if not any(_inside(module, room) for module in MODULES)] == []


def test_import_mlflow_from_the_repository_root_is_the_real_one() -> None:
    assert not (ROOT / "mlflow" / "__init__.py").exists()
    for folder in ("mlflow", "jobs"):
        assert not (ROOT / folder / "evaluate.py").exists(), "an evaluate.py there shadows mlflow's"
    located = subprocess.run(
        [sys.executable, "-c", "import importlib.util as u; print(u.find_spec('mlflow').origin)"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "site-packages" in located.stdout


@pytest.mark.parametrize(
    "module",
    [
        "",
        ".config.load",
        ".enrichment.pipeline",
        ".cli",
        ".registry.model_registry",
        ".ingest.job",
        ".operations.rollback",
        ".report.html",
        ".catalog.lake",
    ],
)
def test_no_torch_spark_or_mlflow_at_import_time(module: str) -> None:
    heavy = ["torch", "pyspark", "mlflow", "great_expectations", "transformers", "timm"]
    code = f"import sys, catalog_enrichment{module}; print([m for m in {heavy} if m in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"


@pytest.mark.parametrize("module", [".models.predictor", ".training.job", ".inference.engine", ".inputs.images"])
def test_the_model_rooms_import_without_spark_and_mlflow(module: str) -> None:
    heavy = ["pyspark", "mlflow", "great_expectations", "pydantic", "deltalake"]
    code = f"import sys\nfor name in {heavy}: sys.modules[name] = None\nimport catalog_enrichment{module}"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("file", sorted(resources.folder("config").glob("*.toml")), ids=lambda f: f.name)
def test_every_shipped_config_loads(file: Path) -> None:
    loaded = load_config(file)
    assert dictionary.load(resources.locate(loaded.catalog.dictionary)).enabled
    assert loaded.training is not None
    resources.locate(loaded.training.recipe)
    resources.locate(loaded.mlflow.promotion_policy)


@pytest.mark.parametrize("table", contract.TABLES)
def test_spark_and_delta_read_the_same_contract(table: str) -> None:
    spark, arrow = contract.spark_schema(table), contract.arrow_schema(table)
    assert spark.fieldNames() == arrow.names == contract.columns(table)
    assert [field.nullable for field in spark] == [field.nullable for field in arrow]
    assert json.loads(contract.table_json(table))["type"] == "struct"


def test_every_job_is_a_script_and_a_console_script_of_the_same_name() -> None:
    import tomllib

    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    jobs = {file.stem for file in (ROOT / "jobs").glob("*.py")}
    assert jobs == set(scripts)
    assert all(target == f"catalog_enrichment.cli:{name}" for name, target in scripts.items())
