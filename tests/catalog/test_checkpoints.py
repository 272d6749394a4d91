"""What a run has stored before its commit: read by the same run when it starts again, and removed at its end."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from catalog_enrichment import failures
from catalog_enrichment.catalog.checkpoints import Checkpoints
from catalog_enrichment.catalog.lake import Catalog
from catalog_enrichment.errors import ConfigError, DataContractError

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    return Catalog(tmp_path).checkpoints


def test_a_frame_is_computed_once_and_again_only_if_it_is_incomplete(
    checkpoints: Checkpoints, spark: SparkSession, tmp_path: Path
) -> None:
    from pyspark.sql import functions as F

    def numbers(rows: int) -> DataFrame:
        return spark.range(rows).select("id", F.array(F.lit("x"), F.lit(None)).alias("list"))

    first = checkpoints.get_or_compute("run-1", "scored", numbers(3))
    assert first.schema.simpleString() == numbers(3).schema.simpleString()
    assert first.count() == 3
    assert checkpoints.has("run-1", "scored")
    assert not checkpoints.has("run-1", "score")
    assert checkpoints.get_or_compute("run-1", "scored", numbers(5)).count() == 3
    assert checkpoints.get_or_compute("run-1", "scored", spark.range(5)).count() == 5, "it has other columns"
    assert checkpoints.get_or_compute("run-1", "other", numbers(0)).count() == 0
    assert checkpoints.get_or_compute("run-2", "scored", numbers(4)).count() == 4

    for marker in (tmp_path / "_staging" / "run-1").glob("scored-*/_SUCCESS"):
        marker.unlink()
    assert not checkpoints.has("run-1", "scored")
    assert checkpoints.get_or_compute("run-1", "scored", numbers(5)).count() == 5

    checkpoints.drop("run-1")
    assert not (tmp_path / "_staging" / "run-1").exists()
    assert checkpoints.get_or_compute("run-2", "scored", numbers(9)).count() == 4
    checkpoints.drop("never-stored")


def test_a_checkpoint_with_an_empty_file_is_computed_again(
    checkpoints: Checkpoints, spark: SparkSession, tmp_path: Path
) -> None:
    """Spark reads an empty file as a file without rows."""
    rows = spark.range(5).coalesce(1)
    checkpoints.get_or_compute("run-1", "rows", rows)
    (file,) = (tmp_path / "_staging" / "run-1").rglob("*.parquet")
    file.write_bytes(b"")
    file.with_name(f".{file.name}.crc").unlink()
    assert checkpoints.get_or_compute("run-1", "rows", rows).count() == 5


def test_a_damaged_checkpoint_is_named(checkpoints: Checkpoints, spark: SparkSession, tmp_path: Path) -> None:
    rows = spark.range(5).coalesce(1)
    checkpoints.get_or_compute("run-1", "rows", rows)
    (file,) = (tmp_path / "_staging" / "run-1").rglob("*.parquet")
    file.write_bytes(file.read_bytes()[:-50])
    with pytest.raises(Exception, match="Exception") as raised:
        checkpoints.get_or_compute("run-1", "rows", rows).collect()
    found = failures.recognised(raised.value)
    assert isinstance(found, DataContractError)
    assert re.search(f"Delete the folder file:/+{tmp_path}/_staging/run-1, and run again", str(found))


def test_a_checkpoint_that_is_half_removed_is_none(
    checkpoints: Checkpoints, spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints.get_or_compute("run-1", "rows", spark.range(3))
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)  # killed before it has removed anything
        checkpoints.drop("run-1")
    assert not checkpoints.has("run-1", "rows")
    assert checkpoints.get_or_compute("run-1", "rows", spark.range(5)).count() == 5


def test_of_a_run_that_ends_only_the_checkpoints_named_are_kept(
    checkpoints: Checkpoints, spark: SparkSession, tmp_path: Path
) -> None:
    for name in ("scored", "decided", "scored-again"):
        checkpoints.get_or_compute("run-1", name, spark.range(1))
    with pytest.raises(KeyError), checkpoints.dropping("run-1", keep=["scored"]):
        raise KeyError
    folders = [folder.name for folder in (tmp_path / "_staging" / "run-1").iterdir()]
    assert [name.rpartition("-")[0] for name in folders] == ["scored"]


def test_a_run_remembers_what_its_first_attempt_found(checkpoints: Checkpoints, tmp_path: Path) -> None:
    first = {"color": {"coverage": 0.25, "applicable": 4}}
    assert checkpoints.remember("run-1", "coverage", first) == first
    assert Catalog(tmp_path).checkpoints.remember("run-1", "coverage", {"color": {}}) == first
    assert checkpoints.remember("run-1", "other", {}) == {}
    assert checkpoints.remember("run-2", "coverage", {"color": {}}) == {"color": {}}
    assert not checkpoints.has("run-1", "coverage"), "a note is no checkpoint"
    with checkpoints.dropping("run-1", keep=("coverage",)):
        checkpoints.remember("run-1", "passing", {"n": 1})
    assert checkpoints.remember("run-1", "coverage", {}) == first
    assert checkpoints.remember("run-1", "passing", {"n": 2}) == {"n": 2}
    checkpoints.drop("run-1")
    assert checkpoints.remember("run-1", "coverage", {"n": 3}) == {"n": 3}


def test_a_half_written_note_is_none(checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            checkpoints.remember("run-1", "coverage", {"n": 1})
    assert checkpoints.remember("run-1", "coverage", {"n": 2}) == {"n": 2}


@pytest.mark.parametrize("run_id", ["", "..", ".", "a/b", "/etc"])
def test_a_run_id_that_is_no_folder_name_is_refused(checkpoints: Checkpoints, run_id: str) -> None:
    for act in (checkpoints.drop, lambda name: checkpoints.remember(name, "coverage", {})):
        with pytest.raises(ConfigError, match="cannot name a checkpoint"):
            act(run_id)
