"""Which GPU a worker takes: the address that Spark gives its task, proven without a GPU by a discovery script that
claims two."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from catalog_enrichment.inference import worker

_SESSION = """
import json, sys
from pyspark.sql import SparkSession
from catalog_enrichment.inference import udf

def devices(batches):
    import os
    import pandas as pd
    import torch
    from catalog_enrichment.inference import worker
    torch.cuda.is_available = lambda: True
    for _ in batches:
        pass
    yield pd.DataFrame({"executor": [os.getppid()], "device": [worker.task_device()]})

if __name__ == "__main__":
    builder = SparkSession.builder.master("local-cluster[1,2,1024]")
    for name, value in json.loads(sys.argv[1]).items():
        builder = builder.config(name, value)
    spark = builder.getOrCreate()
    rows = spark.range(0, 8, numPartitions=8).mapInPandas(devices, "executor bigint, device string").collect()
    print(json.dumps([[row.executor, row.device] for row in rows]))
    spark.stop()
"""


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
        found.append(worker.task_device())
    assert found == ["cuda:0", "cuda:1", "cuda:0"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert worker.task_device() == "cpu"
