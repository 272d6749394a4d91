"""Tables of a newer release are refused; catalogs and stores that were moved are read."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from deltalake import DeltaTable, Field
from deltalake.schema import PrimitiveType

from catalog_enrichment.catalog import label_uses
from catalog_enrichment.catalog.lake import LakeCatalog
from catalog_enrichment.config.load import load_config
from catalog_enrichment.errors import DataContractError
from catalog_enrichment.operations import explain, rollback

from . import sample_catalog
from .sample_catalog import SampleCatalog, listing, values

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def test_a_table_of_a_newer_release_is_refused_and_not_changed(tmp_path: Path) -> None:
    catalog, fold = LakeCatalog(tmp_path / "catalog"), label_uses.Fold("color", ["p1"], 0)
    label_uses.use_labels(catalog, fold, "first")
    delta = DeltaTable(tmp_path / "catalog" / "label_uses")
    delta.alter.add_columns([Field("of_tomorrow", PrimitiveType("string"))])
    with pytest.raises(
        DataContractError, match=r"label_uses\.v1: it has .*of_tomorrow.* a newer release wrote this one"
    ):
        label_uses.use_labels(catalog, fold, "second")
    assert DeltaTable(tmp_path / "catalog" / "label_uses").to_pyarrow_table().num_rows == 1


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
    sample.registry.promote("1", expected_current=None)
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
