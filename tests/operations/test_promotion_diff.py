"""What a promotion changes for readers; :mod:`tests.enrichment.test_pipeline` compares the whole diff with a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from catalog_enrichment.operations.promotion_diff import value_changes

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def test_kinds_of_changes(spark: SparkSession) -> None:
    current = [
        ("same", ["a", "b"], "model"),
        ("other", ["a"], "model"),
        ("gone", ["a"], "model"),
        ("untouched", ["a"], "model"),
        ("merchants", ["a"], "merchant"),
    ]
    events = [
        ("same", "assert", "b"),
        ("same", "assert", "a"),
        ("other", "assert", "b"),
        ("other", "retract", "a"),
        ("gone", "retract", "a"),
        ("new", "assert", "c"),
        ("not visible", "retract", "c"),
    ]
    changes = value_changes(
        spark.createDataFrame(
            [(product, "color", shown, source) for product, shown, source in current],
            "product_id string, attribute string, values array<string>, source string",
        ),
        spark.createDataFrame(
            [(product, "color", op, value) for product, op, value in events],
            "product_id string, attribute string, op string, value string",
        ),
    )
    assert {row["product_id"]: (row["kind"], row["old"], row["new"]) for row in changes.collect()} == {
        "same": ("unchanged", ["a", "b"], ["a", "b"]),
        "other": ("changed", ["a"], ["b"]),
        "gone": ("retracted", ["a"], None),
        "new": ("added", None, ["c"]),
    }
