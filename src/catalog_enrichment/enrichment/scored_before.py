"""Scores that an earlier run gave to the same content: a model version computes them once.

The same content comes again with another seller's listing, with a category or a merchant's value that changed, with a
new certificate or more room under the provisional cap, and when a text changes back. A version that was certified anew
has the weights of the old one, and so its scores. Every candidate that was decided is kept in `predictions` with its
score, so that only the decision has to be taken again.

Scores are taken where everything that gives a score is the same (precision.certificate.ScoredBy, and the config section
[images]), and where no picture failed: one that could not be read or fetched is tried again.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from catalog_enrichment.catalog import runs
from catalog_enrichment.inference.udf import SCORED_TYPE
from catalog_enrichment.records import Reason, RunKind, RunStatus

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pyspark.sql import DataFrame

    from catalog_enrichment.catalog.base import Catalog
    from catalog_enrichment.config.schema import Config
    from catalog_enrichment.registry.model_registry import ResolvedModel


def scored_before(catalog: Catalog, ready: DataFrame, model: ResolvedModel, config: Config) -> DataFrame | None:
    """The products of ``ready`` whose scores are known, with the columns of inference.udf.SCORED_TYPE added.

    ``ready``: product_id, content_hash, ``pending`` (the attributes to decide), and any others. None where no run can
    have scores: then nothing is read.
    """
    from pyspark.sql import functions as F

    found = _runs(catalog, model, config)
    paths = sorted({one.compute_type for one in model.certificates})
    if not found or not paths:
        return None
    no_picture_failed = F.col("image_reason").isNull() | (F.col("image_reason") == Reason.NO_IMAGE.value)
    candidates = (
        catalog.read("predictions")
        .where(F.col("run_id").isin(found) & F.col("compute_type").isin(paths) & no_picture_failed)
        .join(ready.select("content_hash").distinct(), "content_hash", "left_semi")
    )
    known = ready.join(_rows(candidates), "content_hash")
    all_pending = F.size(F.array_except("pending", "of_attributes")) == 0
    return known.where(all_pending).select(*ready.columns, "scored.*")


def _rows(candidates: DataFrame) -> DataFrame:
    """Rows of `predictions` -> per content ``scored``, a struct of SCORED_TYPE, and ``of_attributes``.

    Of several products and runs one gives all scores: that with the most attributes.
    """
    from pyspark.sql import functions as F

    one = F.struct("attribute", "rank", "value", "score", "attention")
    products = candidates.groupBy("content_hash", "run_id", "product_id").agg(
        F.array_sort(F.collect_list(one)).alias("candidates"),
        F.array_sort(F.collect_set("attribute")).alias("of_attributes"),
        *[F.first(name).alias(name) for name in ("modality", "compute_type", "image_reason")],
    )
    nothing = F.lit(None).cast("string")
    scored = F.struct(
        F.transform(
            "candidates",
            lambda of: F.struct(
                *[of[name].alias(name) for name in ("attribute", "value", "rank", "score", "attention")]
            ),
        ).alias("candidates"),
        *("modality", "compute_type", "image_reason"),
        nothing.alias("error"),
        nothing.alias("detail"),
    ).cast(SCORED_TYPE)
    most = F.struct(F.size("of_attributes"), "run_id", "product_id")
    return products.groupBy("content_hash").agg(
        F.max_by(scored, most).alias("scored"), F.max_by("of_attributes", most).alias("of_attributes")
    )


def _runs(catalog: Catalog, model: ResolvedModel, config: Config) -> list[str]:
    """Ids of the succeeded runs whose scores this run would compute again."""
    images = json.loads(runs.as_json(config.without_secrets()) or "{}").get("images")
    columns = ("run_id", "kind", "status", "finished_at", "model_name", "config", "attributes")

    def is_same(row: Mapping[str, Any]) -> bool:
        if (row["kind"], row["status"]) != (RunKind.ENRICH.value, RunStatus.SUCCEEDED.value):
            return False
        if row["model_name"] != model.name:
            return False
        certificates = json.loads(row["attributes"] or "{}").get("certificates", [])
        weights = {(one["weights_hash"], one["preprocessing_hash"]) for one in certificates}
        # not the version: recertify_model gives the same weights another one, a registry made anew others the same one
        return weights == {(model.weights_hash, model.preprocessing_hash)} and (
            json.loads(row["config"] or "{}").get("images") == images
        )

    return sorted(row["run_id"] for row in runs.rows(catalog, columns) if is_same(row))
