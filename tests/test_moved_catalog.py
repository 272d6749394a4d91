"""A catalog and a model store that were moved are read."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from catalog_enrichment.config.load import load_config
from catalog_enrichment.operations import explain, rollback

from . import sample_catalog
from .sample_catalog import SampleCatalog, listing, values

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_moved_catalog_and_store_go_on(tmp_path: Path, spark: SparkSession) -> None:
    """The root of the config with catalog, MLflow store, artifacts and dictionary; the feed stays where it was."""
    sample = sample_catalog.build(tmp_path / "first", spark)
    feed = tmp_path / "feed"
    shutil.move(sample.folder / "feed", feed)
    text = sample.file.read_text().replace("feed/products.jsonl", f"{feed}/products.jsonl")
    sample.file.write_text(re.sub(r"allowed_folders = .*", f'allowed_folders = ["{feed}"]', text))
    (sample.folder / "feed").mkdir()

    def feed_with(*more: dict[str, Any]) -> None:
        lines = [json.dumps(row) for row in (*(listing(number) for number in range(8)), *more)]
        (feed / "products.jsonl").write_text("\n".join(lines) + "\n")

    sample = sample.with_settings()
    feed_with()
    sample.import_products()
    sample_catalog.register(sample, tmp_path, seed=1)
    sample.promotion.promote("1", expected_current=None)
    first = sample_catalog.enrich(sample)
    seen = values(sample)

    shutil.move(sample.folder, tmp_path / "second")
    moved = SampleCatalog(tmp_path / "second", load_config(tmp_path / "second" / "config.toml"), spark)
    assert values(moved) == seen
    assert sample_catalog.enrich(moved)["status"] == "nothing_to_do"
    feed_with(listing(9))
    assert moved.import_products()["new"] == 1
    assert sample_catalog.enrich(moved)["predicted"] == 1
    (product, attribute) = next(iter(values(moved, "model")))
    assert explain.explain_value(moved.context(), product, attribute)["certificate_numbers"]
    rollback.rollback_run(moved.context().catalog, first["run_id"])
    assert len(values(moved, "model")) < len(seen)
    sample_catalog.register(moved, tmp_path, seed=2)
    assert moved.registry.resolve(version="2").artifact.is_relative_to(tmp_path / "second")
    assert not (tmp_path / "first").exists()
