"""The decision, over rows of scores: every pending attribute of every scored product gets exactly one (I7)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from catalog_enrichment import contract
from catalog_enrichment.precision.certificate import Certificate
from catalog_enrichment.precision.decide import DecisionInputs, decide
from catalog_enrichment.precision.units import Candidate
from catalog_enrichment.records import Modality

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame


@dataclass(frozen=True, slots=True)
class Rules:
    """Everything a decision rests on, fixed once per run on the driver."""

    attributes: tuple[str, ...]
    """Enabled attributes the model has a head for."""
    certificates: Mapping[tuple[str, str], Certificate]
    """By (attribute, modality path)."""
    model_name: str
    model_version: str
    weights_hash: str
    numeric_path: str
    run_id: str
    now: datetime


def decided(scored: DataFrame, rules: Rules) -> DataFrame:
    """Rows of the predictions contract from scored products (columns of `scored` plus ``human_attributes``)."""

    def decide_batches(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        schema = contract.arrow_schema("predictions")
        for batch in batches:
            rows = [row for product in batch.to_pylist() for row in decide_product(product, rules)]
            yield pa.RecordBatch.from_pylist(rows, schema=schema)

    return scored.mapInArrow(decide_batches, contract.spark_schema("predictions"))


def decide_product(product: Mapping[str, Any], rules: Rules) -> Iterator[dict[str, Any]]:
    """The predictions rows of one scored product."""
    merchant = dict(product["merchant_attributes"] or {})
    human = set(product["human_attributes"] or ())
    by_attribute = _candidates(product["candidates"])
    for name in rules.attributes:
        if name not in product["pending"]:
            continue
        candidates, attention = by_attribute[name]
        certificate = rules.certificates.get((name, product["modality"]))
        case = DecisionInputs(
            certificate=certificate,
            merchant_values=tuple(merchant.get(name) or ()),
            human_value_present=name in human,
            modality=Modality(product["modality"]),
            category=product["category"],
            language=product["language"],
            now=rules.now,
            weights_hash=rules.weights_hash,
            numeric_path=rules.numeric_path,
        )
        for one in decide(candidates, case):
            yield {
                "product_id": product["product_id"],
                "content_hash": product["content_hash"],
                "attribute": name,
                "value": one.value,
                "rank": one.rank,
                "score": one.score,
                "modality": product["modality"],
                "image_reason": product["image_reason"],
                "attention": attention,
                "decision": one.decision.value,
                "reason": one.reason.value,
                "certificate_id": one.certificate_id,
                "threshold": one.threshold,
                "model_name": rules.model_name,
                "model_version": rules.model_version,
                "numeric_path": rules.numeric_path,
                "run_id": rules.run_id,
            }


def _candidates(rows: Sequence[Mapping[str, Any]]) -> defaultdict[str, tuple[list[Candidate], float | None]]:
    found: defaultdict[str, tuple[list[Candidate], float | None]] = defaultdict(lambda: ([], None))
    for row in rows:
        listed, _ = found[row["attribute"]]
        listed.append(Candidate(value=row["value"], score=row["score"], rank=row["rank"]))
        found[row["attribute"]] = (listed, row["attention"])
    return found
