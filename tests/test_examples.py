"""The commands and programs of README, docs/ and examples/ run as they are written there, on generated files."""

from __future__ import annotations

import csv
import json
import os
import random
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from .postgres_server import PostgresServer

ROOT = Path(__file__).parents[1]
JOBS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
BRING_YOUR_OWN = ROOT / "examples" / "bring_your_own"
COLOURS = ("Black", "Green", "Navy Blue", "Red")
SET_UP = ["git clone", "cd catalog-enrichment", "make setup", ". .venv/bin/activate"]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def run(command: Sequence[str | Path], cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    ended = subprocess.run(
        list(map(str, command)), cwd=cwd, env=os.environ | environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, f"{command}: {ended.stdout[-1500:]}{ended.stderr[-3000:]}"
    return ended


def job(line: str, cwd: Path) -> dict[str, Any]:
    """Run a job of this checkout as the line calls it; its summary."""
    name, *arguments = shlex.split(line, comments=True)
    assert name in JOBS
    answer = run([sys.executable, ROOT / "jobs" / f"{name}.py", *arguments], cwd).stdout
    summary: dict[str, Any] = json.loads(answer.splitlines()[-1])
    return summary


def write_products(file: Path, count: int = 1400) -> None:
    """A CSV file whose titles tell the colour; every sixth product has none in its column. All titles differ in more
    than digits and colours, so that each product is a content group of its own, and are of the same few words, which
    the small model's vocabulary has."""
    draw = random.Random(7)
    words = [a + b + "n" for a in "bdfgklmnprstvz" for b in "aeiou"]
    things = ("shirt", "scarf", "jacket", "bag", "dress")
    with file.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.writer(opened)
        writer.writerow(["sku", "title", "category", "colour"])
        for number in range(count):
            colour, name = draw.choice(COLOURS), " ".join(draw.sample(words, 3)).capitalize()
            thing = draw.choice(things)
            row = [f"A-{number:05d}", f"{name} {thing} in {colour.lower()}", f"Apparel/{thing}"]
            writer.writerow([*row, "" if number % 6 == 0 else colour])


def ten_lines() -> list[str]:
    section = (ROOT / "README.md").read_text().split("## From your own file to enriched values in ten lines")[1]
    return re.findall(r"^    (\S.*)$", section.split("\n## ")[0], re.MULTILINE)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """The folder in which README's ten lines were run, and the jobs' summaries."""
    folder = tmp_path_factory.mktemp("ten-lines")
    write_products(folder / "products.csv")
    lines = ten_lines()
    assert len(lines) == 10
    set_up = len(SET_UP)
    assert [line.startswith(start) for line, start in zip(lines, SET_UP, strict=False)] == [True] * set_up
    project = job(lines[set_up], folder)
    config = folder / "shop" / "config.toml"
    # fine-tuning MiniLM takes minutes; the small model from random weights needs more epochs for so few products
    text = re.sub(r"recipes:\w+", "recipes:demo", config.read_text())
    assert text.count("set = { ") == 1
    config.write_text(text.replace("set = { ", 'set = { "fit.epochs" = 14, '))
    return folder, [project, *(job(line, folder) for line in lines[set_up + 1 :])]


def test_the_ten_lines_of_the_readme_end_with_written_values(shop: tuple[Path, list[dict[str, Any]]]) -> None:
    folder, (project, imported, trained, promoted, tried, enriched) = shop
    assert list(project["attributes"]) == ["colour"]
    assert imported["products"] == 1400
    assert [row["attribute"] for row in trained["certificates"] if row["threshold"] is not None] == ["colour"]
    assert (promoted["status"], tried["status"], enriched["status"]) == ("promoted", "dry_run", "succeeded")
    written = enriched["attributes"]["colour"]["written"]
    assert written > 100
    assert Path(enriched["report"]).is_file()
    answer = job("export_values --config shop/config.toml --out values.csv --source model", folder)
    assert answer["values"] == written
    with (folder / "products.csv").open() as opened:
        titles = {row["sku"]: row["title"] for row in csv.DictReader(opened)}
    with (folder / "values.csv").open() as opened:
        right = [titles[row["product_id"]].endswith(row["value"].lower()) for row in csv.DictReader(opened)]
    assert sum(right) / len(right) >= 0.95


def test_the_five_lines_score_a_data_frame(shop: tuple[Path, list[dict[str, Any]]]) -> None:
    section = (ROOT / "docs" / "data-scientist.md").read_text().split("in five lines")[1]
    code = re.findall(r"^```python\n(.*?)^```", section, re.MULTILINE | re.DOTALL)[0]
    assert len([line for line in code.splitlines() if line.strip()]) == 5
    answer = run([sys.executable, "-c", code], shop[0]).stdout
    assert "'decision': '" in answer
    assert "'threshold': 0." in answer
    assert "'value': 'Navy Blue'" in answer


def test_the_example_tells_what_a_certificate_allows(shop: tuple[Path, list[dict[str, Any]]]) -> None:
    folder, _ = shop
    (folder / "few.csv").write_text("title\nZun fan dun shirt in navy blue\nZun fan dun shirt\n")
    script = ROOT / "examples" / "score_products.py"
    lines = run([sys.executable, script, "--config", "shop/config.toml", "few.csv"], folder).stdout.splitlines()
    assert re.search(r"shirt in navy blue +colour +Navy Blue +\S+ +True$", lines[1])
    assert lines[2].endswith("False"), "nothing in the title tells the colour"


def test_the_minimal_config_imports_its_feed(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    summary = job("import_products --config examples/minimal/config.toml", tmp_path)
    assert (summary["products"], summary["new"], summary["quarantined"]) == (12, 11, {"empty_title": 1})


def test_the_postgres_config_imports_the_table_of_its_script(tmp_path: Path, postgres: PostgresServer) -> None:
    import psycopg

    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    uri = postgres.new_database("shop_of_the_example")
    with psycopg.connect(uri, autocommit=True) as connection:
        connection.execute((ROOT / "examples" / "postgres_source" / "products.sql").read_bytes())
    line = f"import_products --config examples/postgres_source/config.toml --set source.path={uri}"
    summary = job(line, tmp_path)
    assert (summary["products"], summary["new"], summary["quarantined"]) == (12, 11, {"empty_title": 1})


def test_the_delivery_config_delivers_and_merchants_have_the_last_word(
    tmp_path: Path, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    import psycopg

    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    job("import_products --config examples/postgres_delivery/config.toml", tmp_path)
    scripts = ROOT / "examples" / "postgres_delivery"
    owner = postgres.new_database("shop_of_the_delivery")
    monkeypatch.setenv("SHOP_DELIVERY", "change-me")
    uris = [f"delivery.migration_uri={owner}"]
    uris += [f"delivery.uri={postgres.uri('shop_of_the_delivery', 'catalog_delivery')}"]
    line = f"deliver_values --config examples/postgres_delivery/config.toml {' '.join(f'--set {uri}' for uri in uris)}"
    with psycopg.connect(owner, autocommit=True) as connection:
        if not connection.execute("SELECT 1 FROM pg_roles WHERE rolname = 'catalog_delivery'").fetchone():
            connection.execute((scripts / "role.sql").read_bytes())
        assert job(f"{line} --migrate", tmp_path)["status"] == "succeeded"
        delivered = job(line, tmp_path)["upserted"]
        assert delivered > 1
        cursor = connection.execute((scripts / "merchants.sql").read_bytes())
        while cursor.nextset():
            pass
        seen = connection.execute('SELECT "values", source FROM enriched.catalog_values').fetchall()
    assert seen == [(["Silver"], "merchant")], "the import's values are merchants': the marketplace tells them itself"


def test_the_api_config_imports_from_its_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    script = tmp_path / "examples" / "http_api_source" / "server.py"
    monkeypatch.setenv("SHOP_TOKEN", "letmein")
    with subprocess.Popen(
        [sys.executable, script, "--port", "0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as server:
        try:
            assert server.stdout is not None
            url = server.stdout.readline().strip()
            line = f"import_products --config examples/http_api_source/config.toml --set source.path={url}"
            summary = job(line, tmp_path)
        finally:
            server.terminate()
    assert (summary["products"], summary["new"], summary["quarantined"]) == (22, 22, {})


def test_the_raw_answers_of_a_language_model_are_imported(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    lines = re.findall(r"^    (import_\w+ --config \S+)$", (BRING_YOUR_OWN / "README.md").read_text(), re.MULTILINE)
    _, summary = [job(line, tmp_path) for line in lines]
    assert summary["outcomes"] == {"current": 11, "stale": 1, "unknown_product": 1}
    assert summary["unknown_examples"] == ["99"]
    colour = summary["attributes"]["color"]
    assert (colour["proposed"], colour["unreadable"], colour["bad_score"]) == (8, 1, 1)
    assert colour["unmapped_values"] == {"Beige": 1}


def test_the_scripts_register_their_models(tmp_path: Path) -> None:
    rows = [{"title": f"Shirt {number}", "colour": ("Red", "Blue", None)[number % 3]} for number in range(90)]
    (tmp_path / "products.jsonl").write_text("\n".join(map(json.dumps, rows)))
    store = ["--tracking-uri", f"sqlite:///{tmp_path}/mlflow.db", "--artifacts", "artifacts"]
    script = [sys.executable, BRING_YOUR_OWN / "sklearn_model.py", "products.jsonl", "--attributes", "colour"]
    assert run([*script, "--name", "colours", *store], tmp_path).stdout.split()[-1] == "models:/colours/1"
    script = [sys.executable, BRING_YOUR_OWN / "http_endpoint.py", BRING_YOUR_OWN / "endpoint.toml"]
    assert run([*script, "--name", "vision", *store], tmp_path).stdout.split()[-1] == "models:/vision/1"
    assert list((tmp_path / "artifacts").rglob("MLmodel"))


def test_the_own_fusion_passes_the_tests_of_all_fusions_and_its_recipe_builds(tmp_path: Path) -> None:
    for name in ("src", "schemas", "mlflow", "deploy", "tests", "pyproject.toml"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    own, package = ROOT / "examples" / "own_fusion", tmp_path / "src" / "catalog_enrichment"
    shutil.copy(own / "gated_multimodal_unit.py", package / "models" / "fusion")
    source = {"PYTHONPATH": str(tmp_path / "src")}
    pytest_line = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "tests/models/test_fusion.py"]
    told = run([*pytest_line, "-k", "gated_multimodal_unit"], tmp_path, **source).stdout
    assert int(re.findall(r"(\d+) passed", told)[0]) >= 5
    code = f"""
from catalog_enrichment.models.fusion import build_fusion
from catalog_enrichment.models.fusion.base import FusionShape
from catalog_enrichment.models.recipe_files import load_model_recipe
from catalog_enrichment.models.spec import Head
recipe = load_model_recipe({str(own / "recipe.toml")!r})
shape = FusionShape(texts=(128,), fields=1, image=64, heads=(Head("one", ("a", "b")),))
print(build_fusion(recipe.model.fusion, shape).gate.out_features)
"""
    assert run([sys.executable, "-c", code], tmp_path, **source).stdout.split() == ["96"]


def test_the_object_store_example_imports_into_a_store(tmp_path: Path) -> None:
    ended = run([sys.executable, ROOT / "examples" / "object_store" / "try_it.py"], tmp_path)
    assert json.loads(ended.stdout.splitlines()[-1])["status"] == "succeeded"
    assert re.search(r"bytes  products/part-.*\.parquet", ended.stderr)
    assert "any-secret-will-do" not in ended.stdout + ended.stderr
