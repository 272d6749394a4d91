"""Other processes: readers beside a writer, writers that are killed, executors that are not the driver."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from catalog_enrichment.catalog.lake import Catalog

from .catalog_rows import frame, product

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

COUNT = """
import sys
from pathlib import Path
from catalog_enrichment.catalog.lake import Catalog
lake = Catalog(Path(sys.argv[1]))
print(sum(batch.num_rows for batch in lake.scan("products")), lake.committed("products", "run-1"))
"""

APPEND = """
import sys
from pathlib import Path
from catalog_enrichment.catalog.lake import Catalog
lake = Catalog(Path(sys.argv[1]))
rows = [{"product_id": f"q{i}", "opt_out": False, "content_hash": "h"} for i in range(7)]
print(lake.append_rows("products", rows, "run-1"))
"""

KILLED_BEFORE_THE_COMMIT = (
    """
import os, signal
from catalog_enrichment.catalog.delta_tables import DeltaTables
DeltaTables.commit = lambda *ignored, **named: os.kill(os.getpid(), signal.SIGKILL)
"""
    + APPEND
)

LIGHT = """
import sys
import catalog_enrichment.catalog.lake, catalog_enrichment.catalog.ledger
print(sorted({"pyspark", "torch", "mlflow", "great_expectations", "pandas"} & set(sys.modules)))
"""

LOCAL_CLUSTER = """
import os, sys
from pathlib import Path
os.environ["PYSPARK_PYTHON"] = sys.executable
from pyspark.sql import SparkSession
from catalog_enrichment.catalog.lake import Catalog
os.chdir(sys.argv[2])
spark = (SparkSession.builder.master("local-cluster[1,1,1024]")
    .config("spark.ui.enabled", "false").getOrCreate())
lake = Catalog(Path(sys.argv[1]), spark)
nulls = [f"cast(null as {field.dataType.simpleString()}) as {field.name}" for field in lake.read("products").schema
    if field.name not in ("product_id", "opt_out", "content_hash")]
keys = ["string(id) as product_id", "false as opt_out", "'h' as content_hash"]
rows = spark.range(0, 100, 1, 4).selectExpr(*keys, *nulls)
stored = lake.append("products", rows, "run-1")
print(stored, lake.checkpoints.get_or_compute("run-1", "s", lake.read("products")).count())
spark.stop()
"""


def python(code: str, *arguments: object, check: bool = True) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *[str(argument) for argument in arguments]]
    return subprocess.run(command, capture_output=True, text=True, check=check, timeout=240)


def test_a_reader_in_another_process_sees_all_of_a_run_or_nothing_i4(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = Catalog(tmp_path / "lake", spark)
    seen: list[str] = []
    commit = lake.tables.commit

    def look_first(*arguments: object, **named: object) -> bool:
        assert list(Path(lake.location("products")).glob("*.parquet")), "the files are there"
        seen.append(python(COUNT, lake.storage.folder).stdout)
        return commit(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(lake.tables, "commit", look_first)
    lake.append("products", frame(spark, "products", [product(f"p{i}") for i in range(50)]), "run-1")
    seen.append(python(COUNT, lake.storage.folder).stdout)

    assert seen == ["0 False\n", "50 True\n"]


def test_a_run_repeated_by_another_process_changes_nothing_i5(spark: SparkSession, tmp_path: Path) -> None:
    lake = Catalog(tmp_path / "lake", spark)
    lake.append("products", frame(spark, "products", [product("a"), product("b")]), "run-1")

    assert python(APPEND, lake.storage.folder).stdout == "2\n"
    assert lake.read("products").count() == 2


def test_a_run_killed_before_its_commit_leaves_nothing_and_can_be_run_again_i5(tmp_path: Path) -> None:
    lake = Catalog(tmp_path / "lake")

    assert python(KILLED_BEFORE_THE_COMMIT, lake.storage.folder, check=False).returncode == -9
    assert len(list(Path(lake.location("products")).glob("*.parquet"))) == 1
    assert python(COUNT, lake.storage.folder).stdout == "0 False\n"

    assert python(APPEND, lake.storage.folder).stdout == "7\n"
    assert python(COUNT, lake.storage.folder).stdout == "7 True\n"


def test_the_catalog_can_be_imported_without_spark_and_models() -> None:
    assert python(LIGHT).stdout == "[]\n"


@pytest.mark.slow
def test_executors_in_other_processes_and_folders_write_the_same_table(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()

    result = python(LOCAL_CLUSTER, tmp_path / "lake", tmp_path / "elsewhere", check=False)

    assert result.returncode == 0, result.stderr[-2000:]
    assert result.stdout == "100 100\n"
