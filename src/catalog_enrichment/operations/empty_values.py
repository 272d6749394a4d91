"""Which products have no value of an attribute, and why, in the whole catalog: by the newest decision about each.

A run's page tells it of what the run decided; this tells it of all products, whichever run decided them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from catalog_enrichment.catalog import ledger, runs, switches
from catalog_enrichment.catalog.switches import Scope, State
from catalog_enrichment.enrichment import coverage, outcomes
from catalog_enrichment.errors import ConfigError
from catalog_enrichment.monitoring.text_tables import ATTRIBUTE, Column, aligned_table, count, text
from catalog_enrichment.reasons import Case, Reason, sentence
from catalog_enrichment.records import Decision, QuarantineStage
from catalog_enrichment.spark import category_filters

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from catalog_enrichment.catalog.lake import Catalog
    from catalog_enrichment.config.schema import EnrichConfig
    from catalog_enrichment.dictionary import Dictionary

BY = {"shop": "shop_id", "category": "category"}
"""What the counts can be split by -> the column of `products`."""

NEVER_DECIDED, TAKEN_BACK, OFF = "never_decided", "taken_back", "switched_off_now"
"""In place of a reason: no finished run has decided it; a run wrote a value, which readers do not see any more; its
attribute, shop or category is switched off."""

_IN_WORDS = {
    Reason.NO_CERTIFICATE.value: "the version has no certificate that allows it: the page of its training says why, "
    "and what would change it",
    NEVER_DECIDED: "no finished run has decided it yet: the next run of enrich_catalog does",
    TAKEN_BACK: "a run wrote a value, and a rollback, a person, an audit or a switch took it back since: explain_value "
    "names it for a single product",
    OFF: "its attribute, shop or category is switched off, by the config or by set_switch (--list says which)",
}

MOST_GROUPS = 1000
"""Most rows that are returned: those with most products."""


def empty_values(
    catalog: Catalog,
    dictionary: Dictionary,
    rules: EnrichConfig,
    attributes: Collection[str] = (),
    by: str | None = None,
) -> list[dict[str, Any]]:
    """Return attribute, reason and products without any value, most products first; with ``by`` (:data:`BY`) also the
    group. ``attributes``: only these; empty: all that are enabled. ``rules``: the config's disabled shops and
    categories. Raises ConfigError for an unknown attribute.
    """
    from pyspark.sql import functions as F

    if unknown := sorted(set(attributes) - set(dictionary.enabled)):
        raise ConfigError(f"the dictionary enables no attribute {unknown}: it has {sorted(dictionary.enabled)}")
    group = [F.coalesce(BY[by], F.lit("")).alias("group")] if by else []
    products = _products(catalog, rules)
    names = F.explode(coverage.applicable_attributes(dictionary)).alias("attribute")
    applicable = products.select("product_id", "opt_out", "off", "refused", *group, names)
    if attributes:
        applicable = applicable.where(F.col("attribute").isin(sorted(attributes)))
    key = ["product_id", "attribute"]
    empty = applicable.join(catalog.read("current_values", columns=key), key, "left_anti")
    finished = runs.succeeded(catalog).select("run_id", "finished_at")
    predictions = catalog.read("predictions").join(F.broadcast(finished), "run_id")
    decided = outcomes.best_decisions(predictions, newest=True)
    human = ledger.human_owned(catalog.read("attribute_values")).withColumn("by_person", F.lit(True))
    attributes_off = F.col("attribute").isin(sorted(switches.read(catalog).off_attributes()))
    reason = (
        F.when(F.col("opt_out"), Reason.OPTED_OUT.value)
        .when(F.col("by_person"), Reason.REMOVED_BY_PERSON.value)
        .when(F.col("off") | attributes_off, OFF)
        .when(F.col("refused") & F.col("decision").isNull(), Reason.ALREADY_QUARANTINED.value)
        .when(F.col("decision").isNull(), NEVER_DECIDED)
        .when(F.col("decision") == Decision.PUBLISH.value, TAKEN_BACK)
        .otherwise(F.col("reason"))
    )
    columns = ["attribute", *(["group"] if by else []), "why"]
    known = empty.join(decided, key, "left").join(human, key, "left")
    counted = known.withColumn("why", reason).groupBy(*columns).count()
    rows = counted.orderBy(F.desc("count"), *columns).limit(MOST_GROUPS).collect()
    return [
        {
            "attribute": row["attribute"],
            **({by: row["group"]} if by else {}),
            "reason": row["why"],
            "products": row["count"],
            "why": in_words(row["attribute"], row["why"]),
        }
        for row in rows
    ]


def _products(catalog: Catalog, rules: EnrichConfig) -> DataFrame:
    """Return the products, with whether their shop or category is ``off``, and whether their content was ``refused``:
    it could not be scored."""
    from pyspark.sql import functions as F

    now = switches.read(catalog)
    shops = [*rules.disabled_shops, *now.targets(Scope.SHOP, State.OFF)]
    categories = [*rules.disabled_categories, *now.targets(Scope.CATEGORY, State.OFF)]
    content = ["product_id", "content_hash"]
    failed = runs.of_succeeded(catalog, "quarantine").where(F.col("stage") == QuarantineStage.DECODE.value)
    failed = failed.select(*content).distinct().withColumn("refused", F.lit(True))
    products = catalog.read("products", columns=[*content, "category", "shop_id", "opt_out"])
    off = F.coalesce(F.col("shop_id").isin(shops), F.lit(False)) | category_filters.below(categories)
    return products.join(failed, content, "left").withColumn("off", off)


def in_words(attribute: str, reason: str) -> str:
    """Return the reason as a sentence about many products."""
    return _IN_WORDS.get(reason) or sentence(Reason(reason), Case(attribute=attribute))


def as_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the rows of :func:`empty_values` as text for a terminal."""
    groups = [Column(name, text(name), "<") for name in BY if rows and name in rows[0]]
    columns = (ATTRIBUTE, *groups, Column("products", count("products")), Column("reason", _reason, "<"))
    return aligned_table(rows, (*columns, Column("why, and what would change it", text("why"), "<")))


def _reason(row: Mapping[str, Any]) -> str:
    return str(row["reason"]).replace("_", " ")
