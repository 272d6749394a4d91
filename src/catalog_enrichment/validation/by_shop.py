"""Counts the problems of each shop's products, for the rows of an import and of an enrichment in `runs`.

A problem has the name of its :class:`~catalog_enrichment.reasons.Reason`, and after a dot the attribute, if it is about
an attribute: ``empty_title``, ``disagrees_with_merchant.color``. Spark keeps the shops with most problems and the sums
of all shops, so that the driver holds few rows however many shops there are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from catalog_enrichment.records import within_bytes
from catalog_enrichment.spark.frames import largest_groups

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

KEY = "shops"
"""In `runs.attributes`: :meth:`Counted.row`."""

LIMIT = 100
"""Most shops that are counted by name, as far as they fit into :func:`within_bytes`."""

MOST_CHARACTERS = 500
"""Characters of a shop's id by which it is counted: the id of a refused row can be longer."""

UNMAPPED = "unmapped_value"
"""The problem of a merchant's value that the dictionary lacks. It is no Reason, because nothing is refused for it."""

SHOP, ALL = "shop", "all"
"""Kinds of groups that are counted: a shop, and all shops together, whose name is null."""

Problems = Mapping[str, Mapping[str, int]]
"""Shop id, "" for none -> problem -> products, rows or values."""


def largest(*counted: Problems, limit: int = LIMIT) -> dict[str, Any]:
    """Return the sum: the ``shops`` with most problems by name, and the number and the problems of the ``others``."""
    total: dict[str, Counter[str]] = {}
    for problems in counted:
        for shop, numbers in problems.items():
            total.setdefault(shop, Counter()).update(numbers)
    order = sorted((s for s in total if total[s].total()), key=lambda shop: (-total[shop].total(), shop))
    named = within_bytes(order[:limit])
    others = order[len(named) :]
    rest = sum((total[shop] for shop in others), Counter[str]())
    return {
        "shops": {shop: dict(sorted(total[shop].items())) for shop in named},
        "others": {"shops": len(others), "problems": dict(sorted(rest.items()))},
    }


def merged(rows: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Add up results of :func:`largest`. A shop that is among the others of several is counted several times."""
    rows = list(rows)
    found = largest(*(row["shops"] for row in rows))
    rest = sum((Counter(row["others"]["problems"]) for row in [*rows, found]), Counter[str]())
    number = sum(row["others"]["shops"] for row in [*rows, found])
    return {"shops": found["shops"], "others": {"shops": number, "problems": dict(sorted(rest.items()))}}


def sums(problems: DataFrame) -> DataFrame:
    """Count the rows of ``problems`` (``shop_id``, ``problem``), per shop and in all, for :func:`largest_of`."""
    from pyspark.sql import functions as F

    found = problems.select("problem", F.left(F.coalesce("shop_id", F.lit("")), F.lit(MOST_CHARACTERS)).alias("name"))
    number = found.groupingSets([("problem",), ("problem", "name")], "problem", "name").agg(
        F.count("*").alias("number")
    )
    by = F.when(F.col("name").isNull(), ALL).otherwise(SHOP)
    return number.select(by.alias("by"), "name", F.col("problem").alias("key"), "number")


def largest_of(sums: DataFrame, limit: int) -> list[dict[str, Any]]:
    """Return the ``limit`` groups of each kind with the largest numbers.

    ``sums``: ``by`` (:data:`SHOP`, :data:`ALL`, or another kind of group), the group's ``name`` ("" for products
    without a shop), ``key`` (what is counted) and ``number``, more than 0. The result has ``by``, ``name``, ``numbers``
    (``key`` -> ``number``) and ``groups``: how many groups there are of this kind.
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    numbers = F.collect_list(F.struct("key", "number")).alias("numbers")
    groups = sums.groupBy("by", "name").agg(F.sum("number").alias("size"), numbers)
    groups = groups.withColumn("groups", F.count("*").over(Window.partitionBy("by")))
    rows = largest_groups(groups, limit, by="by").select("by", "name", "numbers", "groups").toArrow().to_pylist()
    return [row | {"numbers": {entry["key"]: entry["number"] for entry in row["numbers"]}} for row in rows]


@dataclass(frozen=True, slots=True)
class Counted:
    """Problems of the shops with most of them, and of all shops."""

    totals: dict[str, int]
    """Problem -> number, in all shops."""
    shops: dict[str, dict[str, int]]
    """Shop id -> problem -> number, the shop with most problems first."""
    others: int
    """Shops with a problem that are not in ``shops``."""

    @classmethod
    def of(cls, rows: Iterable[Mapping[str, Any]]) -> Counted:
        """Return the counts in ``rows`` of :func:`largest_of`, which was called with at least :data:`LIMIT`."""
        rows = list(rows)
        totals: dict[str, int] = next((row["numbers"] for row in rows if row["by"] == ALL), {})
        shops = [row for row in rows if row["by"] == SHOP]
        shops.sort(key=lambda row: (-sum(row["numbers"].values()), row["name"]))
        named = dict(within_bytes((row["name"], row["numbers"]) for row in shops[:LIMIT]))
        return cls(totals, named, shops[0]["groups"] - len(named) if shops else 0)

    def row(self) -> dict[str, Any]:
        """Return the counts in the form of :func:`largest`."""
        named = sum(map(Counter, self.shops.values()), Counter[str]())
        rest = {problem: total - named[problem] for problem, total in sorted(self.totals.items())}
        return {
            "shops": {shop: dict(sorted(numbers.items())) for shop, numbers in self.shops.items()},
            "others": {
                "shops": self.others,
                "problems": {problem: number for problem, number in rest.items() if number},
            },
        }
