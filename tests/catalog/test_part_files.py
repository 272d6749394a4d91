"""What a task writes and which files it reads; reading from an object store is in test_object_catalog."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from catalog_enrichment import contract
from catalog_enrichment.catalog import part_files
from catalog_enrichment.catalog.storage import DataFile, FolderStorage

from .catalog_rows import START, product

MIB = 2**20
PRODUCTS = contract.arrow_schema("products")


def products(*rows: dict) -> list[pa.RecordBatch]:
    return pa.Table.from_pylist(list(rows), schema=PRODUCTS).to_batches()


def test_no_rows_write_no_file(tmp_path: Path) -> None:
    empty = PRODUCTS.empty_table().to_batches() or [pa.RecordBatch.from_pylist([], schema=PRODUCTS)]

    assert part_files.write_part([], FolderStorage(tmp_path), PRODUCTS) is None
    assert part_files.write_part(empty, FolderStorage(tmp_path), PRODUCTS) is None
    assert list(tmp_path.iterdir()) == []


def test_rows_of_other_products_are_kept_row_group_by_row_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(part_files, "ROW_GROUP_BYTES", 1)
    names = ["b", "é", "a", "c", "d"]
    part = part_files.write_part(products(*[product(name) for name in names]), FolderStorage(tmp_path), PRODUCTS)
    assert part is not None
    assert pq.ParquetFile(tmp_path / part.name).num_row_groups > 1
    pq.write_table(pa.Table.from_pylist([product("old")], schema=PRODUCTS), tmp_path / "older.parquet")
    groups = [[DataFile("older.parquet", 1, 1)], [DataFile(part.name, part.size, part.rows)]]

    gone, numbers = pa.array(["é", "d", "x"]), pa.RecordBatch.from_pydict({"id": [1, 0]})
    first, second = part_files.write_kept_parts([numbers], groups, gone, FolderStorage(tmp_path), PRODUCTS)

    def ids(row: pa.RecordBatch) -> list[str]:
        return pq.read_table(tmp_path / row["name"][0].as_py())["product_id"].to_pylist()

    assert (ids(first), ids(second)) == (["b", "a", "c"], ["old"])
    everything = pa.array(names)
    assert (
        list(part_files.write_kept_parts([numbers.slice(0, 1)], groups, everything, FolderStorage(tmp_path), PRODUCTS))
        == []
    )


def test_row_groups_are_bounded_by_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part_files, "ROW_GROUP_BYTES", 10_000)
    picture = {"bytes": b"\xff" * 4_000, "uri": None, "version": "1"}
    batches = products(*[product(f"p{i}", images=[picture]) for i in range(9)])

    part = part_files.write_part(batches, FolderStorage(tmp_path), PRODUCTS)

    assert part is not None
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

    part = part_files.write_part(batches, FolderStorage(tmp_path), schema)

    assert part is not None
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

    assert [table.num_rows for table in part_files.row_groups(batches, PRODUCTS)] == [3, 3, 3, 0]
    assert [part_files.rows_per_group(pa.Table.from_batches(batches[:n])) for n in (1, 3, 9)] == [3, 3, 3]
    assert part_files.rows_per_group(PRODUCTS.empty_table()) == 1
    monkeypatch.setattr(part_files, "ROW_GROUP_BYTES", 1)
    assert part_files.rows_per_group(pa.Table.from_batches(batches)) == 1


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
    splits = part_files.splits_of([*small, DataFile("large", 100 * MIB, 1000)], parallelism=2)
    pieces = [(piece.file, piece.part, piece.parts) for split in splits for piece in split]
    assert sorted(pieces) == sorted([(file.name, 0, 1) for file in small] + [("large", part, 4) for part in range(4)])
    assert max(len(split) for split in splits) <= 16
    assert len(part_files.splits_of(small, parallelism=8)) >= 8
    assert [len(split) for split in part_files.splits_of(small[:1], parallelism=8)] == [1]
    assert part_files.splits_of([], parallelism=2) == []
