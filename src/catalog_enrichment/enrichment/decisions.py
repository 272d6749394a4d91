"""Decisions on the scores, and the ledger events that follow from them: what a run publishes.

Every pending attribute of every scored product gets exactly one decision (I7): precision.decide takes it by the
certificate, :mod:`policy` suppresses what must not be written. Decisions are taken once: a run that is started again
takes those that it had landed before it was killed, and the events that it had committed (I5).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from catalog_enrichment import contract
from catalog_enrichment.catalog import ledger
from catalog_enrichment.enrichment import policy
from catalog_enrichment.errors import GateRefused
from catalog_enrichment.precision.certificate import Certificate, ScoredBy, Standard
from catalog_enrichment.precision.decide import DecisionInputs, decide
from catalog_enrichment.precision.units import NO_ANSWER, Candidate
from catalog_enrichment.reasons import TRANSIENT, Reason
from catalog_enrichment.records import Modality, Op, Source

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import Column, DataFrame

    from catalog_enrichment.catalog.lake import Catalog
    from catalog_enrichment.catalog.ledger import ActiveValues
    from catalog_enrichment.catalog.value_names import Names
    from catalog_enrichment.enrichment.request import RunRequest
    from catalog_enrichment.enrichment.select import Selection


@dataclass(frozen=True, slots=True)
class Changes:
    """The events that a run would add to the ledger."""

    events: DataFrame
    """Rows of the contract `attribute_values`, checkpointed."""
    published: int
    """Values of all attributes."""
    retracted_by_attribute: dict[str, int]

    @property
    def retracted(self) -> int:
        """Values of all attributes."""
        return sum(self.retracted_by_attribute.values())


def decide_and_plan(
    catalog: Catalog, request: RunRequest, state: ledger.LedgerState, selection: Selection, scored: DataFrame
) -> tuple[DataFrame, Changes]:
    """Return the run's decisions (contract `predictions`) and the ledger events that follow from them.

    What is retracted without a decision makes room under the provisional cap.
    """
    run_id = selection.run_id
    retracted = selection.retracted.unionByName(policy.of_refused(selection.active.events, scored))
    active = selection.active.without(retracted)
    decided = decide_once(catalog, request, scored, active, state.active().without(retracted), run_id)
    return decided, plan_changes(catalog, request.stamp(run_id, state), active.events, decided, retracted)


# --- decisions -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DecisionRules:
    """Everything a decision rests on beside the product, fixed once per run on the driver."""

    attributes: tuple[str, ...]
    """Enabled attributes the model has a head for."""
    certificates: Mapping[tuple[str, str], Certificate]
    """The certificates by (attribute, modality path)."""
    model_name: str
    model_version: str
    scored_by: ScoredBy
    """The weights and settings that gave the scores, without the compute type, which is the executor's."""
    standard: Standard
    values: Mapping[str, frozenset[str]]
    """Attribute -> the values that the dictionary lists."""
    names: Names
    """The names in force of the model's labels."""
    run_id: str
    now: datetime

    @classmethod
    def of(cls, request: RunRequest, run_id: str) -> DecisionRules:
        model = request.model
        scored_by = ScoredBy(
            weights_hash=model.weights_hash,
            preprocessing_hash=model.preprocessing_hash,
            max_image_bytes=request.images.max_bytes,
            max_image_pixels=request.images.max_pixels,
            compute_type="",
        )
        return cls(
            attributes=tuple(attribute.name for attribute in request.attributes),
            certificates={(c.attribute, c.modality.value): c for c in model.certificates},
            model_name=model.name,
            model_version=model.version,
            scored_by=scored_by,
            standard=request.standard,
            values={attribute.name: frozenset(attribute.values) for attribute in request.attributes},
            names=request.names,
            run_id=run_id,
            now=datetime.now(UTC),
        )


def decide_once(
    catalog: Catalog,
    request: RunRequest,
    scored: DataFrame,
    active: ActiveValues,
    all_active: ActiveValues,
    run_id: str,
) -> DataFrame:
    """Return the run's decisions, or those that it landed before it was killed.

    ``active``: the active values of the scored products; ``all_active``: of the catalog, for the provisional cap.
    """
    from pyspark.sql import functions as F

    if (landed := policy.landed_decisions(catalog, run_id)) is not None:
        return landed
    with_scores = scored.where(F.col("error").isNull())
    products = with_scores.join(_active_attributes(active.events), "product_id", "left")
    decided = decide_rows(products, DecisionRules.of(request, run_id))
    decided = catalog.checkpoints.get_or_compute(run_id, _of_this_attempt("decided"), decided)
    decided = policy.suppress(catalog, request, decided, scored)
    attributes = policy.over_provisional_cap(decided, all_active.events, request.cap)
    if not attributes:
        return decided
    capped = policy.suppress_over_cap(decided, all_active.events, request.cap, attributes)
    return catalog.checkpoints.get_or_compute(run_id, _of_this_attempt("capped"), capped)


def _of_this_attempt(checkpoint: str) -> str:
    """Return the name of a checkpoint that only this attempt of the run reads."""
    return f"{checkpoint}-{datetime.now(UTC):%Y%m%dT%H%M%S%f}"


def decide_rows(scored: DataFrame, rules: DecisionRules) -> DataFrame:
    """Return rows of the contract `predictions`. ``scored`` also has the columns of :func:`_active_attributes`."""

    def decide_batches(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        schema = contract.arrow_schema("predictions")
        for batch in batches:
            rows = [row for product in batch.to_pylist() for row in decide_product(product, rules)]
            yield pa.RecordBatch.from_pylist(rows, schema=schema)

    return scored.mapInArrow(decide_batches, contract.spark_schema("predictions"))


def decide_product(product: Mapping[str, Any], rules: DecisionRules) -> Iterator[dict[str, Any]]:
    """Yield the predictions rows of a scored product."""
    merchant_values = dict(product["merchant_attributes"] or {})
    human_attributes = set(product["human_attributes"] or ())
    with_picture = {(row["attribute"], row["content_hash"]) for row in product["with_picture"] or ()}
    by_attribute = _candidates(product["candidates"], rules)
    for name in rules.attributes:
        if name not in product["pending"]:
            continue
        candidates, attention, evidence = by_attribute[name]
        inputs = DecisionInputs(
            certificate=rules.certificates.get((name, product["modality"])),
            merchant_values=tuple(merchant_values.get(name) or ()),
            human_value_present=name in human_attributes,
            modality=Modality(product["modality"]),
            # a picture may be there at the next try, or was usable when the active value was decided
            picture_outage=product["modality"] == Modality.TEXT_ONLY.value
            and (product["image_reason"] in TRANSIENT or (name, product["content_hash"]) in with_picture),
            category=product["category"],
            language=product["language"],
            now=rules.now,
            scored_by=replace(rules.scored_by, compute_type=product["compute_type"]),
            standard=rules.standard,
        )
        for decision in decide(candidates or [NO_ANSWER], inputs):
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
                "evidence": evidence.get(decision.value),
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


def _active_attributes(active: DataFrame) -> DataFrame:
    """Return per product ``human_attributes``, those with an active human value, and ``with_picture``.

    ``with_picture``: attribute and content hash of the active model values that were decided with a picture.
    """
    from pyspark.sql import functions as F

    human = F.when(F.col("source") == Source.HUMAN.value, F.col("attribute"))
    used_picture = (F.col("source") == Source.MODEL.value) & (F.col("modality") == Modality.BOTH.value)
    return active.groupBy("product_id").agg(
        F.collect_set(human).alias("human_attributes"),
        F.collect_set(F.when(used_picture, F.struct("attribute", "content_hash"))).alias("with_picture"),
    )


class _Proposed(NamedTuple):
    """What is proposed for an attribute of a product."""

    candidates: list[Candidate]
    attention: float | None
    """Weight on the text."""
    evidence: dict[str, str]
    """Value -> where it comes from."""


def _candidates(rows: Sequence[Mapping[str, Any]], rules: DecisionRules) -> defaultdict[str, _Proposed]:
    """Return attribute -> what is proposed, by the names in force.

    Of labels that were merged into one value the best stays: what is written was certified under its own label.
    """
    by_attribute: defaultdict[str, _Proposed] = defaultdict(lambda: _Proposed([], None, {}))
    for row in rows:
        name, label = row["attribute"], row["value"]
        candidates, _, evidence = by_attribute[name]
        value = rules.names.now(name, label)
        if all(value != candidate.value for candidate in candidates):
            listed = value in rules.values.get(name, ())
            candidates.append(Candidate(value=value, score=row["score"], rank=row["rank"], label=label, listed=listed))
            if row["evidence"] is not None:
                evidence[value] = row["evidence"]
        by_attribute[name] = _Proposed(candidates, row["attention"], evidence)
    return by_attribute


# --- suggestions -----------------------------------------------------------------------------------------------------


def confirms_merchant() -> Column:
    """Return whether a row of `predictions` gives a value of the merchant, as sure as a value that is written."""
    from pyspark.sql import functions as F

    return (F.col("reason") == Reason.AGREES_WITH_MERCHANT.value) & (F.col("score") >= F.col("threshold"))


def suggested_change(merchant_values: Column, many: Collection[str]) -> Column:
    """Return what a suggested value would do to the merchant's values, which do not have it: add, replace or fill.

    Rows have ``attribute`` and ``confirmed`` (another row of the product and attribute :func:`confirms_merchant`). An
    attribute of ``many``, with several values per product, is suggested one more value if a merchant's value is
    confirmed; otherwise the suggestion and the merchant's values conflict.
    """
    from pyspark.sql import functions as F

    add = F.col("attribute").isin(sorted(many)) & F.coalesce("confirmed", F.lit(False))
    return F.when(F.size(merchant_values) == 0, "fill").when(add, "add").otherwise("replace")


# --- the ledger events that follow -----------------------------------------------------------------------------------


def plan_changes(
    catalog: Catalog, stamp: ledger.RunStamp, active: DataFrame, decided: DataFrame, retracted: DataFrame
) -> Changes:
    """Return the run's ledger events: assertions, retractions of what its decisions contradict, and of ``retracted``.

    ``active``: the assert events of active values, without ``retracted``. Computed once, into a checkpoint of this
    attempt; of a run that is resumed after its commit, the events committed.
    """
    if catalog.committed("attribute_values", stamp.run_id):
        ledger_rows = catalog.read("attribute_values")
        return _counted(ledger_rows.where(ledger_rows["run_id"] == stamp.run_id))
    retractions = ledger.retract(ledger.contradicted(active, decided), stamp)
    retractions = retractions.unionByName(ledger.retract(retracted, stamp))
    planned = ledger.assertions(decided, stamp).unionByName(retractions)
    return _counted(catalog.checkpoints.get_or_compute(stamp.run_id, _of_this_attempt("changes"), planned))


def _counted(events: DataFrame) -> Changes:
    counts: dict[str, dict[str, int]] = {Op.ASSERT.value: {}, Op.RETRACT.value: {}}
    for row in events.groupBy("op", "attribute").count().collect():
        counts[row["op"]][row["attribute"]] = row["count"]
    return Changes(events, sum(counts[Op.ASSERT.value].values()), counts[Op.RETRACT.value])


def over_max_changes(catalog: Catalog, changes: Changes, max_changes: int, run_id: str) -> str | None:
    """Return how many more values the run would change than `enrich.max_changes` allows; None: it does not.

    None also for a run that is resumed after its commit to the ledger: its values are visible already.
    """
    planned = changes.published + changes.retracted
    if planned <= max_changes or catalog.committed("attribute_values", run_id):
        return None
    return (
        f"the run would change {planned:,} values (publish {changes.published:,}, retract {changes.retracted:,}), "
        f"more than enrich.max_changes = {max_changes:,}"
    )


def refuse_too_many_changes(over_limit: str | None) -> None:
    """Raise GateRefused if the run is ``over_limit``, as :func:`over_max_changes` says it."""
    if over_limit:
        raise GateRefused(
            f"{over_limit}. Nothing was published. Print the changes with --dry-run, then raise the limit or score "
            "fewer products with --max-products."
        )


def publish(catalog: Catalog, changes: Changes, run_id: str) -> int:
    """Commit the events (the run's commit point), then derive what readers see. Returns the number of its events."""
    written = catalog.append("attribute_values", changes.events, run_id)
    catalog.refresh_current_values(run_id, changes.events)
    return written
