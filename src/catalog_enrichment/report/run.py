"""The report of an enrichment run: collects what the page shows from the catalog's tables."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catalog_enrichment.catalog import runs
from catalog_enrichment.frames import persisted_frames
from catalog_enrichment.precision.certificate import HISTOGRAM_BINS
from catalog_enrichment.records import Decision, Reason
from catalog_enrichment.report.html import THUMBNAIL, RunReport, Sample, write_run_report

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from catalog_enrichment.catalog.base import Catalog
    from catalog_enrichment.config.schema import Config, ImagesConfig


def write_report(catalog: Catalog, config: Config, run_id: str, precision: Mapping[str, float] | None = None) -> Path:
    """Write the report of a finished enrichment run, from the catalog's tables alone, and return its path.

    ``precision``: attribute -> share of the written products that are right, where the truth is known.
    """
    from pyspark.sql import functions as F

    run = runs.find(catalog, run_id)
    row: dict[str, Any] = run.asDict(recursive=True) if run else {"run_id": run_id}
    with persisted_frames() as persist:
        predictions = persist(catalog.read("predictions").where(F.col("run_id") == run_id))
        published = predictions.where(F.col("decision") == Decision.PUBLISH.value)
        disagreements = predictions.where(F.col("reason") == Reason.DISAGREES_WITH_MERCHANT.value)
        report = RunReport(
            run=row,
            published=_samples(catalog, published, config),
            disagreements=_samples(catalog, disagreements, config),
            histograms=_histograms(predictions),
            stages=row.get("stages") or [],
            precision=precision or {},
            undo=f"rollback_run --config FILE --run-id {run_id}",
        )
    return write_run_report(config.path(config.report.path) / f"{run_id}.html", report)


def _samples(catalog: Catalog, predictions: DataFrame, config: Config) -> list[Sample]:
    """Per attribute `report.samples` rows with their products, drawn by hash: the same rows every time."""
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    order = Window.partitionBy("attribute").orderBy(F.xxhash64("product_id", "value"))
    drawn = predictions.withColumn("draw", F.row_number().over(order)).where(F.col("draw") <= config.report.samples)
    products = catalog.read("products").select("product_id", "title", "merchant_attributes", "images")
    rows = products.join(F.broadcast(drawn), "product_id").orderBy("attribute", "draw")
    limits = config.pictures()
    return [_sample(row, limits) for row in rows.collect()]


def _sample(row: Any, limits: ImagesConfig) -> Sample:
    return Sample(
        product_id=row["product_id"],
        attribute=row["attribute"],
        value=row["value"],
        score=row["score"],
        title=row["title"] or "",
        modality=row["modality"],
        attention=row["attention"],
        merchant_values=list((row["merchant_attributes"] or {}).get(row["attribute"]) or ()),
        picture=picture_of(row["images"], limits),
    )


def picture_of(images: Any, limits: ImagesConfig) -> bytes | None:
    """The picture that the model looked at, small, as JPEG; None without a usable one."""
    from PIL import Image

    from catalog_enrichment.inputs.images import first_usable

    usable = first_usable([image.asDict() for image in images or []], THUMBNAIL, limits)
    if usable.pixels is None:
        return None
    encoded = BytesIO()
    Image.fromarray(usable.pixels).save(encoded, format="JPEG", quality=85)
    return encoded.getvalue()


def _histograms(predictions: DataFrame) -> dict[str, list[int]]:
    """Attribute -> products per bin of their top score."""
    from pyspark.sql import functions as F

    bin_index = F.least(F.floor(F.col("score") * HISTOGRAM_BINS), F.lit(HISTOGRAM_BINS - 1)).cast("int")
    top = predictions.where(F.col("rank") == 1).groupBy("attribute", bin_index.alias("bin")).count()
    counts: dict[str, list[int]] = {}
    for row in top.orderBy("attribute", "bin").collect():
        counts.setdefault(row["attribute"], [0] * HISTOGRAM_BINS)[row["bin"]] = row["count"]
    return counts
