"""Collects what the HTML report of a run shows, from the catalog's tables."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catalog_enrichment.precision.certificate import HISTOGRAM_BINS
from catalog_enrichment.records import Decision, Reason
from catalog_enrichment.report.html import THUMBNAIL, RunReport, Sample, write_run_report

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

    from catalog_enrichment.context import Context


def write_report(context: Context, run_id: str, precision: dict[str, float | None] | None = None) -> Path:
    """Write the report of a finished enrichment run and return its path.

    ``precision``: per attribute, where somebody knows the truth of what was written.
    """
    from pyspark.sql import functions as F

    catalog = context.catalog
    run = catalog.read("runs").where(F.col("run_id") == run_id).first()
    predictions = catalog.read("predictions").where(F.col("run_id") == run_id).cache()
    report = RunReport(
        run=run.asDict() if run else {"run_id": run_id},
        published=_samples(context, predictions, F.col("decision") == Decision.PUBLISH.value),
        disagreements=_samples(context, predictions, F.col("reason") == Reason.DISAGREES_WITH_MERCHANT.value),
        histograms=_histograms(predictions),
        stages=[_stage(stage) for stage in context.stages.done],
        precision=precision or {},
        undo=f"rollback_run --config FILE --run-id {run_id}",
    )
    predictions.unpersist()
    return write_run_report(context.config.path(context.config.report.path) / f"{run_id}.html", report)


def _samples(context: Context, predictions: DataFrame, which: Column) -> list[Sample]:
    """Per attribute a few rows, drawn by hash so that a report can be written again, with their products."""
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    order = Window.partitionBy("attribute").orderBy(F.xxhash64("product_id", "value"))
    drawn = predictions.where(which).withColumn("place", F.row_number().over(order))
    drawn = drawn.where(F.col("place") <= context.config.report.samples)
    products = context.catalog.read("products").select("product_id", "title", "merchant_attributes", "images")
    rows = products.join(F.broadcast(drawn), "product_id").orderBy("attribute", "place")
    return [_sample(row, context) for row in rows.collect()]


def _sample(row: Any, context: Context) -> Sample:
    return Sample(
        product_id=row["product_id"],
        attribute=row["attribute"],
        value=row["value"],
        score=row["score"],
        title=row["title"] or "",
        modality=row["modality"],
        attention=row["attention"],
        merchant_values=list((row["merchant_attributes"] or {}).get(row["attribute"]) or ()),
        picture=_picture(row["images"], context),
    )


def _picture(images: Any, context: Context) -> bytes | None:
    """The picture that the model looked at, small, as JPEG."""
    from PIL import Image

    from catalog_enrichment.inputs.images import first_usable

    usable = first_usable([image.asDict() for image in images or []], THUMBNAIL, context.config.images)
    if usable.pixels is None:
        return None
    encoded = BytesIO()
    Image.fromarray(usable.pixels).save(encoded, format="JPEG", quality=85)
    return encoded.getvalue()


def _histograms(predictions: DataFrame) -> dict[str, list[int]]:
    """Attribute -> products per bin of their top score."""
    from pyspark.sql import functions as F

    place = F.least(F.floor(F.col("score") * HISTOGRAM_BINS), F.lit(HISTOGRAM_BINS - 1)).cast("int")
    top = predictions.where(F.col("rank") == 1).groupBy("attribute", place.alias("bin")).count()
    found: dict[str, list[int]] = {}
    for row in top.orderBy("attribute", "bin").collect():
        found.setdefault(row["attribute"], [0] * HISTOGRAM_BINS)[row["bin"]] = row["count"]
    return found


def _stage(stage: Any) -> dict[str, Any]:
    names = ("name", "seconds", "rows_in", "rows_out", "quarantined", "note")
    return {name: getattr(stage, name) for name in names}
