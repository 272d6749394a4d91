"""Writes the pages of runs and backfills: collects from the catalog's tables what the page shows."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catalog_enrichment import reasons
from catalog_enrichment.catalog import review_tables, runs
from catalog_enrichment.context import load_dictionary
from catalog_enrichment.enrichment import outcomes
from catalog_enrichment.enrichment.decisions import confirms_merchant, suggested_change
from catalog_enrichment.precision import claim
from catalog_enrichment.precision.certificate import HISTOGRAM_BINS, Certificate
from catalog_enrichment.reasons import Reason, RunAttributes
from catalog_enrichment.records import ANY_VALUE, Cardinality, Decision, Modality, RunKind, Source
from catalog_enrichment.report import run_sections
from catalog_enrichment.report.index import write_index
from catalog_enrichment.report.outcome_sections import OPEN, ReasonCount
from catalog_enrichment.report.run_page import THUMBNAIL, RunReport, Sample, certificates_of, write_run_report
from catalog_enrichment.spark.frames import bin_of, persisted_frames

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from catalog_enrichment.catalog.lake import Catalog
    from catalog_enrichment.catalog.value_names import Names
    from catalog_enrichment.config.images import ImagesConfig
    from catalog_enrichment.config.schema import Config


def write_report(catalog: Catalog, config: Config, run_id: str, right: Mapping[str, int] | None = None) -> Path:
    """Write the page of a finished enrichment run, from the catalog's tables alone, and return its path.

    The page over all runs (:mod:`report.index`) is written anew beside it. ``right``: certificate id -> products that
    were given no wrong value under it, where the truth is known.
    """
    path = _write_page(catalog, config, run_id, right)
    write_index(catalog, path.parent)
    return path


def write_report_once(catalog: Catalog, config: Config, run_id: str | None) -> Path | None:
    """Write the page of a run; without ``run_id``, as there was nothing to do, of the newest run if it is missing.

    The job may have been killed, or the disk full, when it was to be written.
    """
    if run_id is not None:
        return write_report(catalog, config, run_id)
    last = runs.newest_of(catalog, RunKind.ENRICH)
    if last is None or (config.path(config.report.path) / f"{last['run_id']}.html").is_file():
        return None
    return write_report(catalog, config, last["run_id"])


def write_backfill_report(catalog: Catalog, config: Config, run_id: str) -> Path:
    """Write the page of a finished backfill, and those of its chunks that have none yet; return its path.

    Its numbers are the sums of the chunks' rows in `runs`; what was written under each certificate, and why not, is
    counted from their predictions. A product is in one chunk, so it counts once.
    """
    from pyspark.sql import functions as F

    folder = config.path(config.report.path)
    rows = [row for row in runs.rows(catalog, _COLUMNS) if runs.has_succeeded(row)]
    chunks = runs.by_backfill(rows).get(run_id, [])
    runs.add_attributes(catalog, chunks)
    for chunk in chunks:
        if not (folder / f"{chunk['run_id']}.html").is_file():
            _write_page(catalog, config, chunk["run_id"])
    own: Mapping[str, Any] = next((row for row in rows if row["run_id"] == run_id), {"run_id": run_id})
    row = run_sections.backfill_row(own, chunks)
    with persisted_frames() as persist:
        of_chunks = F.col("run_id").isin([chunk["run_id"] for chunk in chunks])
        report = RunReport(
            run=row,
            chunks=run_sections.chunk_rows(chunks),
            imported=_imported(catalog, own.get("finished_at")),
            dictionary=load_dictionary(config),
            undo=_undo(run_id),
            **_counted(catalog, persist(catalog.read("predictions").where(of_chunks)), row),
        )
    path = write_run_report(folder / f"{run_id}.html", report)
    write_index(catalog, folder)
    return path


MOST_VALUES = 1000
"""Values of an attribute whose products are counted: a table shows fewer, and sums nothing."""

_COLUMNS = (
    *("run_id", "parent_run_id", "kind", "status", "model_name", "model_version", "config", "window", "counts"),
    *("seconds", "started_at", "finished_at"),
)


def _write_page(catalog: Catalog, config: Config, run_id: str, right: Mapping[str, int] | None = None) -> Path:
    from pyspark.sql import functions as F

    run = runs.find(catalog, run_id)
    row: dict[str, Any] = run or {"run_id": run_id}
    dictionary = load_dictionary(config)
    many = [name for name, of in dictionary.attributes.items() if of.cardinality is Cardinality.MANY]
    with persisted_frames() as persist:
        predictions = persist(catalog.read("predictions").where(F.col("run_id") == run_id))
        samples = _samples(catalog, predictions, config, many)
        report = RunReport(
            run=row,
            published=samples[Reason.CERTIFIED],
            near_misses=samples[Reason.NEAR_MISS],
            disagreements=samples[Reason.DISAGREES_WITH_MERCHANT],
            stages=row.get("stages") or [],
            **_counted(catalog, predictions, row),
            right=right,
            imported=_imported(catalog, row.get("finished_at")),
            dictionary=dictionary,
            undo=_undo(run_id),
        )
    return write_run_report(config.path(config.report.path) / f"{run_id}.html", report)


def _undo(run_id: str) -> str:
    return f"rollback_run --config FILE --run-id {run_id}"


def _imported(catalog: Catalog, before: datetime | None) -> RunAttributes:
    """Return the column `attributes` of the newest import that read all rows (and finished ``before``).

    Without one, that of the newest import, which read only what changed; {} without any. No Spark.
    """
    rows = runs.rows(catalog, ["run_id", "kind", "status", "window", "finished_at"])
    imports = [row for row in rows if row["kind"] == RunKind.IMPORT and runs.has_succeeded(row)]
    # Spark gives times of the table without a zone, in the session's zone, which is the machine's
    earlier = [row for row in imports if before is None or row["finished_at"] <= before.astimezone(UTC)]
    whole = [row for row in earlier if json.loads(row["window"] or "{}").get("read", "all") == "all"]
    newest = (whole or earlier)[-1:]
    runs.add_attributes(catalog, newest)
    return json.loads(newest[0]["attributes"] or "{}") if newest else {}


# --- samples ---------------------------------------------------------------------------------------------------------

_SAMPLED = (Reason.CERTIFIED, Reason.NEAR_MISS, Reason.DISAGREES_WITH_MERCHANT)


def _samples(
    catalog: Catalog, predictions: DataFrame, config: Config, many: Collection[str]
) -> dict[Reason, list[Sample]]:
    """Draw `report.samples` rows with their products per reason and attribute, by hash: the same rows every time.

    ``many``: the attributes of which a product can have several values.
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    key = ["product_id", "attribute"]
    order = Window.partitionBy("attribute", "reason").orderBy(F.xxhash64("product_id", "value"))
    shown = predictions.where(F.col("reason").isin([reason.value for reason in _SAMPLED]))
    drawn = shown.withColumn("draw", F.row_number().over(order)).where(F.col("draw") <= config.report.samples)
    products = catalog.read("products", columns=["product_id", "title", "description", "merchant_attributes", "images"])
    confirmed = predictions.where(confirms_merchant()).select(*key).distinct().withColumn("confirmed", F.lit(True))
    given = F.coalesce(F.col("merchant_attributes")[F.col("attribute")], F.array().cast("array<string>"))
    change = F.when(
        F.col("reason") == Reason.DISAGREES_WITH_MERCHANT.value, suggested_change(F.col("given"), many)
    ).otherwise("")
    rows = products.join(F.broadcast(drawn), "product_id").join(confirmed, key, "left").withColumn("given", given)
    limits = config.pictures()
    samples: dict[Reason, list[Sample]] = {reason: [] for reason in _SAMPLED}
    for row in rows.withColumn("change", change).orderBy("attribute", "draw").collect():
        sample = Sample(
            product_id=row["product_id"],
            attribute=row["attribute"],
            value=row["value"],
            score=row["score"],
            title=row["title"] or "",
            modality=row["modality"],
            attention=row["attention"],
            merchant_values=list(row["given"]),
            change=row["change"],
            evidence=row["evidence"] or "",
            description=row["description"] or "" if row["evidence"] else "",
            picture=picture_of(row["images"], limits),
        )
        samples[Reason(row["reason"])].append(sample)
    return samples


def picture_of(images: Any, limits: ImagesConfig) -> bytes | None:
    """Return the picture that the model looked at, small, as JPEG; None without a usable picture."""
    from PIL import Image

    from catalog_enrichment.inputs.images import first_usable
    from catalog_enrichment.inputs.square import Square

    usable = first_usable([image.asDict() for image in images or []], Square(THUMBNAIL), limits)
    if usable.pixels is None:
        return None
    encoded = BytesIO()
    Image.fromarray(usable.pixels).save(encoded, format="JPEG", quality=85)
    return encoded.getvalue()


# --- counted from the predictions ------------------------------------------------------------------------------------


def _counted(catalog: Catalog, predictions: DataFrame, row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of :class:`RunReport` that are counted in the catalog's tables; ``predictions``: of the run
    with this ``row``."""
    from pyspark.sql import functions as F

    published = predictions.where(F.col("decision") == Decision.PUBLISH.value)
    return {
        "histograms": _histograms(predictions),
        "reasons": reason_counts(catalog, predictions, row),
        "written": _written(published),
        "written_values": _written_values(published),
        "judged": review_tables.judged_values(catalog),
        "confirmed": review_tables.confirmed(catalog),
        "accept_rates": accept_rates(predictions, catalog.read("products"), row, catalog.names),
    }


def reason_counts(catalog: Catalog, predictions: DataFrame, run: Mapping[str, Any]) -> list[ReasonCount]:
    """Return products per attribute, modality path, decision and reason, each product once, with a sentence.

    ``predictions``: of one run; ``run``: its row. A product with several values counts by its best value, and by the
    source of the value that readers see now.
    """
    from pyspark.sql import functions as F

    attributes, config = (json.loads(run.get(name) or "{}") for name in ("attributes", "config"))
    certificates = {(c.attribute, c.modality): c for c in certificates_of(attributes)}
    facts = ("value", "modality", "compute_type", "category", "language")
    decided = outcomes.with_source(catalog, outcomes.best_decisions(predictions, *facts))
    texts = F.lower(F.concat_ws(" ", "title", "description"))
    products = catalog.read("products", columns=["product_id", "title", "description"]).select(
        "product_id", texts.alias("text")
    )
    named = F.col("source").isin(list(OPEN)) & F.contains("text", F.lower("value"))
    groups = (
        decided.join(products, "product_id", "left")
        .groupBy("attribute", "decision", "reason", "modality")
        .agg(
            *[F.count_if(F.col("source") == source).alias(source) for source in _SOURCES],
            F.count_if(named).alias("named"),
            F.min("compute_type").alias("compute_type"),
            *[F.collect_set(F.coalesce(name, F.lit(""))).alias(name) for name in ("category", "language")],
        )
    )
    return [_reason_count(row, certificates, config.get("images", {})) for row in groups.collect()]


_SOURCES = (outcomes.NO_VALUE, *(source.value for source in Source))


def _reason_count(
    row: Any, certificates: Mapping[tuple[str, Modality], Certificate], images: Mapping[str, int]
) -> ReasonCount:
    modality, reason = Modality(row["modality"]), Reason(row["reason"])
    certificate = certificates.get((row["attribute"], modality))
    case = reasons.Case(
        attribute=row["attribute"],
        products=claim.PATHS[modality],
        certificate=certificate,
        unseen=claim.unseen(certificate, sorted(row["category"]), sorted(row["language"])) if certificate else "",
        differing=claim.differing_fields(certificate, row["compute_type"], images) if certificate else (),
    )
    return ReasonCount(
        attribute=row["attribute"],
        decision=row["decision"],
        reason=row["reason"],
        modality=row["modality"],
        sources={source: row[source] for source in _SOURCES if row[source]},
        named=row["named"],
        sentence=reasons.sentence(reason, case),
    )


def _written(published: DataFrame) -> dict[str, int]:
    """Return certificate id -> products that were given values under it."""
    from pyspark.sql import functions as F

    counts = published.groupBy("certificate_id").agg(F.countDistinct("product_id").alias("products"))
    return {row["certificate_id"]: row["products"] for row in counts.collect()}


def _written_values(published: DataFrame) -> dict[tuple[str, str], int]:
    """Return attribute and value -> products, of the values that most products were given."""
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    counts = published.groupBy("attribute", "value").agg(F.countDistinct("product_id").alias("products"))
    order = Window.partitionBy("attribute").orderBy(F.desc("products"), "value")
    most = counts.withColumn("place", F.row_number().over(order)).where(F.col("place") <= MOST_VALUES)
    return {(row["attribute"], row["value"]): row["products"] for row in most.collect()}


def accept_rates(predictions: DataFrame, products: DataFrame, run: Mapping[str, Any], names: Names) -> dict[str, float]:
    """Return certificate id -> share of the run's products without a merchant's value that the threshold accepts.

    Accepted: any value of the pool has a score at or above the threshold, whatever was decided. ``predictions``: of
    one run; ``run``: its row. Certificates without a threshold, or without such products, are left out.
    """
    from pyspark.sql import functions as F

    accepted = F.lit(False)
    for certificate in certificates_of(json.loads(run.get("attributes") or "{}")):
        if certificate.threshold is not None:
            pool = [names.now(certificate.attribute, label) for label in certificate.values]
            covered = F.lit(ANY_VALUE in pool) | F.col("value").isin(pool)
            passes = covered & (F.col("score") >= certificate.threshold)
            accepted = accepted | ((F.col("certificate_id") == certificate.certificate_id) & passes)
    given = products.select("product_id", F.explode("merchant_attributes").alias("attribute", "values"))
    labelled = given.where(F.size("values") > 0).select("product_id", "attribute")
    consulted = predictions.where(F.col("threshold").isNotNull())
    unlabelled = consulted.join(labelled, ["product_id", "attribute"], "left_anti")
    by_product = unlabelled.groupBy("certificate_id", "product_id").agg(F.max(accepted.cast("int")).alias("accepted"))
    rates = by_product.groupBy("certificate_id").agg(F.avg("accepted").alias("rate"))
    return {row["certificate_id"]: row["rate"] for row in rates.collect()}


def _histograms(predictions: DataFrame) -> dict[str, list[int]]:
    """Return attribute -> products per bin of their top score."""
    from pyspark.sql import functions as F

    top = predictions.where(F.col("rank") == 1).groupBy("attribute", bin_of("score", HISTOGRAM_BINS)).count()
    counts: dict[str, list[int]] = {}
    for row in top.orderBy("attribute", "bin").collect():
        counts.setdefault(row["attribute"], [0] * HISTOGRAM_BINS)[row["bin"]] = row["count"]
    return counts
