"""Decisions by column are those that :func:`precision.decide.decide` takes product by product."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest

from catalog_enrichment.catalog.value_names import Names
from catalog_enrichment.dictionary import Attribute
from catalog_enrichment.enrichment.decided_rows import DecisionRules, decided_batch
from catalog_enrichment.precision.decide import DecisionInputs, decide
from catalog_enrichment.precision.units import NO_ANSWER, Candidate
from catalog_enrichment.reasons import TRANSIENT, Reason
from catalog_enrichment.records import Cardinality, Modality

from .. import sample_catalog
from ..sample_certificate import SCORED_BY, STANDARD
from .test_decisions import TYPES

LABELS = ["", "Red", "Blue", "Green", "Crimson", "Wool", "Cotton"]
ATTRIBUTES = ("color", "material", "pattern")


def attribute(name: str, values: Sequence[str]) -> Attribute:
    return Attribute(name=name, cardinality=Cardinality.MANY, values=tuple(values))


def rules(seed: int) -> DecisionRules:
    dice = random.Random(seed)
    certificates = {
        (name, path.value): replace(
            sample_catalog.certificate(name, path, dice.choice([0.5, 0.5, None]), SCORED_BY),
            values=tuple(dice.sample(LABELS[1:], 4)),
            suggest_threshold=dice.choice([None, 0.3]),
        )
        for name in ATTRIBUTES[:2]
        for path in Modality
        if dice.random() < 0.9
    }
    late = dice.random() < 0.1
    names = {("color", "Red"): "Crimson", ("material", "Wool"): "Cotton", ("color", "Green"): "Blue"}
    return DecisionRules(
        attributes=tuple(dice.sample(ATTRIBUTES, dice.randint(1, 3))), certificates=certificates, model_name="m",
        model_version="1", scored_by=SCORED_BY, standard=STANDARD, run_id="run",
        now=datetime.now(UTC) + timedelta(days=10_000 * late),
        dictionary={name: attribute(name, dice.sample(LABELS, 5)) for name in ATTRIBUTES[:2]}
        | {"pattern": attribute("pattern", [])},
        names=Names({pair: to for pair, to in names.items() if dice.random() < 0.5}),
    )  # fmt: skip


def product(dice: random.Random, number: int) -> dict[str, Any]:
    attention = dice.choice([None, 0.4])
    named = [*ATTRIBUTES, "unknown"]
    content = dice.choice("hi")
    candidates = [
        {
            "attribute": name, "value": value, "rank": dice.choice([rank, rank, 0]),
            "score": dice.choice([0.1, 0.3, 0.49, 0.5, 0.9]),
            "attention": attention, "evidence": dice.choice([None, f"text {value}"]),
        }
        for name in dice.sample(named, dice.randint(0, 4))
        for rank, value in enumerate(dice.choices(LABELS, k=dice.randint(0, 3)), 1)
    ]  # fmt: skip
    given = {name: dice.choices(LABELS, k=dice.randint(0, 2)) for name in dice.sample(named, dice.randint(0, 4))}
    return {
        "product_id": f"p{number}", "content_hash": content,
        "category": dice.choice(["Apparel/Topwear", "Apparel/Socks", None]),
        "language": dice.choice(["en", "fr", None]),
        "modality": dice.choice(["both", "text_only"]),
        "compute_type": dice.choice([SCORED_BY.compute_type, SCORED_BY.compute_type, "bf16-cpu"]),
        "image_reason": dice.choice([None, *sorted(TRANSIENT), Reason.NO_IMAGE.value]),
        "merchant_attributes": dice.choice([None, list(given.items())]),
        "human_attributes": dice.choice([None, [], dice.sample(named, 2)]),
        "with_picture": dice.choice([None, [{"attribute": dice.choice(named), "content_hash": dice.choice("hi")}]]),
        "pending": dice.sample(named, dice.randint(0, 4)),
        "candidates": dice.choice([candidates, candidates, candidates, None]),
    }  # fmt: skip


def by_product(row: Mapping[str, Any], rules: DecisionRules) -> list[dict[str, Any]]:
    """The same decisions, said product by product."""
    decided: list[dict[str, Any]] = []
    for name in (name for name in rules.attributes if name in row["pending"]):
        candidates: dict[str, tuple[Candidate, Any]] = {}
        for given in (given for given in row["candidates"] or () if given["attribute"] == name):
            value = rules.names.now(name, given["value"])
            listed = value in rules.dictionary[name].values
            candidate = Candidate(value, given["score"], given["rank"], given["value"], listed)
            candidates.setdefault(value, (candidate, given))
        unreached = row["image_reason"] in TRANSIENT
        had_picture = {"attribute": name, "content_hash": row["content_hash"]} in (row["with_picture"] or ())
        inputs = DecisionInputs(
            certificate=rules.certificates.get((name, row["modality"])),
            merchant_values=dict(row["merchant_attributes"] or ()).get(name, ()),
            human_value_present=name in (row["human_attributes"] or ()),
            modality=Modality(row["modality"]),
            picture_outage=row["modality"] == "text_only" and (unreached or had_picture),
            category=row["category"], language=row["language"], now=rules.now,
            scored_by=replace(rules.scored_by, compute_type=row["compute_type"]), standard=rules.standard,
        )  # fmt: skip
        found = list(candidates.values()) or [(NO_ANSWER, {"attention": None, "evidence": None})]
        for (_, given), decision in zip(found, decide([c for c, _ in found], inputs), strict=True):
            decided.append(
                {key: row[key] for key in ("product_id", "content_hash", "modality", "image_reason")}
                | {"attribute": name, "attention": given["attention"], "evidence": given["evidence"]}
                | {key: row[key] for key in ("compute_type", "category", "language")}
                | {"model_name": "m", "model_version": "1", "run_id": "run"}
                | decision._asdict()
            )
    return decided


@pytest.mark.parametrize("seed", range(40))
def test_decisions_by_column_are_those_by_product(seed: int) -> None:
    dice, held = random.Random(seed), rules(seed)
    products = [product(dice, number) for number in range(dice.choice([0, 1, 300]))]
    batch = pa.RecordBatch.from_pylist([product(dice, -1), *products], TYPES).slice(1)  # a slice has an offset
    expected = [row for one in products for row in by_product(one, held)]
    assert decided_batch(batch, held).to_pylist() == expected


def test_all_reasons_of_a_decision_are_met() -> None:
    """The property test above reaches every branch of the rule."""
    found = set()
    for seed in range(40):
        dice, held = random.Random(seed), rules(seed)
        batch = pa.RecordBatch.from_pylist([product(dice, number) for number in range(300)], TYPES)
        found |= set(decided_batch(batch, held).column("reason").to_pylist())
    assert found == {
        "no_answer", "agrees_with_merchant", "human_value_stands", "picture_outage", "no_certificate",
        "certificate_mismatch", "certificate_expired", "unseen_slice", "no_proposal", "value_removed",
        "below_threshold", "value_not_in_pool", "disagrees_with_merchant", "certified", "near_miss",
    }  # fmt: skip
