"""Which rows of `predictions` and `quarantine` no job needs any more.

Only rows of succeeded runs go: a run that was killed or failed is resumed from what it has landed. The ledger, `runs`,
`label_uses` and `self_derived` are never shortened.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from catalog_enrichment.catalog import runs
from catalog_enrichment.enrichment.pending import is_taken_back
from catalog_enrichment.records import Decision, QuarantineStage, RunKind

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

    from catalog_enrichment.catalog.base import Catalog

_DECISION = ("product_id", "attribute", "run_id")


def old_predictions(catalog: Catalog, before: datetime) -> DataFrame:
    """product_id, attribute, run_id of the decisions that can go: superseded abstentions of runs finished ``before``.

    Kept are all decisions that published (`explain_value` shows them) or suggested (merchants' values that repeat
    them are marked as self_derived). Of the others, per product, attribute and model version, the newest of these runs and
    the newest of those that are rolled back: so what is pending, now and after a rollback of a newer run, is as if
    nothing had gone.
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    finished = runs.succeeded(catalog).where(F.col("finished_at") < F.lit(before)).select("run_id", "finished_at")
    rows = catalog.read("predictions").join(F.broadcast(finished), "run_id")
    by_decision = rows.groupBy(*_DECISION, "model_name", "model_version").agg(
        F.max("finished_at").alias("finished_at"),
        F.min(F.col("decision") == Decision.ABSTAIN.value).alias("abstained"),
    )
    newest = Window.partitionBy("product_id", "attribute", "model_name", "model_version", "taken_back").orderBy(
        F.desc("finished_at"), F.desc("run_id")
    )
    ranked = by_decision.withColumn("taken_back", _taken_back(catalog)).withColumn("age", F.row_number().over(newest))
    return ranked.where(F.col("abstained") & (F.col("age") > 1)).select(*_DECISION)


def _taken_back(catalog: Catalog) -> Column:
    """Whether a rollback took back what the row's run did to the row's attribute."""
    from pyspark.sql import functions as F

    names = [row["attribute"] for row in catalog.read("predictions", columns=["attribute"]).distinct().collect()]
    return is_taken_back(F.col("attribute"), F.col("run_id"), runs.rolled_back(catalog, sorted(names)))


def kept_predictions(catalog: Catalog, old: DataFrame) -> DataFrame:
    """The predictions without the decisions ``old``."""
    return catalog.read("predictions").join(old, list(_DECISION), "left_anti")


def kept_quarantine(catalog: Catalog, before: datetime) -> DataFrame:
    """The quarantine without old rows: of runs that finished ``before`` and that no job looks for.

    Jobs look for the rows of the newest import of each source, by its config (an import whose refused rows are known
    has nothing to do), and for products whose present content could not be scored (they are not tried again).
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    newest = Window.partitionBy("kind", "config_hash").orderBy(F.desc("finished_at"))
    finished = runs.succeeded(catalog).select(
        "run_id",
        (F.col("finished_at") < F.lit(before)).alias("old"),
        ((F.col("kind") == RunKind.IMPORT.value) & (F.row_number().over(newest) == 1)).alias("newest_of_source"),
    )
    present = catalog.read("products", columns=["product_id", "content_hash"]).withColumn("present", F.lit(True))
    rows = catalog.read("quarantine")
    needed = F.when(F.col("stage") == QuarantineStage.DECODE.value, F.coalesce("present", F.lit(False))).otherwise(
        F.col("newest_of_source")
    )
    joined = rows.join(F.broadcast(finished), "run_id", "left").join(present, ["product_id", "content_hash"], "left")
    return joined.where(~F.coalesce("old", F.lit(False)) | needed).select(*rows.columns)
