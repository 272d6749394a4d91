"""A catalog in a folder: what is written is read again, each run commits once, and readers see what was derived."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from catalog_enrichment import contract
from catalog_enrichment.catalog import ledger
from catalog_enrichment.catalog.lake import Catalog
from catalog_enrichment.dictionary import Dictionary
from catalog_enrichment.errors import ConfigError, DataContractError
from catalog_enrichment.spark import frames
from catalog_enrichment.values.kinds import NumberRule

from ..open_words import CLOSED_WORDS, OPEN_WORDS
from .catalog_rows import START, event, frame, prediction, product, run_row, stamp

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

ODD = [
    *("it's", 'say "hi"', "línea\nnueva", "tab\there", "商品-1", "🙂", "back\\slash"),
    *("percent%20", "[a-z]*?{}", " ", "\x00"),
]


@pytest.fixture
def lake(spark: SparkSession, tmp_path: Path) -> Catalog:
    return Catalog(tmp_path / "lake", spark)


def ids(rows: DataFrame) -> list[str]:
    return sorted(row["product_id"] for row in rows.select("product_id").collect())


def test_a_table_that_does_not_exist_reads_as_empty(lake: Catalog) -> None:
    for table in contract.TABLES:
        assert lake.read(table).columns == contract.columns(table)
        assert list(lake.scan(table)) == []
        assert lake.version(table) == -1
        assert not lake.committed(table, "run-1")
    assert lake.read("products").count() == 0
    assert not lake.storage.folder.exists()


def test_every_type_of_the_contracts_survives_a_round_trip(lake: Catalog, spark: SparkSession) -> None:
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
def test_times_do_not_shift_with_the_session_time_zone(lake: Catalog, spark: SparkSession, zone: str) -> None:
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


def test_a_version_keeps_reading_what_it_held(lake: Catalog, spark: SparkSession) -> None:
    lake.append("products", frame(spark, "products", [product("a")]), "run-1")
    before, pinned = lake.version("products"), lake.read("products")
    lake.replace("products", frame(spark, "products", [product("b"), product("c")]), "run-2")

    assert ids(lake.read("products")) == ["b", "c"]
    assert ids(lake.read("products", before)) == ids(pinned) == ["a"]
    assert ids(lake.read("products", -1)) == []
    assert lake.replace("products", frame(spark, "products", []), "run-3") == 0
    assert ids(lake.read("products")) == []


@pytest.mark.parametrize("few", [10, 1], ids=["file to file", "joined by Spark"])
def test_products_are_replaced_and_the_others_stay(
    lake: Catalog, spark: SparkSession, monkeypatch: pytest.MonkeyPatch, few: int
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
    assert lake.tables.readable("products", version)
    assert lake.tables.readable("products", -1)
    assert not lake.tables.readable("products", version + 1)
    next((lake.storage.folder / "products").glob("*.parquet")).unlink()
    assert not all(lake.tables.readable("products", number) for number in range(version + 1))


def test_a_second_append_of_a_run_is_a_no_op_and_says_what_the_first_wrote_i5(
    lake: Catalog, spark: SparkSession
) -> None:
    assert lake.append("products", frame(spark, "products", [product("a"), product("b")]), "run-1") == 2
    version = lake.version("products")

    assert lake.append("products", frame(spark, "products", [product("c")]), "run-1") == 2
    assert lake.replace("products", frame(spark, "products", []), "run-1") == 2
    assert lake.append_rows("products", [product("d")], "run-1") == 2
    assert lake.version("products") == version
    assert ids(lake.read("products")) == ["a", "b"]


def test_an_empty_run_is_committed(lake: Catalog, spark: SparkSession) -> None:
    assert lake.append("predictions", frame(spark, "predictions", []), "run-1") == 0
    assert lake.append_rows("quarantine", [], "run-1") == 0

    assert lake.committed("predictions", "run-1")
    assert lake.committed("quarantine", "run-1")
    assert not lake.committed("predictions", "run-2")
    assert lake.read("predictions").count() == 0
    assert lake.append("predictions", frame(spark, "predictions", [prediction("a", "color", "Red")]), "run-1") == 0


def test_what_a_run_wrote_is_known_after_the_log_is_cleaned_up(lake: Catalog, spark: SparkSession) -> None:
    lake.append("products", frame(spark, "products", [product("a")]), "run-1")
    lake.tables.create("products").create_checkpoint()
    for entry in Path(lake.location("products"), "_delta_log").glob("*.json"):
        entry.unlink()

    assert lake.append("products", frame(spark, "products", [product("b"), product("c")]), "run-1") == 1
    assert ids(lake.read("products")) == ["a"]


@pytest.mark.parametrize("folder", ["with space #hash", "dos:puntos, ñandú's"])
def test_folders_with_odd_names_work(spark: SparkSession, tmp_path: Path, folder: str) -> None:
    lake = Catalog(tmp_path / folder, spark)
    lake.append("products", frame(spark, "products", [product("a")]), "run-1")
    lake.append_rows("products", [product("b")], "run-2")

    assert ids(lake.read("products")) == ["a", "b"]
    assert sum(batch.num_rows for batch in lake.scan("products")) == 2
    assert ids(lake.checkpoints.get_or_compute("run-1", "s", lake.read("products"))) == ["a", "b"]


@pytest.mark.parametrize("folder", ["a%20b", "a[bc]", "a{b,c}", "a*", "a?"])
def test_a_path_that_would_be_taken_for_another_is_refused(tmp_path: Path, folder: str) -> None:
    with pytest.raises(ConfigError, match="choose a folder without"):
        Catalog(tmp_path / folder)


@pytest.mark.parametrize("method", ["append", "replace"])
def test_nulls_in_required_columns_are_refused_before_the_commit(
    lake: Catalog, spark: SparkSession, method: str
) -> None:
    keys = ["if(id = 99, null, string(id)) as product_id", "false as opt_out", "'h' as content_hash"]
    others = set(contract.columns("products")) - {"product_id", "opt_out", "content_hash"}
    rows = spark.range(100).selectExpr(*keys, *[f"null as {name}" for name in others])
    with pytest.raises(DataContractError, match=r"products: null in required columns: product_id"):
        getattr(lake, method)("products", rows, "run-1")

    assert not lake.committed("products", "run-1")
    assert lake.read("products").count() == 0


def test_missing_columns_and_wrong_types_are_refused_by_name(lake: Catalog, spark: SparkSession) -> None:
    rows = frame(spark, "predictions", [prediction("a", "color", "Red")])

    with pytest.raises(DataContractError, match=r"column compute_type is missing; column score is string.*double"):
        lake.append("predictions", rows.drop("compute_type").withColumn("score", rows.score.cast("string")), "run-1")
    products = frame(spark, "products", [product("a")])
    wall_clock = products.withColumn("updated_at", products.updated_at.cast("timestamp_ntz"))
    with pytest.raises(DataContractError, match="updated_at is timestamp_ntz"):
        lake.append("products", wall_clock, "run-1")
    assert lake.version("predictions") <= 0
    shuffled = products.select(*sorted(products.columns, reverse=True)).selectExpr("*", "1 as extra")
    assert lake.append("products", shuffled, "run-1") == 1, "the order and further columns do not matter"
    assert lake.read("products").first()["product_id"] == "a"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"statuss": "ok"}, r"no columns \['statuss'\]"),
        ({"counts": {"products": "many"}}, "does not fit"),
        ({"kind": None}, "null in required columns: kind"),
    ],
)
def test_rows_of_the_drivers_that_break_the_contract_are_refused(
    lake: Catalog, row: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataContractError, match=message):
        lake.append_rows("runs", [run_row("run-1", **row)], "run-1")
    assert not lake.committed("runs", "run-1")


def test_twenty_appends_at_once_keep_all_rows(lake: Catalog, spark: SparkSession) -> None:
    def write(number: int) -> int:
        run_id, rows = f"run-{number}", [product(f"p{number}-{i}") for i in range(3)]
        if number % 10:
            return lake.append_rows("products", rows, run_id)
        return lake.append("products", frame(spark, "products", rows), run_id)

    with ThreadPoolExecutor(20) as threads:
        assert list(threads.map(write, range(20))) == [3] * 20

    assert len(set(ids(lake.read("products")))) == 60


def test_the_same_run_writing_twice_at_once_writes_once_i5(lake: Catalog) -> None:
    rows = [product("a"), product("b")]
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(lambda _: lake.append_rows("products", rows, "run-1"), range(8))) == [2] * 8

    assert ids(lake.read("products")) == ["a", "b"]


def interrupted(lake: Catalog, meanwhile: Callable[[], object]) -> Catalog:
    """Another catalog in the same folder, on which something happens between a run's files and its commit."""
    from pyspark.sql import SparkSession

    slow = Catalog(lake.storage.folder, SparkSession.getActiveSession())
    commit = slow.tables.commit

    def commit_late(*arguments: Any, **named: Any) -> bool:
        meanwhile()
        return commit(*arguments, **named)

    slow.tables.commit = commit_late
    return slow


def test_of_two_replacements_at_once_the_second_is_refused(lake: Catalog, spark: SparkSession) -> None:
    lake.append_rows("products", [product("old")], "run-0")
    slow = interrupted(lake, lambda: lake.replace("products", frame(spark, "products", [product("first")]), "run-1"))
    with pytest.raises(DataContractError, match="another job changed the table while run run-2"):
        slow.replace("products", frame(spark, "products", [product("second")]), "run-2")

    assert ids(lake.read("products")) == ["first"]


@pytest.mark.parametrize("old", [["old"], []], ids=["a table", "an empty table"])
def test_a_replacement_is_refused_where_another_job_adds_rows_meanwhile(
    lake: Catalog, spark: SparkSession, old: list[str]
) -> None:
    """They may be about the same products, which would have two rows then."""
    lake.append_rows("products", [product(name) for name in old], "run-0")
    slow = interrupted(lake, lambda: lake.append_rows("products", [product("new")], "run-1"))
    new = frame(spark, "products", [product("new", title="other")])
    with pytest.raises(DataContractError, match="another job changed the table while run run-2"):
        slow.replace_products("products", new, new, "run-2")

    assert ids(lake.read("products")) == sorted([*old, "new"])


def test_without_spark_a_lake_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="without Spark"):
        Catalog(tmp_path).read("products")


# what readers see


def seen(lake: Catalog) -> dict[str, list[str]]:
    return {row["product_id"]: row["values"] for row in lake.read("current_values").collect()}


def test_current_values_are_refreshed_when_their_sources_moved(lake: Catalog, spark: SparkSession) -> None:
    assert lake.current_values_stale()
    lake.append("products", frame(spark, "products", [product("a"), product("b")]), "import-1")
    assert lake.refresh_current_values("import-1")
    assert not lake.refresh_current_values("import-1")
    assert seen(lake) == {}

    decided = frame(spark, "predictions", [prediction("a", "color", "Red"), prediction("b", "color", "Blue")])
    lake.append("attribute_values", ledger.assertions(decided, stamp("run-1", 1)), "run-1")
    assert seen(lake) == {}  # killed here, the ledger is committed and the view is not ...
    assert lake.current_values_stale()
    assert lake.refresh_current_values("run-2")  # ... and the next job heals it
    assert seen(lake) == {"a": ["Red"], "b": ["Blue"]}
    assert not lake.current_values_stale()

    lake.replace("products", frame(spark, "products", [product("a")]), "import-2")
    assert lake.refresh_current_values("run-1")
    assert seen(lake) == {"a": ["Red"]}


def test_current_values_are_derived_again_when_the_dictionarys_numbers_are_others(
    lake: Catalog, spark: SparkSession
) -> None:
    def numbers() -> dict[str, tuple[float | None, str | None]]:
        return {row["product_id"]: (row["number"], row["unit"]) for row in lake.read("current_values").collect()}

    products = [product(name, merchant_attributes={"width": [f"{name} cm"]}) for name in ("400", "50")]
    lake.append("products", frame(spark, "products", products), "import-1")
    lake.dictionary = CLOSED_WORDS
    assert lake.refresh_current_values("import-1")
    assert numbers() == {"400": (None, None), "50": (None, None)}

    lake.dictionary = OPEN_WORDS
    assert lake.current_values_stale()
    only_50 = spark.createDataFrame([("50",)], "product_id string")
    assert lake.refresh_current_values("run-1", only_50), "all are derived"
    assert numbers() == {"400": (400.0, "cm"), "50": (50.0, "cm")}
    assert not lake.current_values_stale()

    rule = replace(OPEN_WORDS["width"], number=NumberRule(unit="cm", high=300))
    lake.dictionary = Dictionary({"width": rule})
    assert lake.refresh_current_values("run-2")
    assert numbers() == {"400": (None, None), "50": (50.0, "cm")}
    lake.dictionary = Dictionary({"width": rule, "color": CLOSED_WORDS["color"]})
    assert not lake.current_values_stale(), "closed lists do not count"


def test_a_refresh_reads_the_versions_that_it_records(lake: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    """What others commit after it looked at the sources is left to the next refresh."""
    for name, color in (("a", "Red"), ("b", "Blue")):
        lake.append_rows("products", [product(name, merchant_attributes={"color": [color]})], f"import-{name}")
    for number in (1, 2):
        row = event(number, product_id="a", attribute=f"size-{number}")
        lake.append_rows("attribute_values", [row], f"run-{number}")
    with monkeypatch.context() as patch:
        patch.setattr(lake, "_source_versions", lambda: {"products": 1, "attribute_values": 1})
        assert lake.refresh_current_values("run-1")
    seen = {(row["product_id"], row["attribute"]) for row in lake.read("current_values").collect()}
    assert seen == {("a", "color"), ("a", "size-1")}
    assert lake.current_values_stale()


def test_a_refresh_derives_the_changed_products_only_if_the_run_alone_changed_the_sources(
    lake: Catalog, spark: SparkSession
) -> None:
    """A wrong list of changed products shows which of them were derived."""

    def commit(run: str, *rows: dict[str, Any]) -> None:
        decided = frame(spark, "predictions", [prediction(*row) for row in rows])
        lake.append("attribute_values", ledger.assertions(decided, stamp(run, int(run[-1]))), run)

    only_a = frame(spark, "products", [product("a")])
    lake.append("products", frame(spark, "products", [product("a"), product("b")]), "import-0")
    commit("run-1", ("a", "color", "Red"), ("b", "color", "Red"))
    assert lake.refresh_current_values("run-1", only_a)  # there was nothing before: all are derived
    assert seen(lake) == {"a": ["Red"], "b": ["Red"]}

    commit("run-2", ("a", "color", "Blue"), ("b", "color", "Blue"))
    assert lake.refresh_current_values("run-2", only_a)
    assert seen(lake) == {"a": ["Blue"], "b": ["Red"]}

    commit("run-3", ("a", "color", "Green"))
    assert lake.refresh_current_values("run-2", only_a)  # another run's commit
    assert seen(lake) == {"a": ["Green"], "b": ["Blue"]}

    commit("run-4", ("b", "color", "Green"))
    commit("run-5", ("a", "color", "Red"))
    assert lake.refresh_current_values("run-5", only_a)  # its own commit, and that of a run before it
    assert seen(lake) == {"a": ["Red"], "b": ["Green"]}


def test_a_refresh_from_older_sources_does_not_overwrite_a_newer_one(lake: Catalog, spark: SparkSession) -> None:
    lake.append_rows("products", [product("a", merchant_attributes={"color": ["Red"]})], "import-1")
    interruptions = iter([1])

    def import_and_refresh() -> None:
        for _ in interruptions:
            lake.append_rows("products", [product("b", merchant_attributes={"color": ["Blue"]})], "import-2")
            lake.refresh_current_values("import-2")

    slow = interrupted(lake, import_and_refresh)

    assert not slow.refresh_current_values("import-1")  # the other catalog's refresh is as new as it gets
    assert ids(lake.read("current_values")) == ["a", "b"]
    assert not lake.current_values_stale()
