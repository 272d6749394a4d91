from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from catalog_enrichment.catalog.runs import RunRecord
from catalog_enrichment.enrichment.summary import decision_counts, say_what_needs_attention
from catalog_enrichment.records import RunKind
from catalog_enrichment.stages import Stages

from ..catalog.catalog_rows import frame, prediction, product

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def test_a_product_with_several_values_is_counted_once_by_its_best_decision(spark: SparkSession) -> None:
    rows = [
        prediction(name, "material", value, decision=decision)
        for name, decisions in {
            "a": ("publish", "suggest", "abstain"), "b": ("suggest", "abstain"), "c": ("abstain", "abstain"),
            "d": ("abstain", "publish"),
        }.items()
        for value, decision in zip(("Cotton", "Wool", "Silk"), decisions, strict=False)
    ]  # fmt: skip
    rows.append(prediction("a", "color", "Red", decision="abstain"))
    rows += [
        prediction("e", "material", value, decision="abstain", reason="provisional_cap") for value in ("Cotton", "Wool")
    ]
    low, against = "below_threshold", "disagrees_with_merchant"
    rows += [prediction("f", "color", value, decision="suggest", reason=against) for value in ("Red", "Blue")]
    rows += [prediction("f", "color", "Green", decision="abstain", reason=low)]
    rows += [prediction(name, "color", "Red", decision="abstain", reason=low) for name in ("b", "g")]
    rows += [prediction(name, "color", "Red", decision="abstain", reason=low) for name in ("d", "h")]
    given = {"d": {"color": ["Green"]}, "h": {"color": [], "size": ["S"]}}  # the merchant of d has said it
    shops = {"a": "s1", "b": "s2", "f": "s2"}
    products = [product(name, shop_id=shops.get(name), merchant_attributes=given.get(name)) for name in "abcdefgh"]
    counted = decision_counts(frame(spark, "predictions", rows), frame(spark, "products", products))
    assert counted.by_attribute == {
        "color": {"written": 0, "suggested": 1, "abstained": 5, "waiting": 0},
        "material": {"written": 2, "suggested": 1, "abstained": 2, "waiting": 2},
    }
    assert {shop: {name: n for name, n in of.items() if n} for shop, of in counted.by_shop.items()} == {
        "s1": {}, "s2": {f"{against}.color": 1, f"{low}.color": 1}, "": {f"{low}.color": 2}
    }  # fmt: skip


@pytest.mark.parametrize(("not_allowed", "warns"), [(0, False), (50, False), (51, True)])
def test_a_run_warns_where_most_pictures_may_not_be_read(not_allowed: int, warns: bool) -> None:
    said: list[str] = []
    record = RunRecord(kind=RunKind.ENRICH, stages=Stages(said.append))
    record.count(predicted=100, unusable_images={"image_not_allowed": not_allowed, "no_image": 30})
    say_what_needs_attention(record)
    assert [line for line in said if "images.fetch.allowed_folders" in line] == said
    assert bool(said) is warns
