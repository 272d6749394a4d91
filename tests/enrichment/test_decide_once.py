"""A run's decisions as frames: from scored products and active values, once, and under the provisional cap."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from catalog_enrichment.catalog.lake import LakeCatalog
from catalog_enrichment.catalog.ledger import ActiveValues
from catalog_enrichment.config.schema import ImagesConfig
from catalog_enrichment.enrichment.decide import decide_once, under_cap
from catalog_enrichment.enrichment.provisional_cap import ProvisionalCap
from catalog_enrichment.records import Modality

from .. import sample_catalog
from ..catalog.catalog_rows import START, frame, prediction
from ..sample_certificate import SCORED_BY, STANDARD

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

SCHEMA = (
    "product_id string, content_hash string, category string, language string, modality string, compute_type string, "
    "image_reason string, merchant_attributes map<string, array<string>>, pending array<string>, error string, "
    "candidates array<struct<attribute: string, value: string, rank: int, score: double, attention: double>>"
)


def request(cap: int = 10) -> Any:
    """A run of a model that certifies colours on both paths."""
    certificates = tuple(sample_catalog.certificate("color", path, 0.5, SCORED_BY) for path in Modality)
    model = SimpleNamespace(
        name="m", version="7", certificates=certificates, weights_hash=SCORED_BY.weights_hash,
        preprocessing_hash=SCORED_BY.preprocessing_hash,
    )  # fmt: skip
    return SimpleNamespace(
        attributes=(SimpleNamespace(name="color"),), model=model, images=ImagesConfig(), standard=STANDARD,
        cap=ProvisionalCap.of(cap, certificates),
    )  # fmt: skip


def scored(product_id: str, score: float = 0.9, **changes: Any) -> dict[str, Any]:
    candidate = {"attribute": "color", "value": "Red", "rank": 1, "score": score, "attention": 0.4}
    return {
        "product_id": product_id, "content_hash": "h", "category": "Apparel/Topwear", "language": "en",
        "modality": "both", "compute_type": SCORED_BY.compute_type, "image_reason": None, "merchant_attributes": {},
        "pending": ["color", "material"], "error": None, "candidates": [candidate],
    } | changes  # fmt: skip


def active(product_id: str, **changes: Any) -> dict[str, Any]:
    return {
        "event_id": product_id, "op": "assert", "product_id": product_id, "attribute": "color", "value": "Blue",
        "source": "model", "modality": "both", "content_hash": "h", "run_id": "run-0", "asserted_at": START,
        "certificate_id": "c",
    } | changes  # fmt: skip


def decided(
    spark: SparkSession, catalog: LakeCatalog, products: list[Any], events: list[Any], cap: int = 10
) -> dict[str, tuple[str, str]]:
    """Product -> decision and reason; what is stored is what is read."""
    given = ActiveValues(1, frame(spark, "attribute_values", events))
    asked, frame_of_products = request(cap), spark.createDataFrame(products, SCHEMA)
    found = decide_once(catalog, asked, frame_of_products, given, "run-1")
    rows = under_cap(catalog, asked, found, given, "run-1").collect()
    assert {(row["model_name"], row["model_version"], row["run_id"]) for row in rows} == {("m", "7", "run-1")}
    assert {row["attribute"] for row in rows} == {"color"}
    return {row["product_id"]: (row["decision"], row["reason"]) for row in rows}


@pytest.fixture
def catalog(spark: SparkSession, tmp_path: Path) -> LakeCatalog:
    return LakeCatalog(tmp_path / "catalog", spark)


def test_what_stands_is_consulted_by_product_attribute_source_path_and_content(
    spark: SparkSession, catalog: LakeCatalog
) -> None:
    events = [
        active("human", source="human"),
        active("no value, says a person", source="human", value=""),
        active("other attribute", source="human", attribute="material"),
        active("with picture"),
        active("older picture", content_hash="g"),
        active("without picture", modality="text_only"),
        active("human with picture", source="human", attribute="material"),
    ]
    names = [row["product_id"] for row in events]
    products = [
        *[scored(name, modality="text_only") for name in (*names, "new")],
        scored("low", score=0.4),
        scored("unscored", error="scoring_failed", candidates=[]),
    ]
    published, outage = ("publish", "certified"), ("abstain", "picture_outage")
    assert decided(spark, catalog, products, events) == {
        "human": ("abstain", "human_value_stands"),
        "no value, says a person": ("abstain", "human_value_stands"),
        "other attribute": published,
        "with picture": outage,
        "older picture": published,
        "without picture": published,
        "human with picture": published,
        "new": published,
        "low": ("abstain", "below_threshold"),
    }


def test_beyond_the_room_values_wait_and_each_attempt_decides_anew(spark: SparkSession, catalog: LakeCatalog) -> None:
    products = [scored("a", score=0.7), scored("b", score=0.9), scored("c", score=0.8)]
    events = [active("z")]
    for _ in range(2):
        found = decided(spark, catalog, products, events, cap=3)
        assert found == {
            "a": ("abstain", "provisional_cap"),
            "b": ("publish", "certified"),
            "c": ("publish", "certified"),
        }
    folders = sorted(folder.name.split("-")[0] for folder in (catalog.path / "_staging" / "run-1").iterdir())
    assert folders == ["capped", "capped", "decided", "decided"]
    assert {reason for _, reason in decided(spark, catalog, products, events, cap=4).values()} == {"certified"}


def test_decisions_that_the_run_has_landed_are_taken_and_those_of_others_not(
    spark: SparkSession, catalog: LakeCatalog
) -> None:
    mine = prediction("a", "color", "Red", run_id="run-1", model_version="7", decision="abstain", reason="unseen_slice")
    other = prediction("b", "color", "Red", run_id="run-0", model_version="7")
    catalog.append_rows("predictions", [other], "run-0")
    assert decided(spark, catalog, [scored("a")], []) == {"a": ("publish", "certified")}
    catalog.append_rows("predictions", [mine], "run-1")
    assert decided(spark, catalog, [scored("a")], []) == {"a": ("abstain", "unseen_slice")}
