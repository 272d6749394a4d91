"""What list_runs tells of each kind of run. Without Spark."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from catalog_enrichment import cli
from catalog_enrichment.catalog.lake import Catalog
from catalog_enrichment.errors import ConfigError
from catalog_enrichment.operations import run_list

from ..catalog.catalog_rows import START, run_row
from ..sample_catalog import build


def decided(**written: int) -> str:
    """The column `attributes` of an enrichment: attribute -> written; a value of each is retracted."""
    return json.dumps({"decisions": {name: {"written": n, "retracted": 1} for name, n in written.items()}})


def ended(run_id: str, minute: int, kind: str, **given: Any) -> dict[str, Any]:
    at = {"started_at": START + timedelta(minutes=minute), "finished_at": START + timedelta(minutes=minute, seconds=75)}
    return run_row(run_id, kind=kind, **{"attempt": 1} | at | given)


RUNS = [
    ended("import-1", 0, "import",
          counts={"products": 9, "new": 7, "changed": 2, "gone": 1, "quarantined.empty_title": 1,
                  "quarantined.missing_id": 2}),
    ended("enrich-1", 1, "enrich", status="refused", error="GateRefused: over the cap\nsecond line",
          attributes=decided(color=5)),
    ended("enrich-1", 2, "enrich", attempt=2, model_name="m", model_version="3", counts={"products": 1234},
          attributes=decided(color=5, material=6)),
    ended("enrich-2", 3, "enrich", parent_run_id="backfill-1", attributes=decided(color=1)),
    ended("enrich-3", 4, "enrich", parent_run_id="backfill-1", status="failed", error="E: " + "x" * 200,
          attributes=decided(color=100)),
    ended("enrich-3", 5, "enrich", attempt=2, parent_run_id="backfill-1", attributes=decided(color=2)),
    ended("backfill-1", 6, "backfill", counts={"products": 20}),
    ended("rollback-1", 7, "rollback", parent_run_id="enrich-1", counts={"events.color": 3, "events.x": 4},
          window='{"run_id": "enrich-1", "attribute": "color"}'),
    ended("maintain-1", 8, "maintain", counts={"rows_removed": 1000, "files_deleted": 2}),
    ended("audit-1", -3, "audit", counts={"verdicts": 1276, "wrong": 3, "retracted": 2, "confirmed": 1, "paused": 0}),
    ended("sample-1", -4, "sample", counts={"drawn.color.uniform": 1200, "drawn.color.near_threshold": 18}),
    ended("other-1", -1, "other", counts={"events.x": 1, "events.color": 2, "events": 9}),
    ended("enrich-4", 9, "enrich", attributes=None, finished_at=START - timedelta(days=1)),
]  # fmt: skip


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    lake = Catalog(tmp_path / "catalog")
    for number in (5, 0, 3, 1, 12, 10, 11, 9, 4, 2, 8, 7, 6):  # files are read in another order than that of the runs
        lake.append_rows("runs", [RUNS[number]], f"test-{number}")
    return lake


def test_the_newest_attempts_are_told_newest_first(catalog: Catalog) -> None:
    told = run_list.list_runs(catalog, last=100)
    names = ("run_id", "attempt", "status", "products", "written", "retracted", "note")
    assert [tuple(run[name] for name in names) for run in told] == [
        ("maintain-1", 1, "succeeded", None, None, None, "1,000 rows and 2 files removed"),
        ("rollback-1", 1, "succeeded", None, None, None, "undoes color of enrich-1: 7 events"),
        ("backfill-1", 1, "succeeded", 20, 3, 2, "2 chunks"),
        ("enrich-3", 2, "succeeded", None, 2, 1, "chunk of backfill-1"),
        ("enrich-3", 1, "failed", None, None, None, ""),
        ("enrich-2", 1, "succeeded", None, 1, 1, "chunk of backfill-1"),
        ("enrich-1", 2, "succeeded", 1234, 11, 2, ""),
        ("enrich-1", 1, "refused", None, None, None, ""),
        ("import-1", 1, "succeeded", 9, None, None, "7 new, 2 changed, 3 quarantined, 1 gone"),
        ("other-1", 1, "succeeded", None, None, None, "color: 2 events, x: 1 events"),
        ("audit-1", 1, "succeeded", None, None, None, "1,276 verdicts, 3 wrong, 2 retracted, 1 confirmed"),
        ("sample-1", 1, "succeeded", None, None, None, "1,218 drawn"),
        ("enrich-4", 1, "succeeded", None, 0, 0, ""),
    ]
    assert [run["seconds"] for run in told] == [75.0] * 12 + [0.0]  # a clock was set back
    assert told[7]["error"] == "GateRefused: over the cap\nsecond line"
    assert (told[6]["model_name"], told[6]["model_version"]) == ("m", "3")
    assert told[0]["started_at"] == "2026-03-29T01:38:00.123456+00:00"
    assert json.loads(json.dumps(told)) == told


def test_the_last_runs_of_a_kind_and_status(catalog: Catalog) -> None:
    def ids(last: int, **only: Any) -> list[str]:
        return [run["run_id"] for run in run_list.list_runs(catalog, last, **only)]

    assert ids(2) == ["maintain-1", "rollback-1"]
    assert ids(0) == []
    assert ids(2, kinds=["enrich"]) == ["enrich-3", "enrich-3"]
    assert ids(9, statuses=["refused", "failed"]) == ["enrich-3", "enrich-1"]
    assert ids(9, kinds=["enrich", "import"], statuses=["refused"]) == ["enrich-1"]


def test_the_table_has_a_line_per_attempt_with_a_short_note(catalog: Catalog) -> None:
    heading, _, *lines = run_list.as_table(run_list.list_runs(catalog, last=9)).splitlines()
    columns = "run kind status started (UTC) h:mm:ss model products written retracted note"
    assert " ".join(heading.split()) == columns
    assert " ".join(lines[6].split()) == "enrich-1 #2 enrich succeeded 2026-03-29 01:32 0:01:15 3 1,234 11 2"
    assert lines[7].endswith("  GateRefused: over the cap")
    assert lines[4].endswith("  E: " + "x" * (run_list.NOTE_CHARACTERS - 4) + "…")
    assert len(run_list.as_table([]).splitlines()) == 2


def test_without_a_catalog_there_is_a_message(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no runs in .*nosuch/runs.*catalog\.path"):
        run_list.list_runs(Catalog(tmp_path / "nosuch"), last=1)
    assert not (tmp_path / "nosuch").exists()


def test_the_job_prints_a_table_or_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sample = build(tmp_path / "sample")
    lake = Catalog(sample.config.path("catalog"))
    lake.append_rows("runs", RUNS[:3], "test")
    assert cli.list_runs(["--config", str(sample.file), "--last", "2", "--kind", "enrich"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out) == {"job": "list_runs", "status": "succeeded", "listed": 2, "exit_code": 0}
    assert "enrich-1 #2" in printed.err
    assert cli.list_runs(["--config", str(sample.file), "--status", "refused", "--json"]) == 0
    printed = capsys.readouterr()
    assert [run["run_id"] for run in json.loads(printed.out)["attempts"]] == ["enrich-1"]
    assert printed.err == ""
