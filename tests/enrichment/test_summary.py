from __future__ import annotations

import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from catalog_enrichment.catalog.lake import Catalog
from catalog_enrichment.catalog.runs import RunRecord
from catalog_enrichment.enrichment import outcomes
from catalog_enrichment.enrichment.summary import (
    DecisionCounts,
    attributes,
    decision_counts,
    say_what_needs_attention,
    unseen_slices,
)
from catalog_enrichment.monitoring.stages import Stages
from catalog_enrichment.records import RunKind
from catalog_enrichment.validation import by_shop

from ..catalog.catalog_rows import frame, prediction, product
from ..sample_certificate import certificate

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


def test_a_product_with_several_values_is_counted_once_by_its_best_decision(
    spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [
        prediction(name, "material", value, decision=decision)
        for name, decisions in {
            "a": ("publish", "suggest", "abstain"), "b": ("suggest", "abstain"), "c": ("abstain", "abstain"),
            "d": ("abstain", "publish", "publish"),
        }.items()
        for value, decision in zip(("Cotton", "Wool", "Silk"), decisions, strict=False)
    ]  # fmt: skip
    rows.append(prediction("a", "color", "Red", decision="abstain"))
    rows += [
        prediction("e", "material", value, decision="abstain", reason="provisional_cap") for value in ("Cotton", "Wool")
    ]
    from pyspark.sql import functions as F

    low, against = "below_threshold", "disagrees_with_merchant"
    rows += [prediction("f", "color", value, decision="suggest", reason=against) for value in ("Red", "Blue")]
    rows += [prediction("f", "color", "Green", decision="abstain", reason=low)]
    rows += [prediction(name, "color", "Red", decision="abstain", reason=low) for name in ("b", "g")]
    rows += [prediction(name, "color", "Red", decision="abstain", reason=low) for name in ("d", "h")]
    rows += [prediction("j", "color", value, decision="abstain", reason="unseen_slice") for value in ("Red", "Blue")]
    given = {"d": {"color": ["Green"]}, "h": {"color": [], "size": ["S"]}}  # the merchant of d has said it
    shops = {"a": "s1", "b": "s2", "f": "s2", "i": "s4", "j": "s3"}
    products = [product(name, shop_id=shops.get(name), merchant_attributes=given.get(name)) for name in "abcdefghij"]
    reasons = F.create_map(*map(F.lit, ("e", "no_image", "f", "no_image", "i", "text_too_long", "j", "no_image")))
    scored = frame(spark, "products", products).withColumns({
        "error": F.when(F.col("product_id") == "i", reasons[F.col("product_id")]),
        "image_reason": F.when(F.col("product_id") != "i", reasons[F.col("product_id")]),
    })  # fmt: skip
    decided = frame(spark, "predictions", rows)
    counted = decision_counts(decided, scored)
    kinds = ("written", "values_written", "suggested", "abstained", "waiting", "tried_again", "unseen")
    assert counted.by_attribute == {
        "color": dict(zip(kinds, (0, 0, 1, 6, 0, 0, 2), strict=True)),
        "material": dict(zip(kinds, (2, 3, 1, 2, 2, 0, 0), strict=True)),
    }
    assert counted.by_shop.row() == {
        "shops": {
            "s2": {f"{low}.color": 1, f"{against}.color": 1, "no_image": 1},
            "": {f"{low}.color": 2, "no_image": 1},
            "s3": {"no_image": 1},
            "s4": {"text_too_long": 1},
        },
        "others": {"shops": 0, "problems": {}},
    }
    assert list(counted.by_shop.row()["shops"]) == ["", "s2", "s3", "s4"]
    monkeypatch.setattr(by_shop, "LIMIT", 2)
    few = decision_counts(decided, scored)
    assert few.by_attribute == counted.by_attribute
    whole = counted.by_shop.row()["shops"]
    assert few.by_shop.row() == {
        "shops": {shop: whole[shop] for shop in ("s2", "")},
        "others": {"shops": 2, "problems": {"no_image": 1, "text_too_long": 1}},
    }


@pytest.mark.parametrize(
    ("not_allowed", "strata", "expected"),
    [
        (0, 4, None),
        (50, 4, None),
        (51, 4, "images.fetch.allowed_folders"),
        (0, 6, "drift: compared 4 of 6 strata"),
    ],
)
def test_a_run_warns_of_pictures_that_may_not_be_read_and_of_strata_that_it_did_not_compare(
    not_allowed: int, strata: int, expected: str | None
) -> None:
    said: list[str] = []
    record = RunRecord(kind=RunKind.ENRICH, stages=Stages(said.append))
    record.count(predicted=100, unusable_images={"image_not_allowed": not_allowed, "no_image": 30})
    record.attributes = {"drift": {"compared": 4, "strata": strata, "pauses": []}}
    say_what_needs_attention(record)
    assert [expected is not None and expected in line for line in said] == [True] * (expected is not None)


def test_a_runs_row_has_the_certificates_of_attributes_that_it_did_not_decide_too() -> None:
    """Theirs expire as well, and an alert is made of the row of the last run."""
    both = (certificate(attribute="color"), certificate(attribute="material"))
    numbers = {"written": 1, "values_written": 1, "suggested": 0, "abstained": 0, "waiting": 0}
    counted = DecisionCounts({"color": numbers}, by_shop.Counted({}, {}, 0))
    before: Any = SimpleNamespace(numbers=lambda: {})
    model: Any = SimpleNamespace(certificates=both)
    changes: Any = SimpleNamespace(retracted_by_attribute={})
    found = attributes(counted, changes, before, model, waiting={})
    assert list(found["decisions"]) == ["color"]
    assert [issued["attribute"] for issued in found["certificates"]] == ["color", "material"]


def test_slices_with_long_names_make_no_large_summary(spark: SparkSession) -> None:
    largest = ("z" * 2_000, ["a", "b"])
    slices = [largest, *((f"{number:02d}{'c' * 1_998}", [f"p{number}"]) for number in range(40))]
    rows = [
        prediction(name, "color", "Red", decision="abstain", reason="unseen_slice", category=category, language="en")
        for category, names in slices
        for name in names
    ]
    found = unseen_slices([], frame(spark, "predictions", rows))["color"]
    assert next(iter(found)).startswith("category zzz")
    assert list(found.values())[:2] == [2, 1]
    assert 5 <= len(found) <= 8
    assert len(json.dumps(found)) < 16_384


@pytest.fixture(scope="module")
def decided(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> tuple[Catalog, DataFrame]:
    """Products a to g, decided by one run, and what readers see of them."""
    catalog = Catalog(tmp_path_factory.mktemp("outcomes") / "catalog", spark)
    low, near = "below_threshold", "near_miss"
    rows = [
        prediction("a", "color", "Red", decision="abstain", reason=low),
        prediction("b", "color", "Red", decision="abstain", reason=low),
        prediction("c", "color", "Red", decision="abstain", reason=low),
        prediction("d", "color", "Red", decision="abstain", reason=low),
        prediction("d", "color", "Blue", decision="suggest", reason=near, rank=2),
        prediction("e", "color", "Red", decision="publish", reason="certified"),
        prediction("f", "color", "Red", decision="abstain", reason="paused"),
        prediction("a", "size", "S", decision="abstain", reason="no_certificate"),
    ]
    sources = {"b": "merchant", "c": "human", "e": "model", "f": "model", "other": "model"}
    seen = [
        {"product_id": name, "attribute": "color", "values": ["Red"], "source": source}
        for name, source in sources.items()
    ]
    catalog.replace("current_values", frame(spark, "current_values", seen), "run-1")
    return catalog, frame(spark, "predictions", rows)


def test_products_without_any_value_are_apart_from_those_that_have_one(decided: tuple[Catalog, DataFrame]) -> None:
    found = outcomes.by_reason(*decided)
    assert found == {
        "color": {
            "publish": {"certified": {"model": 1}},
            "suggest": {"near_miss": {"none": 1}},
            "abstain": {"below_threshold": {"none": 1, "merchant": 1, "human": 1}, "paused": {"model": 1}},
        },
        "size": {"abstain": {"no_certificate": {"none": 1}}},
    }
    assert outcomes.without_value({"reasons": found["color"]}) == {"below_threshold": 1, "near_miss": 1}
    assert outcomes.without_value({}) == {}
    assert outcomes.empty_in_words({"color": {"reasons": found["color"]}, "other": {"reasons": {}}}) == [
        "without any color: 2 of the decided products (1 below threshold, 1 near miss)"
    ]
    twice = outcomes.added(found["color"], found["color"], found["size"])
    assert twice["abstain"]["below_threshold"] == {"none": 2, "merchant": 2, "human": 2}
    assert outcomes.without_value({"reasons": twice}) == {"below_threshold": 2, "near_miss": 2, "no_certificate": 1}
