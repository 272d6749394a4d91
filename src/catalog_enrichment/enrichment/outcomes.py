"""What became of the products that were decided: by the reason of their best value, and by who gave the value that
readers see. So products that have none are apart from those that have a merchant's or a person's value.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from catalog_enrichment.records import Decision
from catalog_enrichment.spark.frames import few_ids, with_ids

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from catalog_enrichment.catalog.lake import Catalog

NO_VALUE = "none"
"""In place of a source of values (records.Source): readers see no value."""

REASONS_KEY = "reasons"
"""Key in the numbers of an attribute in `runs.attributes`: :data:`ByReason`."""

ByReason = dict[str, dict[str, dict[str, int]]]
"""Decision -> reason -> source of the value that readers see after the run, or :data:`NO_VALUE` -> products."""

_KEY = ["product_id", "attribute"]


def best_decisions(predictions: DataFrame, *facts: str, newest: bool = False) -> DataFrame:
    """Return one row per product and attribute: ``decision``, ``reason`` and the ``facts`` of its best value.

    ``predictions``: of one run; with ``newest`` of many runs, with the column ``finished_at`` of each: the last run
    counts. The best value is that with the best decision, of several the first by rank.
    """
    from pyspark.sql import functions as F

    worst_first = [Decision.ABSTAIN.value, Decision.SUGGEST.value, Decision.PUBLISH.value]
    time = [F.col("finished_at")] if newest else []
    best = F.struct(*time, F.array_position(F.lit(worst_first), F.col("decision")), -F.col("rank"))
    row = F.struct("decision", "reason", *facts)
    return predictions.groupBy(*_KEY).agg(F.max_by(row, best).alias("best")).select(*_KEY, "best.*")


def with_source(catalog: Catalog, decided: DataFrame) -> DataFrame:
    """Return ``decided`` with the column ``source``: who gave the value that readers see now, or :data:`NO_VALUE`."""
    from pyspark.sql import functions as F

    seen = catalog.read("current_values", columns=[*_KEY, "source"])
    ids = few_ids(decided)
    if ids is not None:
        seen = seen.join(with_ids(decided.sparkSession, ids), "product_id", "left_semi")
    return decided.join(seen, _KEY, "left").withColumn("source", F.coalesce("source", F.lit(NO_VALUE)))


def by_reason(catalog: Catalog, predictions: DataFrame) -> dict[str, ByReason]:
    """Return attribute -> decided products by decision, reason and source; ``predictions``: of one run, which has been
    published."""
    decided = with_source(catalog, best_decisions(predictions))
    found: dict[str, ByReason] = {}
    for row in decided.groupBy("attribute", "decision", "reason", "source").count().collect():
        by_source = found.setdefault(row["attribute"], {}).setdefault(row["decision"], {}).setdefault(row["reason"], {})
        by_source[row["source"]] = row["count"]
    return found


def added(*counted: ByReason) -> ByReason:
    """Return the sums of several runs."""
    total: ByReason = {}
    for decision, reason, source, products in (entry for of in counted for entry in entries(of)):
        by_source = total.setdefault(decision, {}).setdefault(reason, {})
        by_source[source] = by_source.get(source, 0) + products
    return total


def entries(counted: ByReason) -> list[tuple[str, str, str, int]]:
    """Return decision, reason, source and products of each number, sorted."""
    return sorted(
        (decision, reason, source, products)
        for decision, reasons in counted.items()
        for reason, sources in reasons.items()
        for source, products in sources.items()
    )


def without_value(numbers: Mapping[str, Any]) -> dict[str, int]:
    """Return reason -> products for which readers see no value, most frequent first; ``numbers``: of an attribute in
    the decisions of a run's row."""
    counts: dict[str, int] = {}
    for _, reason, source, products in entries(numbers.get(REASONS_KEY) or {}):
        if source == NO_VALUE:
            counts[reason] = counts.get(reason, 0) + products
    return dict(sorted(counts.items(), key=lambda entry: (-entry[1], entry[0])))


def empty_in_words(decisions: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return a line per attribute with decided products for which readers see no value: how many, by reason."""
    lines = []
    for name, numbers in decisions.items():
        if reasons := without_value(numbers):
            listed = ", ".join(f"{products:,} {reason.replace('_', ' ')}" for reason, products in reasons.items())
            lines.append(f"without any {name}: {sum(reasons.values()):,} of the decided products ({listed})")
    return lines
