"""Which products training gets as labelled, after merchants took over values; Spark-free. The import: tests/ingest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from catalog_enrichment.catalog.lake import LakeCatalog
from catalog_enrichment.catalog.self_derived import COLUMN, scan_products

from .catalog_rows import START, product


def test_products_are_scanned_with_the_attributes_that_repeat_what_was_written_here(tmp_path: Path) -> None:
    catalog = LakeCatalog(tmp_path / "catalog")
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
        "self_derived", [row | {"run_id": "enrich-1", "adopted_at": START} for row in self_derived], "import"
    )

    found = {row["product_id"]: row[COLUMN] for batch in scan_products(catalog) for row in batch.to_pylist()}
    assert found == {name: [] for name in given} | {"repeats": ["color", "material"]}


def test_a_catalog_without_adopted_values_is_scanned_as_it_is(tmp_path: Path) -> None:
    catalog = LakeCatalog(tmp_path / "catalog")
    catalog.append_rows("products", [product("a", merchant_attributes=[("color", ["Red"])])], "import")
    [batch] = scan_products(catalog)
    [plain] = catalog.scan("products")
    assert batch.drop_columns([COLUMN]).equals(plain)
    assert batch.column(COLUMN).to_pylist() == [[]]
    assert batch.schema.field(COLUMN).type == pa.list_(pa.string())


def test_products_that_are_imported_during_the_scan_are_not_read_without_their_marks(tmp_path: Path) -> None:
    """An import commits to `self_derived` and then replaces the products; here it does so while `self_derived` is read."""

    class Importing(LakeCatalog):
        def scan(
            self, table: str, columns: Sequence[str] | None = None, version: int | None = None
        ) -> Iterator[pa.RecordBatch]:
            yield from super().scan(table, columns, version)
            if table == "self_derived":
                mark = {"product_id": "a", "attribute": "color", "value": "Red", "run_id": "enrich-1"}
                self.append_rows("self_derived", [mark | {"adopted_at": START}], "second")
                self.append_rows("products", [product("a", merchant_attributes=[("color", ["Red"])])], "second")

    catalog = Importing(tmp_path / "catalog")
    catalog.append_rows("products", [product("b")], "first")
    assert [row["product_id"] for batch in scan_products(catalog) for row in batch.to_pylist()] == ["b"]
    found = {row["product_id"]: row[COLUMN] for batch in scan_products(catalog) for row in batch.to_pylist()}
    assert found == {"b": [], "a": ["color"]}
