"""Decisions on scored products: by the certificate row by row, then as frames, once, and under the provisional cap."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest

from catalog_enrichment import contract
from catalog_enrichment.catalog.lake import Catalog
from catalog_enrichment.catalog.ledger import ActiveValues, LedgerState
from catalog_enrichment.catalog.value_names import Names
from catalog_enrichment.config.images import ImagesConfig
from catalog_enrichment.context import load_dictionary
from catalog_enrichment.dictionary import Attribute
from catalog_enrichment.enrichment.decided_rows import DecisionRules, decided_batch
from catalog_enrichment.enrichment.decisions import decide_once, suggested_change
from catalog_enrichment.enrichment.request import ProvisionalCap
from catalog_enrichment.precision.certificate import Standard
from catalog_enrichment.reasons import Reason
from catalog_enrichment.records import ANY_VALUE, Cardinality, Modality
from catalog_enrichment.values.kinds import Kind, NumberRule

from .. import sample_catalog
from ..catalog.catalog_rows import START, frame, prediction
from ..sample_certificate import SCORED_BY, STANDARD

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@pytest.fixture
def rules(tmp_path: Path) -> DecisionRules:
    dictionary = load_dictionary(sample_catalog.build(tmp_path / "sample").config)
    certificates = {
        (name, path.value): sample_catalog.certificate(name, path, 0.5 if path is Modality.BOTH else None, SCORED_BY)
        for name in dictionary.enabled
        for path in Modality
    }
    return DecisionRules(
        attributes=("color", "material"), certificates=certificates, model_name="m",
        model_version="1", scored_by=SCORED_BY, standard=STANDARD, run_id="run", now=datetime.now(UTC),
        dictionary={name: dictionary[name] for name in dictionary.enabled}, names=Names(),
    )  # fmt: skip


def listing(rules: DecisionRules, **values: tuple[str, ...]) -> DecisionRules:
    """The rules with a dictionary that lists these values."""
    changed = {name: replace(rules.dictionary[name], values=listed) for name, listed in values.items()}
    return replace(rules, dictionary={**rules.dictionary, **changed})


def scored_product(**changes: Any) -> dict[str, Any]:
    candidates = [("color", "Red", 1, 0.9), ("material", "Wool", 1, 0.8), ("material", "Cotton", 2, 0.3)]
    names = ("attribute", "value", "rank", "score")
    return {
        "product_id": "p", "content_hash": "h", "category": "Apparel/Topwear", "language": "en", "modality": "both",
        "compute_type": "fp32-cpu", "image_reason": None, "merchant_attributes": [], "human_attributes": None,
        "with_picture": None,
        "pending": ["color", "material"],
        "candidates": [dict(zip(names, c, strict=True)) | {"attention": 0.4, "evidence": None} for c in candidates],
    } | changes  # fmt: skip


STRINGS = pa.list_(pa.string())
TYPES = pa.schema({
    **dict.fromkeys(("product_id", "content_hash", "category", "language"), pa.string()),
    **dict.fromkeys(("modality", "compute_type", "image_reason"), pa.string()),
    "merchant_attributes": pa.map_(pa.string(), STRINGS), "human_attributes": STRINGS, "pending": STRINGS,
    "with_picture": pa.list_(pa.struct({"attribute": pa.string(), "content_hash": pa.string()})),
    "candidates": pa.list_(pa.struct({
        "attribute": pa.string(), "value": pa.string(), "rank": pa.int32(), "score": pa.float64(),
        "attention": pa.float64(), "evidence": pa.string(),
    })),
})  # fmt: skip
"""The types of scored products as Spark sends them."""


def rows_of(product: dict[str, Any], rules: DecisionRules) -> list[dict[str, Any]]:
    return decided_batch(pa.RecordBatch.from_pylist([product], TYPES), rules).to_pylist()


def decisions(product: dict[str, Any], rules: DecisionRules) -> list[tuple[str, str, str, str]]:
    return [(r["attribute"], r["value"], r["decision"], r["reason"]) for r in rows_of(product, rules)]


def test_rows_are_rows_of_the_contract(rules: DecisionRules) -> None:
    required = [field.name for field in contract.spark_schema("predictions") if not field.nullable]
    for row in rows_of(scored_product(), rules):
        assert list(row) == contract.columns("predictions")
        assert (row["category"], row["language"]) == ("Apparel/Topwear", "en")
        assert all(row[name] is not None for name in required)


def test_values_above_the_threshold_are_published_each_on_its_own(rules: DecisionRules) -> None:
    assert decisions(scored_product(), rules) == [
        ("color", "Red", "publish", "certified"),
        ("material", "Wool", "publish", "certified"),
        ("material", "Cotton", "abstain", "below_threshold"),
    ]


def test_i1_beside_a_merchants_value_there_is_at_most_a_suggestion(rules: DecisionRules) -> None:
    product = scored_product(merchant_attributes=[("color", ["Blue"]), ("material", ["Wool"])])
    assert {decision for _, _, decision, _ in decisions(product, rules)} == {"suggest", "abstain"}
    assert decisions(product, rules)[0] == ("color", "Red", "suggest", "disagrees_with_merchant")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"modality": "text_only"}, "no_certificate"),
        ({"category": "Apparel/Socks"}, "unseen_slice"),
        ({"language": "fr"}, "unseen_slice"),
    ],
)
def test_i2_outside_what_is_certified_everything_abstains(
    rules: DecisionRules, changes: dict[str, Any], reason: str
) -> None:
    assert {row[2:] for row in decisions(scored_product(**changes), rules)} == {("abstain", reason)}


def test_labels_are_decided_under_the_names_in_force_and_by_their_own_place_in_the_pool(rules: DecisionRules) -> None:
    """The pool has the label Red; whatever a value is called, its label decides."""
    names = Names({("color", "Red"): "Crimson", ("material", "Wool"): "Cotton"})
    renamed = listing(replace(rules, names=names), color=("Crimson",))
    assert decisions(scored_product(), renamed) == [
        ("color", "Crimson", "publish", "certified"),
        ("material", "Cotton", "publish", "certified"),
    ], "of merged labels the best stays"
    merchant = scored_product(merchant_attributes=[("color", ["Crimson"])])
    assert decisions(merchant, renamed)[0] == ("color", "Crimson", "abstain", "agrees_with_merchant")
    pool = {key: replace(issued, values=("Crimson", "Wool")) for key, issued in rules.certificates.items()}
    assert decisions(scored_product(), replace(renamed, certificates=pool))[0][3] == "value_not_in_pool"


def test_a_value_that_the_dictionary_does_not_list_is_not_written(rules: DecisionRules) -> None:
    gone = listing(rules, color=("Green",), material=("Cotton",))
    assert decisions(scored_product(), gone) == [
        ("color", "Red", "abstain", "value_removed"),
        ("material", "Wool", "abstain", "value_removed"),
        decisions(scored_product(), rules)[2],
    ]
    given = scored_product(merchant_attributes=[("color", ["Green"])])
    assert decisions(given, gone)[0][3] == "value_removed", "nor suggested"
    assert decisions(scored_product(category="Garden"), gone)[0][3] == "unseen_slice"


def test_where_a_picture_could_not_be_reached_the_text_does_not_decide(rules: DecisionRules) -> None:
    """Every image reason: an outage is tried again, the others are facts about the product."""
    text = {
        (name, "text_only"): sample_catalog.certificate(name, Modality.TEXT_ONLY, 0.5, SCORED_BY)
        for name in ("color", "material")
    }
    certified = replace(rules, certificates={**rules.certificates, **text})
    reasons = [reason for reason in Reason if "image" in reason]
    assert len(reasons) == 9
    for reason in reasons:
        found = decisions(scored_product(modality="text_only", image_reason=reason.value), certified)
        outages = [row for row in found if row[2:] == ("abstain", "picture_outage")]
        assert len(outages) == (len(found) if reason is Reason.IMAGE_UNREACHABLE else 0), reason
    with_merchant = scored_product(
        modality="text_only", image_reason="image_unreachable", merchant_attributes=[("color", ["Red"])]
    )
    assert decisions(with_merchant, certified)[0][2:] == ("abstain", "agrees_with_merchant")


def test_only_pending_attributes_are_decided(rules: DecisionRules) -> None:
    assert {row[0] for row in decisions(scored_product(pending=["color"]), rules)} == {"color"}


@pytest.mark.parametrize(
    ("rule", "compute_type"),
    [
        ({"scored_by": replace(SCORED_BY, weights_hash="other")}, "fp32-cpu"),
        ({"scored_by": replace(SCORED_BY, preprocessing_hash="other")}, "fp32-cpu"),
        ({"scored_by": replace(SCORED_BY, max_image_bytes=1000)}, "fp32-cpu"),
        ({"scored_by": replace(SCORED_BY, max_image_pixels=1000)}, "fp32-cpu"),
        ({"standard": Standard(target=0.99, delta=0.05)}, "fp32-cpu"),
        ({}, "fp32-cuda"),
    ],
)
def test_scores_that_come_from_other_conditions_are_not_published_i2(
    rules: DecisionRules, rule: dict[str, Any], compute_type: str
) -> None:
    """A certificate holds for the model, preprocessing, picture limits, number type and device of its scores."""
    found = decisions(scored_product(compute_type=compute_type), replace(rules, **rule))
    assert {(decision, reason) for *_, decision, reason in found} == {("abstain", "certificate_mismatch")}


def test_an_attribute_without_a_proposal_and_one_without_an_answer_are_decided_i7(rules: DecisionRules) -> None:
    candidates = [{"attribute": "color", "value": "", "rank": 1, "score": 0.0, "attention": None, "evidence": None}]
    rows = list(rows_of(scored_product(candidates=candidates), rules))
    assert [(row["attribute"], row["value"], row["rank"], row["reason"]) for row in rows] == [
        ("color", "", 1, "no_proposal"),
        ("material", "", 0, "no_answer"),
    ]


def test_evidence_stays_with_its_value(rules: DecisionRules) -> None:
    product = scored_product()
    product["candidates"][1]["evidence"] = "of pure wool"
    found = {row["value"]: row["evidence"] for row in rows_of(product, rules)}
    assert found == {"Red": None, "Wool": "of pure wool", "Cotton": None}


# --- as frames --------------------------------------------------------------------------------------------------------

SCHEMA = (
    "product_id string, content_hash string, category string, language string, modality string, compute_type string, "
    "image_reason string, merchant_attributes map<string, array<string>>, pending array<string>, error string, "
    "candidates array<struct<attribute: string, value: string, rank: int, score: double, attention: double, "
    "evidence: string>>"
)


def request(cap: int = 10) -> Any:
    """A run of a model that certifies colours on both paths."""
    certificates = tuple(sample_catalog.certificate("color", path, 0.5, SCORED_BY) for path in Modality)
    model = SimpleNamespace(
        name="m", version="7", certificates=certificates, weights_hash=SCORED_BY.weights_hash,
        preprocessing_hash=SCORED_BY.preprocessing_hash,
    )  # fmt: skip
    return SimpleNamespace(
        attributes=(Attribute(name="color", cardinality=Cardinality.ONE, values=("Red",)),), model=model,
        images=ImagesConfig(),
        standard=STANDARD, names=Names(), cap=ProvisionalCap.of(cap, certificates), drifted=(),
    )  # fmt: skip


def scored(product_id: str, score: float = 0.9, **changes: Any) -> dict[str, Any]:
    candidate = {
        "attribute": "color",
        "value": "Red",
        "rank": 1,
        "score": score,
        "attention": 0.4,
        "evidence": "the title",
    }
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
    spark: SparkSession, catalog: Catalog, products: list[Any], events: list[Any], cap: int = 10
) -> dict[str, tuple[str, str]]:
    """Product -> decision and reason; what is stored is what is read."""
    given, none = frame(spark, "attribute_values", events), frame(spark, "attribute_values", [])
    asked, frame_of_products = request(cap), spark.createDataFrame(products, SCHEMA)
    of_catalog = LedgerState(1, given)
    found = decide_once(catalog, asked, frame_of_products, ActiveValues(1, given), of_catalog, none, "run-1")
    rows = found.collect()
    assert {(row["model_name"], row["model_version"], row["run_id"]) for row in rows} == {("m", "7", "run-1")}
    assert {row["attribute"] for row in rows} == {"color"}
    return {row["product_id"]: (row["decision"], row["reason"]) for row in rows}


def test_what_stands_is_consulted_by_product_attribute_source_path_and_content(
    spark: SparkSession, catalog: Catalog
) -> None:
    events = [
        active("human", source="human"),
        active("no value, says a person", source="human", value=""),
        active("other attribute", source="human", attribute="material"),
        active("with picture"),
        active("older picture", content_hash="g"),
        active("without picture", modality="text_only"),
        active("human with picture", source="human", attribute="material"),
        active("other attribute with picture", attribute="material"),
    ]
    names = [row["product_id"] for row in events]
    events.append(active("again with picture"))
    products = [
        *[scored(name, modality="text_only") for name in (*names, "new")],
        scored("again with picture"),
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
        "other attribute with picture": published,
        "new": published,
        "again with picture": published,
        "low": ("abstain", "below_threshold"),
    }


def test_beyond_the_room_values_wait_and_each_attempt_decides_anew(spark: SparkSession, catalog: Catalog) -> None:
    products = [scored("a", score=0.7), scored("b", score=0.9), scored("c", score=0.8)]
    events = [active("z")]
    assert decided(spark, catalog, products, events, cap=3) == {
        "a": ("abstain", "provisional_cap"),
        "b": ("publish", "certified"),
        "c": ("publish", "certified"),
    }
    products[1] |= {"candidates": scored("b", score=0.4)["candidates"]}
    assert decided(spark, catalog, products, events, cap=3) == {
        "a": ("publish", "certified"),
        "b": ("abstain", "below_threshold"),
        "c": ("publish", "certified"),
    }


def test_decisions_that_the_run_has_landed_are_taken_and_those_of_others_not(
    spark: SparkSession, catalog: Catalog
) -> None:
    mine = prediction("a", "color", "Red", run_id="run-1", model_version="7", decision="abstain", reason="unseen_slice")
    other = prediction("b", "color", "Red", run_id="run-0", model_version="7")
    catalog.append_rows("predictions", [other], "run-0")
    assert decided(spark, catalog, [scored("a")], []) == {"a": ("publish", "certified")}
    catalog.append_rows("predictions", [mine], "run-1")
    assert decided(spark, catalog, [scored("a")], []) == {"a": ("abstain", "unseen_slice")}


def test_a_value_is_added_only_where_the_model_confirms_one_of_the_merchants(spark: SparkSession) -> None:
    cases = {
        ("material", ("Cotton",), True): "add",
        ("material", ("Cotton",), None): "replace",
        ("color", ("Red",), False): "replace",
        ("color", ("Red", "Blue"), True): "replace",
        ("material", (), True): "fill",
        ("color", (), False): "fill",
    }
    schema = "attribute string, given array<string>, confirmed boolean"
    rows = spark.createDataFrame([(name, list(given), confirmed) for name, given, confirmed in cases], schema)
    found = rows.withColumn("change", suggested_change(rows["given"], ["material"])).collect()
    assert {(row["attribute"], tuple(row["given"]), row["confirmed"]): row["change"] for row in found} == cases


def test_values_of_open_attributes_are_decided_by_their_kind(rules: DecisionRules) -> None:
    width = Attribute(
        name="color",
        cardinality=Cardinality.ONE,
        kind=Kind.NUMBER,
        number=NumberRule(unit="cm", low=1, high=500),
    )
    any_value = {key: replace(issued, values=(ANY_VALUE,)) for key, issued in rules.certificates.items()}
    numbers = replace(rules, attributes=("color",), dictionary={"color": width}, certificates=any_value)

    def decided(value: str, score: float, *merchant: str) -> tuple[str, str]:
        candidate = {
            "attribute": "color",
            "value": value,
            "rank": 1,
            "score": score,
            "attention": None,
            "evidence": "x",
        }
        given = [("color", list(merchant))] if merchant else []
        (row,) = decisions(
            scored_product(candidates=[candidate], pending=["color"], merchant_attributes=given), numbers
        )
        return row[2:]

    assert decided("51 cm", 0.9) == ("publish", "certified")
    assert decided("51 cm", 0.4) == ("abstain", "below_threshold")
    assert decided("501 cm", 0.9) == ("abstain", "value_removed")
    assert decided("", 0.0) == ("abstain", "no_proposal")
    assert decided("100.5 cm", 0.9, "100 cm") == ("abstain", "agrees_with_merchant")
    assert decided("102 cm", 0.9, "100 cm")[0] == "suggest"
