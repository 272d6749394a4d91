"""`make demo` with a smaller marketplace and one epoch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from catalog_enrichment import resources


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    folder = tmp_path_factory.mktemp("demo")
    recipe = resources.locate("recipes:demo.toml").read_text()
    (folder / "recipe.toml").write_text(recipe.replace("epochs = 7", "epochs = 1"))
    policy = resources.locate("policy:promotion.v2.toml").read_text()
    policy = policy.replace("min_certified_attributes = 1", "min_certified_attributes = 0")
    # one epoch is too few to learn what the pictures show
    policy = policy.replace("allow_collapsed_modality = false", "allow_collapsed_modality = true")
    (folder / "policy.toml").write_text(policy)
    settings = ["--set", f"training.recipe={folder / 'recipe.toml'}", "--products", "800", "--wholesale", "200"]
    settings += ["--set", f"mlflow.promotion_policy={folder / 'policy.toml'}"]
    command = [sys.executable, "-m", "catalog_enrichment.demo", "--folder", str(folder / "var"), *settings]
    return folder / "var", subprocess.run(command, capture_output=True, text=True, check=False, timeout=500)


def test_the_last_line_adds_up(demo: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    _, finished = demo
    assert finished.returncode == 0, finished.stderr[-3000:]
    summary = json.loads(finished.stdout.splitlines()[-1])
    assert summary["products"] == 1000
    assert summary["products"] == summary["predicted"] + summary["skipped"] + sum(summary["quarantined"].values())
    assert set(summary["attributes"]) == {"color", "material", "country_of_origin"}
    for counts in summary["attributes"].values():
        assert set(counts) == {
            *("merchant", "written", "suggested", "abstained", "retracted"),
            *("precision", "coverage_before", "coverage_after"),
        }  # fmt: skip
        assert counts["coverage_after"] >= counts["coverage_before"] > 0
    assert summary["attributes"]["country_of_origin"]["written"] == 0
    assert len(summary["paths"]) == 6
    for name, counts in summary["attributes"].items():
        assert counts["written"] == sum(path["written"] for path in summary["paths"] if path["attribute"] == name)
    assert set(summary["seconds"]) == {"generate", "import", "train", "promote", "enrich", "report", "total"}


def test_it_prints_the_paths_of_the_results(demo: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, finished = demo
    (report,) = (folder / "reports").glob("enrich-*.html")
    assert report.name in (folder / "reports" / "index.html").read_text()
    assert str(report) in finished.stdout
    page = folder / "reports" / "training-1.html"
    assert "material" in page.read_text()
    assert str(page) in finished.stdout
    for products in ("with text and picture", "without a usable picture"):
        assert f"material           {products}" in finished.stdout
        assert products in report.read_text()
    assert f"sqlite:///{folder}/mlflow.db" in finished.stdout
    show = next(line for line in finished.stdout.splitlines() if "to_pandas" in line)
    shown = subprocess.run(show, shell=True, capture_output=True, text=True, check=True)
    assert "rows x 8 columns" in shown.stdout


def test_it_deletes_no_folder_that_a_demo_did_not_make(tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("x")
    command = [sys.executable, "-m", "catalog_enrichment.demo", "--folder", str(tmp_path)]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode == 2
    assert "not made by a demo" in finished.stderr
    assert (tmp_path / "precious.txt").exists()
