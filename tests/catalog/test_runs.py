from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from catalog_enrichment import contract
from catalog_enrichment.catalog import runs
from catalog_enrichment.catalog.lake import Catalog
from catalog_enrichment.catalog.runs import RunRecord
from catalog_enrichment.config.load import load_config
from catalog_enrichment.errors import DataContractError, GateRefused
from catalog_enrichment.monitoring.stages import Stages
from catalog_enrichment.records import RunKind

from ..clock import set_back
from ..sample_catalog import build
from .catalog_rows import frame, prediction

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def record(run_id: str = "enrich-1", **fields: Any) -> RunRecord:
    return RunRecord(kind=RunKind.ENRICH, run_id=run_id, stages=Stages(say=lambda _: None), **fields)


def rows(catalog: Catalog) -> list[dict[str, Any]]:
    found = [row for batch in catalog.scan("runs") for row in batch.to_pylist()]
    return sorted(found, key=lambda row: (row["run_id"], row["attempt"]))


def test_a_succeeded_run_has_one_row_with_all_that_its_record_says(catalog: Catalog) -> None:
    done = record(model_name="m", model_version="3", window={"categories": ["A"]}, config={"root": "."})
    done.count(products=5, quarantined={"empty_title": 1, "missing_id": 2}, skipped={})
    done.attributes, done.validation = {"decisions": {}}, {"success": True}
    with done.stages("score") as stage:
        stage.rows_in, stage.note = 5, "a note"
    runs.write(catalog, done)
    runs.write(catalog, done)
    [row] = rows(catalog)
    assert (row["run_id"], row["attempt"], row["status"], row["error"]) == ("enrich-1", 1, "succeeded", None)
    assert dict(row["counts"]) == {"products": 5, "quarantined.empty_title": 1, "quarantined.missing_id": 2}
    assert [(s["name"], s["rows_in"], s["note"]) for s in row["stages"]] == [("score", 5, "a note")]
    assert dict(row["seconds"]) == {"score": row["stages"][0]["seconds"]}
    assert (row["window"], row["attributes"]) == ('{"categories": ["A"]}', '{"decisions": {}}')
    assert (row["config"], row["validation"]) == ('{"root": "."}', '{"success": true}')
    assert row["started_at"] <= row["finished_at"] <= datetime.now(UTC)


def test_counts_of_a_mapping_are_found_by_reason_and_sorted() -> None:
    counted = record()
    counted.count(skipped={"opted_out": 2, "already_scored": 1}, skipped_total=3, predicted=4)
    assert list(counted.by_reason("skipped").items()) == [("already_scored", 1), ("opted_out", 2)]
    assert counted.by_reason("quarantined") == {}
    counted.count(predicted=5)
    assert counted.counts["predicted"] == 5


def test_refused_and_failed_attempts_have_rows_and_readers_see_the_succeeded_one(catalog: Catalog) -> None:
    from pyspark.sql import functions as F

    with pytest.raises(GateRefused), runs.recorded(catalog, record()):
        raise GateRefused("over the cap")
    with pytest.raises(DataContractError), runs.recorded(catalog, record()):
        raise DataContractError("bad rows" * runs.ERROR_CHARACTERS)
    assert runs.find(catalog, "enrich-1") is None
    assert runs.newest(catalog, F.col("run_id") == "enrich-1") is None
    with runs.recorded(catalog, record()):
        runs.write(catalog, record())
    assert [(row["attempt"], row["status"], row["error"]) for row in rows(catalog)] == [
        (1, "refused", "GateRefused: over the cap"),
        (2, "failed", ("DataContractError: " + "bad rows" * runs.ERROR_CHARACTERS)[: runs.ERROR_CHARACTERS]),
        (3, "succeeded", None),
    ]
    assert [row["attempt"] for row in runs.succeeded(catalog).collect()] == [3]
    assert catalog.read("runs").count() == 3
    found = runs.find(catalog, "enrich-1")
    assert found is not None
    assert found["attempt"] == 3


def test_a_dry_run_leaves_no_row(catalog: Catalog) -> None:
    with pytest.raises(GateRefused), runs.recorded(catalog, record(), unless=True):
        raise GateRefused("no")
    assert rows(catalog) == []


def test_an_attempt_that_ends_before_its_run_id_is_known_gets_another_run_id(catalog: Catalog) -> None:
    for _ in range(2):
        with pytest.raises(GateRefused), runs.recorded(catalog, record(run_id="")):
            raise GateRefused("no")
    written = rows(catalog)
    assert [(row["kind"], row["status"], row["attempt"]) for row in written] == [("enrich", "refused", 1)] * 2
    assert len({row["run_id"] for row in written}) == 2
    assert all(row["run_id"].startswith("enrich-") for row in written)


def test_an_attempt_that_cannot_be_recorded_still_ends_with_its_own_error(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(Catalog, "append_rows", full)
    with pytest.raises(GateRefused, match="over the cap") as caught, runs.recorded(catalog, record()):
        raise GateRefused("over the cap")
    assert "no space left" in "".join(caught.value.__notes__)


def test_a_stored_error_and_its_config_have_no_secrets(tmp_path: Path) -> None:
    settings = ["spark.conf={'spark.hadoop.fs.s3a.secret.key' = 'hunter2'}", "mlflow.tracking_uri='http://u:p4ss@h'"]
    config = load_config(build(tmp_path / "sample").file, settings)
    catalog = Catalog(tmp_path / "catalog")
    attempt = record(config=config.without_secrets(), secrets=config.secrets())
    with pytest.raises(ValueError), runs.recorded(catalog, attempt):  # noqa: PT011
        raise ValueError("no access with hunter2 to s3a://a:p4ss2@bucket?sig=p4ss3")
    (row,) = rows(catalog)
    assert row["error"] == "ValueError: no access with *** to s3a://***@bucket?sig=***"
    assert "hunter2" not in row["config"]
    assert "p4ss" not in row["config"]


def test_the_latest_attempt_of_every_run_whatever_its_status(catalog: Catalog) -> None:
    for run_id in ("enrich-1", "enrich-2"):
        with pytest.raises(GateRefused), runs.recorded(catalog, record(run_id)):
            raise GateRefused("no")
    runs.write(catalog, record("enrich-1"))
    latest = runs.latest_attempts(catalog)
    assert latest.columns == contract.columns("runs")
    assert {(row["run_id"], row["attempt"], row["status"]) for row in latest.collect()} == {
        ("enrich-1", 2, "succeeded"), ("enrich-2", 1, "refused"),
    }  # fmt: skip
    assert runs.succeeded_ids(catalog) == {"enrich-1"}
    assert runs.find(catalog, "enrich-2") is None


def test_what_is_rolled_back_by_attribute_and_a_rollback_of_a_rollback(catalog: Catalog) -> None:
    def roll_back(run_id: str, of: str, attribute: str | None = None) -> None:
        window = None if attribute is None else {"attribute": attribute}
        undoing = RunRecord(kind=RunKind.ROLLBACK, run_id=run_id, parent_run_id=of, window=window, stages=Stages(print))
        runs.write(catalog, undoing)

    runs.write(catalog, record("enrich-3", parent_run_id="backfill-1"))
    assert runs.rolled_back(catalog, ["color", "size"]) == {}
    roll_back("rollback-1", "enrich-2", "size")
    roll_back("rollback-2", "enrich-3", "unknown")
    assert runs.rolled_back(catalog, ["color", "size"]) == {"size": {"enrich-2"}}
    roll_back("rollback-3", "enrich-1")
    both = {"color": {"enrich-1"}, "size": {"enrich-1", "enrich-2"}}
    assert runs.rolled_back(catalog, ["color", "size"]) == both
    assert runs.rolled_back(catalog, ["color"]) == {"color": {"enrich-1"}}
    roll_back("rollback-4", "rollback-3", "color")
    assert runs.rolled_back(catalog, ["color", "size"]) == both | {"color": {"rollback-3"}}
    roll_back("rollback-5", "rollback-4")
    assert runs.rolled_back(catalog, ["color", "size"]) == {
        "color": {"rollback-4", "enrich-1"}, "size": {"rollback-4", "enrich-1", "enrich-2"},
    }  # fmt: skip


def test_json_columns_are_sorted_and_take_paths_and_times() -> None:
    content = {"b": datetime(2026, 1, 1, tzinfo=UTC), "a": Path("x")}
    assert runs.as_json(content) == '{"a": "x", "b": "2026-01-01 00:00:00+00:00"}'
    assert runs.as_json(None) is None


def test_the_newest_run_is_the_last_to_finish_also_where_the_clock_is_set_back(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pyspark.sql import functions as F

    for days in range(4):
        set_back(monkeypatch, days)
        counted = record(f"enrich-{days}")
        counted.count(predicted=days % 3)
        runs.write(catalog, counted)
    times = [row["finished_at"] for row in rows(catalog)]
    assert times == sorted(set(times))
    found = [runs.newest(catalog, condition) for condition in (F.lit(True), F.col("counts")["predicted"] > 0)]
    assert [row and row["run_id"] for row in found] == ["enrich-3", "enrich-2"]


def test_rows_of_runs_that_did_not_succeed_do_not_count_as_done(catalog: Catalog, spark: SparkSession) -> None:
    for run_id in ("enrich-1", "enrich-2", "enrich-3"):
        row = prediction("a", "color", run_id, run_id=run_id)
        catalog.append("predictions", frame(spark, "predictions", [row]), run_id)
    runs.write(catalog, record("enrich-1", model_name="m"))
    runs.write(catalog, record("enrich-3", model_name="other"))
    with pytest.raises(GateRefused), runs.recorded(catalog, record("enrich-2", model_name="m")):
        raise GateRefused("no")
    assert {row["value"] for row in runs.of_succeeded(catalog, "predictions").collect()} == {"enrich-1", "enrich-3"}
    assert {row["value"] for row in runs.of_succeeded(catalog, "predictions", "m").collect()} == {"enrich-1"}
