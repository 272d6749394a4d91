"""What a commit checks and records, and which checkpoints a run keeps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from catalog_enrichment.catalog.lake import LakeCatalog
from catalog_enrichment.catalog.part_files import Part
from catalog_enrichment.errors import ConfigError, DataContractError

from .catalog_rows import product

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def test_every_commit_says_that_it_changes_data_and_which_run_made_it(tmp_path: Path) -> None:
    lake = LakeCatalog(tmp_path / "lake")
    lake.append_rows("products", [product("a"), product("b")], "import-1")
    log = (tmp_path / "lake" / "products" / "_delta_log" / f"{1:020}.json").read_text().splitlines()
    actions = [json.loads(line) for line in log]
    (added,) = [action["add"] for action in actions if "add" in action]
    assert added["dataChange"] is True
    (info,) = [action["commitInfo"] for action in actions if "commitInfo" in action]
    assert (info["run_id"], info["rows"]) == ("import-1", 2)


def test_files_that_the_driver_does_not_see_whole_are_not_committed(tmp_path: Path) -> None:
    lake = LakeCatalog(tmp_path / "lake")
    (tmp_path / "lake" / "products").mkdir(parents=True)
    (tmp_path / "lake" / "products" / "part.parquet").write_bytes(b"12345")
    whole = Part("part.parquet", 5, 1, "{}")
    lake.check_parts("products", [whole])
    for missing in (Part("other.parquet", 5, 1, "{}"), Part("part.parquet", 6, 1, "{}")):
        with pytest.raises(ConfigError, match=r"catalog\.path must be a folder"):
            lake.check_parts("products", [whole, missing])
    with pytest.raises(DataContractError, match=r"table products: a; b\. Nothing was written"):
        lake.check_parts("products", [Part("x", 0, 0, "", "b"), Part("y", 0, 0, "", "a"), Part("z", 0, 0, "", "a")])


def test_of_a_run_that_ends_only_the_checkpoints_named_are_kept(spark: SparkSession, tmp_path: Path) -> None:
    lake = LakeCatalog(tmp_path / "lake", spark)
    rows = spark.range(1)
    for name in ("scored", "decided", "scored-again"):
        lake.checkpoint("run-1", name, rows)
    with pytest.raises(KeyError), lake.dropping_checkpoints("run-1", keep=["scored"]):
        raise KeyError
    folders = [folder.name for folder in (lake.path / "_staging" / "run-1").iterdir()]
    assert [name.rpartition("-")[0] for name in folders] == ["scored"]
