"""Shows what a promotion would change for readers of the catalog: products are scored again, nothing is written.

Products, scores, decisions and events are those of an enrichment run with the version (:mod:`pipeline`) up to the point
where the run would publish, the provisional cap included. A sample of the catalog claims less room under that cap than
a run does, so more values look added; all products give the exact counts.
"""

from __future__ import annotations

from dataclasses import replace
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catalog_enrichment.catalog import ledger
from catalog_enrichment.enrichment import decisions, score, select
from catalog_enrichment.enrichment.request import RunRequest, RuntimeOverrides, Window
from catalog_enrichment.monitoring.stages import Stages
from catalog_enrichment.report.promotion_page import KINDS, PromotionReport, ValueChange, write_promotion_report
from catalog_enrichment.report.run_report import picture_of
from catalog_enrichment.spark import value_columns
from catalog_enrichment.spark.frames import persisted_frames

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from catalog_enrichment.catalog.lake import Catalog
    from catalog_enrichment.catalog.ledger import ActiveValues
    from catalog_enrichment.context import Context
    from catalog_enrichment.dictionary import Dictionary
    from catalog_enrichment.registry.model_registry import ResolvedModel

SAMPLED_PRODUCTS = 2000
"""About how many products are scored unless all are asked for."""
SAMPLES = 50
"""Changes in the report."""


def promotion_diff(
    context: Context, model: ResolvedModel, gate: dict[str, Any], sampled_products: int = SAMPLED_PRODUCTS
) -> dict[str, Any]:
    """Score about ``sampled_products`` products (0: all) with ``model`` and compare with what readers see now.

    Writes the HTML report; returns its path and the counts per attribute. ``gate``: the summary of the promotion gate,
    for the report. Products that this version has decided already do not change and are not scored.
    """
    config, catalog, stages = context.config, context.catalog, Stages(context.say)
    total = catalog.read("products", columns=["product_id"]).count()
    chunks = ceil(total / sampled_products) if sampled_products else 1
    window = Window(chunk=(0, chunks)) if chunks > 1 else Window()
    request = RunRequest.of(config, context.dictionary, model, window, RuntimeOverrides.read(catalog))
    model = request.model
    with persisted_frames() as persist:
        with stages("select") as stage:
            state = select.read_ledger(catalog)
            selection = select.select_products(catalog, request, state, persist)
            run_id = f"diff-{selection.run_id}"  # its checkpoints are not those of the run that may follow
            selection = replace(selection, run_id=run_id)
            stage.count(selection.seen, selection.rows)
        with catalog.checkpoints.dropping(run_id), stages("score") as stage:
            scored = score.score(catalog, run_id, selection, model, config, persist)
            _, planned = decisions.decide_and_plan(catalog, request, state, selection, scored, selection.rows)
            products = catalog.read("products")
            changes = persist(value_changes(products, selection.active, planned.events, context.dictionary))
            counts = _counts(changes, [attribute.name for attribute in request.attributes])
            samples = _samples(catalog, changes, context)
            stage.count(selection.rows)
    report = PromotionReport(
        gate=gate,
        products=selection.seen,
        catalog_products=total,
        provisional_cap=config.precision.provisional_cap,
        counts=counts,
        samples=samples,
    )
    path: Path = config.path(config.report.path) / f"promotion-{model.version}.html"
    return {
        "products": selection.seen,
        "catalog_products": total,
        "attributes": counts,
        "report": str(write_promotion_report(path, report)),
        "seconds": stages.seconds,
    }


def value_changes(products: DataFrame, active: ActiveValues, events: DataFrame, dictionary: Dictionary) -> DataFrame:
    """Return ``old`` and ``new`` values (sorted, null for none) and the ``kind`` of change for what ``events`` touch.

    ``products``: rows of the contract `products`; ``active``: the active values; ``events``: what a run would add to
    the ledger; ``dictionary``: says which values are the same. Kinds: added, changed (also where an older set is seen
    again), retracted, and unchanged where the run writes the same values again.
    """
    from pyspark.sql import functions as F

    key = ["product_id", "attribute"]
    touched = events.select(key).distinct()

    def of_model(values: ActiveValues, name: str) -> DataFrame:
        """Return the sets that readers see and a model wrote, as the column ``name``."""
        seen = ledger.current_values(products, values.events.join(touched, key, "left_semi"))
        return seen.where(ledger.by_model()).select(*key, F.col("values").alias(name))

    both = of_model(active, "old").join(of_model(active.after(events), "new"), key, "full")
    kind = (
        F.when(F.col("old").isNull(), "added")
        .when(F.col("new").isNull(), "retracted")
        .when(~value_columns.are_same(dictionary, F.col("old"), F.col("new")), "changed")
        .otherwise("unchanged")
    )
    return both.select(*key, "old", "new", kind.alias("kind"))


def _counts(changes: DataFrame, attributes: list[str]) -> dict[str, dict[str, int]]:
    """Return attribute -> kind -> products."""
    counts = {name: dict.fromkeys(KINDS, 0) for name in attributes}
    for row in changes.groupBy("attribute", "kind").count().collect():
        counts[row["attribute"]][row["kind"]] = row["count"]
    return counts


def _samples(catalog: Catalog, changes: DataFrame, context: Context) -> list[ValueChange]:
    """Return SAMPLES changes, of every attribute and kind in turn, drawn by hash."""
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    order = Window.partitionBy("attribute", "kind").orderBy(F.xxhash64("product_id"))
    drawn = changes.where(F.col("kind") != "unchanged").withColumn("draw", F.row_number().over(order))
    drawn = drawn.orderBy("draw", "attribute", "kind").limit(SAMPLES)
    products = catalog.read("products", columns=["product_id", "title", "images"])
    rows = products.join(F.broadcast(drawn), "product_id").orderBy("attribute", "kind", "draw").collect()
    return [
        ValueChange(
            product_id=row["product_id"],
            attribute=row["attribute"],
            kind=row["kind"],
            old=tuple(row["old"] or ()),
            new=tuple(row["new"] or ()),
            title=row["title"] or "",
            picture=picture_of(row["images"], context.config.pictures()),
        )
        for row in rows
    ]
