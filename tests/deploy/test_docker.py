"""The image and the compose file, as far as they can be checked without a container engine."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from . import image_steps

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "docker"
DOCKERFILE = (FOLDER / "Dockerfile").read_text()
LAST_STAGE = DOCKERFILE.split("\nFROM ")[-1]
COMPOSE = yaml.safe_load((FOLDER / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


def sources() -> list[str]:
    """Return the paths that are copied from the folder of the build."""
    lines = re.findall(r"^COPY (?!--from)(?:--\S+ )*(.+)$", DOCKERFILE, re.MULTILINE)
    return [source for line in lines for source in line.split()[:-1]]


def test_what_the_image_copies_exists_and_is_sent_to_the_builder() -> None:
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert {"pyproject.toml", "src", "jobs", "deploy/spark"} <= set(sources())
    assert set(sources()) == sent
    assert [source for source in sources() if not (ROOT / source).exists()] == []


def test_the_wheels_shipped_files_are_copied_before_it_is_built() -> None:
    pyproject = (ROOT / "pyproject.toml").read_text()
    shipped = re.findall(r'^"([\w./-]+)" = "catalog_enrichment/_shipped', pyproject, re.MULTILINE)
    assert len(shipped) >= 4
    for path in shipped:
        assert any(path == source or path.startswith(f"{source}/") for source in sources()), path


def test_the_image_is_pinned_not_root_and_has_a_health_check() -> None:
    assert re.search(r"^ARG BASE=python:3\.11\.\d+-slim-bookworm$", DOCKERFILE, re.MULTILINE)
    assert "--constraint constraints.txt" in DOCKERFILE
    assert ":latest" not in DOCKERFILE
    user = re.findall(r"^USER (\d+)$", LAST_STAGE, re.MULTILINE)
    assert user == ["10001"]
    assert LAST_STAGE.index("USER 10001") < LAST_STAGE.index("HEALTHCHECK") < LAST_STAGE.index("ENTRYPOINT")
    assert "openjdk-17-jre-headless" in LAST_STAGE
    assert "pip install" not in LAST_STAGE  # compilers and caches stay in the first stage


def test_the_entrypoint_runs_a_job_and_what_spark_asks_for(tmp_path: Path) -> None:
    """With programs that print how they are called in place of tini and python's package."""
    (tmp_path / "tini").write_text('#!/bin/sh\nshift 2\nprintf "%s\\n" "$@"\n')
    (tmp_path / "python").write_text("#!/bin/sh\necho /spark\n")
    for file in tmp_path.iterdir():
        file.chmod(0o755)
    environment = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}", "SPARK_DRIVER_BIND_ADDRESS": "10.0.0.1", "SPARK_EXECUTOR_ID": "7",
        "SPARK_JAVA_OPT_0": "-Da=b c", "SPARK_JAVA_OPT_1": "-Dx=y", "SPARK_EXECUTOR_MEMORY": "4g",
        "SPARK_DRIVER_URL": "spark://driver", "SPARK_EXECUTOR_CORES": "4", "SPARK_APPLICATION_ID": "app",
        "SPARK_EXECUTOR_POD_IP": "10.0.0.2", "SPARK_EXECUTOR_POD_NAME": "pod", "SPARK_RESOURCE_PROFILE_ID": "0",
    }  # fmt: skip

    def run(*arguments: str) -> list[str]:
        command = [str(FOLDER / "entrypoint.sh"), *arguments]
        return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout.splitlines()

    assert run("enrich_catalog", "--config", "a b.toml") == ["enrich_catalog", "--config", "a b.toml"]
    driver = run("driver", "--properties-file", "/opt/spark/conf/spark.properties", "jobs/x.py")
    assert driver[0] == "/spark/bin/spark-submit"
    assert driver[-3:] == ["--properties-file", "/opt/spark/conf/spark.properties", "jobs/x.py"]
    assert "spark.driver.bindAddress=10.0.0.1" in driver
    executor = run("executor")
    assert executor[:5] == ["java", "-Da=b c", "-Dx=y", "-Xms4g", "-Xmx4g"]
    assert executor[executor.index("--executor-id") + 1] == "7"
    assert executor[executor.index("-cp") + 1] == "/opt/spark/conf:/spark/jars/*"


def test_the_servers_of_compose_are_pinned_checked_and_only_on_this_machine() -> None:
    assert {"postgres", "mlflow", "objects", "jobs"} <= set(SERVICES)
    for name, service in SERVICES.items():
        image = service["image"]
        assert image.startswith("catalog-enrichment:") or re.search(r":[\w.-]*\d[\w.-]*$", image), name
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), name
        if "restart" in service:
            assert service["healthcheck"]["test"][0] == "CMD", name
        for other, condition in service.get("depends_on", {}).items():
            assert other in SERVICES, name
            assert condition["condition"] != "service_healthy" or "healthcheck" in SERVICES[other], name
    volumes = {volume.split(":")[0] for service in SERVICES.values() for volume in service.get("volumes", [])}
    assert {volume for volume in volumes if volume.isalpha()} == set(COMPOSE["volumes"])


def test_the_jobs_can_load_sparks_native_libraries_and_spill_to_a_disk() -> None:
    """The default options of a tmpfs have noexec: zstd-jni could not load what it unpacks into /tmp."""
    jobs = SERVICES["jobs"]
    assert jobs["read_only"] is True
    (mount,) = jobs["tmpfs"]
    place, _, options = mount.partition(":")
    assert (place, set(options.split(","))) == ("/tmp", {"exec", "mode=1777"})
    volume = next(volume.split(":")[1] for volume in jobs["volumes"] if volume.startswith("catalog:"))
    assert Path(jobs["environment"]["SPARK_LOCAL_DIRS"]).is_relative_to(volume)


def test_no_password_is_an_option_of_a_command() -> None:
    """The list of processes shows options to every user of the machine."""
    for name, service in SERVICES.items():
        for part in ("command", "entrypoint"):
            assert "PASSWORD" not in str(service.get(part, "")), name
    assert "${POSTGRES_PASSWORD}" in SERVICES["mlflow"]["environment"]["MLFLOW_BACKEND_STORE_URI"]


def test_passwords_come_from_a_file_that_git_ignores() -> None:
    example = dict(re.findall(r"^(\w+)=(.*)$", (FOLDER / "example.env").read_text(), re.MULTILINE))
    named = set(re.findall(r"\$\{(\w+)", (FOLDER / "compose.yaml").read_text()))
    assert named == set(example)
    assert [name for name, value in example.items() if "PASSWORD" in name and value] == []
    done = subprocess.run(["git", "check-ignore", "-q", "deploy/docker/.env"], cwd=ROOT, check=False)
    assert done.returncode == 0


def test_make_ops_can_carry_out_every_step_of_the_dockerfile(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ran: list[tuple[str, list[str]]] = []
    monkeypatch.setattr(image_steps, "in_root", lambda state, command: ran.append((state.user, command)) or "")
    state = image_steps.State(tmp_path, ROOT, {"TORCH": "cuda"})
    for step in image_steps.steps(FOLDER / "Dockerfile"):
        image_steps.run(state, step)
    assert [command[-1].split()[0] for _, command in ran] == ["python", "if", "apt-get"]
    assert ran[2][1][:2] == ["/bin/sh", "-c"], "a stage begins with the shell of its base"
    assert {user for user, _ in ran} == {"0"}
    assert state.arguments["TORCH"] == "cuda", "a build argument goes before the default"
    assert (state.user, state.folder) == ("10001", "/var/lib/catalog-enrichment")
    assert [*state.entrypoint, *state.command] == ["/opt/entrypoint.sh", "enrich_catalog", "--help"]
    assert (tmp_path / "build" / "src" / "catalog_enrichment" / "cli").is_dir()
    assert (tmp_path / "opt" / "entrypoint.sh").stat().st_mode & 0o777 == 0o755
    with pytest.raises(RuntimeError, match="ONBUILD"):
        image_steps.run(state, image_steps.Step("ONBUILD", "RUN true"))
