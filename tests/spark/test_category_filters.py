"""Which products a category list covers, as a Spark column."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from catalog_enrichment.spark.category_filters import below

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@pytest.mark.parametrize(
    ("roots", "inside"),
    [(["A"], ["A", "A/B"]), (["A/B"], ["A/B"]), (["A", "C"], ["A", "A/B", "C"]), ([], [])],
)
def test_a_root_covers_itself_and_what_is_below_it(spark: SparkSession, roots: list[str], inside: list[str]) -> None:
    """A product without a category is in none of them, and is not lost where the others are asked for."""
    categories = ["A", "A/B", "AB", "C", None]
    products = spark.createDataFrame([(category,) for category in categories], "category string")
    assert [row[0] for row in products.where(below(roots)).collect()] == inside
    assert [row[0] for row in products.where(~below(roots)).collect()] == [c for c in categories if c not in inside]
