"""Coverage before and after a run."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from catalog_enrichment.dictionary import Dictionary
from catalog_enrichment.enrichment import coverage

from ..sample_catalog import SampleCatalog, table, values

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


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
