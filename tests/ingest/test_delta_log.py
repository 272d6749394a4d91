"""What the log of a real Delta table says about its changes, without Spark."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake

from catalog_enrichment.ingest import delta_log
from catalog_enrichment.ingest.source_frame import AllNeeded

FEED = {delta_log.FEED: "true"}


def rows(*ids: str, title: str = "shirt") -> pa.Table:
    return pa.table({"product_id": list(ids), "title": [title] * len(ids)})


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "table")


def changes(path: str, position: dict[str, Any]) -> delta_log.LogChanges:
    return delta_log.changes_since(DeltaTable(path), position, path)


def changed_ids(path: str, position: dict[str, Any]) -> list[str]:
    """The ids in the files that are new since ``position``."""
    uris = delta_log.uris_of(DeltaTable(path), changes(path, position).files)
    return sorted(name for uri in uris for name in pq.ParquetFile(uri).read()["product_id"].to_pylist())


def feed(path: str, position: dict[str, Any]) -> dict[str | None, tuple[str, bool]]:
    """Product id -> title, and whether it is deleted, by the change data feed."""
    schema = rows("a").schema
    found = delta_log.feed_rows(
        DeltaTable(path), position["version"], schema.names, {"product_id"}, schema, "gone"
    ).to_pylist()
    assert len({row["product_id"] for row in found}) == len(found)
    return {row["product_id"]: (row["title"], row["gone"]) for row in found}


def test_only_files_with_changed_rows_are_new_and_optimize_adds_none(path: str) -> None:
    write_deltalake(path, rows("a", "b"))
    write_deltalake(path, rows("c"), mode="append")
    before = delta_log.position_of(DeltaTable(path))
    DeltaTable(path).optimize.compact()
    assert not changes(path, before).files
    write_deltalake(path, rows("d"), mode="append")
    assert changed_ids(path, before) == ["d"]
    # the file of d is gone: its row is in a file that no commit with new rows added
    DeltaTable(path).optimize.compact()
    write_deltalake(path, rows("e"), mode="append")
    assert len(changes(path, before).files) == 2
    with pytest.raises(AllNeeded, match="all of its files are new"):
        changed_ids(path, before)


def test_a_partitioned_table_whose_values_are_encoded(path: str) -> None:
    table = rows("a", "b").append_column("shop", pa.array(["50% off", "b c"]))
    write_deltalake(path, table, partition_by=["shop"])
    before = delta_log.position_of(DeltaTable(path))
    write_deltalake(path, table.slice(0, 1), mode="append", partition_by=["shop"])
    [uri] = delta_log.uris_of(DeltaTable(path), changes(path, before).files)
    assert uri in DeltaTable(path).file_uris()


def test_the_feed_has_the_newest_row_of_a_product_and_names_what_was_deleted(path: str) -> None:
    write_deltalake(path, rows("a", "b", "c", "d", "e"), configuration=FEED)
    before = delta_log.position_of(DeltaTable(path))
    table = DeltaTable(path)
    table.update(updates={"title": "'new'"}, predicate="product_id = 'a'")
    table.update(updates={"title": "'newer'"}, predicate="product_id = 'a'")
    table.delete("product_id in ('b', 'c')")
    write_deltalake(path, rows("c", title="back"), mode="append")
    DeltaTable(path).update(updates={"product_id": "'other'"}, predicate="product_id = 'd'")
    DeltaTable(path).optimize.compact()
    assert changes(path, before).feed
    assert feed(path, before) == {
        **{"a": ("newer", False), "b": ("shirt", True), "c": ("back", False)},
        **{"d": ("shirt", True), "other": ("shirt", False)},
    }


def test_a_product_that_still_has_another_row_is_not_deleted(path: str) -> None:
    write_deltalake(path, pa.concat_tables([rows("a", "b"), rows("a", title="wrong")]), configuration=FEED)
    before = delta_log.position_of(DeltaTable(path))
    DeltaTable(path).delete("title = 'wrong' or product_id = 'b'")
    assert feed(path, before) == {"a": ("shirt", False), "b": ("shirt", True)}


def test_a_row_without_a_key_deletes_nothing_and_is_kept(path: str) -> None:
    table = pa.table({"product_id": pa.array([None, "a"], pa.string()), "title": ["x", "y"]})
    write_deltalake(path, table, configuration=FEED)
    before = delta_log.position_of(DeltaTable(path))
    DeltaTable(path).update(updates={"title": "'z'"}, predicate="title = 'x'")
    assert feed(path, before) == {None: ("z", False)}


def test_a_product_of_which_another_row_is_still_in_the_table_is_not_deleted(path: str) -> None:
    write_deltalake(path, rows("a", "b", title="right"), configuration=FEED)
    write_deltalake(path, rows("a", "b", title="wrong"), mode="append")
    before = delta_log.position_of(DeltaTable(path))
    DeltaTable(path).delete("title = 'wrong'")
    DeltaTable(path).delete("product_id = 'b'")
    assert feed(path, before) == {"a": ("right", False), "b": ("right", True)}


def test_rows_are_looked_up_by_all_columns_of_the_key(path: str) -> None:
    columns = {"shop": ["x", "x", "y", "x"], "number": [1, 2, 1, None], "parts": [["p"]] * 4, "row": [1, 2, 3, 4]}
    table = pa.table(columns)
    write_deltalake(path, table, configuration=FEED)
    write_deltalake(path, table.slice(3).set_column(3, "row", pa.array([5])), mode="append")
    before = delta_log.position_of(DeltaTable(path))
    DeltaTable(path).delete("row = 1 or row = 4")
    key, names = {"shop", "number", "parts"}, table.schema.names
    found = delta_log.feed_rows(DeltaTable(path), before["version"], names, key, table.schema, "gone").to_pylist()
    assert sorted((row["row"], row["gone"]) for row in found) == [(1, True), (5, False)]


def test_a_feed_that_was_off_for_a_while_is_not_used(path: str) -> None:
    write_deltalake(path, rows("a"))
    before = delta_log.position_of(DeltaTable(path))
    write_deltalake(path, rows("b"), mode="append")
    DeltaTable(path).alter.set_table_properties(FEED)
    on = delta_log.position_of(DeltaTable(path))
    assert not changes(path, before).feed
    assert changes(path, on).feed
    DeltaTable(path).alter.set_table_properties({delta_log.FEED: "false"})
    DeltaTable(path).alter.set_table_properties(FEED)
    assert not changes(path, on).feed
    assert changed_ids(path, before) == ["b"]


def test_a_feed_whose_files_are_vacuumed_cannot_be_read(path: str, tmp_path: Path) -> None:
    write_deltalake(path, rows("a", "b"), configuration=FEED)
    before = delta_log.position_of(DeltaTable(path))
    DeltaTable(path).delete("product_id = 'a'")
    assert 0 < changes(path, before).feed_bytes < 10_000
    for file in (tmp_path / "table" / "_change_data").iterdir():
        file.unlink()
    with pytest.raises(AllNeeded, match="its change data feed cannot be read"):
        feed(path, before)


def test_changes_that_the_log_cannot_tell_need_all_rows(path: str) -> None:
    write_deltalake(path, rows("a"))
    before = delta_log.position_of(DeltaTable(path))
    with pytest.raises(AllNeeded, match="is at version 0, before version 1"):
        changes(path, before | {"version": 1})
    with pytest.raises(AllNeeded, match="another table"):
        changes(path, before | {"table": "other"})
    wider = rows("b").append_column("colour", pa.array(["red"]))
    write_deltalake(path, wider, mode="append", schema_mode="merge")
    with pytest.raises(AllNeeded, match="its columns changed in version 1"):
        changes(path, before)
    table = DeltaTable(path)
    (Path(path) / "_delta_log" / f"{1:020d}.json").unlink()  # as upkeep does with old commits
    with pytest.raises(AllNeeded, match="does not have version 1 any more"):
        delta_log.changes_since(table, before, path)
