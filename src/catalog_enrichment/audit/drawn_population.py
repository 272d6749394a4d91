"""The unlabelled products that a sample of proposals was drawn of: what a certificate by verdicts speaks about."""

from __future__ import annotations

from datetime import datetime
from functools import reduce
from typing import TYPE_CHECKING

from catalog_enrichment.audit import populations
from catalog_enrichment.audit.proposal_verdicts import JudgedProposals
from catalog_enrichment.catalog import runs
from catalog_enrichment.precision.certificate import HISTOGRAM_BINS, Certificate
from catalog_enrichment.precision.verdict_certificate import UnlabelledPopulation
from catalog_enrichment.records import RunStatus

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyspark.sql import Column, DataFrame

    from catalog_enrichment.catalog.base import Catalog
    from catalog_enrichment.context import Context


def population(
    context: Context, old: Certificate, judged: JudgedProposals, places: Sequence[int], threshold: float
) -> UnlabelledPopulation:
    """Return the unlabelled products of the path of ``old`` that had been scored when the first product was drawn.

    ``places``: of the drawn products that count; ``threshold``: the certified one. Products that were scored later are
    left out: a category that had no product at the first draw is not certified. The slices of the drawn products are
    in, also of those that a person has given a value since. A slice is the one that the product had when it was scored.
    """
    from pyspark.sql import functions as F

    before = min(judged.drawn_at[place] for place in places)
    ids = [(run_id,) for run_id in _finished_before(context.catalog, before)]
    early = F.broadcast(context.spark.createDataFrame(ids, "run_id string"))
    scored = _scored(context, old, judged).withColumnRenamed("decided_by", "run_id").join(early, "run_id", "left_semi")
    tops = scored.groupBy("product_id").agg(F.max("score").alias("top"))
    bins = F.least(F.floor(F.col("top") * HISTOGRAM_BINS), F.lit(HISTOGRAM_BINS - 1)).cast("int")
    accepted = F.sum((F.col("top") >= threshold).cast("int"))
    counted = tops.groupBy(bins.alias("bin")).agg(F.count("*").alias("products"), accepted.alias("accepted")).collect()
    histogram = [0] * HISTOGRAM_BINS
    for row in counted:
        histogram[row["bin"]] += row["products"]
    number = sum(histogram)

    drawn = context.spark.createDataFrame([(judged.drawn.product_ids[place],) for place in places], "product_id string")
    predictions = context.catalog.read("predictions").where(_of_path(old, judged))
    drawable = predictions.where(F.col("score") >= float(min(judged.drawn.lowest[place] for place in places)))
    seen = drawable.join(early, "run_id", "left_semi").join(
        tops.select("product_id").unionByName(drawn).distinct(), "product_id", "left_semi"
    )
    slices = seen.select("language", "category").distinct().collect()
    return UnlabelledPopulation(
        products=number,
        histogram=tuple(histogram),
        accept_rate=sum(row["accepted"] for row in counted) / number if number else 0.0,
        slices={(row["language"] or "", row["category"] or "") for row in slices},
    )


def _scored(context: Context, old: Certificate, judged: JudgedProposals) -> DataFrame:
    """Return the newest proposals of the path for products without a merchant's or a person's value."""
    frames = [
        populations.proposed(context.catalog, context.dictionary, version, 0.0, ()) for version in judged.model_versions
    ]
    return reduce(lambda one, other: one.unionByName(other), frames).where(_of_path(old, judged))


def _of_path(old: Certificate, judged: JudgedProposals) -> Column:
    from pyspark.sql import functions as F

    return (F.col("attribute") == old.attribute) & F.col("certificate_id").isin(list(judged.certificate_ids))


def _finished_before(catalog: Catalog, time: datetime) -> list[str]:
    known = runs.rows(catalog, ["run_id", "status", "finished_at"])
    done = [row for row in known if row["status"] == RunStatus.SUCCEEDED.value]
    return [row["run_id"] for row in done if row["finished_at"] <= time]
