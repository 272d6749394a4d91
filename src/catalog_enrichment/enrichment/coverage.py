"""The number of products with a value, before and after a run: counted once, then kept up to date by what changed.

A run's row keeps the whole numbers that it ended with, per attribute and per category and shop. The next run counts
only the products that changed since, as they were then and as they are now; where nothing has changed, as between the
chunks of a backfill, it takes over the numbers; else it counts all products. Each is one query at most.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from catalog_enrichment.catalog import coverage_groups, runs
from catalog_enrichment.catalog.coverage_groups import BY, COVERAGE_KEY, Groups, bounded, from_rows, moved, to_rows
from catalog_enrichment.records import RunKind, Source
from catalog_enrichment.spark import category_filters
from catalog_enrichment.spark.frames import largest_groups

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import Column, DataFrame

    from catalog_enrichment.catalog.lake import Catalog
    from catalog_enrichment.dictionary import Dictionary
    from catalog_enrichment.enrichment.select import IncrementalScope

BEFORE = "coverage-before"
"""The note of a run that is started again: :meth:`Coverage.before` of its first attempt."""

_APPLICABLE = "applicable"

_ALL = "all"
"""In place of a kind of group (:data:`BY`): products of every category and shop."""

_SOURCES = ("products", "current_values")
"""The tables that coverage is counted in."""


@dataclass(frozen=True, slots=True)
class Coverage:
    """Counts of products, per enabled attribute."""

    versions: dict[str, int]
    """The versions of the tables counted."""
    dictionary: str
    """Hash of the dictionary: what is enabled, and where it applies."""
    counts: Mapping[tuple[str, str], int]
    """(attribute, source of the value that readers see) -> products that the attribute applies to; and (attribute,
    "applicable") -> all of these."""
    names: tuple[str, ...]
    groups: Groups
    """The counts of the largest categories and shops; the others are summed."""

    def numbers(self) -> dict[str, dict[str, Any]]:
        """Return attribute -> products it applies to, those with a merchant value, and the share with any value."""
        found: dict[str, dict[str, Any]] = {}
        for name in self.names:
            applicable = self.counts.get((name, _APPLICABLE), 0)
            covered = sum(self.counts.get((name, source.value), 0) for source in Source)
            found[name] = {
                "applicable": applicable,
                "merchant": self.counts.get((name, Source.MERCHANT.value), 0),
                "coverage": round(covered / applicable, 4) if applicable else 0.0,
            }
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return the whole numbers, for the run's row."""
        counts: dict[str, dict[str, int]] = {name: {} for name in self.names}
        for (name, kind), number in sorted(self.counts.items()):
            counts[name][kind] = number
        return {"dictionary": self.dictionary, "counts": counts, "groups": to_rows(self.groups)}

    def before(self) -> dict[str, Any]:
        """Return what a run's row says of the coverage before the run: :meth:`numbers` and the groups."""
        return {"numbers": self.numbers(), "groups": to_rows(self.groups)}

    def updated(self, catalog: Catalog, dictionary: Dictionary, changed: pa.Array) -> Coverage:
        """Return the coverage now, where only products with an id in ``changed`` differ."""
        versions = _versions(catalog)
        if versions == self.versions:
            return self
        then, now = (_facts(catalog, dictionary, at, changed) for at in (self.versions, versions))
        change = _summed(now, then, self.groups)
        counts = Counter(self.counts)
        counts.update(change.counts)
        groups = moved(self.groups, change.groups, coverage_groups.LIMIT)
        return Coverage(versions, self.dictionary, counts, self.names, groups)


def count(catalog: Catalog, dictionary: Dictionary) -> Coverage:
    """Return the coverage of the whole catalog: one aggregation, however many attributes there are."""
    versions = _versions(catalog)
    found = _summed(_facts(catalog, dictionary, versions))
    groups = bounded(found.groups, coverage_groups.LIMIT)
    return Coverage(versions, dictionary.hash(), found.counts, tuple(dictionary.enabled), groups)


def now(catalog: Catalog, dictionary: Dictionary, scope: IncrementalScope | None) -> Coverage:
    """Return the coverage now: that of the last run where only products of ``scope`` differ, none were removed, and the
    tables of then can be read, brought up to date, or where the tables are as the newest run left them; else
    :func:`count`."""
    kept = _kept(catalog, scope.last.run_id if scope else "", dictionary)
    if kept is None or kept.versions == _versions(catalog):
        return kept or count(catalog, dictionary)
    readable = all(catalog.tables.readable(table, kept.versions[table]) for table in _SOURCES)
    if scope is None or scope.removed or not scope.last.whole_catalog or not readable:
        return count(catalog, dictionary)
    return kept.updated(catalog, dictionary, scope.ids)


def after(catalog: Catalog, dictionary: Dictionary, before: Coverage, ids: pa.Array | None) -> Coverage:
    """Return the coverage after a run that started with ``before``; ``ids``: the products whose values it changed, None
    for too many."""
    if ids is None:
        return count(catalog, dictionary)
    return before.updated(catalog, dictionary, ids)


def _kept(catalog: Catalog, run_id: str, dictionary: Dictionary) -> Coverage | None:
    """Return the coverage that the row of a run keeps; None if it is about another dictionary. ``run_id``: "" is the
    newest run, whatever its window was."""
    row = runs.find(catalog, run_id) if run_id else runs.newest_of(catalog, RunKind.ENRICH)
    kept = json.loads(row["attributes"] or "{}").get(COVERAGE_KEY) if row else None
    if row is None or kept is None or kept["dictionary"] != dictionary.hash():
        return None
    counts = {(name, kind): number for name, found in kept["counts"].items() for kind, number in found.items()}
    versions = {table: dict(row["table_versions"])[table] for table in _SOURCES}
    return Coverage(versions, kept["dictionary"], counts, tuple(dictionary.enabled), from_rows(kept["groups"]))


def _versions(catalog: Catalog) -> dict[str, int]:
    return {table: catalog.version(table) for table in _SOURCES}


def _facts(
    catalog: Catalog, dictionary: Dictionary, versions: Mapping[str, int], only: pa.Array | None = None
) -> DataFrame:
    """Return ``attribute``, ``kind``, ``category`` and ``shop``, a row for each product and kind to count.

    ``only``: ids of the products to count; None: all.
    """
    from pyspark.sql import functions as F

    products = catalog.read("products", versions["products"], ["product_id", "category", "shop_id"], only)
    columns = ["product_id", "attribute", "source"]
    visible = catalog.read("current_values", versions["current_values"], columns, only)
    applies = {name: category_filters.applies(dictionary[name]) for name in dictionary.enabled}
    group = [F.coalesce(name, F.lit("")).alias(by) for by, name in (("category", "category"), ("shop", "shop_id"))]
    applicable = products.select(
        F.explode(applicable_attributes(dictionary)).alias("attribute"), F.lit(_APPLICABLE), *group
    )
    inside = F.lit(False)
    for name, condition in applies.items():
        inside = inside | ((F.col("attribute") == name) & condition)
    covered = visible.join(products, "product_id").where(inside)
    return applicable.union(covered.select("attribute", "source", *group)).toDF("attribute", "kind", *BY)


def applicable_attributes(dictionary: Dictionary) -> Column:
    """Return the enabled attributes that apply to a product, by its column ``category``: an array of names."""
    from pyspark.sql import functions as F

    names = [F.when(category_filters.applies(dictionary[name]), F.lit(name)) for name in dictionary.enabled]
    return F.array_compact(F.array(*names).cast("array<string>"))


class _Sums(NamedTuple):
    counts: dict[tuple[str, str], int]
    """The same counts as :attr:`Coverage.counts`."""
    groups: Groups
    """The groups that were asked for and the `coverage_groups.LIMIT` largest others of each kind; the rest summed."""


def _summed(
    facts: DataFrame, less: DataFrame | None = None, known: Iterable[tuple[str, str | None, str, bool]] = ()
) -> _Sums:
    """Return the number of ``facts`` minus those of ``less``: in all, per category and per shop.

    ``known``: keys of groups that keep their name, however small they are. The driver gets no other group than those
    of :class:`_Sums`; the rest sums up to the difference to the numbers of all products.
    """
    from pyspark.sql import functions as F

    signed = facts.withColumn("sign", F.lit(1))
    if less is not None:
        signed = signed.union(less.withColumn("sign", F.lit(-1)))
    sets = [("attribute", "kind"), *(("attribute", "kind", by) for by in BY)]
    sums = signed.groupingSets(sets, "attribute", "kind", *BY).agg(F.sum("sign").alias("products"))
    by = F.coalesce(*(F.when(F.col(by).isNotNull(), by) for by in BY), F.lit(_ALL))
    applicable = F.when(F.col("kind") == _APPLICABLE, F.col("products"))
    groups = (
        sums.where("products != 0")
        .groupBy(by.alias("by"), F.coalesce(*BY).alias("name"))
        .agg(
            F.sum(applicable).alias("size"), F.collect_list(F.struct("attribute", "kind", "products")).alias("numbers")
        )
    )
    names = {(by, name) for by, name, _, _ in known if name is not None}
    is_known = F.concat_ws(" ", "by", "name").isin(sorted(map(" ".join, names)))
    limit = coverage_groups.LIMIT + max(Counter(by for by, _ in names).values(), default=0)
    return _with_the_rest(largest_groups(groups, limit, F.desc(is_known), by="by").toArrow().to_pylist())


def _with_the_rest(rows: Iterable[Mapping[str, Any]]) -> _Sums:
    """Return the sums; ``rows``: ``by``, ``name`` and ``numbers`` of the named groups, and of :data:`_ALL` products."""
    counts: dict[tuple[str, str], int] = {}
    groups: Counter[tuple[str, str | None, str, bool]] = Counter()
    for row in rows:
        for number in row["numbers"]:
            attribute, kind, products = number["attribute"], number["kind"], number["products"]
            if row["by"] == _ALL:
                counts[attribute, kind] = products
                groups.update({(by, None, attribute, kind != _APPLICABLE): products for by in BY})
            else:
                groups[row["by"], row["name"], attribute, kind != _APPLICABLE] += products
                groups[row["by"], None, attribute, kind != _APPLICABLE] -= products
    return _Sums(counts, {key: products for key, products in groups.items() if products})
