"""The metrics of jobs: as text files, as a real push, and after real jobs."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from catalog_enrichment.config.load import load_config
from catalog_enrichment.config.schema import Config
from catalog_enrichment.monitoring import after_job, metrics
from catalog_enrichment.monitoring.outcome import Outcome

from ..sample_certificate import abstention, certificate

SUMMARY = {
    "status": "succeeded",
    "run_id": "enrich-1",
    "products": 10,
    "predicted": 7,
    "skipped": 1,
    "quarantined": {"empty_title": 2},
    "unusable_images": {"no_image": 3},
    "waiting": {"color": 4},
    "seconds": {"score": 2.5},
    "attributes": {
        "color": {
            "written": 5, "suggested": 1, "abstained": 1, "retracted": 0,
            "coverage_before": 0.25, "coverage_after": 0.75,
        }
    },
}  # fmt: skip
RUN = {"attributes": {"certificates": [certificate().to_dict(), abstention(attribute="material").to_dict()]}}


@pytest.fixture
def config(tmp_path: Path) -> Config:
    overrides = [f"root='{tmp_path}'", "metrics.folder=prom", "metrics.catalog=my shop"]
    return load_config("config:demo.toml", overrides)


def outcome(code: int = 0, at: float = 1000.0, **summary: Any) -> Outcome:
    return Outcome("enrich_catalog", code, SUMMARY | summary, at - 100, at, RUN)


def read(folder: Path) -> dict[tuple[str, ...], float]:
    """(name without the prefix, label values besides catalog and program) -> value."""
    found = {}
    for file in folder.iterdir():
        for family in text_string_to_metric_families(file.read_text()):
            for one in family.samples:
                labels = dict(one.labels)
                assert (labels.pop("catalog"), labels.pop("program")) == ("my shop", "enrich_catalog")
                found[(one.name.removeprefix(metrics.PREFIX), *labels.values())] = one.value
    return found


def test_a_runs_numbers(config: Config) -> None:
    metrics.write(config, outcome())
    folder = config.path("prom")
    assert [file.name for file in folder.iterdir()] == ["catalog_enrichment_my_shop_enrich_catalog.prom"]
    one = certificate()
    assert read(folder) == {
        ("last_finished_timestamp_seconds",): 1000,
        ("last_success_timestamp_seconds",): 1000,
        ("last_exit_code",): 0,
        ("last_duration_seconds",): 100,
        ("stage_seconds", "score"): 2.5,
        ("products", "all"): 10,
        ("products", "predicted"): 7,
        ("products", "skipped"): 1,
        ("products", "quarantined"): 2,
        ("quarantined", "empty_title"): 2,
        ("unusable_images", "no_image"): 3,
        ("waiting_values", "color"): 4,
        ("values", "color", "written"): 5,
        ("values", "color", "suggested"): 1,
        ("values", "color", "abstained"): 1,
        ("values", "color", "retracted"): 0,
        ("coverage_ratio", "color"): 0.75,
        ("certificate_expiry_timestamp_seconds", one.attribute, one.modality.value, one.numeric_path): (
            one.expires_at.timestamp()
        ),
    }


def test_the_file_is_readable_by_others_and_replaced_whole(config: Config) -> None:
    before = os.umask(0o077)  # as where a job's user keeps its files to itself
    try:
        metrics.write(config, outcome())
    finally:
        os.umask(before)
    (file,) = config.path("prom").iterdir()
    assert file.stat().st_mode & 0o777 == 0o644
    inode = file.stat().st_ino
    metrics.write(config, outcome())
    assert file.stat().st_ino != inode  # renamed over it: a reader never sees half a file


def test_a_failed_attempt_keeps_what_it_does_not_know_about_the_catalog(config: Config) -> None:
    metrics.write(config, outcome())
    failed = Outcome("enrich_catalog", 4, {"status": "error", "error": "TemporaryFailure"}, 2000, 2010)
    metrics.write(config, failed)
    found = read(config.path("prom"))
    assert found[("last_exit_code",)] == 4
    assert found[("last_success_timestamp_seconds",)] == 1000
    assert found[("last_finished_timestamp_seconds",)] == 2010
    assert found[("coverage_ratio", "color")] == 0.75
    assert any(name == "certificate_expiry_timestamp_seconds" for name, *_ in found)
    assert not any(name in ("products", "values", "stage_seconds", "quarantined") for name, *_ in found)


def test_attributes_that_are_gone_are_not_kept_once_a_run_knows_better(config: Config) -> None:
    metrics.write(config, outcome())
    metrics.write(config, outcome(attributes={"material": {"coverage_after": 0.5}}))
    found = read(config.path("prom"))
    assert {key for key in found if key[0] == "coverage_ratio"} == {("coverage_ratio", "material")}


def test_an_audit_has_its_alarms(config: Config) -> None:
    audited = {
        "color": {"verdicts": 50, "wrong": 10, "alarm": True},
        "size": {"verdicts": 0, "wrong": 0, "alarm": False},
    }
    metrics.write(config, outcome(3, attributes=audited))
    found = read(config.path("prom"))
    assert (found[("audit_alarm", "color")], found[("audit_alarm", "size")]) == (1, 0)
    assert found[("audit_wrong_ratio", "color")] == 0.2
    assert ("audit_wrong_ratio", "size") not in found


def test_a_damaged_file_of_an_earlier_attempt_is_replaced(config: Config) -> None:
    metrics.write(config, outcome())
    (file,) = config.path("prom").iterdir()
    file.write_text('catalog_enrichment_coverage_ratio{attribute="color" 0.5\n')
    metrics.write(config, outcome())
    assert read(config.path("prom"))[("coverage_ratio", "color")] == 0.75


@pytest.fixture
def gateway() -> Iterator[tuple[str, list[tuple[str, str, str]]]]:
    """A server that takes pushes: its URL, and (method, path, body) of what it got."""
    got: list[tuple[str, str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            got.append((self.command, self.path, body))
            self.send_response(500 if "refuse" in self.path else 200)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", got
        server.shutdown()


def with_metrics(config: Config, **settings: Any) -> Config:
    return replace(config, metrics=replace(config.metrics, **settings))


def test_a_push_adds_to_the_group_of_catalog_and_job(
    config: Config, gateway: tuple[str, list[tuple[str, str, str]]]
) -> None:
    url, got = gateway
    metrics.push(with_metrics(config, push_url=url, catalog="shop"), outcome())
    ((method, path, body),) = got
    assert (method, path) == ("POST", "/metrics/job/catalog_enrichment/catalog/shop/program/enrich_catalog")
    assert 'coverage_ratio{attribute="color",catalog="shop",program="enrich_catalog"} 0.75' in body


def test_what_cannot_be_told_is_a_warning(config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "token=hunter22").touch()
    config = with_metrics(config, folder="token=hunter22", push_url="http://user:hunter22@127.0.0.1:9")
    after_job.report(config, outcome())
    first, second = [line for line in capsys.readouterr().err.splitlines() if "table runs" not in line]
    assert first.startswith("warning: metrics: nothing was told to others: FileExistsError")
    assert second.startswith("warning: metrics: nothing was told to others: URLError")
    assert "hunter22" not in first + second


@pytest.mark.parametrize(
    ("job", "status"), [("list_runs", "succeeded"), ("enrich_catalog", "dry_run"), ("backfill", "estimate")]
)
def test_jobs_that_only_look_leave_the_metrics_alone(config: Config, job: str, status: str) -> None:
    after_job.report(config, replace(outcome(status=status), job=job))
    assert not config.path("prom").exists()


def test_a_jobs_main_writes_them_also_when_it_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from catalog_enrichment import cli

    options = ["--config", "config:demo.toml", "--set", f"root='{tmp_path}'", "--set", "metrics.folder=prom"]
    assert cli.enrich_catalog(options) == 2
    assert json.loads(capsys.readouterr().out)["exit_code"] == 2
    (file,) = (tmp_path / "prom").iterdir()
    assert 'last_exit_code{catalog="demo-enrichment",program="enrich_catalog"} 2.0' in file.read_text()
    assert "last_success" not in file.read_text()


def test_a_store_that_does_not_answer_after_the_job_is_a_warning(
    config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    storage = {
        "aws_endpoint": "http://127.0.0.1:9", "allow_http": "true", "aws_region": "x", "aws_access_key_id": "k",
        "aws_secret_access_key": "s",
    }  # fmt: skip
    away = replace(config, catalog=replace(config.catalog, path="s3://catalogs/x", storage=storage))
    after_job.report(away, outcome())
    assert "the row of enrich-1 in the table runs cannot be read" in capsys.readouterr().err
    assert list((tmp_path / "prom").iterdir()), "what the summary says is told all the same"
