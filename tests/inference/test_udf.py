"""Scoring on Spark: types, the model of a worker, and its GPU.

Which GPU a worker takes is proven without a GPU, by a discovery script that claims two.
"""

from __future__ import annotations

import gc
import json
import os
import stat
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pytest
import torch

from catalog_enrichment.config.images import ImagesConfig
from catalog_enrichment.errors import ConfigError
from catalog_enrichment.inference import udf
from catalog_enrichment.inference.forward import ScoredCandidate, ScoredRow
from catalog_enrichment.models import compute_types

from .. import sample_catalog

_SESSION = """
import json, sys
from pyspark.sql import SparkSession

def devices(batches):
    import os
    import pandas as pd
    import torch
    from catalog_enrichment.inference import udf
    torch.cuda.is_available = lambda: True
    for _ in batches:
        pass
    yield pd.DataFrame({"executor": [os.getppid()], "device": [udf.task_device()]})

if __name__ == "__main__":
    builder = SparkSession.builder.master("local-cluster[1,2,1024]")
    for name, value in json.loads(sys.argv[1]).items():
        builder = builder.config(name, value)
    spark = builder.getOrCreate()
    rows = spark.range(0, 8, numPartitions=8).mapInPandas(devices, "executor bigint, device string").collect()
    print(json.dumps([[row.executor, row.device] for row in rows]))
    spark.stop()
"""


def test_the_spark_type_follows_from_the_dataclass() -> None:
    candidate = "struct<attribute:string,value:string,rank:int,score:double,attention:double,evidence:string>"
    assert (
        f"struct<candidates:array<{candidate}>,modality:string,compute_type:string,image_reason:string,error:string,"
        "detail:string>"
    ) == udf.SCORED_TYPE


def test_scored_rows_as_arrow_have_the_types_of_the_udf_and_all_fields() -> None:
    candidates = [
        ScoredCandidate("color", "Red", 1, 0.9, 0.5, "the title"),
        ScoredCandidate("color", "Blue", 2, 0.1, None),
    ]
    rows = [
        ScoredRow(candidates, compute_type="fp32-cpu", image_reason="no_image"),
        ScoredRow([], error="empty_title", detail="nothing"),
    ]
    column = udf.to_arrow(rows)
    assert [asdict(row) for row in rows] == column.to_pylist()
    candidate = pa.struct(
        {name: pa.string() for name in ("attribute", "value")}
        | {"rank": pa.int32(), "score": pa.float64(), "attention": pa.float64(), "evidence": pa.string()}
    )
    texts = {name: pa.string() for name in ("modality", "compute_type", "image_reason", "error", "detail")}
    assert column.type == pa.struct({"candidates": pa.list_(candidate), **texts})
    assert udf.to_arrow([]).type == column.type
    pandas = udf.as_pandas(column)
    assert list(pandas) == [field.name for field in column.type]
    assert pa.Array.from_pandas(pandas["candidates"]).to_pylist() == column.field("candidates").to_pylist()


def test_a_folder_is_loaded_once_per_process(tmp_path: Path) -> None:
    folder = sample_catalog.random_artifact(sample_catalog.build(tmp_path / "sample"), tmp_path, seed=4)
    first = udf.task_predictor("hash", folder, "cpu", "fp32")
    assert udf.task_predictor("hash", folder, "cpu", "fp32") is first
    assert udf.task_predictor("another hash", folder, "cpu", "fp32") is not first


def test_the_collections_of_garbage_after_every_task_leave_out_what_was_loaded(tmp_path: Path) -> None:
    folder = sample_catalog.random_artifact(sample_catalog.build(tmp_path / "sample"), tmp_path, seed=4)
    gc.unfreeze()
    udf.task_predictor("a third hash", folder, "cpu", "fp32")
    assert gc.get_freeze_count() > 100_000
    gc.unfreeze()


def test_a_worker_that_is_no_machine_for_the_number_type_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compute_types, "why_not", lambda *_: "the processor has no avx512_bf16")
    with pytest.raises(ConfigError, match="this worker cannot score in bf16: the processor has no avx512_bf16"):
        udf.task_predictor("a hash", tmp_path, "cpu", "bf16")


@pytest.mark.usefixtures("spark")
def test_spark_scores_each_row_once() -> None:
    """A deterministic UDF would be moved below the join that draws a sample, and the whole catalog scored for it."""
    assert not udf.scoring_udf(udf.ShippedModel("hash", "folder", "fp32"), ImagesConfig()).deterministic


@pytest.mark.slow
def test_each_executor_scores_on_the_gpu_that_spark_gave_it(tmp_path: Path) -> None:
    discovery, script = tmp_path / "gpus.sh", tmp_path / "session.py"
    discovery.write_text("""#!/bin/sh\necho '{"name": "gpu", "addresses": ["3", "5"]}'\n""")
    discovery.chmod(discovery.stat().st_mode | stat.S_IXUSR)
    script.write_text(_SESSION)
    settings = {
        "spark.worker.resource.gpu.amount": "2",
        "spark.worker.resource.gpu.discoveryScript": str(discovery),
        "spark.executor.resource.gpu.amount": "1",
        "spark.task.resource.gpu.amount": "1",
        "spark.executor.cores": "1",
        "spark.executor.memory": "512m",
        "spark.ui.enabled": "false",
    }
    environment = {**os.environ, "PYSPARK_PYTHON": sys.executable, "PYSPARK_DRIVER_PYTHON": sys.executable}
    done = subprocess.run(
        [sys.executable, str(script), json.dumps(settings)], capture_output=True, text=True, timeout=300,
        check=False, env=environment, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert {device for _, device in found} == {"cuda:3", "cuda:5"}
    assert len({executor for executor, _ in found}) == len({tuple(row) for row in found}) == 2


def test_without_gpu_scheduling_partitions_share_the_gpus_out(monkeypatch: pytest.MonkeyPatch) -> None:
    import pyspark

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    found = []
    for partition in range(3):
        task = SimpleNamespace(resources=dict, partitionId=lambda partition=partition: partition)
        monkeypatch.setattr(pyspark.TaskContext, "get", classmethod(lambda _, task=task: task))
        found.append(udf.task_device())
    assert found == ["cuda:0", "cuda:1", "cuda:0"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert udf.task_device() == "cpu"
