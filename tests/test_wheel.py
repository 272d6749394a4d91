"""The wheel, installed outside the checkout, has every console script and every shipped file, and runs the jobs."""

from __future__ import annotations

import csv
import json
import os
import random
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from .installed_packages import environment, requirements

ROOT = Path(__file__).parents[1]
SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel installed into it; its dependencies come from the running environment."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder / "dist"), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = (folder / "dist").glob("*.whl")
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target"]
    subprocess.run([*install, str(folder / "site"), str(wheel)], check=True, capture_output=True)
    return folder


def _run(installed: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(installed / "site"), "PYTHONSAFEPATH": "1"}
    return subprocess.run(command, cwd=installed, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", sorted(SCRIPTS))
def test_every_console_script_has_help(installed: Path, name: str) -> None:
    ended = _run(installed, str(installed / "site" / "bin" / name), "--help")
    assert ended.returncode == 0, ended.stderr
    assert ("--from" if name == "init_project" else "--config") in ended.stdout
    assert "3 a gate refused" in " ".join(ended.stdout.split())


def test_shipped_files_are_found(installed: Path) -> None:
    code = """
from catalog_enrichment.config.load import load_config
from catalog_enrichment import contract, dictionary, resources
assert '/site/catalog_enrichment/_shipped' in str(resources.folder('schemas')), resources.folder('schemas')
for kind in ('schemas', 'recipes', 'policy', 'config'):
    assert list(resources.folder(kind).glob('*')), kind
for file in resources.folder('config').glob('*.toml'):
    loaded = load_config('config:' + file.name)
    dictionary.load(resources.locate(loaded.catalog.dictionary))
    resources.locate(loaded.training.recipe)
    resources.locate(loaded.mlflow.promotion_policy)
for table in contract.TABLES:
    assert contract.columns(table)
from catalog_enrichment.delivery import postgres
assert list((postgres.FOLDER / 'versions').glob('v0001_*.py')) and (postgres.FOLDER / 'env.py').is_file()
import catalog_enrichment, pathlib
package = pathlib.Path(catalog_enrichment.__file__).parent
assert (package / 'py.typed').exists()
assert (package / 'audit/page/static/review.js').exists()
assert (package / 'audit/page/templates/review.html.j2').exists()
"""
    ended = _run(installed, sys.executable, "-c", code)
    assert ended.returncode == 0, ended.stderr


def _feed(file: Path) -> None:
    """Write 1,400 products with names of their own; about a quarter have no colour."""
    chance = random.Random(7)
    colours, things = ("red", "green", "blue"), ("shirt", "chair", "lamp", "bag", "cup", "rug", "hat")
    syllables = [first + vowel for first in "bdfgklmnprst" for vowel in "aeo"]
    with file.open("w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["sku", "title", "description", "color"])
        for number in range(1400):
            name, colour, thing = "".join(chance.choices(syllables, k=4)), chance.choice(colours), chance.choice(things)
            given = "" if chance.random() < 0.25 else colour
            rows.writerow([f"P{number:04}", f"{name} {thing} {colour}", f"The {thing} {name} is {colour}.", given])


@pytest.mark.slow
def test_the_wheel_with_the_extras_of_its_jobs_runs_them_without_the_repository(
    installed: Path, tmp_path: Path
) -> None:
    """In an environment with what pip would install for catalog-enrichment[jobs,pretrained,spark], and nothing else."""
    python = environment(tmp_path / "environment", requirements("jobs", "pretrained", "spark"))
    (wheel,) = (installed / "dist").glob("*.whl")
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*install, str(wheel)], check=True, capture_output=True)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    _feed(elsewhere / "products.csv")
    left_out = ("PYTHONPATH", "PYSPARK_PYTHON", "PYSPARK_DRIVER_PYTHON")
    variables = {name: value for name, value in os.environ.items() if name not in left_out}

    def run(job: str, *arguments: str) -> dict[str, Any]:
        command = [str(python.parent / job), *arguments]
        ended = subprocess.run(command, cwd=elsewhere, env=variables, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, (job, ended.stdout, ended.stderr[-3000:])
        return dict(json.loads(ended.stdout.splitlines()[-1]))

    where = subprocess.run(
        [python, "-c", "import catalog_enrichment; print(catalog_enrichment.__file__)"],
        cwd=elsewhere, env=variables, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert where.stdout.startswith(str(tmp_path / "environment"))
    of_config = ("--config", "shop/config.toml")
    recipe = ("--set", 'training.recipe="recipes:demo.toml"')
    run("init_project", "shop", "--from", "products.csv")
    assert run("import_products", *of_config)["products"] == 1400
    run("train_model", *of_config, *recipe)
    assert run("promote_model", *of_config)["status"] == "promoted"
    assert run("enrich_catalog", *of_config)["predicted"] == 1400
    (enriched,) = run("list_runs", *of_config, "--json", "--kind", "enrich")["attempts"]
    assert 300 < enriched["written"] < 400  # about a quarter of the products lack the value
