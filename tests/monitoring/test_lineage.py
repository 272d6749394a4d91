"""Lineage events: what is in them, in a file and at a real endpoint."""

from __future__ import annotations

import json
import tomllib
import uuid
from contextlib import nullcontext
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest

from catalog_enrichment import contract
from catalog_enrichment.config.load import load_config
from catalog_enrichment.config.proposer import ProposalsConfig
from catalog_enrichment.config.schema import Config
from catalog_enrichment.monitoring import lineage
from catalog_enrichment.monitoring.metrics import Outcome

from .conftest import Listener

ROOT = Path(__file__).parents[2]
ENDED = Outcome(
    "enrich_catalog", 0, {"status": "succeeded", "run_id": "enrich-1", "model_version": "3"}, 1000, 1100,
    {"model_name": "shop"},
)  # fmt: skip


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return load_config("config:demo.toml", [f"root='{tmp_path}'", "lineage.file=events/lineage.jsonl"])


def names_of(job: str) -> list[str]:
    return list(lineage.TABLES[job][1])


def names(datasets: list[dict[str, str]]) -> list[str]:
    assert {dataset["namespace"] for dataset in datasets} <= {"file"}
    return [Path(dataset["name"]).name for dataset in datasets]


def test_a_run_names_its_tables_model_and_run_id(config: Config) -> None:
    event = lineage.event(config, ENDED)
    assert event["eventType"] == "COMPLETE"
    assert datetime.fromisoformat(event["eventTime"]).timestamp() == 1100
    assert event["job"] == {"namespace": "catalog-enrichment", "name": "enrich_catalog"}
    assert names(event["inputs"]) == [
        *("products", "attribute_values", "predictions", "switches", "audits", "verdicts", "confirmations", "renames"),
        "proposals",
    ]
    written = ["predictions", "attribute_values", "current_values", "quarantine", "switches", "renames"]
    assert names(event["outputs"]) == written
    assert event["inputs"][0]["name"] == str(config.path(config.catalog.path) / "products")
    facet = event["run"]["facets"]["catalogEnrichment"]
    facts = [facet[name] for name in ("runId", "modelName", "modelVersion", "exitCode")]
    assert facts == ["enrich-1", "shop", "3", 0]
    assert facet["_schemaURL"].startswith("https://")
    assert "errorMessage" not in event["run"]["facets"]


def test_an_attempt_keeps_its_id_and_another_attempt_has_another_id(config: Config) -> None:
    attempts = (ENDED, ENDED, replace(ENDED, started_at=1001))
    ids = [lineage.event(config, attempt)["run"]["runId"] for attempt in attempts]
    assert ids[0] == ids[1] != ids[2]
    assert uuid.UUID(ids[0]).version == 5


def test_a_failed_attempt_says_why(config: Config) -> None:
    summary = {"status": "refused", "error": "ConfigError", "message": "no such file", "run_id": "enrich-1"}
    event = lineage.event(config, replace(ENDED, exit_code=2, summary=summary))
    assert (event["eventType"], event["outputs"]) == ("FAIL", [])
    assert event["run"]["facets"]["errorMessage"]["message"] == "ConfigError: no such file"


def test_an_import_names_its_feed_and_object_stores_have_their_own_namespace(config: Config) -> None:
    assert config.source is not None
    source = replace(config.source, path="s3://feeds/shop/products")
    event = lineage.event(replace(config, source=source), replace(ENDED, job="import_products"))
    assert event["inputs"][0] == {"namespace": "s3://feeds", "name": "shop/products"}
    answers = ProposalsConfig(format="csv", path="s3://feeds/answers", name="llm", version="1", content_hash="hash")
    event = lineage.event(replace(config, proposals=answers), replace(ENDED, job="import_proposals"))
    assert event["inputs"][0] == {"namespace": "s3://feeds", "name": "answers"}


def test_every_table_but_runs_is_named_as_written_and_as_read() -> None:
    reads, writes = ({table for of_job in lineage.TABLES.values() for table in of_job[side]} for side in (0, 1))
    assert writes == set(contract.TABLES) - {"runs"}
    assert reads == writes


def test_every_job_that_reads_or_writes_values_names_its_tables() -> None:
    jobs = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"])
    only_print = {"compare_runs", "explain_value", "list_empty", "list_runs", "delivery_status"}
    outside_the_tables = {"init_project", "promote_model", "maintain_catalog", "serve_audit", "label_studio"}
    assert set(lineage.TABLES) == jobs - only_print - outside_the_tables
    assert all(reads or writes for reads, writes in lineage.TABLES.values())


@pytest.mark.parametrize(
    ("job", "exit_code", "status", "run", "wrote"),
    [
        ("train_model", 0, "succeeded", {}, ["label_uses"]),  # its summary has no run id
        ("set_switch", 0, "succeeded", {}, ["switches"]),
        ("set_switch", 0, "nothing_to_do", {}, []),
        ("audit_ingest", 3, "refused", {"status": "succeeded"}, names_of("audit_ingest")),
        ("enrich_catalog", 3, "refused", {"status": "refused"}, []),
        ("enrich_catalog", 3, "refused", {}, []),
    ],
)
def test_what_was_written_is_named_also_where_an_alarm_ended_the_job(
    config: Config, job: str, exit_code: int, status: str, run: dict[str, str], wrote: list[str]
) -> None:
    """An audit's alarm and drift end a job with 3 after its run has been written."""
    outcome = Outcome(job, exit_code, {"status": status, "run_id": "r-1" if run else None}, 1000, 1100, run)
    assert names(lineage.event(config, outcome)["outputs"]) == wrote


def test_events_are_added_to_the_file_one_line_each(config: Config) -> None:
    lineage.write(config, ENDED)
    lineage.write(config, ENDED)
    first, second = config.path("events/lineage.jsonl").read_text().splitlines()
    assert json.loads(first) == json.loads(second) == lineage.event(config, ENDED)


@pytest.mark.parametrize("status", [201, 400])
def test_events_are_posted_and_a_refusal_is_an_error(config: Config, listener: Listener, status: int) -> None:
    listener.status = status
    posting = replace(config, lineage=replace(config.lineage, url=f"{listener.url}/api/v1/lineage"))
    with nullcontext() if status == 201 else pytest.raises(OSError, match="answered 400: why"):
        lineage.post(posting, ENDED)
    ((path, body),) = listener.got
    assert (path, json.loads(body)) == ("/api/v1/lineage", lineage.event(config, ENDED))
