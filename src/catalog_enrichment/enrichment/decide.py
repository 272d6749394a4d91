"""Decisions on the scores: every pending attribute of every scored product gets exactly one (I7)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from catalog_enrichment import contract
from catalog_enrichment.config.schema import ImagesConfig
from catalog_enrichment.enrichment import landed, provisional_cap
from catalog_enrichment.precision.certificate import Certificate, ScoredBy, Standard
from catalog_enrichment.precision.decide import DecisionInputs, decide
from catalog_enrichment.precision.units import Candidate
from catalog_enrichment.records import TRANSIENT, Modality, Source

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame

    from catalog_enrichment.catalog.base import Catalog
    from catalog_enrichment.catalog.ledger import ActiveValues
    from catalog_enrichment.enrichment.request import RunRequest


@dataclass(frozen=True, slots=True)
class DecisionRules:
    """Everything a decision rests on beside the product, fixed once per run on the driver."""

    attributes: tuple[str, ...]
    """Enabled attributes the model has a head for."""
    certificates: Mapping[tuple[str, str], Certificate]
    """By (attribute, modality path)."""
    model_name: str
    model_version: str
    weights_hash: str
    preprocessing_hash: str
    images: ImagesConfig
    standard: Standard
    run_id: str
    now: datetime

    @classmethod
    def of(cls, request: RunRequest, run_id: str, now: datetime) -> DecisionRules:
        model = request.model
        return cls(
            attributes=tuple(attribute.name for attribute in request.attributes),
            certificates={(c.attribute, c.modality.value): c for c in model.certificates},
            model_name=model.name,
            model_version=model.version,
            weights_hash=model.weights_hash,
            preprocessing_hash=model.preprocessing_hash,
            images=request.images,
            standard=request.standard,
            run_id=run_id,
            now=now,
        )

    def scored_by(self, compute_type: str) -> ScoredBy:
        """What gave a product's scores; the number type and device are the executor's."""
        return ScoredBy(
            weights_hash=self.weights_hash,
            preprocessing_hash=self.preprocessing_hash,
            max_image_bytes=self.images.max_bytes,
            max_image_pixels=self.images.max_pixels,
            compute_type=compute_type,
        )


def decide_once(
    catalog: Catalog, request: RunRequest, scored: DataFrame, active: ActiveValues, run_id: str
) -> DataFrame:
    """The run's decisions (contract `predictions`) but for the provisional cap, or those that it landed before it was
    killed.

    ``active``: the values of the scored products that stand.
    """
    from pyspark.sql import functions as F

    if (earlier := landed.read(catalog, run_id)) is not None:
        return earlier
    with_scores = scored.where(F.col("error").isNull())
    products = with_scores.join(_standing_attributes(active.events), "product_id", "left")
    rules = DecisionRules.of(request, run_id, datetime.now(UTC))
    return catalog.checkpoint(run_id, attempt_name("decided"), decide_rows(products, rules))


def under_cap(
    catalog: Catalog, request: RunRequest, decided: DataFrame, active: ActiveValues, run_id: str
) -> DataFrame:
    """``decided`` without what has no room under the provisional cap; ``active``: all values of the catalog that
    stand. Decisions that were landed stay as they are."""
    if catalog.committed("predictions", run_id):
        return decided
    if not (attributes := provisional_cap.may_exceed(decided, active.events, request.cap)):
        return decided
    capped = provisional_cap.withhold(decided, active.events, request.cap, attributes)
    return catalog.checkpoint(run_id, attempt_name("capped"), capped)


def attempt_name(checkpoint: str) -> str:
    """The name of a checkpoint that only this attempt of the run reads."""
    return f"{checkpoint}-{datetime.now(UTC):%Y%m%dT%H%M%S%f}"


def decide_rows(scored: DataFrame, rules: DecisionRules) -> DataFrame:
    """Rows of the contract `predictions` from scored products, with the columns of :func:`_standing_attributes`."""

    def decide_batches(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        schema = contract.arrow_schema("predictions")
        for batch in batches:
            rows = [row for product in batch.to_pylist() for row in decide_product(product, rules)]
            yield pa.RecordBatch.from_pylist(rows, schema=schema)

    return scored.mapInArrow(decide_batches, contract.spark_schema("predictions"))


def decide_product(product: Mapping[str, Any], rules: DecisionRules) -> Iterator[dict[str, Any]]:
    """The predictions rows of one scored product."""
    merchant_values = dict(product["merchant_attributes"] or {})
    human_attributes = set(product["human_attributes"] or ())
    with_picture = {(row["attribute"], row["content_hash"]) for row in product["with_picture"] or ()}
    by_attribute = _candidates(product["candidates"])
    for name in rules.attributes:
        if name not in product["pending"]:
            continue
        candidates, attention = by_attribute[name]
        inputs = DecisionInputs(
            certificate=rules.certificates.get((name, product["modality"])),
            merchant_values=tuple(merchant_values.get(name) or ()),
            human_value_present=name in human_attributes,
            modality=Modality(product["modality"]),
            # a picture may be there at the next try, or was usable when the value that stands was decided
            picture_outage=product["modality"] == Modality.TEXT_ONLY.value
            and (product["image_reason"] in TRANSIENT or (name, product["content_hash"]) in with_picture),
            category=product["category"],
            language=product["language"],
            now=rules.now,
            scored_by=rules.scored_by(product["compute_type"]),
            standard=rules.standard,
        )
        for decision in decide(candidates, inputs):
            yield {
                "product_id": product["product_id"],
                "content_hash": product["content_hash"],
                "attribute": name,
                "value": decision.value,
                "rank": decision.rank,
                "score": decision.score,
                "modality": product["modality"],
                "image_reason": product["image_reason"],
                "attention": attention,
                "decision": decision.decision.value,
                "reason": decision.reason.value,
                "certificate_id": decision.certificate_id,
                "threshold": decision.threshold,
                "model_name": rules.model_name,
                "model_version": rules.model_version,
                "compute_type": product["compute_type"],
                "category": product["category"],
                "language": product["language"],
                "run_id": rules.run_id,
            }


def _standing_attributes(active: DataFrame) -> DataFrame:
    """Per product ``human_attributes``, those with a active human value, and ``with_picture``.

    ``with_picture``: attribute and content hash of the active model values that were decided with a picture.
    """
    from pyspark.sql import functions as F

    human = F.when(F.col("source") == Source.HUMAN.value, F.col("attribute"))
    used_picture = (F.col("source") == Source.MODEL.value) & (F.col("modality") == Modality.BOTH.value)
    return active.groupBy("product_id").agg(
        F.collect_set(human).alias("human_attributes"),
        F.collect_set(F.when(used_picture, F.struct("attribute", "content_hash"))).alias("with_picture"),
    )


def _candidates(rows: Sequence[Mapping[str, Any]]) -> defaultdict[str, tuple[list[Candidate], float | None]]:
    """Attribute -> its candidates and the attention weight on the text."""
    by_attribute: defaultdict[str, tuple[list[Candidate], float | None]] = defaultdict(lambda: ([], None))
    for row in rows:
        candidates, _ = by_attribute[row["attribute"]]
        candidates.append(Candidate(value=row["value"], score=row["score"], rank=row["rank"]))
        by_attribute[row["attribute"]] = (candidates, row["attention"])
    return by_attribute
