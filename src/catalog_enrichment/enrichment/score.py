"""The scores of the selected products: checked, known from earlier runs or computed by the UDF of inference/.

A model version computes the scores of a content once. The same content comes again with another seller's listing, with
a category or a merchant's value that changed, with a new certificate or more room under the provisional cap, and when a
text changes back. A version that was certified anew has the weights of the old version, and so its scores. Every
candidate that was decided is kept in `predictions` with its score, so that only the decision has to be taken again.

Scores are taken where everything that gives a score is the same (precision.certificate.ScoredBy, and the config section
[images]), and where no picture failed: a picture that could not be read or fetched is tried again.
"""

from __future__ import annotations

import json
from functools import reduce
from operator import and_
from typing import TYPE_CHECKING, Any

from catalog_enrichment import resources
from catalog_enrichment.catalog import runs
from catalog_enrichment.catalog.table_checks import check_products_unique
from catalog_enrichment.errors import DataContractError
from catalog_enrichment.inference.udf import SCORED_TYPE
from catalog_enrichment.proposers.protocol import Asked
from catalog_enrichment.reasons import Reason
from catalog_enrichment.records import QuarantineStage, RunKind, RunStatus
from catalog_enrichment.spark import api_mode
from catalog_enrichment.spark.frames import FEW_PRODUCTS, arrow_batch_rows
from catalog_enrichment.validation.quarantine import quarantine_rows
from catalog_enrichment.validation.snapshot import check_snapshot

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pyspark.sql import DataFrame

    from catalog_enrichment.catalog.lake import Catalog
    from catalog_enrichment.config.schema import Config
    from catalog_enrichment.enrichment.select import Selection
    from catalog_enrichment.registry.model_registry import ResolvedModel
    from catalog_enrichment.spark.frames import Persist

SCORED = "scored"
"""The checkpoint that a run reads when it is started again; the others belong to one attempt."""

_KEY = ["product_id", "content_hash"]
_COLUMNS = (*_KEY, "shop_id", "category", "language", "merchant_attributes", "pending")
_CONTENT = ("title", "description", "images")
_KNOWN = ("scored", "of_attributes")


def check_products(selection: Selection, config: Config) -> dict[str, Any]:
    """Return the great_expectations document of the selected products. Raises DataContractError, naming what failed."""
    suite = resources.locate(config.enrich.snapshot_suite, config.path("."))
    products = _with_content(selection.source, selection.ready, selection.rows, config.enrich.partitions)
    report = check_snapshot(products.drop("images"), suite, {"min_rows": 1})
    if not report.success:
        check_products_unique(selection.ready, f"{config.catalog.path}/products")
        failures = "\n  - ".join(report.failures)
        raise DataContractError(f"the products fail {suite.name}; nothing was written:\n  - {failures}")
    return report.document


def score(
    catalog: Catalog, run_id: str, selection: Selection, model: ResolvedModel, config: Config, persist: Persist
) -> DataFrame:
    """Return the selected products with their scores (SCORED_TYPE), without their texts and pictures.

    Scored once per ``run_id``, into the checkpoint :data:`SCORED`, in batches of `enrich.batch_rows`. ``known``: the
    scores are an earlier run's.
    """
    from pyspark.sql import functions as F

    ready, rows = selection.ready, selection.rows
    known = known_scores(catalog, ready.select(*_COLUMNS), model, config)
    if known is not None:
        known = persist(known)
        if rows > FEW_PRODUCTS:  # with few left, pictures of the others need not be shuffled
            rows -= known.count()
        ready = ready.join(known.select("product_id"), "product_id", "left_anti")
    products = _with_content(selection.source, ready, rows, config.enrich.partitions).select(*_COLUMNS, *_CONTENT)
    spark = products.sparkSession
    scored = model.proposer.propose(products, asked_of(catalog, model, config)).drop("title", "description")
    scored = scored.withColumn("known", F.lit(False))
    if known is not None:
        scored = scored.unionByName(known.withColumn("known", F.lit(True)))
    with arrow_batch_rows(spark, config.enrich.batch_rows):
        return catalog.checkpoints.get_or_compute(run_id, SCORED, scored)


def asked_of(catalog: Catalog, model: ResolvedModel, config: Config) -> Asked:
    """Return what a run tells the model's proposer."""
    return Asked(
        catalog=catalog, images=config.pictures(), numbers=model.numbers, forward_rows=config.enrich.forward_rows
    )


def _with_content(products: DataFrame, ready: DataFrame, rows: int, partitions: int) -> DataFrame:
    """Return ``products`` whose key is among the about ``rows`` keys of ``ready``, with ``pending``.

    ``partitions``: for scoring; 0: two per core. Pictures are shuffled at most once, and where few products of the
    window are ready only theirs: their keys are broadcast, and the shuffle comes after the join; it brings equal
    contents to one task, which scores them once. Too many keys to broadcast are joined in the partitions that the
    scoring needs, so that the join's shuffle is the only shuffle; every picture of the window takes part in it.
    """
    from pyspark.sql import functions as F

    keys = ready.select(*_KEY, "pending")
    count = partitions or 2 * api_mode.of(products.sparkSession).parallelism()
    if rows <= FEW_PRODUCTS:
        return products.join(F.broadcast(keys), _KEY).repartition(count, "content_hash")
    # with fewer partitions than Spark's setting it would shuffle both sides, pictures and all, once more
    count = max(count, int(str(products.sparkSession.conf.get("spark.sql.shuffle.partitions"))))
    return products.repartition(count, *_KEY).join(keys.repartition(count, *_KEY).hint("shuffle_hash"), _KEY)


def kept_checkpoints(catalog: Catalog, run_id: str, dry_run: bool) -> list[str]:
    """Return the checkpoint of the scores, if it stays where nothing is published. To be asked before :func:`score`.

    A dry run leaves no scores of its own; those of a run that was refused or killed are for that run.
    """
    return [SCORED] if not dry_run or catalog.checkpoints.has(run_id, SCORED) else []


# --- known scores ----------------------------------------------------------------------------------------------------


def known_scores(catalog: Catalog, ready: DataFrame, model: ResolvedModel, config: Config) -> DataFrame | None:
    """Return the products of ``ready`` whose scores are known, with the columns of SCORED_TYPE added.

    ``ready``: product_id, content_hash, ``pending`` (the attributes to decide), and any others. None where no run can
    have scores: then nothing is read.
    """
    from pyspark.sql import functions as F

    found = _runs_with_equal_scores(catalog, model, config)
    paths = sorted({certificate.compute_type for certificate in model.certificates})
    labels = ((name, label) for name, head in model.heads.items() for label in head.labels)
    if not found or not paths or any(catalog.names.now(name, label) != label for name, label in labels):
        return None  # `predictions` has names in force, and certificates are about labels
    keys = ["content_hash", *model.proposer.reads]
    no_picture_failed = F.col("image_reason").isNull() | (F.col("image_reason") == Reason.NO_IMAGE.value)
    candidates = (
        catalog.read("predictions")
        .where(F.col("run_id").isin(found) & F.col("compute_type").isin(paths) & no_picture_failed)
        .where(F.col("rank") > 0)  # an answer may have come since
        .join(ready.select("content_hash").distinct(), "content_hash", "left_semi")
    )
    scores = _scores_of_contents(candidates, keys)
    same = [ready[name].eqNullSafe(scores[name]) for name in keys]
    known = ready.join(scores, reduce(and_, same)).select(*[ready[name] for name in ready.columns], *_KNOWN)
    all_pending = F.size(F.array_except("pending", "of_attributes")) == 0
    return known.where(all_pending).select(*ready.columns, "scored.*")


def _scores_of_contents(candidates: DataFrame, keys: Sequence[str]) -> DataFrame:
    """Return per content of rows of `predictions` ``scored``, a struct of SCORED_TYPE, and ``of_attributes``.

    A single product and run gives all scores of a content: the product with the most attributes. ``keys``: the content,
    and what else a score depends on.
    """
    from pyspark.sql import functions as F

    row = F.struct("attribute", "rank", "value", "score", "attention", "evidence")
    one_product = dict.fromkeys([*keys, "run_id", "product_id"])
    products = candidates.groupBy(*one_product).agg(
        F.array_sort(F.collect_list(row)).alias("candidates"),
        F.array_sort(F.collect_set("attribute")).alias("of_attributes"),
        *[F.first(name).alias(name) for name in ("modality", "compute_type", "image_reason")],
    )
    nothing = F.lit(None).cast("string")
    fields = ("attribute", "value", "rank", "score", "attention", "evidence")
    in_order = F.transform("candidates", lambda row: F.struct(*[row[name].alias(name) for name in fields]))
    scored = F.struct(
        in_order.alias("candidates"),
        *("modality", "compute_type", "image_reason"),
        nothing.alias("error"),
        nothing.alias("detail"),
    ).cast(SCORED_TYPE)
    most = F.struct(F.size("of_attributes"), "run_id", "product_id")
    return products.groupBy(*keys).agg(
        F.max_by(scored, most).alias("scored"), F.max_by("of_attributes", most).alias("of_attributes")
    )


def _runs_with_equal_scores(catalog: Catalog, model: ResolvedModel, config: Config) -> list[str]:
    """Return the ids of the succeeded runs whose scores this run would compute again."""
    images = json.loads(runs.as_json(config.without_secrets()) or "{}").get("images")
    columns = ("run_id", "kind", "status", "finished_at", "model_name", "config", "attributes")

    def is_same(row: Mapping[str, Any]) -> bool:
        if (row["kind"], row["status"]) != (RunKind.ENRICH.value, RunStatus.SUCCEEDED.value):
            return False
        if row["model_name"] != model.name:
            return False
        certificates = json.loads(row["attributes"] or "{}").get("certificates", [])
        weights = {(certificate["weights_hash"], certificate["preprocessing_hash"]) for certificate in certificates}
        # not the version: recertify_model gives the same weights another version, a new registry others the same
        return weights == {(model.weights_hash, model.preprocessing_hash)} and (
            json.loads(row["config"] or "{}").get("images") == images
        )

    return sorted(row["run_id"] for row in runs.rows(catalog, columns) if is_same(row))


# --- counts and problems ---------------------------------------------------------------------------------------------


def count_scored(scored: DataFrame, selection: Selection) -> dict[str, Any]:
    """Return ``predicted``, ``quarantined`` and ``unusable_images`` (by reason): rows = predicted + quarantined (I7).

    ``unusable_images`` counts products that were scored by their text alone; ``known`` those of ``predicted`` whose
    scores an earlier run computed, if there are any. Raises RuntimeError if a product is missing; then nothing is
    published.
    """
    groups = scored.groupBy("error", "image_reason", "known").count().toArrow().to_pylist()
    rows = sum(group["count"] for group in groups)
    if rows != selection.rows:
        raise RuntimeError(f"{selection.rows} products were selected and {rows} came back from scoring")
    quarantined = _by_reason(groups, "error")
    known = sum(group["count"] for group in groups if group["known"])
    return {
        **({"known": known} if known else {}),
        "predicted": rows - sum(quarantined.values()),
        "quarantined": quarantined,
        "unusable_images": _by_reason([group for group in groups if group["error"] is None], "image_reason"),
    }


def _by_reason(groups: list[Any], column: str) -> dict[str, int]:
    counts: dict[str, int] = {}
    for group in groups:
        if group[column] is not None:
            counts[group[column]] = counts.get(group[column], 0) + group["count"]
    return dict(sorted(counts.items()))


def note(counts: Mapping[str, int]) -> str:
    """Return the note of the stage's line: how many scores needed no forward pass."""
    return f"{counts['known']:,} known from earlier runs" if counts.get("known") else ""


def problems(scored: DataFrame) -> DataFrame:
    """Return ``shop_id`` and ``problem`` of the products without scores or without a usable picture, for by_shop."""
    from pyspark.sql import functions as F

    return scored.select("shop_id", F.coalesce("error", "image_reason").alias("problem")).where("problem IS NOT NULL")


def quarantine(catalog: Catalog, scored: DataFrame, number: int, model: ResolvedModel, run_id: str) -> int:
    """Append quarantine rows for the ``number`` products that could not be scored; return how many the run wrote."""
    from pyspark.sql import functions as F

    if not number:
        return catalog.append_rows("quarantine", [], run_id)
    failed = scored.where(F.col("error").isNotNull()).select(
        "product_id", "content_hash", F.col("error").alias("reason"), "detail"
    )
    rows = quarantine_rows(failed, QuarantineStage.DECODE, run_id, model_version=model.version)
    return catalog.append("quarantine", rows, run_id)
