"""Upkeep of a catalog: old rows go, and neither readers nor later runs notice."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from catalog_enrichment import cli
from catalog_enrichment.catalog.lake import Catalog
from catalog_enrichment.catalog.maintenance import FileSet, Maintenance
from catalog_enrichment.config.schema import MaintenanceConfig
from catalog_enrichment.errors import ConfigError
from catalog_enrichment.inputs.stored_pictures import StoredPictures
from catalog_enrichment.operations import maintain, rollback

from ..catalog.catalog_rows import prediction, product, run_row
from ..clock import set_back
from ..sample_catalog import SampleCatalog, build, change, enrich, killed_at, table, values

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

NOW = datetime(2026, 11, 1, tzinfo=UTC)


@pytest.fixture
def lake(spark: SparkSession, tmp_path: Path) -> Catalog:
    return Catalog(tmp_path / "lake", spark)


def write_run(lake: Catalog, run_id: str, days: float, **given: Any) -> None:
    """Write the row of a succeeded enrichment that finished ``days`` before NOW."""
    row = run_row(run_id, finished_at=NOW - timedelta(days=days), **given)
    lake.append_rows("runs", [row], f"{run_id}#1")


def test_the_job_removes_pictures_that_nothing_names(sample: SampleCatalog) -> None:
    store = StoredPictures(sample.folder / "catalog" / "pictures")
    store.put("f" * 64, b"a picture")
    os.utime(store.path("f" * 64), (1, 1))
    preview = maintain.maintain_catalog(sample.context(), dry_run=True)
    assert store.path("f" * 64).exists()
    done = maintain.maintain_catalog(sample.context())
    assert preview["pictures"] == done["pictures"] == {"files": 1, "bytes": 9}
    assert not list(store.files())


def test_a_second_catalog_with_the_same_store_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = build(tmp_path / "first"), build(tmp_path / "second")
    shared = ["--set", f"images.store={tmp_path / 'shared'}"]
    StoredPictures(tmp_path / "shared").claim(first.config.path("catalog"))
    assert cli.maintain_catalog(["--config", str(second.file), *shared]) == 2
    assert "keeps the pictures of the catalog" in capsys.readouterr().out


def test_only_superseded_abstentions_of_old_succeeded_runs_go(lake: Catalog) -> None:
    abstain = {"decision": "abstain", "reason": "below_threshold"}
    for run_id, days in {"oldest": 30, "other": 30, "older": 20, "old": 15, "young": 5}.items():
        write_run(lake, run_id, days)
    write_run(lake, "undoing", 4, kind="rollback", parent_run_id="old")
    write_run(lake, "broken", 25, status="failed")
    rows = [
        # superseded by `older`
        prediction("a", "color", "Red", run_id="oldest", **abstain),
        # what published or suggested stays, with all rows of the decision
        prediction("b", "color", "Red", run_id="oldest"),
        prediction("b", "color", "Blue", run_id="oldest", rank=2, **abstain),
        prediction("c", "color", "Red", run_id="oldest", decision="suggest", reason="near_miss"),
        # of another model version, of a run that failed, of a run that is not recorded
        prediction("a", "color", "Red", run_id="other", model_version="2", **abstain),
        prediction("a", "color", "Red", run_id="broken", **abstain),
        prediction("a", "color", "Red", run_id="killed", **abstain),
        # the newest decision, the newest that is not rolled back, and what is young
        *[prediction(id, "color", "Red", run_id="older", **abstain) for id in "abc"],
        prediction("a", "color", "Red", run_id="old", **abstain),
        prediction("a", "color", "Red", run_id="young", **abstain),
    ]
    lake.append_rows("predictions", rows, "rows")

    old = maintain.old_predictions(lake, NOW - timedelta(days=10)).collect()
    assert [tuple(row) for row in old] == [("a", "color", "oldest")]
    assert not maintain.old_predictions(lake, NOW - timedelta(days=30)).count()


def test_quarantined_rows_that_a_job_looks_for_stay(lake: Catalog) -> None:
    for run_id, days, source in (("i1", 30, "a"), ("i2", 20, "a"), ("i3", 25, "b"), ("i4", 5, "b")):
        write_run(lake, run_id, days, kind="import", config_hash=source)
    write_run(lake, "e1", 30)
    lake.append_rows("products", [product("p", content_hash="now")], "i1")

    def quarantined(run_id: str, stage: str = "import", **given: Any) -> dict[str, Any]:
        return {"run_id": run_id, "stage": stage, "reason": "r", "quarantined_at": NOW, "detail": run_id} | given

    rows = [quarantined(run_id) for run_id in ("i1", "i2", "i3", "i4", "killed")]
    rows += [quarantined("e1", "decode", product_id="p", content_hash=text) for text in ("now", "before")]
    lake.append_rows("quarantine", rows, "rows")

    kept = maintain.kept_quarantine(lake, NOW - timedelta(days=10)).collect()
    found = sorted((row["detail"], row["content_hash"]) for row in kept)
    assert found == [("e1", "now"), ("i2", None), ("i4", None), ("killed", None)]


def test_quarantined_rows_stay_from_the_newest_import_that_read_all_rows_on(lake: Catalog) -> None:
    """An import of changes does not look at the bad rows that did not change."""
    changes, everything = '{"read": "changes"}', '{"read": "all"}'
    bad = {"rows": 9, "quarantined.r": 1}
    for run_id, days, window, counts in (
        ("all-1", 40, everything, bad),
        ("changed-1", 36, changes, bad),
        ("all-2", 32, everything, bad),
        ("changed-2", 28, changes, bad),
        ("noted", 24, everything, bad),  # finds the rows of all-2 again, and writes none
        ("changed-3", 20, changes, {"rows": 1}),
    ):
        write_run(lake, run_id, days, kind="import", config_hash="a", window=window, counts=counts)
    names = ("all-1", "changed-1", "all-2", "changed-2")
    rows = [{"run_id": n, "stage": "import", "reason": "r", "quarantined_at": NOW, "detail": n} for n in names]
    lake.append_rows("quarantine", rows, "rows")

    def kept() -> set[str]:
        return {row["detail"] for row in maintain.kept_quarantine(lake, NOW - timedelta(days=10)).collect()}

    assert kept() == {"all-2", "changed-2"}
    write_run(lake, "mended", 18, kind="import", config_hash="a", window=everything, counts={"rows": 9})
    assert kept() == set()


@pytest.mark.slow
def test_after_the_upkeep_readers_and_later_runs_are_as_before(
    template: SampleCatalog, enriched: SampleCatalog, run: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    sample = enriched.with_settings("maintenance.compact_files=3", "maintenance.keep_days=300")
    change(sample, 5, title="Another thing", image="nosuch.jpg")  # without a picture it abstains, again
    enrich(sample)
    kept = {name: table(sample, name) for name in ("attribute_values", "products")}
    before, predictions = values(sample), table(sample, "predictions")

    orphan = sample.folder / "catalog" / "products" / "part-of-a-killed-task.parquet"
    orphan.write_bytes(b"")
    os.utime(orphan, (0, 0))
    with monkeypatch.context() as later:
        set_back(later, -301)
        preview = maintain.maintain_catalog(sample.context(), dry_run=True)
        assert (values(sample), len(table(sample, "predictions"))) == (before, len(predictions))
        for owner, name in ((Catalog, "replace"), (Maintenance, "compact"), (FileSet, "delete")):
            with killed_at(owner, name):
                maintain.maintain_catalog(sample.context())
            assert values(sample) == before
        assert maintain.maintain_catalog(sample.context())["status"] == "succeeded"
        assert maintain.maintain_catalog(sample.context())["status"] == "nothing_to_do"

    removed = preview["tables"]["predictions"]["rows_removed"]
    assert removed == len(predictions) - len(table(sample, "predictions")) > 0
    assert all(sorted(table(sample, name), key=str) == sorted(rows, key=str) for name, rows in kept.items())
    assert values(sample) == before
    assert not orphan.exists()
    assert enrich(sample)["status"] == "nothing_to_do"
    rollback.rollback_run(sample.context().catalog, run["run_id"])
    assert values(sample, "model") == {}


@pytest.mark.parametrize("hours", [0, 23])
def test_a_retention_that_a_running_job_could_need_is_refused_unless_forced(hours: int) -> None:
    with pytest.raises(ConfigError, match="--force"):
        maintain.check_retention(MaintenanceConfig(retention_hours=hours), force=False)
    maintain.check_retention(MaintenanceConfig(retention_hours=hours), force=True)
    maintain.check_retention(MaintenanceConfig(retention_hours=24), force=False)
