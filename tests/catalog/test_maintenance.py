"""Cleaning up a lake: only what nothing needs goes, and the rows and commits of every run stay."""

from __future__ import annotations

import os
import time
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from catalog_enrichment import contract
from catalog_enrichment.catalog import maintenance, part_files
from catalog_enrichment.catalog.delta_tables import names_of
from catalog_enrichment.catalog.lake import Catalog
from catalog_enrichment.catalog.maintenance import LOG_RETENTION_HOURS, Maintenance
from catalog_enrichment.config.images import StoredImagesConfig
from catalog_enrichment.errors import DataContractError
from catalog_enrichment.inputs.scaled_copies import Copy, copies_of
from catalog_enrichment.inputs.stored_pictures import StoredPictures

from .catalog_rows import event, parts_of, product, scanned

RUNS = [f"run-{number:02d}" for number in range(20)]


@pytest.fixture
def lake(tmp_path: Path) -> Catalog:
    """A ledger of twenty runs, one small file each, and current values that are up to date."""
    lake = Catalog(tmp_path / "a lake")
    for number, run_id in enumerate(RUNS):
        lake.append_rows("attribute_values", [event(number)], run_id)
    lake.confirm_current_values("refresh")
    return lake


def files(lake: Catalog, table: str = "attribute_values") -> set[str]:
    return {file.name for file in (lake.storage.folder / table).glob("*.parquet")}


def rows(lake: Catalog, version: int | None = None) -> list[str]:
    return sorted(row["event_id"] for row in scanned(lake, "attribute_values", version))


def overwrite(lake: Catalog, number: int, run_id: str) -> None:
    delta = lake.tables.create("attribute_values")
    parts = parts_of(lake, "attribute_values", event(number))
    assert lake.tables.commit(delta, parts, run_id, {run_id: 1}, replaced=names_of(delta))


def age(path: Path, hours: float) -> None:
    then = time.time() - hours * 3600
    for file in [path, *path.rglob("*")]:
        os.utime(file, (then, then))


def compact(lake: Catalog, at_least: int = 2) -> int:
    upkeep = Maintenance(lake, 168)
    return upkeep.compact("attribute_values", upkeep.files_to_join("attribute_values", at_least), "maintain-1")


def test_pictures_go_when_no_version_that_is_still_there_names_them(lake: Catalog, tmp_path: Path) -> None:
    store = StoredPictures(tmp_path / "pictures")
    versions = {
        name: letter * 64 for name, letter in zip(("named", "before", "never", "new", "uri"), "abcde", strict=True)
    }
    for version in versions.values():
        store.put(version, b"picture")
        os.utime(store.path(version), (1, 1))
    store.put(versions["new"], b"put there again")
    cut_off = f"{versions['never']}.{uuid.uuid4()}"
    (store.path(versions["never"]).parent / cut_off).write_bytes(b"pic")
    os.utime(store.path(versions["never"]).parent / cut_off, (1, 1))

    def of(name: str, uri: str | None = None) -> list[dict[str, Any]]:
        return [{"bytes": None, "uri": uri, "version": versions[name]}]

    lake.append_rows("products", [product("a", images=of("before")), product("c", images=None)], "import-1")
    superseded = list((lake.storage.folder / "products").glob("*.parquet"))
    lake.append_rows("products", [product("a", images=of("named")), product("b", images=of("uri", "u"))], "import-2")

    def unnamed() -> set[str]:
        return {file.name for file in Maintenance(lake, 24).unnamed_pictures(store).paths}

    assert unnamed() == {versions["never"], versions["uri"], cut_off}
    for file in superseded:
        file.unlink()  # as the deletion of unreferenced files does
    (lake.storage.folder / "products" / "part-killed.parquet").write_bytes(b"")
    assert unnamed() == {versions["never"], versions["uri"], cut_off, versions["before"]}

    [file] = [file for file in (lake.storage.folder / "products").glob("*.parquet") if file.stat().st_size]
    file.write_bytes(b"")  # what it names is not known: nothing may go
    with pytest.raises(pa.ArrowInvalid):
        unnamed()


def test_pictures_that_only_the_checkpoint_of_an_import_names_stay(lake: Catalog, tmp_path: Path) -> None:
    """An import that is resumed does not put its pictures there again."""
    store = StoredPictures(tmp_path / "pictures")
    kept, other = "a" * 64, "b" * 64
    for version in (kept, other):
        store.put(version, b"picture")
    age(tmp_path / "pictures", 100)
    lake.append_rows("products", [product("p")], "import-0")
    rows_folder = lake.storage.folder / "_staging" / "import-1" / "rows-abc"
    rows_folder.mkdir(parents=True)
    schema = contract.arrow_schema("products")
    images = [{"bytes": None, "uri": None, "version": kept}, {"bytes": None, "uri": "https://x", "version": other}]
    pq.write_table(pa.Table.from_pylist([product("q", images=images)], schema=schema), rows_folder / "part-0.parquet")

    assert [file.name for file in Maintenance(lake, 24).unnamed_pictures(store).paths] == [other]


def test_copies_go_whose_picture_is_gone_or_has_other_settings(lake: Catalog, tmp_path: Path) -> None:
    images = StoredImagesConfig(store=str(tmp_path / "pictures"))
    copies, others = copies_of(images), copies_of(replace(images, scaled_side=400))
    kept, gone, other = copies.key("u", "1"), copies.key("u", "0"), others.key("u", "1")
    for key in (kept, gone, other):
        copies.put(key, Copy(b"copy"))
    young = copies.key("u", "2")
    age(tmp_path / "pictures", 100)
    copies.put(young, Copy(b"copy"))
    lake.append_rows("products", [product("p", images=[{"bytes": None, "uri": "u", "version": "1"}])], "import-1")

    def unneeded(are_kept: bool = True) -> set[str]:
        return {file.name for file in Maintenance(lake, 24).unneeded_copies(copies, are_kept).paths}

    assert unneeded() == {gone, other}
    assert unneeded(are_kept=False) == {kept, gone, other}
    stored, copied = Maintenance(lake, 24).pictures_only_of(
        pa.array(["p"]), StoredPictures(tmp_path / "pictures"), copies
    )
    assert (stored.paths, {file.name for file in copied.paths}) == ([], {kept, gone, other, young})
    lake.append_rows("products", [product("q", images=[{"bytes": None, "uri": "u", "version": "2"}])], "import-2")
    _, copied = Maintenance(lake, 24).pictures_only_of(pa.array(["p"]), StoredPictures(tmp_path / "pictures"), copies)
    # a copy of other settings does not say which product it is of
    assert {file.name for file in copied.paths} == {kept, gone, other}


def test_files_of_killed_tasks_go_when_they_are_older_than_the_retention(lake: Catalog) -> None:
    referenced = files(lake)
    for name, hours in (("part-old.parquet", 169), ("part-young.parquet", 167)):
        (lake.storage.folder / "attribute_values" / name).write_bytes(b"1234")
        age(lake.storage.folder / "attribute_values" / name, hours)
    version = lake.version("attribute_values")

    unneeded = Maintenance(lake, 168).unreferenced_files("attribute_values")
    assert ([file.name for file in unneeded.paths], unneeded.size) == (["part-old.parquet"], 4)
    unneeded.delete()
    assert files(lake) == referenced | {"part-young.parquet"}
    assert lake.version("attribute_values") == version


def test_what_is_exactly_as_old_as_the_retention_stays(lake: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    now, hour, log = 2_000_000_000.0, 3600, lake.storage.folder / "attribute_values" / "_delta_log"
    monkeypatch.setattr(time, "time", lambda: now)
    (lake.storage.folder / "_new-1").mkdir()
    for retention, more in ((168, 0), (168, 1)):
        os.utime(lake.storage.folder / "_new-1", (1, now - retention * hour - more))
        assert len(Maintenance(lake, retention).leftover_folders(set()).paths) == more
    for more in (0, 1):
        for entry in log.iterdir():
            os.utime(entry, (1, now - LOG_RETENTION_HOURS * hour - more))
        assert len(Maintenance(lake, 168).expired_log_entries("attribute_values").paths) == more * len(RUNS)


def test_a_superseded_version_can_be_read_for_as_long_as_the_retention(lake: Catalog) -> None:
    version = lake.version("attribute_values")
    overwrite(lake, 99, "run-new")

    assert not Maintenance(lake, 1).unreferenced_files("attribute_values").paths
    assert len(rows(lake, version)) == len(RUNS)
    Maintenance(lake, 0).unreferenced_files("attribute_values").delete()
    assert rows(lake) == ["event-99"]
    assert len(files(lake)) == 1


def test_leftover_folders_go_by_age_and_those_of_finished_runs_at_once(lake: Catalog) -> None:
    for run_id, hours in (("finished", 0), ("interrupted", 100), ("forgotten", 200), ("resumed", 200)):
        (lake.storage.folder / "_staging" / run_id / "rows").mkdir(parents=True)
        (lake.storage.folder / "_staging" / run_id / "rows" / "part-0").write_bytes(b"12345")
        age(lake.storage.folder / "_staging" / run_id, hours)
    (lake.storage.folder / "_staging" / "resumed" / "rows" / "part-1").write_bytes(b"now")
    for name, hours in (("_new-1", 200), ("_new-2", 100)):
        (lake.storage.folder / name).mkdir()
        age(lake.storage.folder / name, hours)

    leftover = Maintenance(lake, 168).leftover_folders({"finished"})
    leftover.delete()
    assert leftover.size == 10
    assert {folder.name for folder in (lake.storage.folder / "_staging").iterdir()} == {"interrupted", "resumed"}
    assert [folder.name for folder in lake.storage.folder.glob("_new-*")] == ["_new-2"]


def test_small_files_become_one_and_every_run_is_still_committed(lake: Catalog) -> None:
    before, old, version = rows(lake), files(lake), lake.version("attribute_values")

    assert compact(lake) == 1
    assert rows(lake) == before == rows(lake, version)
    assert all(lake.committed("attribute_values", run_id) for run_id in RUNS)
    assert lake.append_rows("attribute_values", [event(3)], "run-03") == 1
    assert rows(lake) == before
    delta = DeltaTable((lake.storage.folder / "attribute_values").as_uri())
    (file,) = pa.table(delta.get_add_actions(flatten=True)).to_pylist()
    assert (file["min.product_id"], file["max.product_id"]) == ("p00", "p19")
    assert (file["min.run_id"], file["max.run_id"], file["num_records"]) == ("run-00", "run-19", 20)
    assert old < files(lake), "a reader that has opened the old version goes on"
    log = (lake.storage.folder / "attribute_values" / "_delta_log" / f"{delta.version():020}.json").read_text()
    assert '"dataChange":false' in log
    assert '"dataChange":true' not in log, "whoever follows the table's changes sees none"
    assert not lake.current_values_stale()


def test_current_values_that_were_out_of_date_stay_so(lake: Catalog) -> None:
    lake.append_rows("attribute_values", [event(20)], "run-20")
    assert compact(lake) == 1
    assert lake.current_values_stale()


def test_few_small_files_are_left_alone(lake: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    upkeep = Maintenance(lake, 168)
    assert [len(group) for group in upkeep.files_to_join("attribute_values", 20)] == [20]
    assert not upkeep.files_to_join("attribute_values", 21)
    monkeypatch.setattr(maintenance, "SMALL_BYTES", 1)
    assert not upkeep.files_to_join("attribute_values", 2)


def test_joined_files_keep_the_bounds_on_files_and_row_groups(lake: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    each = max(file.stat().st_size for file in (lake.storage.folder / "attribute_values").glob("*.parquet"))
    monkeypatch.setattr(part_files, "FILE_BYTES", each)
    monkeypatch.setattr(part_files, "ROW_GROUP_BYTES", 400)
    before = rows(lake)
    assert compact(lake) > 1
    assert rows(lake) == before
    for uri in DeltaTable((lake.storage.folder / "attribute_values").as_uri()).file_uris():
        footer = pq.ParquetFile(uri.removeprefix("file://").replace("%20", " ")).metadata
        assert footer.num_row_groups > 1 or footer.num_rows < 4


def test_an_append_during_the_compaction_is_kept(lake: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    during(lambda: lake.append_rows("attribute_values", [event(50)], "run-50"), monkeypatch)
    assert compact(lake) == 1
    assert len(rows(lake)) == len(RUNS) + 1


def test_a_table_replaced_during_the_compaction_stays_replaced(lake: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    during(lambda: overwrite(lake, 99, "run-new"), monkeypatch)
    assert compact(lake) == 0
    assert rows(lake) == ["event-99"]


def test_a_file_that_breaks_the_contract_is_not_committed(lake: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    before = rows(lake)
    broken = part_files.Part("part-x.parquet", 0, 0, "", "null in required columns: value")
    monkeypatch.setattr(part_files, "write_part", lambda *_: broken)
    with pytest.raises(DataContractError, match="null in required columns"):
        compact(lake)
    assert rows(lake) == before


def during(act: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """``act`` happens once, after the compaction has opened the table."""
    write, acts = part_files.write_part, [act]

    def write_part(*arguments: Any) -> Any:
        while acts:
            acts.pop()()
        return write(*arguments)

    monkeypatch.setattr(part_files, "write_part", write_part)


def test_a_long_log_is_opened_from_a_checkpoint_and_forgets_no_run(lake: Catalog) -> None:
    upkeep, before = Maintenance(lake, 168), rows(lake)
    log = lake.storage.folder / "attribute_values" / "_delta_log"
    assert upkeep.commits_since_checkpoint("attribute_values") == len(RUNS) + 1
    assert not upkeep.expired_log_entries("attribute_values").paths
    age(log, 31 * 24)
    assert len(upkeep.expired_log_entries("attribute_values").paths) == len(RUNS)

    upkeep.shorten_log("attribute_values")
    assert len(list(log.glob("*.json"))) == 1
    assert upkeep.commits_since_checkpoint("attribute_values") == 0
    assert not upkeep.expired_log_entries("attribute_values").paths
    assert all(lake.committed("attribute_values", run_id) for run_id in RUNS)
    assert rows(lake) == before
