"""A catalog that was moved or copied, with its model store and its pictures, goes on where it is."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from catalog_enrichment.config.load import load_config
from catalog_enrichment.operations import explain, rollback
from catalog_enrichment.report import run_report

from . import sample_catalog
from .sample_catalog import PRODUCTS, SampleCatalog, listing, values

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("copied", [True, False])
def test_a_catalog_goes_on_in_another_folder(copied: bool, tmp_path: Path, spark: SparkSession) -> None:
    """With config, dictionary, feed, pictures, MLflow store and artifacts, by paths that are relative to the config.

    The original of a copy is still there, and of no use: all its files are empty.
    """
    first, second = tmp_path / "first", tmp_path / "second"
    sample = sample_catalog.build(first, spark)
    sample.feed([listing(number) for number in range(PRODUCTS)])
    sample.import_products()
    sample_catalog.register(sample, tmp_path, seed=1)
    sample.promotion.promote("1", expected_current=None)
    enriched = sample_catalog.enrich(sample)
    seen = values(sample)

    originals: set[Path] = set()
    if copied:
        shutil.copytree(first, second)
        originals = {file for file in first.rglob("*") if file.is_file()}
        for file in originals:
            file.write_bytes(b"")
    else:
        shutil.move(first, second)
    moved = SampleCatalog(second, load_config(second / "config.toml"), spark)
    assert values(moved) == seen
    assert moved.import_products()["status"] == "nothing_to_do"
    assert sample_catalog.enrich(moved)["status"] == "nothing_to_do"

    moved.feed([listing(number) for number in range(PRODUCTS + 1)])
    imported = moved.import_products()
    assert (imported["new"], imported["changed"]) == (1, 0)
    added = sample_catalog.enrich(moved)
    assert (added["predicted"], added["unusable_images"]) == (1, {})
    page = run_report.write_report(moved.context().catalog, moved.config, added["run_id"])
    assert page.is_relative_to(second)
    (product, attribute) = next(iter(values(moved, "model")))
    assert explain.explain_value(moved.context(), product, attribute)["certificate_numbers"]
    rollback.rollback_run(moved.context().catalog, enriched["run_id"])
    assert len(values(moved, "model")) < len(seen)

    sample_catalog.register(moved, tmp_path, seed=2)
    moved.promotion.promote("2", expected_current="1")
    assert moved.model().artifact.is_relative_to(second)
    again = sample_catalog.enrich(moved)
    assert (again["predicted"], again["unusable_images"]) == (PRODUCTS + 1, {}), "pictures of the copy are read"
    assert {file for file in first.rglob("*") if file.is_file()} == originals, "the copy has written to the original"
    assert sum(file.stat().st_size for file in originals) == 0
