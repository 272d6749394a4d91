"""A refusal before a run takes the write lock has a row in `runs`."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from catalog_enrichment import cli
from catalog_enrichment.catalog.lake import Catalog
from catalog_enrichment.errors import GateRefused

from .sample_catalog import SampleCatalog, build, table


@pytest.fixture
def untrained(tmp_path: Path) -> SampleCatalog:
    """A catalog that is empty and has no model, without Spark."""
    sample = build(tmp_path / "sample")
    sample.config.path("catalog").mkdir()
    return sample


def statuses(sample: SampleCatalog) -> list[tuple[str, str]]:
    return [(row["kind"], row["status"]) for row in table(sample, "runs")]


@pytest.mark.parametrize("kind", ["enrich", "backfill"])
def test_a_run_without_a_champion_leaves_a_row(
    kind: str, untrained: SampleCatalog, capsys: pytest.CaptureFixture[str]
) -> None:
    job = {"enrich": cli.enrich_catalog, "backfill": cli.backfill}[kind]
    config = ["--config", str(untrained.file), "--set", "mlflow.artifact_path=https://user:hunter2@store/x"]
    for arguments in ([], ["--dry-run"], *([["--estimate"]] if kind == "backfill" else [])):
        assert job([*config, *arguments]) == 2
    [row] = table(untrained, "runs")
    assert (row["kind"], row["status"]) == (kind, "failed")
    assert "there is no champion to score with. Next: train_model --config " in row["error"]
    assert "hunter2" not in row["error"] + capsys.readouterr().out
    assert json.loads(row["config"])["mlflow"]["artifact_path"] == "https://***@store/x"
    assert job([*config]) == 2
    assert statuses(untrained) == [(kind, "failed")] * 2


@pytest.mark.parametrize("held", [False, True])
def test_a_run_whose_certificates_have_expired_leaves_a_row_unless_another_job_writes(
    held: bool, untrained: SampleCatalog, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def expired(*_: Any) -> None:
        raise GateRefused("all certificates have expired")

    monkeypatch.setattr("catalog_enrichment.cli.import_and_enrich._resolve_model", expired)
    with Catalog(untrained.config.path("catalog")).writing() if held else nullcontext():
        assert cli.enrich_catalog(["--config", str(untrained.file)]) == 3
    assert "all certificates have expired" in capsys.readouterr().out
    assert statuses(untrained) == ([] if held else [("enrich", "refused")])


@pytest.mark.parametrize("arguments", [[], ["--set", "catalog.dictionary=nosuch.json"]])
def test_a_refusal_makes_no_catalog_where_there_is_none(arguments: list[str], untrained: SampleCatalog) -> None:
    untrained.config.path("catalog").rmdir()
    assert cli.enrich_catalog(["--config", str(untrained.file), *arguments]) == 2
    assert not untrained.config.path("catalog").exists()


def test_a_config_that_cannot_be_used_leaves_no_row(untrained: SampleCatalog) -> None:
    assert cli.enrich_catalog(["--config", str(untrained.file), "--set", "catalog.dictionary=nosuch.json"]) == 2
    assert table(untrained, "runs") == []
