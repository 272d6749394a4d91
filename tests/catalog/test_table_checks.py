"""Tables that are damaged, or that another program has changed: refused, and never read as a table with fewer rows."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from catalog_enrichment import contract, failures
from catalog_enrichment.catalog import table_checks
from catalog_enrichment.catalog.lake import Catalog
from catalog_enrichment.errors import CatalogEnrichmentError, DataContractError, MissingFileError

from .catalog_rows import product, scanned

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

Action = dict[str, Any]


@pytest.fixture
def lake(tmp_path: Path) -> Catalog:
    """The table products in versions 1, 2 and 3, each with a file and a row more."""
    catalog = Catalog(tmp_path / "lake")
    for number in range(3):
        catalog.append_rows("products", [product(f"p{number}")], f"import-{number}")
    return catalog


def folder(lake: Catalog) -> Path:
    return Path(lake.location("products"))


def data_file(lake: Catalog) -> Path:
    """The file of the newest commit: all read it, and others before it."""
    delta = lake.tables.open("products")
    assert delta is not None
    (path,) = [add["path"] for add in pa.table(delta.get_add_actions()).sort_by("modification_time").to_pylist()[-1:]]
    return folder(lake) / path


def entry(lake: Catalog, version: int) -> Path:
    return folder(lake) / "_delta_log" / f"{version:020}.json"


def rewrite(lake: Catalog, version: int, change: Callable[[list[Action]], Iterable[Action]]) -> None:
    actions = [json.loads(line) for line in entry(lake, version).read_text().splitlines()]
    entry(lake, version).write_text("".join(json.dumps(action) + "\n" for action in change(actions)))


def protocol(reader: int, writer: int, *features: str) -> Action:
    of = {"readerFeatures": list(features), "writerFeatures": list(features)} if features else {}
    return {"protocol": {"minReaderVersion": reader, "minWriterVersion": writer, **of}}


# --- data files ------------------------------------------------------------------------------------------------------


def lost(file: Path) -> None:
    file.unlink()


def emptied(file: Path) -> None:
    file.write_bytes(b"")


def cut_off(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def of_other_rows(file: Path) -> None:
    """A whole file, of the same size by the log, with other rows than the log says."""
    pq.write_table(pa.Table.from_pylist([product("x"), product("y")], schema=contract.arrow_schema("products")), file)


DAMAGES = (lost, emptied, cut_off, of_other_rows)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_not_read_as_fewer_rows(lake: Catalog, damage: Callable[[Path], None]) -> None:
    file = data_file(lake)
    damage(file)
    with pytest.raises(DataContractError, match=rf"{file} ?.*(damaged|is not there).*RUNBOOK"):
        scanned(lake, "products")
    assert len(scanned(lake, "products", version=2)) == 2, "a version before it is whole"


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("read_before", [False, True])
def test_nor_by_spark(spark: SparkSession, lake: Catalog, damage: Callable[[Path], None], read_before: bool) -> None:
    with_spark, file = lake.on(spark), data_file(lake)
    if read_before:
        assert with_spark.read("products").count() == 3
    damage(file)
    with pytest.raises(DataContractError, match=f"{file}"):
        with_spark.read("products").count()


@pytest.mark.parametrize("damage", [lost, emptied, cut_off])
def test_nothing_is_added_to_a_table_that_has_lost_a_file(lake: Catalog, damage: Callable[[Path], None]) -> None:
    damage(data_file(lake))
    with pytest.raises(DataContractError):
        lake.append_rows("products", [product("new")], "import-9")
    assert lake.version("products") == 3


def test_a_whole_new_table_takes_the_place_of_a_damaged_one(spark: SparkSession, lake: Catalog) -> None:
    """So is `current_values`, which is derived, mended by its next refresh."""
    rows = lake.on(spark).read("products").where("product_id = 'p0'").localCheckpoint()
    emptied(data_file(lake))
    lake.on(spark).replace("products", rows, "import-9")
    assert [row["product_id"] for row in scanned(lake, "products")] == ["p0"]


def in_the_pages(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[4:100] = bytes(96)
    file.write_bytes(content)


def test_damage_that_only_reading_finds_names_the_file(spark: SparkSession, lake: Catalog) -> None:
    file = data_file(lake)
    in_the_pages(file)
    with pytest.raises(DataContractError, match=f"{file} is damaged"):
        scanned(lake, "products")
    with pytest.raises(Exception, match="FAILED_READ_FILE") as raised:
        lake.on(spark).read("products").collect()
    found = failures.recognised(raised.value)
    assert isinstance(found, DataContractError)
    assert f"{file} is damaged. Restore it from a backup" in str(found)


def test_an_error_of_the_disk_is_no_damage(lake: Catalog) -> None:
    place = lake.storage.below("products")
    with pytest.raises(OSError, match="slow") as raised, table_checks.opened(place, data_file(lake).name, 1):
        raise OSError(5, "slow")
    assert not isinstance(raised.value, CatalogEnrichmentError)


def test_a_file_whose_rows_the_log_does_not_count_is_read(spark: SparkSession, lake: Catalog) -> None:
    def uncounted(actions: list[Action]) -> Iterable[Action]:
        for action in actions:
            if "add" in action:
                del action["add"]["stats"]
            yield action

    rewrite(lake, 3, uncounted)
    assert len(scanned(lake, "products")) == lake.on(spark).read("products").count() == 3


# --- the log ---------------------------------------------------------------------------------------------------------


def checkpointed(lake: Catalog) -> Path:
    DeltaTable(folder(lake)).create_checkpoint()
    (file,) = (folder(lake) / "_delta_log").glob("*.checkpoint.parquet")
    return file


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda lake: entry(lake, 2).write_text("{garbage"), f"{2:020}.json"),
        (lambda lake: entry(lake, 2).write_bytes(entry(lake, 2).read_bytes()[:90]), f"{2:020}.json"),
        (lambda lake: emptied(entry(lake, 2)), f"{2:020}.json"),
        (lambda lake: emptied(entry(lake, 3)), f"{3:020}.json"),
        (lambda lake: entry(lake, 2).unlink(), f"{2:020}.json"),
        (lambda lake: entry(lake, 0).unlink(), f"{0:020}.json"),
        (lambda lake: cut_off(checkpointed(lake)), f"{3:020}.checkpoint.parquet"),
        (lambda lake: [file.unlink() for file in (folder(lake) / "_delta_log").iterdir()], "its log _delta_log is not"),
    ],
)
def test_a_damaged_log_is_named(lake: Catalog, damage: Callable[[Catalog], Any], named: str) -> None:
    damage(lake)
    for act in (
        lambda: lake.version("products"),
        lambda: scanned(lake, "products"),
        lambda: lake.append_rows("products", [product("new")], "import-9"),
    ):
        with pytest.raises(DataContractError, match=rf"products.*({named}).*RUNBOOK"):
            act()


def test_an_earlier_version_whose_log_entries_are_gone_is_missing(lake: Catalog) -> None:
    checkpointed(lake)
    for version in range(3):
        entry(lake, version).unlink()
    assert len(scanned(lake, "products")) == 3
    assert lake.tables.readable("products", 3)
    assert not lake.tables.readable("products", 1)
    with pytest.raises(MissingFileError, match="version 1 of"):
        lake.tables.open("products", 1)


# --- tables of other programs ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (protocol(3, 7, "deletionVectors"), r"protocol 3, features \['deletionVectors'\]"),
        (protocol(3, 7, "v2Checkpoint"), "v2Checkpoint"),
        (protocol(2, 5), "protocol 2"),
        (protocol(3, 7, "fromTomorrow"), "fromTomorrow"),
        (protocol(9, 9), "version 9"),
    ],
)
def test_a_table_that_needs_another_reader_is_refused(lake: Catalog, change: Action, said: str) -> None:
    rewrite(lake, 3, lambda actions: [*actions, change])
    for act in (lambda: scanned(lake, "products"), lambda: lake.append_rows("products", [product("new")], "import-9")):
        with pytest.raises(DataContractError, match=rf"{folder(lake)}.*{said}"):
            act()


def test_a_table_that_needs_another_writer_is_read_and_not_changed(lake: Catalog) -> None:
    rewrite(lake, 3, lambda actions: [*actions, protocol(1, 3)])
    assert len(scanned(lake, "products")) == 3
    with pytest.raises(DataContractError, match="writer of Delta's protocol 3"):
        lake.append_rows("products", [product("new")], "import-9")
    assert lake.version("products") == 3


def test_a_table_of_other_columns_is_not_read_either(lake: Catalog) -> None:
    def without_title(actions: list[Action]) -> Iterable[Action]:
        for action in actions:
            if "metaData" in action:
                schema = json.loads(action["metaData"]["schemaString"])
                schema["fields"] = [field for field in schema["fields"] if field["name"] != "title"]
                action["metaData"]["schemaString"] = json.dumps(schema)
            yield action

    rewrite(lake, 0, without_title)
    with pytest.raises(DataContractError, match=r"does not have the columns of contract products\.v1"):
        scanned(lake, "products")


def test_tables_made_here_have_the_protocol_that_is_read_here(tmp_path: Path) -> None:
    lake = Catalog(tmp_path / "lake")
    for table in contract.TABLES:
        found = lake.tables.create(table).protocol()
        assert (found.min_reader_version, found.min_writer_version) <= (
            table_checks.READER_VERSION,
            table_checks.WRITER_VERSION,
        )


# --- ways out, as deploy/RUNBOOK.md gives them -----------------------------------------------------------------------


def test_a_lost_file_can_be_put_back_or_taken_out_of_the_log(lake: Catalog) -> None:
    file = data_file(lake)
    backup = file.read_bytes()
    file.unlink()
    file.write_bytes(backup)
    assert len(scanned(lake, "products")) == 3
    file.unlink()
    DeltaTable(folder(lake)).repair()
    assert [row["product_id"] for row in scanned(lake, "products")] == ["p0", "p1"]
    assert lake.append_rows("products", [product("new")], "import-9") == 1
    assert lake.append_rows("products", [product("p0")], "import-0") == 1, "earlier runs are still known"
    assert len(scanned(lake, "products")) == 3


def test_a_commit_whose_entry_did_not_reach_the_disk_is_made_again(lake: Catalog) -> None:
    emptied(entry(lake, 3))
    entry(lake, 3).unlink()
    assert lake.append_rows("products", [product("p2")], "import-2") == 1
    assert len(scanned(lake, "products")) == 3


def test_current_values_are_derived_again(spark: SparkSession, lake: Catalog) -> None:
    with_spark, place = lake.on(spark), Path(lake.location("current_values"))
    given = product("p9", merchant_attributes={"color": ["Red"]})
    lake.append_rows("products", [given], "import-9")
    with_spark.refresh_current_values("import-9")
    (file,) = place.glob("*.parquet")
    file.unlink()
    with pytest.raises(DataContractError):
        scanned(lake, "current_values")
    place.rename(place.with_name("away"))
    assert with_spark.refresh_current_values("catch-up")
    assert [(row["product_id"], row["values"]) for row in scanned(lake, "current_values")] == [("p9", ["Red"])]
