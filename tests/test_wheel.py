"""The wheel, installed outside the checkout, has every console script and every shipped file."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

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
