from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from deltalake import DeltaTable, Schema

from catalog_enrichment import contract
from catalog_enrichment.catalog.base import Catalog
from catalog_enrichment.catalog.lake import LakeCatalog
from catalog_enrichment.errors import ConfigError, DataContractError
from catalog_enrichment.spark import frames

from .catalog_rows import START, frame, prediction, product, run_row

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

ODD = [
    "it's",
    'say "hi"',
    "línea\nnueva",
    "tab\there",
    "商品-1",
    "🙂",
    "back\\slash",
    "percent%20",
    "[a-z]*?{}",
    " ",
    "\x00",
]


@pytest.fixture
def lake(spark: SparkSession, tmp_path: Path) -> LakeCatalog:
    return LakeCatalog(tmp_path / "lake", spark)


def ids(rows: DataFrame) -> list[str]:
    return sorted(row["product_id"] for row in rows.select("product_id").collect())


def test_a_lake_is_a_catalog(lake: LakeCatalog) -> None:
    catalog: Catalog = lake  # mypy reads this line too

    assert catalog.location("runs") == str(lake.path / "runs")


def test_a_table_that_does_not_exist_reads_as_empty(lake: LakeCatalog) -> None:
    for table in contract.TABLES:
        assert lake.read(table).columns == contract.columns(table)
        assert list(lake.scan(table)) == []
        assert lake.version(table) == -1
        assert not lake.committed(table, "run-1")
    assert lake.read("products").count() == 0
    assert not lake.path.exists()


def test_every_type_of_the_contracts_survives_a_round_trip(lake: LakeCatalog, spark: SparkSession) -> None:
    rows = [
        product(
            odd,
            title=odd,
            images=[
                {"bytes": bytes(range(256)), "uri": None, "version": odd},
                {"bytes": None, "uri": f"file:///{odd}", "version": None},
            ],
            merchant_attributes={"color": ["Navy Blue", odd], odd: []},
            updated_at=START,
        )
        for odd in ODD
    ]

    assert lake.append("products", frame(spark, "products", rows), "run-1") == len(ODD)

    wanted = {row["product_id"]: {name: row.get(name) for name in contract.columns("products")} for row in rows}
    scanned = {row["product_id"]: row for batch in lake.scan("products") for row in batch.to_pylist()}
    for row in scanned.values():
        row["merchant_attributes"] = dict(row["merchant_attributes"])
    assert scanned == wanted
    read = {row["product_id"]: row.asDict(recursive=True) for row in lake.read("products").drop("updated_at").collect()}
    assert read == {key: {k: v for k, v in row.items() if k != "updated_at"} for key, row in wanted.items()}
    assert lake.read("products").schema.simpleString() == contract.spark_schema("products").simpleString()


@pytest.mark.parametrize("zone", ["Asia/Tokyo", "America/New_York", "Europe/Madrid"])
def test_times_do_not_shift_with_the_session_time_zone(lake: LakeCatalog, spark: SparkSession, zone: str) -> None:
    rows = frame(spark, "products", [product("p", updated_at=START)])
    spark.conf.set("spark.sql.session.timeZone", zone)
    try:
        lake.append("products", rows, "run-1")
        micros = lake.read("products").selectExpr("unix_micros(updated_at) as micros").collect()[0]["micros"]
    finally:
        spark.conf.set("spark.sql.session.timeZone", "UTC")

    [batch] = lake.scan("products", ["updated_at"])
    [scanned] = batch.column("updated_at").to_pylist()
    assert scanned.astimezone(UTC) == START
    assert micros == int(START.timestamp()) * 1_000_000 + START.microsecond


def test_a_version_keeps_reading_what_it_held(lake: LakeCatalog, spark: SparkSession) -> None:
    lake.append("products", frame(spark, "products", [product("a")]), "run-1")
    before, pinned = lake.version("products"), lake.read("products")
    lake.replace("products", frame(spark, "products", [product("b"), product("c")]), "run-2")

    assert ids(lake.read("products")) == ["b", "c"]
    assert ids(lake.read("products", before)) == ids(pinned) == ["a"]
    assert ids(lake.read("products", -1)) == []


@pytest.mark.parametrize("few", [10, 1], ids=["file to file", "joined by Spark"])
def test_products_are_replaced_and_the_others_stay(
    lake: LakeCatalog, spark: SparkSession, monkeypatch: pytest.MonkeyPatch, few: int
) -> None:
    monkeypatch.setattr(frames, "FEW_PRODUCTS", few)
    lake.append("products", frame(spark, "products", [product(name) for name in "abcd"]), "run-1")
    new = frame(spark, "products", [product("b", title="other"), product("e")])
    changed = frame(spark, "products", [product("b"), product("d"), product("x")])

    assert lake.replace_products("products", new, changed, "run-2") == 4
    assert ids(lake.read("products")) == ["a", "b", "c", "e"]
    assert {row.product_id: row.title for row in lake.read("products").collect()}["b"] == "other"
    assert lake.replace_products("products", new, frame(spark, "products", []), "run-2") == 4, "once per run"
    version = lake.version("products")
    assert lake.readable("products", version)
    assert lake.readable("products", -1)
    assert not lake.readable("products", version + 1)
    next((lake.path / "products").glob("*.parquet")).unlink()
    assert not all(lake.readable("products", number) for number in range(version + 1))


def test_a_checkpoint_that_is_half_removed_is_none(
    lake: LakeCatalog, spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake.checkpoint("run-1", "rows", spark.range(3))
    assert lake.has_checkpoint("run-1", "rows")
    assert not lake.has_checkpoint("run-1", "row")
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)  # killed before it has removed anything
        lake.drop_checkpoints("run-1")
    assert not lake.has_checkpoint("run-1", "rows")
    assert lake.checkpoint("run-1", "rows", spark.range(5)).count() == 5


def test_a_second_append_of_a_run_is_a_no_op_and_says_what_the_first_wrote_i5(
    lake: LakeCatalog, spark: SparkSession
) -> None:
    assert lake.append("products", frame(spark, "products", [product("a"), product("b")]), "run-1") == 2
    version = lake.version("products")

    assert lake.append("products", frame(spark, "products", [product("c")]), "run-1") == 2
    assert lake.replace("products", frame(spark, "products", []), "run-1") == 2
    assert lake.append_rows("products", [product("d")], "run-1") == 2
    assert lake.version("products") == version
    assert ids(lake.read("products")) == ["a", "b"]


def test_an_empty_run_is_committed(lake: LakeCatalog, spark: SparkSession) -> None:
    assert lake.append("predictions", frame(spark, "predictions", []), "run-1") == 0
    assert lake.append_rows("quarantine", [], "run-1") == 0

    assert lake.committed("predictions", "run-1")
    assert lake.committed("quarantine", "run-1")
    assert not lake.committed("predictions", "run-2")
    assert lake.read("predictions").count() == 0
    assert lake.append("predictions", frame(spark, "predictions", [prediction("a", "color", "Red")]), "run-1") == 0


def test_what_a_run_wrote_is_known_after_the_log_is_cleaned_up(lake: LakeCatalog, spark: SparkSession) -> None:
    lake.append("products", frame(spark, "products", [product("a")]), "run-1")
    lake._create("products").create_checkpoint()
    for entry in Path(lake.location("products"), "_delta_log").glob("*.json"):
        entry.unlink()

    assert lake.append("products", frame(spark, "products", [product("b"), product("c")]), "run-1") == 1
    assert ids(lake.read("products")) == ["a"]


def test_replacing_with_nothing_empties_the_table(lake: LakeCatalog, spark: SparkSession) -> None:
    lake.append("products", frame(spark, "products", [product("a")]), "run-1")

    assert lake.replace("products", frame(spark, "products", []), "run-2") == 0
    assert ids(lake.read("products")) == []


@pytest.mark.parametrize("folder", ["with space", "#hash", "dos:puntos, ñandú's"])
def test_folders_with_odd_names_work(spark: SparkSession, tmp_path: Path, folder: str) -> None:
    lake = LakeCatalog(tmp_path / folder, spark)
    lake.append("products", frame(spark, "products", [product("a")]), "run-1")
    lake.append_rows("products", [product("b")], "run-2")

    assert ids(lake.read("products")) == ["a", "b"]
    assert sum(batch.num_rows for batch in lake.scan("products")) == 2
    assert ids(lake.checkpoint("run-1", "s", lake.read("products"))) == ["a", "b"]


@pytest.mark.parametrize("folder", ["a%20b", "a[bc]", "a{b,c}", "a*", "a?"])
def test_a_path_that_would_be_taken_for_another_is_refused(tmp_path: Path, folder: str) -> None:
    with pytest.raises(ConfigError, match="choose a folder without"):
        LakeCatalog(tmp_path / folder)


@pytest.mark.parametrize("method", ["append", "replace"])
def test_nulls_in_required_columns_are_refused_before_the_commit(
    lake: LakeCatalog, spark: SparkSession, method: str
) -> None:
    rows = spark.range(100).selectExpr(
        "if(id = 99, null, string(id)) as product_id", "false as opt_out", "'h' as content_hash"
    )
    for name in set(contract.columns("products")) - set(rows.columns):
        rows = rows.selectExpr("*", f"null as {name}")

    with pytest.raises(DataContractError, match=r"products: null in required columns: product_id"):
        getattr(lake, method)("products", rows, "run-1")

    assert not lake.committed("products", "run-1")
    assert lake.read("products").count() == 0


def test_missing_columns_and_wrong_types_are_refused_by_name(lake: LakeCatalog, spark: SparkSession) -> None:
    rows = frame(spark, "predictions", [prediction("a", "color", "Red")])

    with pytest.raises(DataContractError, match=r"column compute_type is missing; column score is string.*double"):
        lake.append("predictions", rows.drop("compute_type").withColumn("score", rows.score.cast("string")), "run-1")
    products = frame(spark, "products", [product("a")])
    wall_clock = products.withColumn("updated_at", products.updated_at.cast("timestamp_ntz"))
    with pytest.raises(DataContractError, match="updated_at is timestamp_ntz"):
        lake.append("products", wall_clock, "run-1")
    assert lake.version("predictions") <= 0


def test_further_columns_are_left_out_and_order_does_not_matter(lake: LakeCatalog, spark: SparkSession) -> None:
    rows = frame(spark, "products", [product("a", title="t")])
    shuffled = rows.select(*sorted(rows.columns, reverse=True)).selectExpr("*", "1 as extra")

    lake.append("products", shuffled, "run-1")

    assert lake.read("products").first()["title"] == "t"


def test_a_table_of_another_shape_is_refused(lake: LakeCatalog, spark: SparkSession) -> None:
    import pyarrow as pa
    from deltalake import write_deltalake

    write_deltalake(lake.location("products"), pa.table({"product_id": ["a"], "colour": ["red"]}))

    with pytest.raises(DataContractError, match=r"contract products\.v2.*colour"):
        lake.append_rows("products", [product("a")], "run-1")


def test_rows_of_the_drivers_keep_maps_times_and_nulls(lake: LakeCatalog) -> None:
    row = run_row("run-1", counts={"products": 3}, seconds={"scan": 0.5}, window='{"odd": "ñ\'"}')

    assert lake.append_rows("runs", [row], "run-1") == 1

    [batch] = lake.scan("runs")
    [read] = batch.to_pylist()
    assert dict(read["counts"]) == {"products": 3}
    assert dict(read["seconds"]) == {"scan": 0.5}
    assert read["started_at"] == START
    assert read["parent_run_id"] is None


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"statuss": "ok"}, r"no columns \['statuss'\]"),
        ({"counts": {"products": "many"}}, "does not fit"),
        ({"kind": None}, "null in required columns: kind"),
    ],
)
def test_rows_of_the_drivers_that_break_the_contract_are_refused(
    lake: LakeCatalog, row: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataContractError, match=message):
        lake.append_rows("runs", [run_row("run-1", **row)], "run-1")
    assert not lake.committed("runs", "run-1")


def test_twenty_appends_at_once_keep_all_rows(lake: LakeCatalog, spark: SparkSession) -> None:
    def write(number: int) -> int:
        run_id, rows = f"run-{number}", [product(f"p{number}-{i}") for i in range(3)]
        if number % 10:
            return lake.append_rows("products", rows, run_id)
        return lake.append("products", frame(spark, "products", rows), run_id)

    with ThreadPoolExecutor(20) as threads:
        assert list(threads.map(write, range(20))) == [3] * 20

    assert len(set(ids(lake.read("products")))) == 60


def test_the_same_run_writing_twice_at_once_writes_once_i5(lake: LakeCatalog) -> None:
    rows = [product("a"), product("b")]
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(lambda _: lake.append_rows("products", rows, "run-1"), range(8))) == [2] * 8

    assert ids(lake.read("products")) == ["a", "b"]


class Interrupted(LakeCatalog):
    """A lake on which something happens between a run's files and its commit."""

    def __init__(self, path: Path, spark: SparkSession, meanwhile: Any) -> None:
        super().__init__(path, spark)
        self.meanwhile = meanwhile

    def _commit(self, delta: DeltaTable, parts: Sequence[Any], *rest: Any) -> bool:
        self.meanwhile()
        return super()._commit(delta, list(parts), *rest)


def test_of_two_replacements_at_once_the_second_is_refused(lake: LakeCatalog, spark: SparkSession) -> None:
    lake.append_rows("products", [product("old")], "run-0")
    slow = Interrupted(
        lake.path, spark, lambda: lake.replace("products", frame(spark, "products", [product("first")]), "run-1")
    )

    with pytest.raises(DataContractError, match="another job changed the table while run run-2"):
        slow.replace("products", frame(spark, "products", [product("second")]), "run-2")

    assert ids(lake.read("products")) == ["first"]


def test_a_stage_is_computed_once_and_again_only_if_it_is_incomplete(lake: LakeCatalog, spark: SparkSession) -> None:
    from pyspark.sql import functions as F

    def numbers(rows: int) -> DataFrame:
        return spark.range(rows).select("id", F.array(F.lit("x"), F.lit(None)).alias("list"))

    first = lake.checkpoint("run-1", "scored", numbers(3))
    assert first.schema.simpleString() == numbers(3).schema.simpleString()
    assert first.count() == 3
    assert lake.checkpoint("run-1", "scored", numbers(5)).count() == 3
    assert lake.checkpoint("run-1", "other", numbers(0)).count() == 0
    assert lake.checkpoint("run-2", "scored", numbers(4)).count() == 4

    [marker] = Path(lake.path, "_staging", "run-1").glob("scored-*/_SUCCESS")
    marker.unlink()
    assert lake.checkpoint("run-1", "scored", numbers(5)).count() == 5

    lake.drop_checkpoints("run-1")
    assert not Path(lake.path, "_staging", "run-1").exists()
    assert lake.checkpoint("run-2", "scored", numbers(9)).count() == 4
    lake.drop_checkpoints("never-stored")


@pytest.mark.parametrize("run_id", ["", "..", ".", "a/b", "/etc"])
def test_a_run_id_that_is_no_folder_name_removes_nothing(lake: LakeCatalog, run_id: str) -> None:
    with pytest.raises(ConfigError, match="cannot name a checkpoint"):
        lake.drop_checkpoints(run_id)


def test_without_spark_a_lake_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="without Spark"):
        LakeCatalog(tmp_path).read("products")


def older_table(lake: LakeCatalog, change: Callable[[dict[str, Any]], bool]) -> None:
    """Create the table `runs` with those fields of its contract for which ``change`` (which may edit them) is true."""
    fields = [field for field in json.loads(contract.table_json("runs"))["fields"] if change(field)]
    folder = lake.path / "runs"
    folder.mkdir(parents=True)
    DeltaTable.create(folder.as_uri(), Schema.from_json(json.dumps({"type": "struct", "fields": fields})))


def test_a_table_of_an_older_contract_gets_the_columns_that_came_later(lake: LakeCatalog) -> None:
    older_table(lake, lambda field: field["name"] not in ("attempt", "stages", "error"))
    lake.append_rows("runs", [run_row("run-1", attempt=1)], "run-1")
    lake.append_rows("runs", [run_row("run-2", attempt=2)], "run-2")
    rows = [row for batch in lake.scan("runs") for row in batch.to_pylist()]
    assert {(row["run_id"], row["attempt"], row["error"]) for row in rows} == {("run-1", 1, None), ("run-2", 2, None)}


def renamed(field: dict[str, Any]) -> bool:
    field["type"] = "string" if field["name"] == "attempt" else field["type"]
    return True


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda field: field["name"] != "kind", id="a required column is missing"),
        pytest.param(renamed, id="a column has another type"),
    ],
)
def test_a_difference_that_new_nullable_columns_do_not_explain_is_refused(
    lake: LakeCatalog, change: Callable[[dict[str, Any]], bool]
) -> None:
    older_table(lake, change)
    with pytest.raises(DataContractError, match="does not have the columns of contract runs"):
        lake.append_rows("runs", [run_row("run-1")], "run-1")
