"""What later runs know about products that were removed, and which of their values are retracted."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from catalog_enrichment.catalog.gone_products import ledger_changed_by_others, products_removed, to_retract
from catalog_enrichment.catalog.lake import Catalog

from .catalog_rows import event, frame, product

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

Row = dict[str, Any]


def test_only_other_runs_than_those_that_remove_products_change_the_ledger(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path / "catalog")
    assert not ledger_changed_by_others(catalog, -1)
    catalog.append_rows("attribute_values", [event(1)], "import-1")
    catalog.append_rows("attribute_values", [event(2)], "delete-1")
    catalog.tables.fence(1)
    assert not ledger_changed_by_others(catalog, -1)
    after = catalog.version("attribute_values")
    catalog.append_rows("attribute_values", [event(3)], "set_value-1")
    assert ledger_changed_by_others(catalog, after)
    assert not ledger_changed_by_others(catalog, after + 1)
    assert ledger_changed_by_others(catalog, after + 2), "another program made the table again"


def test_products_may_have_been_removed_unless_every_commit_is_of_a_run_that_removed_none(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path / "catalog")
    runs = {"import-1": {"kind": "import", "counts": [("new", 1)]}, "maintain-1": {"kind": "maintain", "counts": None}}

    def removed(after: int = -1, **counts: int) -> bool:
        known = runs | {"import-2": {"kind": "import", "counts": [*counts.items()]}} if counts else runs
        return products_removed(catalog, after, [{"run_id": name, **run} for name, run in known.items()])

    catalog.append_rows("products", [product("a")], "import-1")
    catalog.append_rows("products", [], "maintain-1")
    before = catalog.version("products")
    assert not removed(before - 2)
    catalog.append_rows("products", [product("b")], "import-2")
    assert removed(before), "it was killed"
    assert not removed(before, new=1, gone=0)
    assert removed(before, new=1, gone=2)
    assert removed(before, deleted=1)
    runs["import-2"] = {"kind": "delete", "counts": []}
    assert removed(before)


def test_all_asserts_of_a_product_are_retracted_once_and_again_if_something_made_them_active(
    spark: SparkSession,
) -> None:
    told = {"op": "retract", "reason": "product_gone", "run_id": "run-08"}
    events = [
        event(1, product_id="a"),
        event(2, product_id="a", value="Blue"),  # retracted since: a rollback of that could bring it back
        event(3, product_id="a", value="Blue", op="retract", refers_to="event-2", run_id="run-07"),
        event(4, product_id="a", value="Green"),  # gone before
        event(5, product_id="a", value="Green", refers_to="event-4", **told),
        event(6, product_id="a", value="Grey"),  # gone before, and reinstated since
        event(7, product_id="a", value="Grey", refers_to="event-6", **told),
        event(8, product_id="a", value="Grey", op="reinstate", refers_to="event-6", run_id="run-09"),
        event(9, product_id="b"),
    ]
    events = [row | {"reason": row.get("reason")} for row in events]
    ids = spark.createDataFrame([("a",), ("a",)], "product_id string")
    found = to_retract(frame(spark, "attribute_values", events), ids).collect()
    assert sorted(row["event_id"] for row in found) == ["event-1", "event-2", "event-6"]
    assert {row["contradiction"] for row in found} == {"product_gone"}
