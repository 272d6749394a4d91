"""deploy/cron/run-jobs, with real processes and locks. The jobs are small programs: their own tests are elsewhere."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WRAPPER = ROOT / "deploy" / "cron" / "run-jobs"
CRONTAB = ROOT / "deploy" / "cron" / "catalog-enrichment.cron"


class Cron:
    def __init__(self, folder: Path) -> None:
        self.folder, self.bin = folder, folder / "bin"
        self.bin.mkdir()

    def job(self, name: str, script: str) -> None:
        file = self.bin / name
        file.write_text(f'#!/bin/bash\necho {name} "$@" >> {self.folder}/calls\n{script}\n')
        file.chmod(0o755)

    def start(self, *arguments: str, **settings: str) -> subprocess.Popen[str]:
        environment = {
            "PATH": os.environ["PATH"], "CONFIG": "shop.toml", "BIN": str(self.bin), "LOGS": str(self.folder / "logs"),
            "LOCKS": str(self.folder), "RETRY_SECONDS": "0",
        }  # fmt: skip
        command = [str(WRAPPER), *arguments]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, env=environment | settings, text=True, stdout=pipe, stderr=pipe)

    def run(self, *arguments: str, **settings: str) -> tuple[int, str]:
        """Return the exit code, and what cron would mail."""
        process = self.start(*arguments, **settings)
        out, error = process.communicate(timeout=60)
        return process.returncode, out + error

    def calls(self) -> list[str]:
        file = self.folder / "calls"
        return file.read_text().splitlines() if file.exists() else []

    def logs(self) -> list[Path]:
        return sorted((self.folder / "logs").glob("nightly.*.log"))


@pytest.fixture
def cron(tmp_path: Path) -> Cron:
    return Cron(tmp_path)


def test_a_good_night_calls_the_jobs_in_order_and_mails_nothing(cron: Cron) -> None:
    cron.job("import_products", "echo progress >&2; echo '{}'")
    cron.job("enrich_catalog", "")
    code, mail = cron.run("nightly", "import_products", "--", "enrich_catalog", "--max-products", "5")
    assert (code, mail) == (0, "")
    assert cron.calls() == ["import_products --config shop.toml", "enrich_catalog --config shop.toml --max-products 5"]
    (log,) = cron.logs()
    assert log.read_text() == "progress\n{}\n"


@pytest.mark.parametrize(("code", "meaning"), [(1, "a bug"), (2, "bad config or data contract"), (3, "a gate refused")])
def test_a_failed_job_ends_the_run_and_one_line_says_why(cron: Cron, code: int, meaning: str) -> None:
    summary = json.dumps({"job": "import_products", "message": 'no column "id"', "exit_code": code})
    cron.job("import_products", f"echo '{{}}'; echo '{summary}'; exit {code}")
    cron.job("enrich_catalog", "")
    ended, mail = cron.run("nightly", "import_products", "--", "enrich_catalog")
    assert (ended, len(cron.calls()), mail.count("\n")) == (code, 1, 1)
    assert f"import_products ended with exit {code} ({meaning})" in mail
    assert r"no column \"id\"" in mail
    assert str(cron.logs()[0]) in mail


def test_exit_4_is_tried_again_and_no_other(cron: Cron) -> None:
    cron.job("import_products", f"test $(wc -l < {cron.folder}/calls) -ge 3 || exit 4")
    assert cron.run("nightly", "import_products") == (0, "")
    assert len(cron.calls()) == 3
    cron.job("import_products", "exit 4")
    code, mail = cron.run("nightly", "import_products", RETRIES="1")
    assert (code, len(cron.calls())) == (4, 5)
    assert "also after 1 further attempts" in mail


def test_a_second_start_is_skipped_while_the_first_one_runs(cron: Cron) -> None:
    os.mkfifo(cron.folder / "fifo")
    cron.job("import_products", f"echo started; cat {cron.folder}/fifo")
    first = cron.start("nightly", "import_products")
    while not cron.calls():
        pass
    code, mail = cron.run("nightly", "import_products")
    assert (code, mail.count("\n")) == (0, 1)
    assert "nightly is still running" in mail, "a job that hangs must not stop later nights without a word"
    assert (cron.folder / "logs" / "skipped.log").read_text() == mail
    cron.job("train_model", "")
    assert cron.run("training", "train_model") == (0, "")  # another name has another lock
    (cron.folder / "fifo").write_text("")
    assert first.communicate(timeout=30) == ("", "")
    assert first.returncode == 0
    assert [call.split()[0] for call in cron.calls()] == ["import_products", "train_model"]


def ends(pid: str, seconds: float = 10) -> bool:
    """Return whether the process ends in time, or has ended and was not waited for; kill it if not."""
    process = Path(f"/proc/{pid}/stat")
    for attempt in range(int(seconds * 20) + 1):
        time.sleep(0.05 if attempt else 0)
        try:
            if process.read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
    os.kill(int(pid), signal.SIGKILL)
    return False


HANGING = """
bash -c "trap '' TERM; echo \\$\\$ > {folder}/pid; while :; do sleep 0.2; done" &
while [ ! -s {folder}/pid ]; do sleep 0.02; done
echo hanging
wait
"""
"""A job with a program that goes on after SIGTERM, as a JVM that hangs."""


def test_a_job_that_hangs_is_ended_with_what_it_has_started_and_is_not_tried_again(cron: Cron) -> None:
    cron.job("import_products", HANGING.format(folder=cron.folder))
    cron.job("enrich_catalog", "")
    code, mail = cron.run("nightly", "import_products", "--", "enrich_catalog", LIMIT="0.5s", GRACE_SECONDS="0")
    assert (code, len(cron.calls()), mail.count("\n")) == (124, 1, 1)
    assert "import_products ended with exit 124 (ended after 0.5s, which is its LIMIT)" in mail
    assert ends((cron.folder / "pid").read_text().strip())
    cron.job("import_products", "")
    assert cron.run("nightly", "import_products") == (0, ""), "the lock is free"


def test_a_run_that_is_ended_ends_its_job(cron: Cron) -> None:
    cron.job("import_products", HANGING.format(folder=cron.folder))
    process = cron.start("nightly", "import_products", GRACE_SECONDS="0")
    while not any("hanging" in log.read_text() for log in cron.logs()):
        assert process.poll() is None
        time.sleep(0.02)
    process.terminate()
    assert process.communicate(timeout=30) == ("", "")
    assert process.returncode == 143
    assert ends((cron.folder / "pid").read_text().strip())


def test_a_process_that_outlives_its_job_does_not_hold_the_lock(cron: Cron) -> None:
    cron.job("import_products", "sleep 3 > /dev/null 2>&1 &")
    for _ in range(2):
        assert cron.run("nightly", "import_products")[0] == 0
    assert len(cron.calls()) == 2


def test_only_the_newest_logs_of_the_run_are_kept(cron: Cron) -> None:
    cron.job("import_products", "")
    logs = cron.folder / "logs"
    logs.mkdir()
    for day in range(1, 6):
        (logs / f"nightly.2026010{day}T011500Z.1.log").touch()
    (logs / "training.20260101T011500Z.1.log").touch()
    cron.run("nightly", "import_products", KEEP="3")
    kept = [log.name[:16] for log in cron.logs()]
    assert kept[:2] == ["nightly.20260104", "nightly.20260105"]
    assert len(kept) == 3
    assert (logs / "training.20260101T011500Z.1.log").exists()


def test_a_wrong_call_is_exit_2(cron: Cron) -> None:
    cron.job("import_products", "")
    assert cron.run("nightly")[0] == cron.run("../nightly", "import_products")[0] == 2
    assert cron.run("nightly", "import_products", CONFIG="")[0] == 2
    assert cron.calls() == []


def test_the_example_crontab_calls_jobs_that_exist_through_the_wrapper(cron: Cron) -> None:
    """Its lines run with the settings that it makes, and a job that does not exist would end the run."""
    jobs = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    lines = CRONTAB.read_text().splitlines()
    settings = dict(line.split("=", 1) for line in lines if re.match(r"[A-Z]+=", line))
    entries = [re.fullmatch(r"(?:[\d*]+\s+){5}(.*)", line) for line in lines if re.match(r"[\d*]", line)]
    for job in jobs:
        cron.job(job, "")
    assert {"MAILTO", "CONFIG", "BIN", "RUN", "LOGS"} == set(settings)
    assert settings["RUN"].endswith("/deploy/cron/run-jobs")
    assert entries
    for entry in entries:
        assert entry
        environment = {"RUN": str(WRAPPER), "PATH": os.environ["PATH"], "CONFIG": "shop.toml", "BIN": str(cron.bin)}
        folders = {"LOGS": str(cron.folder / "logs"), "LOCKS": str(cron.folder)}
        done = subprocess.run(["sh", "-c", entry[1]], env=environment | folders, capture_output=True, check=False)
        assert (done.returncode, done.stdout) == (0, b""), entry[1]
    called = [call.split()[0] for call in cron.calls()]
    assert called == ["import_products", "enrich_catalog", "train_model", "maintain_catalog"]


def test_shellcheck_finds_nothing() -> None:
    shellcheck = shutil.which("shellcheck")
    if shellcheck is None:
        missing = "NO SHELLCHECK, SCRIPTS NOT CHECKED: apt-get install shellcheck"
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(missing)
    scripts = [WRAPPER, *(ROOT / "deploy").rglob("*.sh")]
    done = subprocess.run([shellcheck, *scripts], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
