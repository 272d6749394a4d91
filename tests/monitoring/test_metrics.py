"""The metrics of jobs: as text files, as a real push, and after real jobs."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from catalog_enrichment import cli
from catalog_enrichment.config.load import load_config
from catalog_enrichment.config.schema import Config
from catalog_enrichment.monitoring import after_job, metrics
from catalog_enrichment.monitoring.metrics import Outcome

from ..sample_certificate import abstention, certificate
from .conftest import Listener

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
            for sample in family.samples:
                labels = dict(sample.labels)
                assert (labels.pop("catalog"), labels.pop("program")) == ("my shop", "enrich_catalog")
                found[(sample.name.removeprefix(metrics.PREFIX), *labels.values())] = sample.value
    return found


def test_a_runs_numbers(config: Config) -> None:
    metrics.write(config, outcome())
    folder = config.path("prom")
    assert [file.name for file in folder.iterdir()] == ["catalog_enrichment_my_shop_enrich_catalog.prom"]
    certified = certificate()
    labels = (certified.attribute, certified.modality.value, certified.compute_type)
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
        ("waiting_values", "material"): 0,
        ("waiting_values", "country_of_origin"): 0,
        ("values", "color", "written"): 5,
        ("values", "color", "suggested"): 1,
        ("values", "color", "abstained"): 1,
        ("values", "color", "retracted"): 0,
        ("coverage_ratio", "color"): 0.75,
        ("certificate_expiry_timestamp_seconds", *labels): certified.expires_at.timestamp(),
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


def of(name: str, config: Config) -> dict[str, float]:
    """Attribute -> value of the metric."""
    return {key[1]: value for key, value in read(config.path("prom")).items() if key[0] == name}


def test_a_run_that_decides_some_attributes_keeps_what_is_known_of_the_others(config: Config) -> None:
    metrics.write(config, outcome(attributes={"color": {"coverage_after": 0.75}, "size": {"coverage_after": 0.1}}))
    without = replace(outcome(attributes={"material": {"coverage_after": 0.5}}), run={})
    metrics.write(config, without)
    assert of("coverage_ratio", config) == {"color": 0.75, "material": 0.5}, "the dictionary has no size"
    assert set(of("certificate_expiry_timestamp_seconds", config)) == {"color"}


def test_a_runs_row_has_the_coverage_of_every_attribute(config: Config) -> None:
    metrics.write(config, outcome())
    counts = {"color": {"applicable": 8, "merchant": 1, "model": 1, "human": 2}, "country_of_origin": {}}
    covered = RUN | {"attributes": RUN["attributes"] | {"coverage": {"counts": counts}}}
    metrics.write(config, replace(outcome(attributes={"color": {"coverage_after": 0.5}}), run=covered))
    assert of("coverage_ratio", config) == {"color": 0.5, "country_of_origin": 0}
    metrics.write(config, outcome(attributes={"material": {"coverage_after": 0.5}}))
    metrics.write(config, replace(outcome(attributes={}), run=covered))
    assert "material" not in of("coverage_ratio", config)


def test_expiries_are_those_of_the_runs_model_and_of_enabled_attributes(config: Config) -> None:
    """A night that decides a single attribute has the certificates of all; a model without certificates ends them."""
    cases = {("color", "material", "size"): {"color", "material"}, ("material",): {"material"}, (): set()}
    for attributes, expected in cases.items():
        certificates = [certificate(attribute=name).to_dict() for name in attributes]
        metrics.write(config, replace(outcome(), run={"attributes": {"certificates": certificates}}))
        assert set(of("certificate_expiry_timestamp_seconds", config)) == expected


def test_values_that_waited_count_as_0_when_none_waits(config: Config) -> None:
    metrics.write(config, outcome())
    metrics.write(config, replace(outcome(status="nothing_to_do", attributes={}, waiting={}), run={}))
    assert of("waiting_values", config) == {"color": 0, "material": 0, "country_of_origin": 0}
    metrics.write(config, outcome(attributes={"size": {}}, waiting={"color": 2}))
    assert of("waiting_values", config) == {"color": 2, "material": 0, "country_of_origin": 0, "size": 0}


def test_an_alarm_ends_when_the_audit_has_no_verdict_any_more(config: Config) -> None:
    """After recertify_model only verdicts of newer samples count: the first morning has no verdicts."""
    alarm = {"color": {"verdicts": 50, "wrong": 10, "alarm": True}}
    audited = replace(outcome(3, attributes=alarm), job="audit_ingest", run={})
    metrics.write(config, audited)
    metrics.write(config, Outcome("audit_ingest", 4, {"status": "error"}, 1000, 1010))
    (file,) = config.path("prom").iterdir()
    assert re.search(r'audit_alarm\{attribute="color",.*\} 1\.0', file.read_text())
    metrics.write(config, replace(audited, exit_code=0, summary=SUMMARY | {"attributes": {}}))
    assert re.search(r'audit_alarm\{attribute="color",.*\} 0\.0', file.read_text())
    assert "audit_wrong_ratio" not in file.read_text()


def test_an_audit_has_its_alarms(config: Config) -> None:
    alarm = {"verdicts": 50, "wrong": 10, "alarm": True}
    metrics.write(config, outcome(3, attributes={"color": alarm, "size": {"verdicts": 0, "wrong": 0, "alarm": False}}))
    assert of("audit_alarm", config) == {"color": 1, "size": 0}
    assert of("audit_wrong_ratio", config) == {"color": 0.2}


def test_a_damaged_file_of_an_earlier_attempt_is_replaced(config: Config) -> None:
    metrics.write(config, outcome())
    (file,) = config.path("prom").iterdir()
    file.write_text('catalog_enrichment_coverage_ratio{attribute="color" 0.5\n')
    metrics.write(config, outcome())
    assert read(config.path("prom"))[("coverage_ratio", "color")] == 0.75


def with_metrics(config: Config, **settings: Any) -> Config:
    return replace(config, metrics=replace(config.metrics, **settings))


def test_a_push_adds_to_the_group_of_catalog_and_job(config: Config, listener: Listener) -> None:
    metrics.push(with_metrics(config, push_url=listener.url, catalog="shop"), outcome())
    ((path, body),) = listener.got
    assert path == "/metrics/job/catalog_enrichment/catalog/shop/program/enrich_catalog"
    assert 'coverage_ratio{attribute="color",catalog="shop",program="enrich_catalog"} 0.75' in body


def test_what_cannot_be_told_is_a_warning(config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "token=hunter22").touch()
    config = with_metrics(config, folder="token=hunter22", push_url="http://user:hunter22@127.0.0.1:9")
    after_job.report(config, outcome())
    first, second = [line for line in capsys.readouterr().err.splitlines() if "table runs" not in line]
    assert first.startswith("warning: metrics: nothing was told to others: FileExistsError")
    assert second.startswith("warning: metrics: nothing was told to others: URLError")
    assert "hunter22" not in first + second


@pytest.mark.parametrize("job", ["compare_runs", "list_empty", "list_runs", "explain_value"])
def test_jobs_that_only_look_leave_the_metrics_alone(config: Config, job: str) -> None:
    after_job.report(config, replace(outcome(), job=job))
    assert not config.path("prom").exists()


def settings(folder: Path) -> list[str]:
    return ["--config", "config:demo.toml", "--set", f"root='{folder}'", "--set", "metrics.folder=prom"]


@pytest.mark.parametrize(
    ("job", "options"),
    [
        ("enrich_catalog", ["--dry-run"]),
        ("backfill", ["--estimate"]),
        ("rollback_run", ["--run-id", "none", "--dry-run"]),
    ],
)
def test_a_job_that_was_only_asked_leaves_them_alone_also_where_it_is_refused(
    tmp_path: Path, job: str, options: list[str]
) -> None:
    """A person looks, and the night's numbers stay."""
    assert getattr(cli, job)([*settings(tmp_path), "--set", "catalog.dictionary=no", *options]) == 2
    assert not (tmp_path / "prom").exists()


def test_a_jobs_main_writes_them_also_when_it_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.enrich_catalog(settings(tmp_path)) == 2
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
