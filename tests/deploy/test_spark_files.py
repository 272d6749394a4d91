"""Spark's conf files, the discovery of GPUs, and the examples of spark-submit."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from catalog_enrichment.spark import session

FOLDER = Path(__file__).parents[2] / "deploy" / "spark"
CONFS = sorted(FOLDER.glob("*.conf"))


def settings(file: Path) -> dict[str, str]:
    lines = [line for line in file.read_text().splitlines() if line and not line.startswith("#")]
    found = dict(line.split(None, 1) for line in lines)
    assert len(found) == len(lines), f"{file.name} sets a name twice"
    return found


def test_there_is_a_file_for_cpus_one_gpu_and_several() -> None:
    assert [file.stem for file in CONFS] == ["cpu", "one-gpu", "several-gpus"]


@pytest.mark.parametrize("file", CONFS, ids=lambda file: file.stem)
def test_the_settings_have_names_that_spark_knows_and_agree_with_the_session(file: Path) -> None:
    found = settings(file)
    assert [name for name in found if not re.fullmatch(r"spark\.[A-Za-z_.]+", name)] == []
    for name, value in session._SETTINGS.items():
        assert found.get(name, value) == value
    for name, value in session._WORKER_ENVIRONMENT.items():
        given = found[f"spark.executorEnv.{name}"]
        assert given == value or name == "MALLOC_MMAP_THRESHOLD_", name
    for jvm in ("driver", "executor"):
        assert found[f"spark.{jvm}.defaultJavaOptions"] == session._JAVA_OPTIONS
    for path in re.findall(r"/opt/catalog-enrichment/spark/([\w.-]+)", file.read_text()):
        assert (FOLDER / path).exists(), path


@pytest.mark.parametrize(("name", "gpus"), [("one-gpu", 1), ("several-gpus", 4)])
def test_as_many_tasks_run_at_a_time_as_the_executor_has_gpus(name: str, gpus: int) -> None:
    found = settings(FOLDER / f"{name}.conf")
    assert int(found["spark.executor.resource.gpu.amount"]) == gpus
    assert found["spark.task.resource.gpu.amount"] == "1"
    assert int(found["spark.executor.cores"]) // int(found["spark.task.cpus"]) == gpus
    assert not any(key.startswith("spark.executor.resource.gpu") for key in settings(FOLDER / "cpu.conf"))


def discovered(folder: Path, script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the discovery with a program in place of nvidia-smi."""
    (folder / "nvidia-smi").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "nvidia-smi").chmod(0o755)
    path = {"PATH": f"{folder}:{os.environ['PATH']}"}
    command = [str(FOLDER / "gpu-addresses.sh")]
    return subprocess.run(command, env=path | environment, capture_output=True, text=True, check=False)


def test_the_discovery_prints_an_address_per_gpu(tmp_path: Path) -> None:
    assert json.loads(discovered(tmp_path, "echo 0").stdout) == {"name": "gpu", "addresses": ["0"]}
    four = discovered(tmp_path, 'printf "0\\n1\\n2\\n3\\n"')
    assert (four.returncode, json.loads(four.stdout)["addresses"]) == (0, ["0", "1", "2", "3"])


def test_of_gpus_that_are_hidden_there_is_no_address(tmp_path: Path) -> None:
    """torch numbers the visible GPUs from 0, so that "2" would be no device."""
    done = discovered(tmp_path, 'printf "0\\n1\\n2\\n3\\n"', CUDA_VISIBLE_DEVICES="2,3")
    assert json.loads(done.stdout)["addresses"] == ["0", "1"]


@pytest.mark.parametrize("script", ["echo no driver >&2; exit 9", "true", "echo 'No devices were found'"])
def test_without_a_gpu_the_discovery_fails_and_says_so(tmp_path: Path, script: str) -> None:
    done = discovered(tmp_path, script)
    assert (done.returncode, done.stdout) == (1, "")
    assert "gpu-addresses.sh" in done.stderr


@pytest.mark.parametrize("where", ["local", "standalone", "standalone-gpu", "yarn", "kubernetes"])
def test_the_examples_name_files_that_exist(where: str) -> None:
    environment = {"PATH": os.environ["PATH"], "PRINT": "1", "IMAGE": "catalog-enrichment:cpu"}
    command = [str(FOLDER / "submit-examples.sh"), where, "shop.toml", "--dry-run"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    words = done.stdout.split()
    script = words.index("--config") - 1
    assert (words[0], words[script + 1 :]) == ("spark-submit", ["--config", "shop.toml", "--dry-run"])
    assert Path(words[script]).resolve() == FOLDER.parents[1] / "jobs" / "enrich_catalog.py"
    for file in re.findall(r"(?:--properties-file |podTemplateFile=)(\S+)", done.stdout):
        assert Path(file).is_file()
    assert ("--properties-file" in words) == (where != "local")
    # without it the namespace's restricted standard refuses the executors, and they have no catalog
    assert ("podTemplateFile" in done.stdout) == (where == "kubernetes")
