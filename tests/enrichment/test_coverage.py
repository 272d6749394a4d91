"""Coverage before and after a run: the same numbers, counted anew or brought up to date."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest

from catalog_enrichment.catalog import coverage_groups
from catalog_enrichment.catalog.coverage_groups import Groups
from catalog_enrichment.catalog.lake import Catalog
from catalog_enrichment.dictionary import Attribute, Dictionary
from catalog_enrichment.enrichment import coverage
from catalog_enrichment.enrichment.request import Window
from catalog_enrichment.records import Cardinality

from ..catalog.catalog_rows import frame, product
from ..sample_catalog import SampleCatalog, change, enrich, table, values
from .test_select import selection

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def test_coverage_counts_what_readers_see_per_attribute_category_and_shop(enriched: SampleCatalog) -> None:
    catalog, dictionary = enriched.context().catalog, enriched.context().dictionary
    found = coverage.count(catalog, dictionary)
    seen = values(enriched)
    for name, applicable in {"color": 24, "material": 20}.items():
        numbers = found.numbers()[name]
        assert numbers["applicable"] == applicable
        assert numbers["coverage"] == round(sum(key[1] == name for key in seen) / applicable, 4)
        assert numbers["merchant"] == sum(key[1] == name for key in values(enriched, "merchant"))
    products = {row["product_id"]: row for row in table(enriched, "products")}
    for by, column in (("category", "category"), ("shop", "shop_id")):
        given = {(name, attribute): n for (kind, name, attribute, has), n in found.groups.items() if has and kind == by}
        assert given == Counter((products[key[0]][column] or "", key[1]) for key in seen)
        of_color = [n for (kind, _, name, has), n in found.groups.items() if (kind, name, has) == (by, "color", False)]
        assert sum(of_color) == 24
    assert coverage.count(catalog, Dictionary({})).numbers() == {}


COLOR = Dictionary({"color": Attribute(name="color", cardinality=Cardinality.ONE, values=("Red",))})
SIZES = {"a": (5, 2), "b": (4, 4), "c": (3, 0), "d": (3, 1), "": (1, 1)}
"""Shop -> products, and products with a colour."""
LATER = {"a": (4, 2), "b": (4, 3), "c": (9, 0), "d": (6, 2), "e": (2, 0), "": (1, 1)}
"""Shop a loses a product, b gets a value less, c and d grow, e is new."""


def write(spark: SparkSession, catalog: Catalog, sizes: dict[str, tuple[int, int]], run_id: str) -> None:
    """The products and current values of shops of these sizes."""
    rows = [
        product(f"{shop}{number}", shop_id=shop or None, category=f"all of {shop}" if shop in ("a", "b") else "rest")
        for shop, (products, _) in sizes.items()
        for number in range(products)
    ]
    seen = [
        {"product_id": f"{shop}{number}", "attribute": "color", "values": ["Red"], "source": "model"}
        for shop, (_, covered) in sizes.items()
        for number in range(covered)
    ]
    for name, written in (("products", rows), ("current_values", seen)):
        catalog.replace(name, frame(spark, name, written), run_id)


def test_the_largest_groups_have_a_name_and_the_others_are_summed(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """2 of 5 shops by name. Groups that a run before named keep their names, however little changed in them."""
    monkeypatch.setattr(coverage_groups, "LIMIT", 2)
    catalog = Catalog(tmp_path / "catalog", spark)

    def of_shops(groups: Groups) -> dict[tuple[str | None, bool], int]:
        return {(name, has): number for (by, name, _, has), number in groups.items() if by == "shop"}

    write(spark, catalog, SIZES, "run-1")
    counted = coverage.count(catalog, COLOR)
    assert counted.counts == {("color", "applicable"): 16, ("color", "model"): 8}
    assert of_shops(counted.groups) == {
        ("a", False): 5, ("a", True): 2, ("b", False): 4, ("b", True): 4, (None, False): 7, (None, True): 2
    }  # fmt: skip
    assert {name: n for (by, name, _, has), n in counted.groups.items() if by == "category" and not has} == {
        "rest": 7, "all of a": 5, None: 4
    }  # fmt: skip

    write(spark, catalog, LATER, "run-2")
    everything = pa.array([f"{shop}{n}" for shop in LATER for n in range(10)])
    updated = counted.updated(catalog, COLOR, everything)
    assert updated.counts == coverage.count(catalog, COLOR).counts
    assert of_shops(updated.groups) == {
        ("a", False): 4, ("a", True): 2, ("b", False): 4, ("b", True): 3, (None, False): 18, (None, True): 3
    }  # fmt: skip


@pytest.mark.slow
def test_coverage_that_is_kept_up_to_date_is_that_counted_anew(enriched: SampleCatalog) -> None:
    """Products change their category and merchant values, come and get other values."""
    sample, dictionary = enriched, enriched.context().dictionary

    def counted() -> dict[str, Any]:
        return coverage.count(sample.context().catalog, dictionary).to_dict()

    change(sample, 3, category="Other/Thing")
    change(sample, 4, color="Red")
    change(sample, 77, title="A new thing")
    chosen, _ = selection(sample)
    catalog = sample.context().catalog
    assert chosen.scope is not None
    before = coverage.now(catalog, dictionary, chosen.scope)
    assert before.to_dict() == counted()
    in_window = replace(chosen.scope, last=chosen.scope.last._replace(whole_catalog=False))
    assert coverage.now(catalog, dictionary, in_window).to_dict() == counted()

    enrich(sample)
    newest = max((row for row in table(sample, "runs") if row["kind"] == "enrich"), key=lambda row: row["finished_at"])
    assert json.loads(newest["attributes"])["coverage"] == counted() != before.to_dict()
    assert selection(sample, Window(max_products=3))[0].scope is None
