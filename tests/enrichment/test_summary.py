from __future__ import annotations

from typing import TYPE_CHECKING

from catalog_enrichment.enrichment.summary import decision_counts

from ..catalog.catalog_rows import frame, prediction

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def test_a_product_with_several_values_is_counted_once_by_its_best_decision(spark: SparkSession) -> None:
    rows = [
        prediction(product, "material", value, decision=decision)
        for product, decisions in {
            "a": ("publish", "suggest", "abstain"), "b": ("suggest", "abstain"), "c": ("abstain", "abstain"),
            "d": ("abstain", "publish"),
        }.items()
        for value, decision in zip(("Cotton", "Wool", "Silk"), decisions, strict=False)
    ]  # fmt: skip
    rows.append(prediction("a", "color", "Red", decision="abstain"))
    rows += [
        prediction("e", "material", value, decision="abstain", reason="provisional_cap") for value in ("Cotton", "Wool")
    ]
    assert decision_counts(frame(spark, "predictions", rows)) == {
        "color": {"written": 0, "suggested": 0, "abstained": 1, "waiting": 0},
        "material": {"written": 2, "suggested": 1, "abstained": 2, "waiting": 2},
    }
