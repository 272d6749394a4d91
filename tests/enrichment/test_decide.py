from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from catalog_enrichment import contract
from catalog_enrichment.config.schema import ImagesConfig
from catalog_enrichment.context import load_dictionary
from catalog_enrichment.enrichment.decide import DecisionRules, decide_product
from catalog_enrichment.enrichment.request import RunRequest, Window, config_hash
from catalog_enrichment.models import compute_types
from catalog_enrichment.models.spec import Head
from catalog_enrichment.precision.certificate import Standard
from catalog_enrichment.records import Cardinality, Modality, Reason
from catalog_enrichment.registry.model_registry import ResolvedModel

from .. import sample_catalog
from ..sample_certificate import SCORED_BY, STANDARD


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
        model_version="1", weights_hash=SCORED_BY.weights_hash, preprocessing_hash=SCORED_BY.preprocessing_hash,
        images=ImagesConfig(), standard=STANDARD, run_id="run", now=datetime.now(UTC),
    )  # fmt: skip


def resolved_model(*compute_types: str) -> ResolvedModel:
    """With a certificate for the colour on each of these compute types."""
    certificates = tuple(
        sample_catalog.certificate("color", Modality.BOTH, 0.5, replace(SCORED_BY, compute_type=path))
        for path in compute_types
    )
    return ResolvedModel(
        name="m", version="1", artifact=Path(), artifact_hash="", weights_hash="w", preprocessing_hash="p",
        heads={"color": Head(Cardinality.ONE, ("Red",))}, certificates=certificates,
    )  # fmt: skip


def scored(**changes: Any) -> dict[str, Any]:
    candidates = [("color", "Red", 1, 0.9), ("material", "Wool", 1, 0.8), ("material", "Cotton", 2, 0.3)]
    names = ("attribute", "value", "rank", "score")
    return {
        "product_id": "p", "content_hash": "h", "category": "Apparel/Topwear", "language": "en", "modality": "both",
        "compute_type": "fp32-cpu", "image_reason": None, "merchant_attributes": [], "human_attributes": None,
        "with_picture": None,
        "pending": ["color", "material"],
        "candidates": [dict(zip(names, c, strict=True)) | {"attention": 0.4} for c in candidates],
    } | changes  # fmt: skip


def decisions(product: dict[str, Any], rules: DecisionRules) -> list[tuple[str, str, str, str]]:
    return [(r["attribute"], r["value"], r["decision"], r["reason"]) for r in decide_product(product, rules)]


def test_rows_are_rows_of_the_contract(rules: DecisionRules) -> None:
    required = [field.name for field in contract.spark_schema("predictions") if not field.nullable]
    for row in decide_product(scored(), rules):
        assert list(row) == contract.columns("predictions")
        assert (row["category"], row["language"]) == ("Apparel/Topwear", "en")
        assert all(row[name] is not None for name in required)


def test_values_above_the_threshold_are_published_each_on_its_own(rules: DecisionRules) -> None:
    assert decisions(scored(), rules) == [
        ("color", "Red", "publish", "certified"),
        ("material", "Wool", "publish", "certified"),
        ("material", "Cotton", "abstain", "below_threshold"),
    ]


def test_i1_beside_a_merchants_value_there_is_at_most_a_suggestion(rules: DecisionRules) -> None:
    product = scored(merchant_attributes=[("color", ["Blue"]), ("material", ["Wool"])])
    assert {decision for _, _, decision, _ in decisions(product, rules)} == {"suggest", "abstain"}
    assert decisions(product, rules)[0] == ("color", "Red", "suggest", "disagrees_with_merchant")


def test_a_human_value_stands(rules: DecisionRules) -> None:
    assert decisions(scored(human_attributes=["color"]), rules)[0][2:] == ("abstain", "human_value_stands")


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
    assert {row[2:] for row in decisions(scored(**changes), rules)} == {("abstain", reason)}


def test_during_a_picture_outage_the_text_does_not_decide_about_a_value_that_needed_the_picture(
    rules: DecisionRules,
) -> None:
    text_certificate = sample_catalog.certificate("color", Modality.TEXT_ONLY, 0.5, SCORED_BY)
    certified = replace(rules, certificates={**rules.certificates, ("color", "text_only"): text_certificate})
    older = [{"attribute": "color", "content_hash": "h"}]

    def color(**changes: Any) -> tuple[str, str]:
        return decisions(scored(**changes), certified)[0][2:]

    assert color(modality="text_only") == ("publish", "certified")
    assert color(modality="text_only", with_picture=older) == ("abstain", "picture_outage")
    assert color(modality="text_only", with_picture=[older[0] | {"content_hash": "g"}]) == ("publish", "certified")
    assert color(modality="text_only", with_picture=[older[0] | {"attribute": "material"}]) == ("publish", "certified")
    assert color(modality="both", with_picture=older) == ("publish", "certified")


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
        found = decisions(scored(modality="text_only", image_reason=reason.value), certified)
        outages = [row for row in found if row[2:] == ("abstain", "picture_outage")]
        assert len(outages) == (len(found) if reason is Reason.IMAGE_UNREACHABLE else 0), reason
    with_merchant = scored(
        modality="text_only", image_reason="image_unreachable", merchant_attributes=[("color", ["Red"])]
    )
    assert decisions(with_merchant, certified)[0][2:] == ("abstain", "agrees_with_merchant")


def test_the_standard_is_the_configs_and_another_one_is_another_run(tmp_path: Path) -> None:
    config = sample_catalog.build(tmp_path / "sample").config
    dictionary, model = load_dictionary(config), resolved_model()
    for name, value in (("target", 0.99), ("delta", 0.01)):
        stricter = replace(config, precision=replace(config.precision, **{name: value}))
        request = RunRequest.of(stricter, dictionary, model, Window())
        assert request.standard == replace(STANDARD, **{name: value})
        assert request.config_hash != config_hash(config, dictionary, "fp32")


def test_another_number_type_is_another_run_with_certificates_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = sample_catalog.build(tmp_path / "sample").config
    dictionary = load_dictionary(config)
    monkeypatch.setattr(compute_types, "why_not", lambda *_: "")
    model = resolved_model("fp32-cpu", "bf16-cpu")
    hashes = {}
    for setting, numbers in (("fp32", "fp32"), ("bf16", "bf16"), ("auto", "bf16")):
        asked = replace(config, enrich=replace(config.enrich, compute_type=setting))
        request = RunRequest.of(asked, dictionary, model, Window())
        assert [one.compute_type for one in request.model.certificates] == [f"{numbers}-cpu"]
        assert numbers in request.model.why_numbers
        hashes[setting] = request.config_hash
    assert hashes["auto"] == hashes["bf16"] != hashes["fp32"]


def test_only_pending_attributes_are_decided(rules: DecisionRules) -> None:
    assert {row[0] for row in decisions(scored(pending=["color"]), rules)} == {"color"}


@pytest.mark.parametrize(
    ("rule", "compute_type"),
    [
        ({"weights_hash": "other"}, "fp32-cpu"),
        ({"preprocessing_hash": "other"}, "fp32-cpu"),
        ({"images": ImagesConfig(max_bytes=1000)}, "fp32-cpu"),
        ({"images": ImagesConfig(max_pixels=1000)}, "fp32-cpu"),
        ({"standard": Standard(target=0.99, delta=0.05)}, "fp32-cpu"),
        ({}, "fp32-cuda"),
    ],
)
def test_scores_that_come_from_other_conditions_are_not_published_i2(
    rules: DecisionRules, rule: dict[str, Any], compute_type: str
) -> None:
    """A certificate holds for the model, preprocessing, picture limits, number type and device of its scores."""
    found = decisions(scored(compute_type=compute_type), replace(rules, **rule))
    assert {(decision, reason) for *_, decision, reason in found} == {("abstain", "certificate_mismatch")}
