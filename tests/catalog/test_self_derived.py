"""Merchant values that repeat what was written or suggested here, and what training is told of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from catalog_enrichment import contract
from catalog_enrichment.catalog.lake import Catalog
from catalog_enrichment.catalog.self_derived import COLUMN, newly_found, scan_products

from ..open_words import OPEN_WORDS
from .catalog_rows import START, prediction, product, run_row

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


def test_products_are_scanned_with_the_attributes_that_repeat_what_was_written_here(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path / "catalog")
    given = {
        "repeats": [("color", ["Red"]), ("material", ["Wool", "Silk"]), ("size", ["M"])],
        "other value now": [("color", ["Blue"])],
        "nothing now": [("color", [])],
        "null": [("color", None)],
        "no attributes": None,
        "another product": [("color", ["Red"])],
    }
    catalog.append_rows("products", [product(name, merchant_attributes=given[name]) for name in given], "import")
    rows = [
        *[(name, "color", "Red") for name in given if name != "another product"],
        ("repeats", "material", "Silk"),
        ("repeats", "size", "Red"),
    ]
    self_derived = [dict(zip(("product_id", "attribute", "value"), row, strict=True)) for row in rows]
    catalog.append_rows(
        "self_derived", [row | {"run_id": "enrich-1", "found_at": START} for row in self_derived], "import"
    )

    found = {row["product_id"]: row[COLUMN] for batch in scan_products(catalog) for row in batch.to_pylist()}
    assert found == {name: [] for name in given} | {"repeats": ["color", "material"]}


def test_a_catalog_without_self_derived_values_is_scanned_as_it_is(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path / "catalog")
    catalog.append_rows("products", [product("a", merchant_attributes=[("color", ["Red"])])], "import")
    [batch] = scan_products(catalog)
    [plain] = catalog.scan("products")
    assert batch.drop_columns([COLUMN]).equals(plain)
    assert batch.column(COLUMN).to_pylist() == [[]]
    assert batch.schema.field(COLUMN).type == pa.list_(pa.string())


def test_products_that_are_imported_during_the_scan_are_not_read_without_their_marks(tmp_path: Path) -> None:
    """An import commits to `self_derived` and then replaces the products; here while `self_derived` is read."""

    class Importing(Catalog):
        def scan(
            self, table: str, columns: Sequence[str] | None = None, version: int | None = None
        ) -> Iterator[pa.RecordBatch]:
            yield from super().scan(table, columns, version)
            if table == "self_derived":
                mark = {"product_id": "a", "attribute": "color", "value": "Red", "run_id": "enrich-1"}
                self.append_rows("self_derived", [mark | {"found_at": START}], "second")
                self.append_rows("products", [product("a", merchant_attributes=[("color", ["Red"])])], "second")

    catalog = Importing(tmp_path / "catalog")
    catalog.append_rows("products", [product("b")], "first")
    assert [row["product_id"] for batch in scan_products(catalog) for row in batch.to_pylist()] == ["b"]
    found = {row["product_id"]: row[COLUMN] for batch in scan_products(catalog) for row in batch.to_pylist()}
    assert found == {"b": [], "a": ["color"]}


def asserted(product_id: str, value: str, run_id: str, hours: int = 0, **given: Any) -> dict[str, Any]:
    usual = {"event_id": f"{product_id}/{value}/{run_id}", "attribute": "color", "op": "assert", "source": "model"}
    at = START + timedelta(hours=hours)
    return usual | {"product_id": product_id, "value": value, "run_id": run_id, "asserted_at": at} | given


def test_a_value_is_self_derived_if_a_model_wrote_it_or_suggested_it_before_the_merchant_gave_it(
    spark: SparkSession, tmp_path: Path
) -> None:
    catalog = Catalog(tmp_path / "catalog", spark)
    catalog.append_rows("products", [product("kept", merchant_attributes={"color": ["Blue"]})], "import")
    events = [
        asserted("twice", "Red", "run-2", hours=2), asserted("twice", "Red", "run-1", hours=1),
        asserted("of a person", "Red", "audit-1", source="human"),
        asserted("retracted only", "Red", "run-1", op="retract"),
        asserted("other value", "Green", "run-1"),
        asserted("other attribute", "Red", "run-1", attribute="size"),
    ]  # fmt: skip
    catalog.append_rows("attribute_values", events, "runs")
    suggest = {"decision": "suggest", "run_id": "run-3"}
    catalog.append_rows("predictions", [
        prediction("kept", "color", "Blue", **suggest),
        prediction("taken up", "color", "Green", **suggest),
        prediction("abstained", "color", "Green", run_id="run-3", decision="abstain"),
        prediction("unfinished", "color", "Green", decision="suggest", run_id="killed"),
    ], "run-3")  # fmt: skip
    catalog.append_rows("runs", [run_row("run-3", attempt=1)], "run-3")
    given = {"kept": ["Blue"], "taken up": ["Green", "Pink"], "abstained": ["Green"], "unfinished": ["Green"]}
    given |= {name: ["Red"] for name in ("twice", "of a person", "retracted only", "other value", "other attribute")}
    imported = [(name, {"color": values}) for name, values in given.items()]
    frame = spark.createDataFrame(imported, "product_id string, merchant_attributes map<string, array<string>>")

    written = {("twice", "color", "Red", "run-1"), ("taken up", "color", "Green", "run-3")}
    found = newly_found(catalog, frame, START)
    assert found.columns == contract.columns("self_derived")
    assert values_and_runs(found) == written
    assert {row["found_at"].timestamp() for row in found.collect()} == {START.timestamp()}

    mark = {"product_id": "twice", "attribute": "color", "value": "Red", "run_id": "run-1", "found_at": START}
    catalog.append_rows("self_derived", [mark], "import")
    assert values_and_runs(newly_found(catalog, frame, START)) == written - {("twice", "color", "Red", "run-1")}


def test_numbers_and_texts_are_self_derived_in_every_spelling(spark: SparkSession, tmp_path: Path) -> None:
    catalog = Catalog(tmp_path / "catalog", spark)
    catalog.dictionary = OPEN_WORDS
    suggested = {name: name for name in ("stored", "new")}
    stored = {"stored": ["101 cm"], "new": ["150 cm"]}
    rows = [product(name, merchant_attributes={"width": values}) for name, values in stored.items()]
    catalog.append_rows("products", rows, "import")
    events = [
        asserted("within", "109 cm", "run-1", attribute="width"),
        asserted("beyond", "109 cm", "run-1", attribute="width"),
        asserted("unit", "1.09 m", "run-1", attribute="width"),
        asserted("brand", "HP", "run-1", attribute="brand"),
        asserted("color", "109 cm", "run-1", attribute="color"),
    ]
    catalog.append_rows("attribute_values", events, "runs")
    suggest = {"decision": "suggest", "run_id": "run-3"}
    catalog.append_rows("predictions", [prediction(name, "width", "100 cm", **suggest) for name in suggested], "run-3")
    catalog.append_rows("runs", [run_row("run-3", attempt=1)], "run-3")
    given = {
        "within": ("width", "110 cm"), "beyond": ("width", "112 cm"), "unit": ("width", "109 cm"),
        "brand": ("brand", "Hewlett-Packard"), "color": ("color", "1.09 m"),
        "stored": ("width", "100 cm"), "new": ("width", "101 cm"),
    }  # fmt: skip
    imported = [(product_id, {name: [value]}) for product_id, (name, value) in given.items()]
    frame = spark.createDataFrame(imported, "product_id string, merchant_attributes map<string, array<string>>")
    assert values_and_runs(newly_found(catalog, frame, START)) == {
        ("within", "width", "110 cm", "run-1"), ("unit", "width", "109 cm", "run-1"),
        ("brand", "brand", "Hewlett-Packard", "run-1"), ("new", "width", "101 cm", "run-3"),
    }  # fmt: skip


def values_and_runs(found: DataFrame) -> set[tuple[str, str, str, str]]:
    rows = found.collect()
    assert len(rows) == len({(row["product_id"], row["attribute"], row["value"]) for row in rows})
    return {(row["product_id"], row["attribute"], row["value"], row["run_id"]) for row in rows}
