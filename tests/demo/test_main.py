"""`make demo` with a smaller marketplace and one epoch, and how its values are compared with the truth."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from catalog_enrichment import resources
from catalog_enrichment.catalog.lake import Catalog
from catalog_enrichment.demo.__main__ import PATH_COLUMNS, Written, path_results, precision_of, written_by_certificate
from catalog_enrichment.monitoring.text_tables import aligned_table
from catalog_enrichment.records import Modality

from ..sample_certificate import abstention, certificate


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    folder = tmp_path_factory.mktemp("demo")
    recipe = resources.locate("recipes:demo.toml").read_text()
    (folder / "recipe.toml").write_text(recipe.replace("epochs = 7", "epochs = 1"))
    policy = resources.locate("policy:promotion.v1.toml").read_text()
    policy = policy.replace("min_certified_attributes = 1", "min_certified_attributes = 0")
    # one epoch is too few to learn what the pictures show
    policy = policy.replace("allow_collapsed_modality = false", "allow_collapsed_modality = true")
    (folder / "policy.toml").write_text(policy)
    settings = ["--set", f"training.recipe={folder / 'recipe.toml'}", "--products", "200", "--wholesale", "60"]
    settings += ["--set", f"mlflow.promotion_policy={folder / 'policy.toml'}"]
    command = [sys.executable, "-m", "catalog_enrichment.demo", "--folder", str(folder / "var"), *settings]
    return folder / "var", subprocess.run(command, capture_output=True, text=True, check=False, timeout=500)


def test_the_last_line_adds_up(demo: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    _, finished = demo
    assert finished.returncode == 0, finished.stderr[-3000:]
    summary = json.loads(finished.stdout.splitlines()[-1])
    assert summary["products"] == 260
    assert summary["products"] == summary["predicted"] + summary["skipped"] + sum(summary["quarantined"].values())
    assert set(summary["attributes"]) == {"color", "material", "country_of_origin"}
    for counts in summary["attributes"].values():
        assert set(counts) == {
            *("merchant", "written", "values_written", "suggested", "abstained", "retracted", "reasons"),
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
    assert "rows x 10 columns" in shown.stdout


def test_it_deletes_no_folder_that_a_demo_did_not_make(tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("x")
    command = [sys.executable, "-m", "catalog_enrichment.demo", "--folder", str(tmp_path)]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode == 2
    assert "not made by a demo" in finished.stderr
    assert (tmp_path / "precious.txt").exists()


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    rows = [{"product_id": f"p{n}", "attribute": "material", "values": ["Silk", "Wool"]} for n in range(6)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "truth.parquet")
    return tmp_path / "truth.parquet"


def test_a_product_is_right_if_every_value_of_the_run_is_true(truth: Path, tmp_path: Path) -> None:
    rows = [
        ("p0", ["Silk", "Wool"], "run", "with"), ("p1", ["Wool"], "run", "with"),
        ("p2", ["Linen", "Wool"], "run", "with"), ("p3", ["Silk"], "run", "without"),
        ("p4", ["Linen"], "another run", "without"), ("p5", ["Linen"], "run", "without"),
    ]  # fmt: skip
    catalog, names = Catalog(tmp_path / "catalog"), ("product_id", "values", "run_id", "certificate_id")
    usual = {"attribute": "material", "source": "model"}
    catalog.append_rows("current_values", [usual | dict(zip(names, row, strict=True)) for row in rows], "run")
    written = written_by_certificate(catalog, truth, "run")
    assert written == {"with": Written(3, 2), "without": Written(2, 1)}


def test_the_table_has_a_row_for_each_path() -> None:
    both = certificate(attribute="material")
    text_only = certificate(attribute="material", modality=Modality.TEXT_ONLY, accepted=200, wrong=2, lower_bound=0.968)
    paths = path_results(
        [both, text_only, abstention()],
        {both.certificate_id: Written(30, 27), text_only.certificate_id: Written(10, 10)},
    )
    assert aligned_table(paths, PATH_COLUMNS).splitlines()[2:] == [
        "material   with text and picture          30   90.0%  8 of 400 accepted certification products wrong: "
        "at least 96.4% right",
        "material   without a usable picture       10  100.0%  2 of 200 accepted certification products wrong: "
        "at least 96.8% right",
        "color      with text and picture           0       -  abstains: poor",
    ]
    shown: list[dict[str, Any]] = [{name: path[name] for name in ("modality", "certified", "right")} for path in paths]
    assert shown == [
        {"modality": "both", "certified": True, "right": 27},
        {"modality": "text_only", "certified": True, "right": 10},
        {"modality": "both", "certified": False, "right": 0},
    ]


def test_precision_of_an_attribute_is_over_both_paths() -> None:
    paths = [
        {"attribute": "material", "written": 30, "right": 27},
        {"attribute": "material", "written": 10, "right": 10},
        {"attribute": "color", "written": 0, "right": 0},
    ]
    assert precision_of(paths, "material") == 0.925
    assert precision_of(paths, "color") is None
