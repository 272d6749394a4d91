from __future__ import annotations

from typing import TYPE_CHECKING

from catalog_enrichment.config.schema import ImagesConfig
from catalog_enrichment.inference import udf

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def test_of_a_sample_nothing_else_is_scored_whatever_is_asked_of_its_scores(spark: SparkSession) -> None:
    """Without asNondeterministic Spark moves a filter on the scores below the join that draws the sample, and all of
    the catalog is scored for it."""
    from pyspark.sql import functions as F

    columns = "product_id string, title string, description string, images array<string>, content_hash string"
    products = spark.createDataFrame([(f"p{number}", "a", "b", ["c"], "d") for number in range(9)], columns)
    sample = F.broadcast(spark.createDataFrame([("p1",)], "product_id string"))
    model = udf.ShippedModel("hash", "folder", "fp32")
    scored = udf.scored(products.join(sample, "product_id"), model, ImagesConfig())
    best = scored.where("modality = 'both'").select("product_id", F.explode("candidates").alias("one"))
    plan = best.where("one.rank = 1")._jdf.queryExecution().executedPlan().toString()
    assert plan.count("ArrowEvalPython") == 1
    assert plan.rindex("ArrowEvalPython") < plan.index("Join"), "scored after the join: a plan is printed from its end"
