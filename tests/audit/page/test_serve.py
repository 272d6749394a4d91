"""serve_audit as a program: address, token, exit codes, and that stopping it prints the summary."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from catalog_enrichment.audit.page.serve import Listen, bound, store_path
from catalog_enrichment.audit.review_store import ReviewStore
from catalog_enrichment.config.schema import Config
from catalog_enrichment.errors import ConfigError, TemporaryFailure

from ..review_samples import item, sample
from ..review_server import Client

ROOT = Path(__file__).parents[3]


def _start(config: Config, *options: str, **environment: str) -> subprocess.Popen[str]:
    job = [sys.executable, str(ROOT / "jobs" / "serve_audit.py"), "--config", str(Path(config.root) / "config.toml")]
    given = os.environ | environment
    return subprocess.Popen([*job, "--port", "0", *options], stdout=-1, stderr=-1, text=True, env=given)


def _stop(process: subprocess.Popen[str]) -> tuple[dict[str, Any], str]:
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    summary: dict[str, Any] = json.loads(out.splitlines()[-1])
    return summary, err


def test_the_job_serves_until_it_is_stopped_and_asks_for_a_token_elsewhere(site_config: Config, tmp_path: Path) -> None:
    file = tmp_path / "reviews.sqlite"
    with ReviewStore(file) as store:
        store.add_sample(sample(), [item(1)])
    process = _start(site_config, "--store", str(file), "--host", "0.0.0.0")
    assert process.stderr is not None
    lines: list[str] = []
    while not any("review page" in line for line in lines):
        lines.append(process.stderr.readline())
        assert lines[-1], "".join(lines)
    text = "".join(lines)
    (port,), (token,) = re.findall(r"http://0\.0\.0\.0:(\d+)/", text), re.findall(r"only here: (\S+)", text)
    client = Client(int(port), "Ana")
    assert client.refused("GET", "/api/samples")[0] == 401
    known = Client(int(port), "Ana", {"Authorization": f"Bearer {token}"})
    known.post("/api/verdicts", {"item_id": item(1).item_id, "answer": "yes"})
    summary, _ = _stop(process)
    assert (summary["job"], summary["status"], summary["samples"]) == ("serve_audit", "stopped", ["s1"])
    assert token not in json.dumps(summary)
    with ReviewStore(file) as store:
        assert store.progress("s1", "Ana").mine == 1


def test_an_address_that_is_taken_or_is_none() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(TemporaryFailure, match=f"port {port}.*Another program has it"):
            bound(Listen(port=port))
    with pytest.raises(ConfigError, match=r"cannot listen on nosuch\.invalid"):
        bound(Listen(host="nosuch.invalid", port=0))
    with pytest.raises(ConfigError, match="--port must lie in"):
        bound(Listen(port=70_000))


def test_the_store_is_in_the_configs_root_unless_another_is_named(site_config: Config, tmp_path: Path) -> None:
    assert store_path(site_config, None) == Path(site_config.root).resolve() / "review.sqlite"
    assert store_path(site_config, str(tmp_path / "x.sqlite")) == tmp_path / "x.sqlite"
