"""The package's structure: layers, forbidden imports, no circles, imports without side effects, shipped files."""

from __future__ import annotations

import ast
import json
import re
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
    ["monitoring"],
    ["delivery"],
    [
        "comparison.job",
        "training.job",
        "training.certify_job",
        "ingest.job",
        "ingest.import_proposals",
        "ingest.proposal_columns",
        "operations",
        "audit",
    ],
    ["report"],
    ["enrichment"],
    ["context"],
    ["comparison"],
    ["training.train", "training.proposals"],
    ["registry"],
    ["training"],
    ["proposers"],
    ["inference"],
    ["ingest", "catalog", "validation"],
    ["models"],
    ["inputs", "precision"],
    ["spark", "web", "monitoring.stages", "catalog.storage", "catalog.object_storage"],
    ["monitoring.logs", "monitoring.text_tables"],
    ["dictionary"],
    ["values"],
    ["config", "contract"],
    ["resources"],
    ["failures"],
    ["records", "reasons", "errors", "extras", "masking"],
]
"""Top first: rooms, and files in another layer than their room. A file imports from its own layer or from below."""

NEVER = [
    ("registry", "training"),
    ("models", "precision"),
    ("inputs", "precision"),
    ("precision", "models"),
    ("precision", "config"),
    ("catalog", "ingest"),
    ("catalog", "models"),
    ("catalog", "precision"),
    ("ingest", "catalog"),
    ("comparison", "training.certification"),
    *((executor_code, "registry") for executor_code in ("inference", "models", "inputs", "precision", "validation")),
    ("catalog.part_files", "registry"),
    ("enrichment.decisions", "registry"),
    *((room, "report") for room in ("audit", "comparison", "delivery", "ingest")),
]
"""(importer, imported): rooms or files between which no import is allowed, not even through others."""

NEVER_DIRECTLY = [("comparison", "precision.certify")]
"""The same, but other files between them may import it: the run page explains certificates."""

EXCEPT = {("ingest.job", "catalog"), ("ingest.import_proposals", "catalog")}
"""Files of a room that the row of :data:`NEVER` does not mean."""

FILE_SYSTEMS = {"catalog.storage", "catalog.object_storage"}
"""Files and objects by path, without tables: pictures are read through them, also by rooms that never see a table."""

NEVER_LIBRARIES = [
    *(("precision", library) for library in ("torch", "pyspark", "mlflow", "transformers", "timm")),
    *(("inputs", library) for library in ("pyspark", "mlflow")),
    *(("training", library) for library in ("mlflow",)),
    *(("config", library) for library in ("pydantic", "torch", "pyspark", "mlflow")),
]
"""(room, library) that the room does not import, also not inside a function."""


def _module(file: Path) -> str:
    """The dotted name below the package; of an ``__init__.py`` that of its folder."""
    return ".".join(file.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


MODULES = {_module(file): file for file in PACKAGE.rglob("*.py") if file != PACKAGE / "__init__.py"}


def imported_names(file: Path, type_checking: bool = True) -> set[str]:
    """Every dotted name that ``file`` imports, also inside functions; on request without those for type checking."""
    names: set[str] = set()
    tree = ast.parse(file.read_text())
    hints = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if node in hints and not type_checking:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def _imported_modules(file: Path, type_checking: bool = True) -> set[str]:
    """Modules of this package that ``file`` imports."""
    names = imported_names(file, type_checking)
    ours = {name.removeprefix("catalog_enrichment.") for name in names if name.startswith("catalog_enrichment.")}
    modules = ours & set(MODULES)
    # `from catalog_enrichment.room import file` imports the file; the room itself only where a name of it is used
    return {module for module in modules if not any(other.startswith(f"{module}.") for other in modules)}


IMPORTS = {module: _imported_modules(file) for module, file in MODULES.items()}
RUNTIME_IMPORTS = {module: _imported_modules(file, type_checking=False) for module, file in MODULES.items()}


def _inside(module: str, place: str) -> bool:
    return module == place or module.startswith(f"{place}.")


def _layer(module: str) -> int:
    """The index of the layer that names ``module`` most exactly."""
    matches = [(len(place), index) for index, layer in enumerate(LAYERS) for place in layer if _inside(module, place)]
    assert matches, f"{module} is in no layer of LAYERS"
    return max(matches)[1]


def test_imports_point_downwards_only() -> None:
    files = {module for module in MODULES if MODULES[module].name != "__init__.py"}
    wrong = [f"{a} -> {b}" for a in files for b in IMPORTS[a] & files if _layer(b) < _layer(a)]
    assert wrong == []


def test_no_files_import_each_other_in_a_circle() -> None:
    graph = networkx.DiGraph([(a, b) for a, imported in IMPORTS.items() for b in imported])
    assert [sorted(circle) for circle in networkx.strongly_connected_components(graph) if len(circle) > 1] == []


@pytest.mark.parametrize(("importer", "imported"), NEVER, ids=lambda place: place)
def test_never(importer: str, imported: str) -> None:
    """Directly also for type checking; through other files, what is imported when the program runs."""
    reached = networkx.DiGraph([(a, b) for a, modules in RUNTIME_IMPORTS.items() for b in modules])
    reached.add_nodes_from(MODULES)
    wrong = [
        f"{a} -> {b}"
        for a in MODULES
        if _inside(a, importer) and (a, imported) not in EXCEPT
        for b in _direct(a) | networkx.descendants(reached, a)
        if _inside(b, imported) and b not in FILE_SYSTEMS
    ]
    assert wrong == []


@pytest.mark.parametrize(("importer", "imported"), NEVER_DIRECTLY, ids=lambda place: place)
def test_never_directly(importer: str, imported: str) -> None:
    assert [a for a in MODULES if _inside(a, importer) and any(_inside(b, imported) for b in IMPORTS[a])] == []


def _direct(module: str) -> set[str]:
    return RUNTIME_IMPORTS[module] if module == "enrichment.decisions" else IMPORTS[module]


@pytest.mark.parametrize(("room", "library"), NEVER_LIBRARIES, ids=lambda place: place)
def test_a_room_does_not_import_a_library(room: str, library: str) -> None:
    wrong = [
        module
        for module, file in MODULES.items()
        if _inside(module, room) and any(name.split(".")[0] == library for name in imported_names(file, False))
    ]
    assert wrong == []


CLASSIC_ONLY = re.compile(r"\b(?:sparkContext|SparkContext|SparkFiles|_jvm|_jsc|_jdf|addArchive|py4j)\b|\.rdd\b")
"""What a client of Spark Connect does not have."""

KNOWS_CLASSIC = {"spark.api_mode", "spark.connect_server", "failures", "extras"}
"""Files that may name it: both API modes, the server's process, names of py4j's errors, names of packages."""


def test_what_spark_connect_lacks_is_used_in_one_place() -> None:
    assert {module for module in MODULES if CLASSIC_ONLY.search(MODULES[module].read_text())} == KNOWS_CLASSIC


AFTER_PROPOSALS = ("enrichment", "audit", "registry", "operations")
"""Rooms that know proposals, and not who makes them."""

KINDS = {"pyfunc", "table", "network"}
"""Files of `proposers/`, and the words of `proposer.kind`."""


@pytest.mark.parametrize("room", AFTER_PROPOSALS)
def test_nothing_after_the_proposals_depends_on_the_kind_of_proposer(room: str) -> None:
    files = {module: MODULES[module] for module in MODULES if _inside(module, room)}
    shared = {"proposers.protocol", "proposers.versions"}
    imported = {b for module in files for b in IMPORTS[module] if _inside(b, "proposers")}
    assert imported <= shared
    settings = [module for module in files if "config.proposer" in IMPORTS[module]]
    assert settings == []
    for module, file in files.items():
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Compare | ast.Match):
                words = {inner.value for inner in ast.walk(node) if isinstance(inner, ast.Constant)} & KINDS
                assert not words, f"{module}, line {node.lineno}: {words}"
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "isinstance":
                assert "Proposer" not in ast.unparse(node), f"{module}, line {node.lineno}"


def test_every_layer_and_every_never_names_something_that_exists() -> None:
    places = [place for layer in LAYERS for place in layer] + [
        place for pair in [*NEVER, *NEVER_DIRECTLY] for place in pair
    ]
    assert [place for place in places if not any(_inside(module, place) for module in MODULES)] == []


@pytest.mark.parametrize("file", sorted((ROOT / "jobs").glob("*.py")), ids=lambda file: file.stem)
def test_a_job_script_only_calls_its_main(file: Path) -> None:
    imports, guard = [node for node in ast.parse(file.read_text()).body if not isinstance(node, ast.Expr | ast.Import)]
    assert isinstance(imports, ast.ImportFrom)
    assert imports.module == "catalog_enrichment.cli"
    assert ast.unparse(guard) == f"if __name__ == '__main__':\n    sys.exit({file.stem}())"


def test_import_mlflow_from_the_repository_root_is_the_real_one() -> None:
    assert not (ROOT / "mlflow" / "__init__.py").exists()
    for folder in ("mlflow", "jobs"):
        assert not (ROOT / folder / "evaluate.py").exists(), "an evaluate.py there shadows mlflow's"
    located = subprocess.run(
        [sys.executable, "-c", "import importlib.util as u; print(u.find_spec('mlflow').origin)"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "site-packages" in located.stdout


IMPORTED_ALONE = [
    "catalog_enrichment",
    "catalog_enrichment.config.load",
    "catalog_enrichment.enrichment.pipeline",
    "catalog_enrichment.cli",
    "catalog_enrichment.registry.model_registry",
    "catalog_enrichment.ingest.job",
    "catalog_enrichment.ingest.project",
    "catalog_enrichment.operations.rollback",
    "catalog_enrichment.report.run_page",
    "catalog_enrichment.catalog.lake",
]


def test_no_torch_spark_or_mlflow_at_import_time() -> None:
    """One process imports them one after the other, and names the first one that loads something heavy."""
    code = f"""
import importlib, sys
for module in {IMPORTED_ALONE}:
    importlib.import_module(module)
    loaded = {{"torch", "pyspark", "mlflow", "great_expectations", "transformers", "timm"}} & sys.modules.keys()
    assert not loaded, f"{{module}} loads {{loaded}}"
"""
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr


def test_the_model_rooms_import_without_spark_and_mlflow() -> None:
    code = """
import importlib, sys
for absent in ("pyspark", "mlflow", "great_expectations", "pydantic", "deltalake"):
    sys.modules[absent] = None
for room in ("models.predictor", "training.job", "inference.engine", "inputs.images"):
    importlib.import_module(f"catalog_enrichment.{room}")
"""
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr


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
