"""What is installed: executors need the core alone, extras bring the rest, and a missing extra is named."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import networkx
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from catalog_enrichment import extras, failures
from catalog_enrichment.errors import ConfigError

from .installed_packages import EXTRAS, PROJECT, ROOT, environment, needed_by, requirements
from .sample_catalog import CONFIG, DICTIONARY
from .test_layout import MODULES, RUNTIME_IMPORTS, imported_names

DISTRIBUTIONS = packages_distributions()
"""Import name -> distributions that have it."""


def _names(requirements: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(text).name) for text in requirements}


CORE = _names(PROJECT["dependencies"])


def _foreign(module: str) -> set[str]:
    """The packages, outside of Python and this one, that a module imports anywhere when the program runs."""
    found = {name.split(".")[0] for name in imported_names(MODULES[module], type_checking=False)}
    return found - set(sys.stdlib_module_names) - {"catalog_enrichment"}


def _distributions(package: str) -> set[str]:
    return {canonicalize_name(name) for name in DISTRIBUTIONS[package]}


IN_TASKS = {"mapInArrow", "mapInPandas", "mapPartitions", "pandas_udf", "udf", "read_in_tasks", "DataSource"}
"""Names with which a module sends functions to executors."""

ON_DRIVER = {
    ("validation.snapshot", "great_expectations"),
    ("monitoring.stages", "tqdm"),
}
"""(module, package) that a function imports which runs on the driver only."""

BY_CHOICE = {
    ("proposers.pyfunc_worker", "mlflow"),  # proposer.kind = "pyfunc"
    ("ingest.postgres_tables", "psycopg"),  # source.format = "postgres"
    ("ingest.postgres_watermark", "psycopg"),
}
"""(module, package) that executors need for a setting, whose documentation names the extra."""


def executor_modules() -> set[str]:
    """The modules that send functions to executors, and all that they import, also inside functions."""
    graph = networkx.DiGraph([(a, b) for a, imported in RUNTIME_IMPORTS.items() for b in imported])
    senders = {
        module
        for module, file in MODULES.items()
        if any(f"{name}(" in file.read_text() for name in IN_TASKS) and not module.startswith("demo")
    }
    return senders.union(*(networkx.descendants(graph, module) for module in senders if module in graph))


def test_executor_code_imports_the_core_and_sparks_own_packages_only() -> None:
    modules = executor_modules()
    assert {"inference.udf", "inputs.images", "models.predictor", "catalog.part_files", "precision.decide"} < modules
    used = {(module, package) for module in modules for package in _foreign(module)}
    wrong = {
        (module, package)
        for module, package in used - ON_DRIVER - BY_CHOICE
        if package not in ("pyspark", "py4j") and not _distributions(package) & CORE
    }
    assert wrong == set()
    assert used >= ON_DRIVER | BY_CHOICE, "an exception that is not needed any more"


def test_the_core_brings_no_web_server_no_plots_and_no_spark() -> None:
    installed = set(needed_by(requirements()))
    assert {"torch", "timm", "transformers", "pyarrow", "pandas", "deltalake"} < installed
    absent = {"fastapi", "uvicorn", "matplotlib", "cleanlab", "mlflow", "pyspark", "great-expectations", "duckdb"}
    assert installed & absent == set()
    assert absent < set(needed_by(requirements("audit", "jobs", "spark")))


def test_every_package_that_is_imported_is_in_the_core_or_in_the_extra_that_messages_name() -> None:
    used = {package for module in MODULES for package in _foreign(module)}
    optional = {package for package in used if not _distributions(package) & CORE}
    tokenizers = {"fugashi", "ipadic", "sacremoses", "sentencepiece"}  # transformers imports them
    of_connect = {"grpc_status", "zstandard"}  # pyspark imports them
    assert optional | tokenizers | of_connect == set(extras.EXTRA_OF)
    for package, extra in extras.EXTRA_OF.items():
        brought = _names(EXTRAS[extra]) if package != "py4j" else {"py4j"}  # pyspark's
        assert _distributions(package) & brought, f"{package} is not in the extra {extra}"


def test_development_has_every_extra_that_jobs_may_need() -> None:
    dev = next(Requirement(text) for text in EXTRAS["dev"] if text.startswith(PROJECT["name"]))
    assert set(extras.EXTRA_OF.values()) <= dev.extras


def test_the_documentation_of_the_installation_has_every_extra() -> None:
    rows = re.findall(r"^\| (`.+?) \|", (ROOT / "docs" / "install.md").read_text(), re.MULTILINE)
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} >= set(EXTRAS)


def test_the_review_page_needs_no_other_extra() -> None:
    graph = networkx.DiGraph([(a, b) for a, imported in RUNTIME_IMPORTS.items() for b in imported])
    brought = CORE | _names(EXTRAS["audit"])
    modules = {"audit.page.serve"} | networkx.descendants(graph, "audit.page.serve")
    used = {(module, package) for module in modules for package in _foreign(module)} - ON_DRIVER
    wrong = {(module, package) for module, package in used if not _distributions(package) & brought}
    spark = {"grpc", "py4j", "pyspark"}
    assert {package for _, package in wrong} == spark, "the page starts no Spark, other functions of catalog/ do"


IN_THE_CORE = """
import contextlib, io, json, sys
from catalog_enrichment import cli
ended = {}
for job, arguments in json.load(sys.stdin).items():
    out, lines = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(lines):
        code = getattr(cli, job)(arguments)
    ended[job] = [code, json.loads(out.getvalue().splitlines()[-1]).get("message", ""), lines.getvalue()]
print(json.dumps(ended))
"""


@pytest.fixture(scope="module")
def core(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment as an executor's: the core, and this package."""
    python = environment(tmp_path_factory.mktemp("core") / "environment", requirements())
    (site,) = python.parents[1].glob("lib/python*/site-packages")
    (site / "catalog_enrichment").symlink_to(ROOT / "src" / "catalog_enrichment")
    return python


def _run(python: Path, code: str, folder: Path, given: str = "") -> subprocess.CompletedProcess[str]:
    left_out = ("PYTHONPATH", "PYSPARK_PYTHON")
    variables = {name: value for name, value in os.environ.items() if name not in left_out}
    return subprocess.run(
        [python, "-c", code], cwd=folder, env=variables, input=given, capture_output=True, text=True, check=False
    )


def test_a_job_whose_extra_is_missing_names_it_and_has_no_traceback(core: Path, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(CONFIG)
    (tmp_path / "attributes.json").write_text(json.dumps(DICTIONARY))
    (tmp_path / "feed").mkdir()
    (tmp_path / "feed" / "products.jsonl").write_text('{"product_id": "p1", "title": "a red shirt"}\n')
    (tmp_path / "feed.csv").write_text("id,title\n1,a red shirt\n")
    (tmp_path / "mlflow.db").touch()  # else a job that needs a model says that there is none
    of_config = ["--config", str(tmp_path / "config.toml")]
    wanted = {
        "deliver_values": ([*of_config, "--set", "delivery.uri='postgresql://a@127.0.0.1/b'"], "postgres"),
        "enrich_catalog": (of_config, "jobs"),
        "import_products": (of_config, "spark"),
        "init_project": ([str(tmp_path / "project"), "--from", str(tmp_path / "feed.csv")], "jobs"),
        "promote_model": (of_config, "jobs"),
        "serve_audit": (of_config, "audit"),
        "train_model": (of_config, "jobs"),
    }
    given = {job: arguments for job, (arguments, _) in wanted.items()}
    ended = _run(core, IN_THE_CORE, tmp_path, json.dumps(given))
    assert ended.returncode == 0, ended.stderr
    for job, (code, message, lines) in json.loads(ended.stdout).items():
        assert code == 2, (job, message, lines)
        assert f'pip install "catalog-enrichment[{wanted[job][1]}]"' in message, job
        assert "Traceback" not in lines
        assert len(lines.splitlines()) == 1, (job, lines)


def test_the_core_imports_all_executor_code(core: Path, tmp_path: Path) -> None:
    wanted = sorted(f"catalog_enrichment.{module}" for module in executor_modules())
    code = f"import importlib\nfor name in {wanted}:\n    importlib.import_module(name)"
    ended = _run(core, code, tmp_path)
    assert ended.returncode == 0, ended.stderr[-2000:]


def test_a_package_that_is_missing_on_a_worker_is_named_too() -> None:
    problem = RuntimeError("Job aborted\nTraceback ...\nModuleNotFoundError: No module named 'psycopg.types'")
    found = failures.recognised(problem)
    assert isinstance(found, ConfigError)
    assert 'psycopg is not installed: pip install "catalog-enrichment[postgres]"' in str(found)
    assert failures.recognised(RuntimeError("ModuleNotFoundError: No module named 'nobody_knows'")) is None
