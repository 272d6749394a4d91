"""The RUNBOOK's ten things that go wrong at night, each made to happen: what is seen, and that what it says to type
helps."""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from catalog_enrichment.catalog.lake import Catalog

from . import sample_catalog
from .postgres_server import free_port
from .sample_catalog import PRODUCTS, SampleCatalog, listing, run_job, table, values

ROOT = Path(__file__).parents[1]
RUNBOOK = ROOT / "deploy" / "RUNBOOK.md"


@dataclass(frozen=True)
class Entry:
    """An entry of the RUNBOOK's list."""

    title: str
    exit_code: int
    message: re.Pattern[str]
    typed: tuple[str, ...]
    test: str


def entries() -> list[Entry]:
    section = re.search(
        r"^## Ten things that go wrong at night\n(.*?)^## ", RUNBOOK.read_text(), re.DOTALL | re.MULTILINE
    )
    assert section
    found = []
    for text in re.split(r"^### ", section[1], flags=re.MULTILINE)[1:]:
        code, message = re.search(r"^Seen, exit (\d+): \*(.*?)\*$", text, re.DOTALL | re.MULTILINE).groups()  # type: ignore[union-attr]
        typed = re.search(r"^Typed: (.*?)\n\n", text, re.DOTALL | re.MULTILINE)
        proven = re.search(r"^Proven: `(\S+)`$", text, re.MULTILINE)
        assert typed
        assert proven
        commands = tuple(" ".join(code.split()) for code in re.findall(r"`([^`]+)`", typed[1]) if "--config" in code)
        found.append(Entry(text.partition("\n")[0], int(code), pattern(message), commands, proven[1]))
    return found


def pattern(message: str) -> re.Pattern[str]:
    """Return the pattern of a message, or of its start; words in capital letters stand for anything."""
    parts = re.split(r"\b[A-Z]+\b", " ".join(message.split()))
    return re.compile(".+?".join(re.escape(part).replace(r"\ ", r"\s+") for part in parts), re.DOTALL)


def entry(number: int) -> Entry:
    return entries()[number - 1]


def run(line: str, **names: str) -> tuple[int, dict[str, Any]]:
    """Run a command of the RUNBOOK; return its exit code and summary. ``names``: its words in capital letters."""
    return run_job(*(names.get(word, word) for word in shlex.split(line)))[:2]


def assert_seen(number: int, code: int, summary: dict[str, Any]) -> None:
    wanted = entry(number)
    assert (code, summary["exit_code"]) == (wanted.exit_code, wanted.exit_code), summary
    assert wanted.message.match(summary["message"]), summary["message"]


def test_there_are_ten_and_each_names_a_test_that_exists() -> None:
    ten = entries()
    assert [listed.title.split()[0] for listed in ten] == [str(number) for number in range(1, 11)]
    for listed in ten:
        file, _, name = listed.test.partition("::")
        defined = {node.name for node in ast.parse((ROOT / file).read_text()).body if isinstance(node, ast.FunctionDef)}
        assert name in defined, listed.test
        assert listed.typed, listed.title


def test_1_mlflow_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAVA_HOME", "/nonexistent")  # Spark is not started before the model is known
    sample = sample_catalog.build(tmp_path / "sample")
    away = ["--set", f"mlflow.tracking_uri=http://127.0.0.1:{free_port()}", "--set", "mlflow.timeout_seconds=1"]
    code, summary, _ = run_job("enrich_catalog", "--config", str(sample.file), *away)
    assert (code, summary["error"]) == (4, "TemporaryFailure")
    assert_seen(1, code, summary)


@pytest.mark.slow
def test_2_the_job_before_has_not_ended(sample: SampleCatalog) -> None:
    config = {"CONFIG": str(sample.file)}
    with Catalog(sample.config.path("catalog")).writing():
        assert_seen(2, *run("import_products --config CONFIG", **config))
    (listed, again) = entry(2).typed
    assert run(listed, **config)[1]["listed"] >= 1
    assert run(again, **config)[0] == 0


@pytest.mark.slow
def test_3_the_feed_lacks_a_column(sample: SampleCatalog) -> None:
    rows = [listing(number) for number in range(PRODUCTS)]
    sample.feed([{name: value for name, value in row.items() if name != "category"} for row in rows])
    before = values(sample), len(table(sample, "products"))
    assert_seen(3, *run("import_products --config CONFIG", CONFIG=str(sample.file)))
    assert (values(sample), len(table(sample, "products"))) == before
    sample.feed(rows)  # as the team that delivers it mends it
    assert run(entry(3).typed[0], CONFIG=str(sample.file))[0] == 0


@pytest.mark.slow
def test_4_the_feed_is_much_smaller_than_the_last_one(sample: SampleCatalog) -> None:
    sample.feed([listing(number) for number in range(3)])
    assert_seen(4, *run("import_products --config CONFIG", CONFIG=str(sample.file)))
    code, imported = run(entry(4).typed[0], CONFIG=str(sample.file))
    assert (code, imported["products"]) == (0, 3)


@pytest.mark.slow
def test_5_the_pictures_cannot_be_used(sample: SampleCatalog) -> None:
    sample.feed([listing(number, image=f"gone-{number}.jpg") for number in range(PRODUCTS)])
    assert_seen(5, *run("import_products --config CONFIG", CONFIG=str(sample.file)))
    assert run(entry(5).typed[0], CONFIG=str(sample.file))[0] == 0


@pytest.mark.slow
def test_6_all_certificates_have_expired(
    sample: SampleCatalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    valid = sample_catalog.certificate

    def ended_yesterday(*arguments: Any) -> Any:
        issued = valid(*arguments)
        return replace(
            issued, issued_at=issued.issued_at - timedelta(days=91), expires_at=issued.expires_at - timedelta(days=91)
        )

    with monkeypatch.context() as patch:
        patch.setattr(sample_catalog, "certificate", ended_yesterday)
        version = sample_catalog.register(sample, tmp_path, seed=4)
    sample.promotion.promote(version, expected_current="1")
    assert_seen(6, *run("enrich_catalog --config CONFIG", CONFIG=str(sample.file)))
    go_back = entry(6).typed[-1]
    assert run(go_back, CONFIG=str(sample.file))[1]["model_version"] == "1"
    assert sample.registry.resolve().version == "1"


@pytest.mark.slow
def test_7_the_run_would_change_too_much(sample: SampleCatalog) -> None:
    sample.file.write_text(f"{sample.file.read_text()}\n[enrich]\nmax_changes = 1\n")
    assert_seen(7, *run("enrich_catalog --config CONFIG", CONFIG=str(sample.file)))
    assert not values(sample, "model")
    look, write = entry(7).typed
    code, shown = run(look, CONFIG=str(sample.file))
    assert (code, shown["status"]) == (0, "dry_run")
    assert "more than enrich.max_changes = 1" in shown["would_be_refused"]
    assert run(write, CONFIG=str(sample.file), N="1000")[0] == 0
    assert values(sample, "model")


@contextmanager
def disk(folder: Path, kibibytes: int) -> Iterator[Path]:
    """A file system of this size at ``folder``; skips the test where this process may not mount it."""
    folder.mkdir()
    size = f"size={kibibytes}k"
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", folder], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("only an administrator mounts a small disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@contextmanager
def job(name: str, sample: SampleCatalog, *options: str) -> Iterator[subprocess.Popen[str]]:
    """The job in a process, which is ended with all that it started if it has not ended by itself."""
    command = [sys.executable, str(ROOT / "jobs" / f"{name}.py"), "--config", str(sample.file), *options]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def ended(name: str, sample: SampleCatalog, *options: str) -> tuple[int, dict[str, Any], str]:
    """Exit code, summary and stderr of the job."""
    with job(name, sample, *options) as process:
        output, errors = process.communicate(timeout=600)
        return process.returncode, json.loads(output.splitlines()[-1]), errors


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_9_the_disk_is_full(sample: SampleCatalog, tmp_path: Path) -> None:
    catalog = sample.config.path("catalog")
    used = sum(file.stat().st_size // 1024 + 4 for file in catalog.rglob("*"))
    with disk(tmp_path / "disk", used + 48) as small:
        shutil.copytree(catalog, small, dirs_exist_ok=True)
        there = ("--set", f"catalog.path={small}", "--no-report")
        code, full, _ = ended("enrich_catalog", sample, *there)
        assert_seen(9, code, full)
        subprocess.run(["mount", "-o", "remount,size=200m", small], check=True)
        code, again, errors = ended("enrich_catalog", sample, *there)
        assert (code, again["status"]) == (0, "succeeded"), errors[-2000:]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_10_sparks_jvm_is_killed(sample: SampleCatalog) -> None:
    """As the kernel does when the machine runs out of memory."""
    import psutil

    with job("enrich_catalog", sample, "--no-report") as process:
        assert process.stderr is not None
        for line in process.stderr:
            if re.search(r"INFO .*\bselect\b", line):
                break
        children = psutil.Process(process.pid).children(recursive=True)
        (jvm,) = [child for child in children if child.name() == "java"]
        os.kill(jvm.pid, signal.SIGKILL)
        output, _ = process.communicate(timeout=600)
        assert_seen(10, process.returncode, json.loads(output.splitlines()[-1]))
    code, _, errors = ended("enrich_catalog", sample, "--no-report")
    assert code == 0, errors[-2000:]
    assert values(sample, "model")
