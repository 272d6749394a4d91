"""Coverage before and after a run."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from catalog_enrichment.catalog import coverage_groups
from catalog_enrichment.catalog.coverage_groups import Groups
from catalog_enrichment.dictionary import Dictionary
from catalog_enrichment.enrichment import coverage

from ..sample_catalog import SampleCatalog, table, values

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


def test_coverage_takes_one_aggregation_however_many_attributes(enriched: SampleCatalog, spark: SparkSession) -> None:
    catalog, plain = enriched.context().catalog, enriched.context().dictionary
    many = Dictionary({name: replace(plain["color"], name=name) for name in ("color", *(f"a{n}" for n in range(9)))})

    def jobs(dictionary: Dictionary) -> tuple[int, dict[str, dict[str, Any]]]:
        group = f"coverage of {len(dictionary.attributes)}"
        spark.sparkContext.setJobGroup(group, group)
        numbers = coverage.count(catalog, dictionary).numbers()
        return len(spark.sparkContext.statusTracker().getJobIdsForGroup(group)), numbers

    adaptive = spark.conf.get("spark.sql.adaptive.enabled")
    spark.conf.set("spark.sql.adaptive.enabled", "false")  # it starts a varying number of jobs for one query
    try:
        few_jobs, found = jobs(plain)
        many_jobs, _ = jobs(many)
    finally:
        spark.conf.set("spark.sql.adaptive.enabled", adaptive)
    assert few_jobs == many_jobs
    seen = values(enriched)
    for name, applicable in {"color": 24, "material": 20}.items():
        assert found[name]["applicable"] == applicable
        assert found[name]["coverage"] == round(sum(key[1] == name for key in seen) / applicable, 4)
        assert found[name]["merchant"] == sum(key[1] == name for key in values(enriched, "merchant"))
    assert coverage.count(catalog, Dictionary({})).numbers() == {}
    groups = coverage.count(catalog, plain).groups
    products = {row["product_id"]: row for row in table(enriched, "products")}
    for by, column in (("category", "category"), ("shop", "shop_id")):
        expected = Counter((products[key[0]][column] or "", key[1]) for key in seen)
        given = {
            (name, attribute): n for (kind, name, attribute, has), n in groups.items() if (kind, has) == (by, True)
        }
        assert given == expected
        assert sum(n for (kind, _, name, has), n in groups.items() if (kind, name, has) == (by, "color", False)) == 24


def test_few_groups_reach_the_driver_and_the_others_are_summed(
    spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """2 of 5 shops by name. Those that a run before named keep their names, however little changed in them."""
    monkeypatch.setattr(coverage_groups, "LIMIT", 2)
    sizes = {"a": (5, 2), "b": (4, 4), "c": (3, 0), "d": (3, 1), "": (1, 1)}

    def facts(sizes: dict[str, tuple[int, int]]) -> DataFrame:
        rows = [
            ("color", kind, f"all of {shop}" if shop in ("a", "b") else "rest", shop)
            for shop, numbers in sizes.items()
            for kind, number in zip((coverage.APPLICABLE, "model"), numbers, strict=True)
            for _ in range(number)
        ]
        return spark.createDataFrame(rows, "attribute string, kind string, category string, shop string")

    def of_shops(groups: Groups) -> dict[tuple[str | None, bool], int]:
        return {(name, has): number for (by, name, _, has), number in groups.items() if by == "shop"}

    received: list[int] = []
    with_the_rest = coverage._with_the_rest
    monkeypatch.setattr(coverage, "_with_the_rest", lambda rows: (received.append(len(rows)), with_the_rest(rows))[1])
    counted = coverage._summed(facts(sizes))
    assert counted.counts == {("color", "applicable"): 16, ("color", "model"): 8}
    assert of_shops(counted.groups) == {
        ("a", False): 5, ("a", True): 2, ("b", False): 4, ("b", True): 4, (None, False): 7, (None, True): 2
    }  # fmt: skip
    assert {name: n for (by, name, _, has), n in counted.groups.items() if by == "category" and not has} == {
        "rest": 7, "all of a": 5, None: 4
    }  # fmt: skip

    # a loses one, b gets a value less, c and d grow, e is new
    later = {"a": (4, 2), "b": (4, 3), "c": (9, 0), "d": (6, 2), "e": (2, 0), "": (1, 1)}
    change = coverage._summed(facts(later), facts(sizes), counted.groups)
    assert change.counts == {("color", "applicable"): 10}
    assert of_shops(change.groups) == {
        ("a", False): -1, ("b", True): -1, ("c", False): 6, ("d", False): 3, ("d", True): 1, (None, False): 2
    }  # fmt: skip
    moved = coverage_groups.moved(counted.groups, change.groups, 2)
    assert of_shops(moved) == {
        ("a", False): 4, ("a", True): 2, ("b", False): 4, ("b", True): 3, (None, False): 18, (None, True): 3
    }  # fmt: skip
    # the sums of all, two categories and two shops; then all three categories, the shops that are known and two others
    assert received == [5, 8]
