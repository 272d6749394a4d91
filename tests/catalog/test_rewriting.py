"""Which files are written again for a change, and how upkeep keeps the ranges of files narrow."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from datetime import timedelta
from itertools import chain, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from catalog_enrichment import contract
from catalog_enrichment.catalog import maintenance, part_files, reading, rewriting
from catalog_enrichment.catalog.delta_tables import files_of, names_of
from catalog_enrichment.catalog.lake import Catalog
from catalog_enrichment.catalog.maintenance import Maintenance
from catalog_enrichment.catalog.storage import DataFile, FolderStorage
from catalog_enrichment.errors import DataContractError
from catalog_enrichment.spark import frames

from .catalog_rows import event, frame, parts_of, prediction, product, scanned

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

PRODUCTS = contract.arrow_schema("products")


def file(name: str, low: str | None, high: str = "") -> DataFile:
    return DataFile(name, 1, 1, None if low is None else (low, high))


def names(files: Iterable[DataFile]) -> str:
    return "".join(each.name for each in files)


@pytest.fixture
def lake(tmp_path: Path, spark: SparkSession) -> Catalog:
    return Catalog(tmp_path / "lake", spark)


def add(lake: Catalog, *ids: str, table: str = "products", **given: Any) -> str:
    """Commit a file with rows about these products, and return its name."""
    delta = lake.tables.create(table)
    make = product if table == "products" else lambda name: prediction(name, "color", "Red")
    parts = parts_of(lake, table, *[make(name) | given for name in ids])
    assert lake.tables.commit(delta, parts, f"run-{parts[0].name}", {f"run-{parts[0].name}": len(ids)})
    return parts[0].name


def ids_of(lake: Catalog, name: str, table: str = "products") -> list[str]:
    return pq.read_table(lake.storage.folder / table / name)["product_id"].to_pylist()


def layout(lake: Catalog, table: str = "products") -> dict[str, list[str]]:
    """File -> its product ids in their order."""
    return {name: ids_of(lake, name, table) for name in names_of(lake.tables.open(table))}


# which files


@pytest.mark.parametrize(
    ("ids", "wanted"), [("b", "aw?"), ("d", "w?"), ("a", "aw?"), ("c", "aw?"), ("z", "?"), ("fb", "aew?"), ("", "")]
)
def test_only_files_whose_range_has_an_id_may_hold_it(ids: str, wanted: str) -> None:
    files = [file("a", "a", "c"), file("e", "e", "f"), file("w", "a", "y"), file("?", None)]
    assert names(reading.about(files, pa.array(list(ids), pa.string()))) == wanted


@pytest.mark.parametrize(
    ("spans", "most", "groups"),
    [
        (["ab", "cd", "ef"], 1, []),
        (["ab", "bc", "ef"], 1, ["01"]),
        (["ab", "bc", "ef"], 2, []),
        (["az", "ab", "cd", "ef"], 2, []),
        (["az", "by", "ab", "cd", "ef"], 2, ["014"]),
        (["az", "az", "az", "ab", "xz"], 3, ["0124"]),
        ([None, None, "ab", "cd"], 2, ["013"]),
    ],
)
def test_files_that_overlap_most_are_joined_until_few_do(
    spans: Sequence[str | None], most: int, groups: list[str]
) -> None:
    files = [file(str(i), span and span[0], span[1] if span else "") for i, span in enumerate(spans)]
    assert [names(group) for group in rewriting.deepest(files, most)] == groups


# rows replaced


def test_a_change_writes_only_the_files_again_that_hold_it(lake: Catalog, spark: SparkSession) -> None:
    first, second, third = add(lake, *"abf"), add(lake, *"egi"), add(lake, *"klm")
    new = frame(spark, "products", [product("g", title="new"), product("h"), product("n")])

    assert lake.replace_products("products", new, frame(spark, "products", [product(x) for x in "ghnd"]), "run-2") == 11

    files = layout(lake)
    assert set(files) >= {first, third}, "its range has 'd', which no file holds; or it has none"
    assert second not in files
    others = sorted(ids for name, ids in files.items() if name not in (first, third))
    assert others == [["e", "g", "i"], ["h", "n"]], "in place of the old row, and what is new by itself"
    there = {path.name for path in (lake.storage.folder / "products").glob("*.parquet")}
    assert there == {*files, second}, "no other file is left, but the old one for readers of the old version"
    assert {row["product_id"]: row["title"] for row in scanned(lake, "products")}["g"] == "new"


def test_a_change_of_all_rows_of_a_file_leaves_no_file_behind(lake: Catalog, spark: SparkSession) -> None:
    kept = add(lake, *"xyz")
    add(lake, *"abc")
    nothing, changed = frame(spark, "products", []), frame(spark, "products", [product(x) for x in "abc"])

    assert lake.replace_products("products", nothing, changed, "run-2") == 3

    assert layout(lake) == {kept: ["x", "y", "z"]}
    there = {path.name for path in (lake.storage.folder / "products").glob("*.parquet")}
    assert len(there) == 2, "the old file is for readers of the old version; no other file was made"


def test_a_product_in_two_files_gets_its_new_rows_once(lake: Catalog, spark: SparkSession) -> None:
    """As an optimisation by another program may leave it."""
    add(lake, *"abc")
    add(lake, *"bcd")
    new = frame(spark, "products", [product("b", title="new")])

    assert lake.replace_products("products", new, new, "run-2") == 5
    assert sorted(row["product_id"] for row in scanned(lake, "products")) == list("abccd")


def test_many_files_are_looked_into_by_tasks(
    lake: Catalog, spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rewriting, "TASK_BYTES", 1)
    untouched = add(lake, "a", "z")
    for number in range(4):
        add(lake, *[f"{number}{letter}" for letter in "pqr"])
    new = frame(spark, "products", [product(f"{number}q", title="new") for number in range(5)])

    assert lake.replace_products("products", new, new, "run-2") == 2 + 12 + 1

    files = layout(lake)
    assert untouched in files
    assert sorted(files.values()) == [["0p", "0q", "0r"], ["1p", "1q", "1r"], ["2p", "2q", "2r"], ["3p", "3q", "3r"],
                                      ["4q"], ["a", "z"]]  # fmt: skip
    assert sum(row["title"] == "new" for row in scanned(lake, "products")) == 5


def test_a_change_that_breaks_the_contract_changes_nothing(lake: Catalog, spark: SparkSession) -> None:
    before = add(lake, *"abc")
    broken = frame(spark, "products", [product("a")]).replace({"content-1": None}, subset="content_hash")
    with pytest.raises(DataContractError, match="null in required columns: content_hash"):
        lake.replace_products("products", broken, broken.select("product_id"), "run-2")
    assert set(layout(lake)) == {before}


def test_new_rows_come_between_the_old_ones_in_order() -> None:
    def table(ids: str) -> pa.Table:
        return pa.Table.from_pylist([product(name) for name in ids], schema=PRODUCTS)

    old = [*table("ac").to_batches(), *table("").to_batches(), *table("eg").to_batches(), *table("k").to_batches()]
    merged = [batch["product_id"].to_pylist() for batch in rewriting.merged(old, table("bdfhz"))]
    assert "".join(chain.from_iterable(merged)) == "abcdefghkz"
    assert rewriting.merged([], table("ab")).__next__()["product_id"].to_pylist() == ["a", "b"]


def test_random_changes_give_what_a_dictionary_gives(
    lake: Catalog, spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against the simplest model of a table, with files of few rows and tasks of few files."""
    monkeypatch.setattr(part_files, "ROW_GROUP_BYTES", 400)
    monkeypatch.setattr(part_files, "FILE_BYTES", 2_000)
    monkeypatch.setattr(rewriting, "TASK_BYTES", 8_000)
    draw, state = random.Random(7), dict[str, str | None]()
    pool = [f"{draw.randrange(10**6):06d}" for _ in range(120)]
    for step in range(5):
        changed = draw.sample(pool, 40)
        new = {name: f"title {step}" for name in changed if draw.random() < 0.7}
        rows = frame(spark, "products", [product(name, title=title) for name, title in new.items()])
        ids = spark.createDataFrame([(name,) for name in changed], "product_id string")

        state = {name: title for name, title in state.items() if name not in changed} | new
        assert lake.replace_products("products", rows, ids, f"run-{step}") == len(state)

        assert {row["product_id"]: row["title"] for row in scanned(lake, "products")} == state
        assert all(found == sorted(found) for found in layout(lake).values())
    if groups := Maintenance(lake, 168).files_to_join("products", 2):
        Maintenance(lake, 168).compact("products", groups, "maintain-1")
    assert {row["product_id"]: row["title"] for row in scanned(lake, "products")} == state


# reading


@pytest.mark.parametrize("few", [100, 0], ids=["in the query", "sent to tasks"])
def test_rows_about_some_products_are_read_from_their_files(
    lake: Catalog, spark: SparkSession, monkeypatch: pytest.MonkeyPatch, few: int
) -> None:
    monkeypatch.setattr(frames, "FEW_IN_QUERY", few)
    add(lake, *"abc", table="predictions")
    other = add(lake, *"xyz", table="predictions")
    (lake.storage.folder / "predictions" / other).rename(lake.storage.folder / "hidden")
    found = lake.read("predictions", ids=pa.array(["b", "c", "d"])).collect()
    assert sorted(row["product_id"] for row in found) == ["b", "c"]
    assert lake.read("predictions", ids=pa.array([], pa.string())).count() == 0
    assert lake.read("predictions", ids=pa.array(["m"])).columns == contract.columns("predictions")


def test_tasks_that_read_an_object_store_leave_out_row_groups_and_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(part_files, "ROW_GROUP_BYTES", 300)
    rows = pa.Table.from_pylist([product(name) for name in "abcdefghi"], schema=PRODUCTS).to_batches(1)
    place = FolderStorage(tmp_path)
    [part] = part_files.written_parts(rows, place, PRODUCTS)
    read, groups = reading.batches_of, []

    def counted(parquet: Any, size: int, schema: pa.Schema, numbers: Any = None) -> Any:
        groups.extend(numbers)
        return read(parquet, size, schema, numbers)

    monkeypatch.setattr(reading, "batches_of", counted)
    numbers = pa.RecordBatch.from_pydict({"id": pa.array([0])})
    splits = [[reading.Piece(part.name, part.size, rows=part.rows)]]
    found = reading.read_splits([numbers], place, splits, 1, PRODUCTS, pa.array(["b", "zz"]))
    assert [name for batch in found for name in batch["product_id"].to_pylist()] == ["b"]
    assert 0 < len(groups) < pq.ParquetFile(tmp_path / part.name).num_row_groups
    assert not list(reading.rows_about(place, [part.file], pa.array([], pa.string()), PRODUCTS))


def test_a_large_table_is_written_in_ranges_of_products(
    lake: Catalog, spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = frame(spark, "products", [product(f"{(number * 7919) % 1000:03d}") for number in range(300)])
    lake.append("products", rows.repartition(3), "run-1")
    files = layout(lake)
    assert all(ids == sorted(ids) for ids in files.values())
    spans = sorted((ids[0], ids[-1]) for ids in files.values())
    assert all(before[1] < after[0] for before, after in pairwise(spans))
    assert sorted(each.ids for each in files_of(lake.tables.open("products"))) == spans


# upkeep


def test_overlapping_files_are_joined_into_ranges(lake: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maintenance, "SMALL_BYTES", 1)
    monkeypatch.setattr(maintenance, "MOST_OVERLAPPING", 2)
    monkeypatch.setattr(part_files, "ROW_GROUP_BYTES", 300)
    monkeypatch.setattr(part_files, "FILE_BYTES", 1_000)
    monkeypatch.setattr(rewriting, "SORTED_BYTES", 2_000)
    apart = add(lake, *"89")
    for number in range(4):
        add(lake, *[f"{letter}{number}" for letter in "abcdefgh"])
    before = sorted(row["product_id"] for row in scanned(lake, "products"))
    upkeep = Maintenance(lake, 168)
    groups = upkeep.files_to_join("products", 100)
    assert [len(group) for group in groups] == [4]

    assert upkeep.compact("products", groups, "maintain-1") > 1

    files = layout(lake)
    assert apart in files
    assert sorted(chain.from_iterable(files.values())) == before
    assert not rewriting.deepest(files_of(lake.tables.open("products")), 1), "no two files overlap"


def test_rows_without_a_product_are_joined_as_well(lake: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of a source that have no id are in quarantine."""
    monkeypatch.setattr(rewriting, "SORTED_BYTES", 1)
    known = {"stage": "import", "reason": "x", "quarantined_at": event(0)["asserted_at"]}
    for number, ids in enumerate((["b", None, "d"], [None], ["a", "c", None], ["e", "f"], ["a", "g"])):
        lake.append_rows("quarantine", [known | {"product_id": name, "run_id": "r"} for name in ids], f"run-{number}")
    upkeep = Maintenance(lake, 168)
    upkeep.compact("quarantine", upkeep.files_to_join("quarantine", 2), "maintain-1")
    found = [row["product_id"] for row in scanned(lake, "quarantine")]
    assert [name for name in found if name] == ["a", "a", "b", "c", "d", "e", "f", "g"]
    assert found.count(None) == 3


def test_the_largest_value_of_a_column_is_in_the_footers(lake: Catalog) -> None:
    times = [event(0)["asserted_at"] + timedelta(microseconds=step) for step in (5, 9, 7)]
    lake.tables.create("attribute_values")
    files = [part.file for at in times for part in parts_of(lake, "attribute_values", event(1, asserted_at=at))]
    assert reading.largest(lake.storage.below("attribute_values"), files, "asserted_at") == max(times)
    assert reading.largest(lake.storage, [], "asserted_at") is None
    plain = lake.storage.folder / "plain.parquet"
    pq.write_table(pa.table({"deep": [[{"a": 1}]] * 3, "number": [3, 9, None]}), plain, write_statistics=False)
    other = DataFile("plain.parquet", plain.stat().st_size, 3)
    assert reading.largest(lake.storage, [other], "number") == 9
