"""What the people who answer for the catalog do with it: undo a run, ask who wrote a value, export suggestions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from catalog_enrichment.catalog import ledger
from catalog_enrichment.errors import ConfigError
from catalog_enrichment.records import SUCCEEDED, Decision, RunKind, add_counts, make_run_id

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from catalog_enrichment.context import Context


def rollback_run(context: Context, run_id: str, attribute: str | None = None, dry_run: bool = False) -> dict[str, Any]:
    """Undo a run, or one attribute of it, by appending events; rolling back a rollback undoes that (I6).

    The id of a backfill stands for its chunks, newest first. Raises ConfigError for a run or an attribute that the
    ledger does not know.
    """
    chunks = _chunks(context, run_id)
    if not chunks:
        return _rollback(context, run_id, attribute, dry_run)
    undone = [_rollback(context, chunk, attribute, dry_run) for chunk in chunks]
    statuses = {one["status"] for one in undone}
    return {
        "run_id": [one["run_id"] for one in undone],
        "undoes": run_id,
        "events": add_counts(*(one["events"] for one in undone)),
        "status": SUCCEEDED if SUCCEEDED in statuses else min(statuses),
        "seconds": context.stages.seconds,
    }


def _chunks(context: Context, run_id: str) -> list[str]:
    """The chunks of a backfill that wrote something, newest first; empty for any other run."""
    from pyspark.sql import functions as F

    mine = (F.col("parent_run_id") == run_id) & (F.col("kind") == RunKind.ENRICH.value)
    runs = context.catalog.read("runs").where(mine)
    writers = context.catalog.read("attribute_values").select("run_id").distinct()
    newest_first = runs.join(writers, "run_id", "left_semi").orderBy(F.desc("finished_at"))
    return [row["run_id"] for row in newest_first.select("run_id").collect()]


def _rollback(context: Context, run_id: str, attribute: str | None, dry_run: bool) -> dict[str, Any]:
    catalog, started = context.catalog, datetime.now(UTC)
    with context.stages("plan") as stage:
        events = catalog.read("attribute_values")
        _require_run(events, run_id, attribute)
        rollback_id = make_run_id(RunKind.ROLLBACK, run_id, attribute, _finished_rollbacks(context, run_id))
        if not catalog.committed("attribute_values", rollback_id):
            catalog.unstage(rollback_id)  # a plan that was never carried out may be out of date
        stamp = ledger.RunStamp(rollback_id, None, None, ledger.next_asserted_at(events, started))
        undone = catalog.stage(rollback_id, "events", ledger.undo(events, run_id, attribute, stamp))
        per_attribute = {row["attribute"]: row["count"] for row in undone.groupBy("attribute").count().collect()}
        stage.rows_out = sum(per_attribute.values())
    found = {"run_id": rollback_id, "undoes": run_id, "events": per_attribute, "seconds": context.stages.seconds}
    if dry_run or not per_attribute:
        catalog.unstage(rollback_id)
        return found | {"status": "dry_run" if dry_run else "nothing_to_do"}
    with context.stages("publish") as stage:
        stage.rows_out = catalog.append("attribute_values", undone, rollback_id)
        catalog.refresh_current_values(rollback_id)
    row = {
        "run_id": rollback_id,
        "parent_run_id": run_id,
        "kind": RunKind.ROLLBACK.value,
        "status": SUCCEEDED,
        "window": json.dumps({"run_id": run_id, "attribute": attribute}),
        "counts": {f"events.{name}": number for name, number in per_attribute.items()},
        "seconds": context.stages.seconds,
        "started_at": started,
        "finished_at": datetime.now(UTC),
    }
    catalog.append_rows("runs", [row], rollback_id)
    catalog.unstage(rollback_id)
    return found | {"status": SUCCEEDED, "seconds": context.stages.seconds}


def _finished_rollbacks(context: Context, run_id: str) -> int:
    """How often the run was rolled back. It makes the next time another run; one that was killed does not count."""
    from pyspark.sql import functions as F

    mine = (F.col("parent_run_id") == run_id) & (F.col("kind") == RunKind.ROLLBACK.value)
    return int(context.catalog.read("runs").where(mine).count())


def _require_run(events: DataFrame, run_id: str, attribute: str | None) -> None:
    from pyspark.sql import functions as F

    written = {
        row["attribute"] for row in events.where(F.col("run_id") == run_id).select("attribute").distinct().collect()
    }
    if not written:
        newest = events.groupBy("run_id").agg(F.max("asserted_at").alias("at")).orderBy(F.desc("at")).limit(5).collect()
        raise ConfigError(
            f"run {run_id!r} wrote nothing to the ledger. The newest runs there: {[r[0] for r in newest]}"
        )
    if attribute and attribute not in written:
        raise ConfigError(f"run {run_id!r} wrote no {attribute!r}; it wrote {sorted(written)}")


def explain_value(context: Context, product_id: str, attribute: str) -> dict[str, Any]:
    """Who wrote a product's value, why, with which certificate, its history, and how to undo it.

    Raises ConfigError for a product or attribute that the catalog does not know.
    """
    from pyspark.sql import functions as F

    catalog = context.catalog
    if attribute not in context.dictionary:
        raise ConfigError(
            f"no attribute {attribute!r} in the dictionary; it has {sorted(context.dictionary.attributes)}"
        )
    product = catalog.read("products").where(F.col("product_id") == product_id).drop("images").first()
    if product is None:
        raise ConfigError(f"no product {product_id!r} in the catalog ({catalog.location('products')})")
    of_this = (F.col("product_id") == product_id) & (F.col("attribute") == attribute)
    current = catalog.read("current_values").where(of_this).first()
    history = [
        row.asDict() for row in ledger.history(catalog.read("attribute_values"), product_id, attribute).collect()
    ]
    finished = catalog.read("runs").select("run_id", F.col("finished_at").alias("decided_at"), "attributes")
    predictions = catalog.read("predictions").where(of_this).join(finished, "run_id")
    decisions = [row.asDict() for row in predictions.orderBy(F.desc("decided_at"), "rank").collect()]
    run_id = current["run_id"] if current else None
    explained = {
        "product_id": product_id,
        "title": product["title"],
        "attribute": attribute,
        "merchant_values": list((product["merchant_attributes"] or {}).get(attribute, [])),
        "current": current.asDict() if current else None,
        "certificate": _certificate(decisions, current["certificate_id"] if current else None),
        "history": history,
        "decisions": [{k: v for k, v in one.items() if k != "attributes"} for one in decisions],
        "undo": f"rollback_run --config FILE --run-id {run_id} --attribute {attribute}" if run_id else None,
    }
    for line in _in_words(explained):
        context.stages.say(line)
    return explained


def _in_words(explained: dict[str, Any]) -> Iterator[str]:
    current, certificate = explained["current"], explained["certificate"]
    yield f"{explained['product_id']}: {explained['title']}"
    if current:
        by = (
            f"model version {current['model_version']}, run {current['run_id']}"
            if current["run_id"]
            else "the merchant"
        )
        yield f"{explained['attribute']} = {', '.join(current['values'])}, by {by}"
    else:
        yield f"{explained['attribute']} has no value"
    for decision in explained["decisions"][:5]:
        against = f", threshold {decision['threshold']:.3f}" if decision["threshold"] is not None else ""
        yield (
            f"  {decision['decided_at']:%Y-%m-%d %H:%M} version {decision['model_version']} "
            f"said {decision['value']!r}, score {decision['score']:.3f}{against}: "
            f"{decision['decision']} ({decision['reason']})"
        )
    if certificate:
        yield f"  certificate {certificate['certificate_id'][:12]}: {certificate['claim']}"
    for event in explained["history"]:
        yield f"  {event['asserted_at']:%Y-%m-%d %H:%M} {event['op']} {event['value']!r} by run {event['run_id']}"
    if explained["undo"]:
        yield f"  to undo: {explained['undo']}"


def _certificate(decisions: list[dict[str, Any]], certificate_id: str | None) -> dict[str, Any] | None:
    """The certificate as it stood in the run that used it; without a current value, the last one consulted."""
    for decision in decisions:
        for certificate in json.loads(decision["attributes"] or "{}").get("certificates", []):
            if certificate["certificate_id"] == (certificate_id or decision["certificate_id"]):
                return dict(certificate)
    return None


def export_suggestions(context: Context, folder: Path, kind: Literal["csv", "parquet"]) -> dict[str, Any]:
    """Write the open suggestions, newest decision per product and attribute, one folder per shop.

    A suggestion is a disagreement with the merchant or a near miss; nothing in the catalog changes.
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    if folder.exists() and any(folder.iterdir()) and not (folder / "_SUCCESS").exists():
        raise ConfigError(f"{folder} is not empty and was not written by an export; choose another folder")
    catalog = context.catalog
    with context.stages("export") as stage:
        finished = catalog.read("runs").select("run_id", "finished_at")
        newest = Window.partitionBy("product_id", "attribute").orderBy(F.desc("finished_at"), F.desc("run_id"))
        decisions = catalog.read("predictions").join(finished, "run_id")
        latest = decisions.withColumn("age", F.dense_rank().over(newest)).where(F.col("age") == 1)
        wanted = catalog.read("products").where(~F.col("opt_out"))
        products = wanted.select("product_id", "content_hash", "shop_id", "title", "merchant_attributes")
        given = F.coalesce(F.col("merchant_attributes")[F.col("attribute")], F.array().cast("array<string>"))
        rows = (
            latest.where(F.col("decision") == Decision.SUGGEST.value)
            .join(products, ["product_id", "content_hash"])
            .where(~F.array_contains(given, F.col("value")))  # the merchant has taken it up meanwhile
            .select(
                F.coalesce("shop_id", F.lit("unknown")).alias("shop_id"),
                *("product_id", "title", "attribute"),
                F.concat_ws("|", given).alias("merchant_values"),
                F.col("value").alias("suggested_value"),
                F.round("score", 4).alias("score"),
                *("reason", "model_version", "run_id"),
            )
            .cache()
        )
        per_shop = {row["shop_id"]: row["count"] for row in rows.groupBy("shop_id").count().collect()}
        stage.rows_out = sum(per_shop.values())
        writer = rows.repartition("shop_id").sortWithinPartitions("product_id", "attribute").write.mode("overwrite")
        writer = writer.partitionBy("shop_id").option("header", True).option("escape", '"')
        writer.format(kind).save(str(folder))
    found = {"status": SUCCEEDED, "folder": str(folder), "suggestions": stage.rows_out, "shops": per_shop}
    return found | {"seconds": context.stages.seconds}
