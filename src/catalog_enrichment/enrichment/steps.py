"""What the lines of pipeline.py do. Each step takes what it needs and returns plain data or a DataFrame."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from catalog_enrichment import resources
from catalog_enrichment.catalog import category_filters, ledger
from catalog_enrichment.enrichment import decide as decisions
from catalog_enrichment.errors import DataContractError, GateRefused
from catalog_enrichment.inference import udf
from catalog_enrichment.records import (
    SUCCEEDED,
    Decision,
    QuarantineStage,
    Reason,
    RunKind,
    Source,
    make_run_id,
    stable_hash,
)
from catalog_enrichment.validation.quarantine import quarantine_rows
from catalog_enrichment.validation.snapshot import check_snapshot

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from catalog_enrichment.context import Context
    from catalog_enrichment.enrichment.select import Window, Work
    from catalog_enrichment.registry.model_registry import ResolvedModel


@dataclass(frozen=True, slots=True)
class Changes:
    """What a run would do to the ledger."""

    events: DataFrame
    published: int
    retracted: int


def config_hash(context: Context) -> str:
    """The config's part of a run id: what can change a score or a decision, and nothing else."""
    enrich_config = context.config.enrich
    off = (sorted(enrich_config.disabled_shops), sorted(enrich_config.disabled_categories))
    return stable_hash(context.dictionary.hash(), context.config.hash("images"), off)


def run_id(context: Context, model: ResolvedModel, work: Work, window: Window) -> str:
    """Same window, config, model version and inputs: same run."""
    inputs = (work.fingerprint, _human_verdicts(context))
    return make_run_id(RunKind.ENRICH, window.as_dict(), config_hash(context), model.name, model.version, inputs)


def _human_verdicts(context: Context) -> int:
    """How many events humans have added to the ledger: a run decides on all of them or gets another id."""
    from pyspark.sql import functions as F

    return int(context.catalog.read("attribute_values").where(F.col("source") == Source.HUMAN.value).count())


def snapshot_gate(context: Context, work: Work) -> dict[str, Any]:
    """The great_expectations document of the products to score. Raises DataContractError, naming what failed."""
    suite = resources.locate(context.config.enrich.snapshot_suite, context.config.path("."))
    report = check_snapshot(work.products.drop("images"), suite, {"min_rows": 1})
    if not report.success:
        failures = "\n  - ".join(report.failures)
        raise DataContractError(f"the products fail {suite.name}; nothing was written:\n  - {failures}")
    return report.document


def score(context: Context, model: ResolvedModel, work: Work) -> DataFrame:
    """The products with their scores, without their pictures."""
    config = context.config
    shipped = udf.ship(context.spark, model.artifact, model.artifact_hash)
    partitions = config.enrich.partitions or 2 * context.spark.sparkContext.defaultParallelism
    columns = ["product_id", "content_hash", "shop_id", "category", "language", "title", "description"]
    products = work.products.select(*columns, "merchant_attributes", "pending", "images").repartition(partitions)
    return udf.scored(products, shipped, config.images).drop("title", "description")


def count_scored(scored: DataFrame, work: Work) -> tuple[int, int, int]:
    """(rows, rows with scores, rows without). Raises RuntimeError if a row got lost: nothing is published then (I7)."""
    from pyspark.sql import functions as F

    row = scored.agg(F.count("*"), F.count("error")).first()
    rows, failed = (int(row[0]), int(row[1])) if row else (0, 0)
    if rows != work.rows:
        raise RuntimeError(f"{work.rows} products were selected and {rows} came back from scoring")
    return rows, rows - failed, failed


def decide_once(context: Context, model: ResolvedModel, scored: DataFrame, run_id: str) -> DataFrame:
    """The run's decisions: those that it landed before it was killed, or else new ones on the checkpointed scores."""
    from pyspark.sql import functions as F

    if context.catalog.committed("predictions", run_id):
        return context.catalog.read("predictions").where(F.col("run_id") == run_id)
    attempt = f"decided-{datetime.now(UTC):%Y%m%dT%H%M%S%f}"
    return context.catalog.stage(run_id, attempt, decide(context, model, scored, run_id))


def decide(context: Context, model: ResolvedModel, scored: DataFrame, run_id: str) -> DataFrame:
    """Rows of the predictions contract: one decision per scored product and pending attribute."""
    from pyspark.sql import functions as F

    rules = decisions.Rules(
        attributes=tuple(name for name in context.dictionary.enabled if name in model.heads),
        certificates={(c.attribute, c.modality.value): c for c in model.certificates},
        model_name=model.name,
        model_version=model.version,
        weights_hash=model.weights_hash,
        numeric_path=model.numeric_path,
        run_id=run_id,
        now=datetime.now(UTC),
    )
    events = context.catalog.read("attribute_values")
    human = (
        ledger.active(events)
        .where(F.col("source") == Source.HUMAN.value)
        .groupBy("product_id")
        .agg(F.collect_set("attribute").alias("human_attributes"))
    )
    good = scored.where(F.col("error").isNull()).join(human, "product_id", "left")
    return decisions.decided(good, rules)


def plan_changes(context: Context, decided: DataFrame, model: ResolvedModel, run_id: str) -> Changes:
    """The ledger events that the decisions amount to: assertions, and retractions where the content changed."""
    from pyspark.sql import functions as F

    events = context.catalog.read("attribute_values")
    stamp = ledger.RunStamp(run_id, model.name, model.version, ledger.next_asserted_at(events, datetime.now(UTC)))
    asserted = ledger.assertions(decided, stamp)
    retracted = ledger.retractions(events, decided, stamp)
    published = decided.where(F.col("decision") == Decision.PUBLISH.value).count()
    return Changes(asserted.unionByName(retracted), published, retracted.count())


def refuse_over_cap(context: Context, changes: Changes) -> None:
    """Raises GateRefused if the run would change more values than ``enrich.max_changes``."""
    planned, cap = changes.published + changes.retracted, context.config.enrich.max_changes
    if planned > cap:
        raise GateRefused(
            f"the run would change {planned:,} values (publish {changes.published:,}, retract {changes.retracted:,}), "
            f"more than enrich.max_changes = {cap:,}. Nothing was written. Look at it with --dry-run, then raise the "
            "cap or bound the run with --max-products."
        )


def quarantined(scored: DataFrame, model: ResolvedModel, run_id: str) -> DataFrame:
    """Quarantine rows for the products that could not be scored."""
    from pyspark.sql import functions as F

    failed = scored.where(F.col("error").isNotNull()).select(
        "product_id", "content_hash", F.col("error").alias("reason"), "detail"
    )
    return quarantine_rows(failed, QuarantineStage.DECODE, run_id, model_version=model.version)


def describe_run(
    context: Context, model: ResolvedModel, work: Work, scored: DataFrame, decided: DataFrame
) -> dict[str, Any]:
    """The run's row (contract `runs`) as far as it is known before anything is written; counts add up (I7)."""
    problems = scored.groupBy("error", "image_reason").count().collect()
    bad = _total(problems, "error")
    decisions_made = _decisions(decided)
    coverage = coverage_by_attribute(context)
    attributes = {
        name: {
            "merchant": coverage[name]["merchant"],
            "written": counts.get(Decision.PUBLISH.value, 0),
            "suggested": counts.get(Decision.SUGGEST.value, 0),
            "abstained": counts.get(Decision.ABSTAIN.value, 0),
            "coverage_before": coverage[name]["coverage"],
        }
        for name, counts in decisions_made.items()
    }
    return {
        "kind": RunKind.ENRICH.value,
        "model_name": model.name,
        "model_version": model.version,
        "config_hash": config_hash(context),
        "input_fingerprint": work.fingerprint,
        "products": work.seen,
        "predicted": work.rows - sum(bad.values()),
        "skipped": work.skipped,
        "quarantined": bad,
        "unusable_images": _total([row for row in problems if row["error"] is None], "image_reason"),
        "attributes": attributes,
        "certificates": [c.to_dict() for c in model.certificates if c.attribute in attributes],
    }


def coverage_by_attribute(context: Context) -> dict[str, dict[str, Any]]:
    """Per enabled attribute: products it applies to, with a merchant value, and the share that readers see one for."""
    from pyspark.sql import functions as F

    products = context.catalog.read("products").select("product_id", "category").cache()
    values = context.catalog.read("current_values").join(products, "product_id")
    found: dict[str, dict[str, Any]] = {}
    for name in context.dictionary.enabled:
        inside = category_filters.applies(context.dictionary[name])
        applicable = products.where(inside).count()
        sources = values.where(inside & (F.col("attribute") == name)).groupBy("source").count().collect()
        by_source = {row["source"]: row["count"] for row in sources}
        covered = sum(by_source.values()) / applicable if applicable else 0.0
        found[name] = {
            "applicable": applicable,
            "merchant": by_source.get(Source.MERCHANT.value, 0),
            "coverage": round(covered, 4),
        }
    return found


def nothing_to_do(context: Context, model: ResolvedModel, work: Work) -> dict[str, Any]:
    """The summary of a run that found everything done: it changes nothing and says so (I5)."""
    context.stages.say(
        f"nothing to do: {work.seen:,} products in the window, none of them new, changed or unscored by "
        f"{model.name} version {model.version}"
    )
    return {"status": "nothing_to_do", "model_version": model.version, "run_id": None, "remaining": 0} | {
        "products": work.seen,
        "predicted": 0,
        "skipped": sum(work.skipped.values()),
        "skipped_reasons": work.skipped,
        "quarantined": {},
        "attributes": {},
        "seconds": context.stages.seconds,
    }


def preview(context: Context, run: dict[str, Any], decided: DataFrame) -> dict[str, Any]:
    """What a dry run prints: the first changes for people, and the summary of what would happen."""
    from pyspark.sql import functions as F

    shown = decided.where(F.col("decision") != Decision.ABSTAIN.value).orderBy("decision", F.desc("score")).limit(20)
    for row in shown.collect():
        context.stages.say(
            f"would {row.decision:<8} {row.attribute} = {row.value!r} for {row.product_id} "
            f"(score {row.score:.3f}, {row.reason})"
        )
    context.catalog.unstage(run["run_id"])
    return summary(context, run, "dry_run")


def finish(context: Context, run: dict[str, Any], validation: dict[str, Any]) -> dict[str, Any]:
    """Write the run's row, drop its checkpoints, and return its summary. The row is the last thing a run writes."""
    coverage = coverage_by_attribute(context)
    for name, attribute in run["attributes"].items():
        attribute["coverage_after"] = coverage[name]["coverage"]
    context.catalog.append_rows("runs", [_run_row(context, run, validation)], run["run_id"])
    context.catalog.unstage(run["run_id"])
    return summary(context, run, SUCCEEDED)


def summary(context: Context, run: dict[str, Any], status: str) -> dict[str, Any]:
    """The job's JSON line: products = predicted + skipped + quarantined."""
    return {
        "status": status,
        "run_id": run["run_id"],
        "parent_run_id": run["parent_run_id"],
        "model_version": run["model_version"],
        "products": run["products"],
        "predicted": run["predicted"],
        "skipped": sum(run["skipped"].values()),
        "skipped_reasons": run["skipped"],
        "remaining": run["skipped"].get(Reason.OVER_LIMIT.value, 0),
        "quarantined": run["quarantined"],
        "unusable_images": run["unusable_images"],
        "attributes": run["attributes"],
        "seconds": context.stages.seconds,
    }


def _run_row(context: Context, run: dict[str, Any], validation: dict[str, Any]) -> dict[str, Any]:
    counts = {"products": run["products"], "predicted": run["predicted"]}
    counts |= {f"skipped.{reason}": number for reason, number in run["skipped"].items()}
    counts |= {f"quarantined.{reason}": number for reason, number in run["quarantined"].items()}
    counts |= {f"unusable_images.{reason}": number for reason, number in run["unusable_images"].items()}
    copied = ["run_id", "parent_run_id", "kind", "model_name", "model_version", "config_hash", "input_fingerprint"]
    return {name: run[name] for name in copied} | {
        "status": SUCCEEDED,
        "config": json.dumps(context.config.without_secrets(), sort_keys=True),
        "window": json.dumps(run["window"], sort_keys=True),
        "counts": counts,
        "attributes": json.dumps({"decisions": run["attributes"], "certificates": run["certificates"]}),
        "seconds": context.stages.seconds,
        "validation": json.dumps(validation, default=str),
        "started_at": run["started_at"],
        "finished_at": datetime.now(UTC),
    }


def _decisions(decided: DataFrame) -> dict[str, dict[str, int]]:
    """Per attribute, products by their one decision: publish beats suggest beats abstain."""
    from pyspark.sql import functions as F

    publish = F.max((F.col("decision") == Decision.PUBLISH.value).cast("int"))
    suggest = F.max((F.col("decision") == Decision.SUGGEST.value).cast("int"))
    overall = F.when(publish == 1, Decision.PUBLISH.value).when(suggest == 1, Decision.SUGGEST.value)
    per_product = decided.groupBy("product_id", "attribute").agg(
        overall.otherwise(Decision.ABSTAIN.value).alias("decision")
    )
    found: dict[str, dict[str, int]] = {}
    for row in per_product.groupBy("attribute", "decision").count().orderBy("attribute").collect():
        found.setdefault(row["attribute"], {})[row["decision"]] = row["count"]
    return found


def _total(rows: list[Any], column: str) -> dict[str, int]:
    total: dict[str, int] = {}
    for row in rows:
        if row[column] is not None:
            total[row[column]] = total.get(row[column], 0) + row["count"]
    return dict(sorted(total.items()))
