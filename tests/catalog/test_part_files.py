"""What a task writes and which files it reads; reading from an object store is in test_object_catalog."""

from __future__ import annotations

import json
from itertools import chain
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from catalog_enrichment import contract
from catalog_enrichment.catalog import part_files, reading
from catalog_enrichment.catalog.storage import DataFile, FolderStorage

from .catalog_rows import START, product

MIB = 2**20
PRODUCTS = contract.arrow_schema("products")


def products(*rows: dict) -> list[pa.RecordBatch]:
    return pa.Table.from_pylist(list(rows), schema=PRODUCTS).to_batches()


def test_no_rows_write_no_file(tmp_path: Path) -> None:
    empty = PRODUCTS.empty_table().to_batches() or [pa.RecordBatch.from_pylist([], schema=PRODUCTS)]

    assert list(part_files.written_parts([], FolderStorage(tmp_path), PRODUCTS)) == []
    assert list(part_files.written_parts(empty, FolderStorage(tmp_path), PRODUCTS)) == []
    assert list(tmp_path.iterdir()) == []


def test_row_groups_are_bounded_by_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part_files, "ROW_GROUP_BYTES", 10_000)
    picture = {"bytes": b"\xff" * 4_000, "uri": None, "version": "1"}
    batches = products(*[product(f"p{i}", images=[picture]) for i in range(9)])

    [part] = part_files.written_parts(batches, FolderStorage(tmp_path), PRODUCTS)

    footer = pq.ParquetFile(tmp_path / part.name).metadata
    assert [footer.row_group(i).num_rows for i in range(footer.num_row_groups)] == [2, 2, 2, 2, 1]


def test_the_ranges_are_of_all_row_groups_and_leave_nulls_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part_files, "ROW_GROUP_BYTES", 1)
    schema = contract.arrow_schema("quarantine")
    rows = [
        {"product_id": name, "run_id": run}
        for name, run in (("m", "2"), ("z", "3"), (None, "1"), ("a", "2"), ("k", "2"))
    ]
    known = {"stage": "import", "reason": "x", "quarantined_at": START}
    batches = [pa.RecordBatch.from_pylist([row | known], schema=schema) for row in rows]

    [part] = part_files.written_parts(batches, FolderStorage(tmp_path), schema)

    assert part.problem is None
    assert pq.ParquetFile(tmp_path / part.name).num_row_groups == part.rows == 5
    assert json.loads(part.stats) == {
        "numRecords": 5,
        "minValues": {"product_id": "a", "run_id": "1"},
        "maxValues": {"product_id": "z", "run_id": "3"},
    }


def test_a_task_says_what_it_wrote_in_one_row(tmp_path: Path) -> None:
    [batch] = part_files.write_parts(products(product("a")), FolderStorage(tmp_path), PRODUCTS)
    row = batch.to_pylist()

    (file,) = tmp_path.iterdir()
    stats = '{"numRecords": 1, "minValues": {"product_id": "a"}, "maxValues": {"product_id": "a"}}'
    assert row == [
        {"name": file.name, "size": file.stat().st_size, "rows": 1, "stats": stats, "problem": None},
    ]
    assert batch.schema.types == [pa.string(), pa.int64(), pa.int64(), pa.string(), pa.string()]
    assert pq.ParquetFile(file).metadata.row_group(0).column(0).compression == "ZSTD"
    assert list(part_files.write_parts([], FolderStorage(tmp_path), PRODUCTS)) == []


def test_a_task_whose_rows_break_the_contract_says_so_and_writes_no_rows(tmp_path: Path) -> None:
    broken = pa.RecordBatch.from_pylist([{"product_id": "a"}, {"product_id": None}], schema=PRODUCTS)

    [batch] = part_files.write_parts([broken], FolderStorage(tmp_path), PRODUCTS)

    (row,) = batch.to_pylist()
    assert (row["size"], row["rows"], row["stats"]) == (0, 0, "")
    assert row["problem"].startswith("null in required columns: product_id (in at least 1 rows)")
    assert "opt_out (in at least 2 rows)" in row["problem"]


def test_batches_are_joined_up_to_the_size_of_a_row_group(monkeypatch: pytest.MonkeyPatch) -> None:
    batches = [batch for i in range(9) for batch in products(product(f"p{i}"))]
    monkeypatch.setattr(part_files, "ROW_GROUP_BYTES", 3 * batches[0].nbytes)

    assert [table.num_rows for table in part_files.row_groups(batches, PRODUCTS)] == [2, 2, 2, 2, 1]
    assert [part_files.rows_per_group(pa.Table.from_batches(batches[:n])) for n in (1, 3, 9)] == [3, 3, 3]
    assert part_files.rows_per_group(PRODUCTS.empty_table()) == 1
    monkeypatch.setattr(part_files, "ROW_GROUP_BYTES", 1)
    assert part_files.rows_per_group(pa.Table.from_batches(batches)) == 1


def test_all_rows_about_a_product_are_in_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else two files would have to be written again for it, and a file's range says nothing about its last product."""
    schema = contract.arrow_schema("current_values")
    names = ["a", "a", "b", "b", "b", "c", "d", "d"]
    rows = [
        {"product_id": name, "attribute": f"x{i}", "values": ["v"], "source": "model"} for i, name in enumerate(names)
    ]
    batches = [pa.RecordBatch.from_pylist([row], schema=schema) for row in rows]
    monkeypatch.setattr(part_files, "ROW_GROUP_BYTES", 2 * batches[0].nbytes)
    monkeypatch.setattr(part_files, "FILE_BYTES", 1)

    parts = list(part_files.written_parts(batches, FolderStorage(tmp_path), schema))

    found = [pq.read_table(tmp_path / part.name)["product_id"].to_pylist() for part in parts]
    assert sorted(chain.from_iterable(found)) == names
    assert len({name for ids in found for name in set(ids)}) == sum(len(set(ids)) for ids in found)
    assert len(parts) > 1
    monkeypatch.setattr(part_files, "MOST_GROUP_BYTES", 3 * batches[0].nbytes)
    same = [pa.RecordBatch.from_pylist([rows[0]], schema=schema)] * 9
    assert [table.num_rows for table in part_files.row_groups(same, schema)] == [3, 3, 3, 0], "bounded all the same"
    assert [part.file.ids for part in parts] == [(ids[0], ids[-1]) for ids in found]


def test_columns_are_found_by_name_and_instants_survive_another_time_zone() -> None:
    [batch] = products(product("a", updated_at=START, title="t"))
    shuffled = batch.select(sorted(batch.schema.names, reverse=True))
    tokyo = shuffled.set_column(
        shuffled.schema.get_field_index("updated_at"),
        pa.field("updated_at", pa.timestamp("us", "Asia/Tokyo")),
        shuffled.column("updated_at").cast(pa.timestamp("us", "Asia/Tokyo")),
    )

    assert part_files.conform(tokyo, PRODUCTS).equals(batch)


def test_files_go_together_in_their_order_up_to_a_size() -> None:
    assert part_files.grouped([3, 4, 5, 20, 1, 9, 1], int, 10) == [[3, 4], [5], [20], [1, 9], [1]]
    assert part_files.grouped([], int, 10) == []


def test_splits_share_small_files_divide_large_ones_and_use_all_cores() -> None:
    small = [DataFile(f"s{number:02d}", MIB, 10) for number in range(40)]
    splits = reading.splits_of([*small, DataFile("large", 100 * MIB, 1000)], parallelism=2)
    pieces = [(piece.file, piece.part, piece.parts) for split in splits for piece in split]
    assert sorted(pieces) == sorted([(file.name, 0, 1) for file in small] + [("large", part, 4) for part in range(4)])
    assert max(len(split) for split in splits) <= 16
    assert len(reading.splits_of(small, parallelism=8)) >= 8
    assert [len(split) for split in reading.splits_of(small[:1], parallelism=8)] == [1]
    assert reading.splits_of([], parallelism=2) == []
