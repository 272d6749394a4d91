"""Which attributes of a product a run decides: those whose newest decision is not about this model version and content.

The newest decision counts, whichever version made it: content that changes back, and a version that becomes champion
again, are decided again. Decisions of other versions whose run was rolled back do not count; those of this version do,
so that it does not write again what a person took back.

A decision is open again when the fact behind its reason has changed:

    about the merchant's value    the merchant took the value away
    about a person's value        no value of a person is active any more: it was rolled back
    administrative                the attribute and modality path have another certificate, or the product another
                                  category or language than the decision consulted; it was paused and a switch was
                                  moved since; its certificate was confirmed, and it waited under the provisional cap
    seen only by trying           (a mismatch of certificate and scores, a picture outage) the same, or another config,
                                  or RETRY_AFTER has passed
    no answer of the proposer     an answer about the product and content has come; a model is asked again after
                                  RETRY_AFTER
    another category or language  and the proposer reads it
    published                     the product has another category or language than the decision consulted
    its value was retracted       a later run retracted it without a decision (:mod:`policy`); the attribute applies,
                                  is switched on and has this content now
    its value was removed         from the dictionary, and the config or the dictionary has changed since

With nothing of this changed, a run has nothing to do (I5).

Values that wait under the provisional cap are administrative, too: another certificate opens them again. Otherwise they
are listed as ``waiting``, and a run opens as many of them, highest stored scores first, as there is room for: where the
cap was raised, or values were retracted or rolled back. The others are not scored, so a catalog with a million waiting
values is not scored every day. What waited in a run that a person rolled back does not wait any more.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import reduce
from operator import and_
from typing import TYPE_CHECKING

from catalog_enrichment.catalog import ledger, runs
from catalog_enrichment.dictionary import Attribute
from catalog_enrichment.reasons import (
    ABOUT_MERCHANT,
    ABOUT_PERSON,
    ADMINISTRATIVE,
    SEEN_BY_TRYING,
    WITHOUT_DECISION,
    Reason,
)
from catalog_enrichment.records import Op
from catalog_enrichment.spark import category_filters

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import Column, DataFrame

    from catalog_enrichment.catalog.lake import Catalog
    from catalog_enrichment.registry.model_registry import ResolvedModel

RETRY_AFTER = timedelta(hours=12)
"""How long a decision for a reason in SEEN_BY_TRYING counts: less than a day, so that a daily run tries again."""


@dataclass(frozen=True, slots=True)
class DecisionScope:
    """The attributes that a run can decide, and the rules by which it does."""

    attributes: Sequence[Attribute]
    model: ResolvedModel
    config_hash: str
    confirmed: frozenset[str] = frozenset()
    """Ids of confirmed certificates: nothing waits under them."""


def with_pending(
    catalog: Catalog,
    products: DataFrame,
    scope: DecisionScope,
    ids: pa.Array | None = None,
) -> DataFrame:
    """Return ``products`` with six more columns.

    ``applicable`` and ``pending``: names of attributes. ``waiting``: attribute, values and score of what waits under
    the provisional cap and is not pending for another reason; the score is the lowest of the set. ``tried_again``: a
    decision counts now that is tried again later. ``earlier_runs``: the newest decisions' attributes and runs; what is
    decided again gets another run id by it. ``refused``: this version could not score this content. A run that was
    killed has no row in `runs`: its products are still pending, and its checkpoints are used again.

    ``ids``: of ``products``, where they are few; None: all decisions and events are read.
    """
    from pyspark.sql import functions as F

    content = ["product_id", "content_hash"]
    rolled_back = runs.rolled_back(catalog, [attribute.name for attribute in scope.attributes])
    decisions = _decisions(catalog, scope, rolled_back, ids)
    failed = runs.of_succeeded(catalog, "quarantine", scope.model.name)
    failed = failed.where(F.col("model_version") == scope.model.version)
    refused = failed.select(*content, F.lit(True).alias("refused")).distinct()
    earlier_runs = F.transform("decisions", lambda newest: F.concat_ws(" ", newest["attribute"], newest["run_id"]))
    # once, because three columns read it
    with_counts = F.transform("decisions", lambda each: each.withField("still_counts", _still_counts(each, scope)))
    retried = F.exists("decisions", lambda each: (each["retried"] | each["unanswered"]) & each["still_counts"])
    answers = scope.model.proposer.answers(catalog)
    if answers is None:
        with_answers = products.withColumn("answered", F.array().cast("array<string>"))
    else:
        with_answers = products.join(answers, content, "left")
    with_answers = with_answers.withColumn("asks", F.lit(answers is None))
    return (
        with_answers.join(decisions, "product_id", "left")
        .join(refused, content, "left")
        .withColumn("refused", F.coalesce("refused", F.lit(False)))
        .withColumn("applicable", _applicable(scope.attributes))
        .withColumn("decisions", with_counts)
        .withColumn("pending", F.array_except("applicable", _decided()))
        .withColumn("waiting", _waiting(rolled_back))
        .withColumn("tried_again", F.coalesce(retried, F.lit(False)))
        .withColumn("earlier_runs", F.array_sort(earlier_runs))
        .drop("decisions", "answered", "asks")
    )


# --- the newest decisions --------------------------------------------------------------------------------------------


def _decisions(
    catalog: Catalog,
    scope: DecisionScope,
    rolled_back: Mapping[str, Collection[str]],
    ids: pa.Array | None,
) -> DataFrame:
    """Return per product ``decisions``: the newest decision of each attribute, with what has become of its value."""
    from pyspark.sql import functions as F

    succeeded, events = runs.succeeded(catalog), catalog.read("attribute_values", ids=ids)
    predictions = catalog.read("predictions", ids=ids).where(
        F.col("attribute").isin([each.name for each in scope.attributes])
    )
    counts = _by(F.col("model_name"), F.col("model_version"), scope.model) | ~_in_rolled_back(rolled_back)
    newest = newest_decisions(predictions.where(counts), succeeded)
    retractions = _retractions(events, succeeded, rolled_back, scope.config_hash)
    human = ledger.human_owned(events).withColumn("by_person", F.lit(True))
    for facts in (retractions, human):
        newest = newest.join(facts, ["product_id", "attribute"], "left")
    # a person's rollback counts more than a retraction
    newest = newest.withColumn("retracted_at", F.when(~_in_rolled_back(rolled_back), F.col("retracted_at")))
    return newest.groupBy("product_id").agg(F.collect_list(F.struct(*newest.columns)).alias("decisions"))


def newest_decisions(predictions: DataFrame, succeeded: DataFrame) -> DataFrame:
    """Return per product and attribute the decision of the run in ``succeeded`` that finished last: one row.

    Columns: product_id, attribute, run_id, finished_at, config_hash (of the run), model_name, model_version,
    content_hash, modality, certificate_id, category, language; about_merchant, about_person, administrative, retried,
    paused, unanswered, certified, removed (whether a row of the decision has a reason of the kind); capped_values and
    capped_score (number of rows with the reason PROVISIONAL_CAP, and the lowest score of these). One aggregation.
    """
    from pyspark.sql import functions as F

    run = ("finished_at", "run_id", "config_hash")
    facts = ("model_name", "model_version", "content_hash", "modality", "certificate_id", "category", "language")
    kinds = {
        "about_merchant": ABOUT_MERCHANT,
        "about_person": ABOUT_PERSON,
        "administrative": ADMINISTRATIVE,
        "retried": SEEN_BY_TRYING,
        "paused": {Reason.PAUSED},
        "unanswered": {Reason.NO_ANSWER},
        "certified": {Reason.CERTIFIED},
        "removed": {Reason.VALUE_REMOVED},
    }

    def largest_of_newest_run(*columns: Column | str) -> Column:
        """Return of a Boolean column whether it is true in any row of the newest run."""
        return F.max(F.struct(*run, *columns))

    flags = {kind: F.col("reason").isin([reason.value for reason in reasons]) for kind, reasons in kinds.items()}
    rows = predictions.join(F.broadcast(succeeded.select(*run)), "run_id")
    capped = F.when(F.col("reason") == Reason.PROVISIONAL_CAP.value, F.struct("run_id", "score"))
    scores = F.transform(
        F.filter("capped", lambda row: row["run_id"] == F.col("newest")["run_id"]), lambda row: row["score"]
    )
    return (
        rows.groupBy("product_id", "attribute")
        .agg(
            largest_of_newest_run(*facts).alias("newest"),
            F.collect_list(capped).alias("capped"),
            *[largest_of_newest_run(flag.alias("any_row")).alias(kind) for kind, flag in flags.items()],
        )
        .select(
            *("product_id", "attribute", "newest.*"),
            *[F.col(kind)["any_row"].alias(kind) for kind in kinds],
            F.size(scores).alias("capped_values"),
            F.array_min(scores).alias("capped_score"),
        )
    )


def _retractions(
    events: DataFrame, succeeded: DataFrame, rolled_back: Mapping[str, Collection[str]], config_hash: str
) -> DataFrame:
    """Return per product and attribute ``retracted_at``: when the newest run finished that retracted a value without a
    decision and was not rolled back.

    A value that the dictionary does not list was retracted until the run's config, with the dictionary, changes.
    """
    from pyspark.sql import functions as F

    by_run = (F.col("op") == Op.RETRACT.value) & F.col("undoes").isNull()
    for_reason = F.col("reason").isin([reason.value for reason in WITHOUT_DECISION])
    removed = F.col("reason") == Reason.VALUE_REMOVED.value
    events = events.where(by_run & (for_reason | removed) & ~_in_rolled_back(rolled_back))
    finished = events.join(F.broadcast(succeeded.select("run_id", "finished_at", "config_hash")), "run_id", "left")
    # an import that was killed before its row took the values of products that went all the same
    gone = F.col("reason") == Reason.PRODUCT_GONE.value
    finished = finished.withColumn("finished_at", F.coalesce("finished_at", F.when(gone, F.col("asserted_at"))))
    finished = finished.where(F.col("finished_at").isNotNull())
    finished = finished.where(~removed | ~F.col("config_hash").eqNullSafe(config_hash))
    return finished.groupBy("product_id", "attribute").agg(F.max("finished_at").alias("retracted_at"))


def _in_rolled_back(rolled_back: Mapping[str, Collection[str]]) -> Column:
    """Return :func:`is_rolled_back` of a row."""
    from pyspark.sql import functions as F

    return is_rolled_back(F.col("attribute"), F.col("run_id"), rolled_back)


def is_rolled_back(attribute: Column, run_id: Column, rolled_back: Mapping[str, Collection[str]]) -> Column:
    """Return whether the run's work on the attribute is rolled back; ``rolled_back``: attribute -> run ids."""
    from pyspark.sql import functions as F

    undone = F.lit(False)
    for name, run_ids in rolled_back.items():
        undone = undone | ((attribute == name) & run_id.isin(sorted(run_ids)))
    return undone


# --- whether a decision counts, as a column; plain columns are the product's ------------------------------------------


def _still_counts(decision: Column, scope: DecisionScope) -> Column:
    """Return whether the decision is about this version and content, and not open again."""
    from pyspark.sql import functions as F

    own = _by(decision["model_name"], decision["model_version"], scope.model)
    same_content = decision["content_hash"] == F.col("content_hash")
    retracted_since = F.coalesce(decision["retracted_at"] > decision["finished_at"], F.lit(False))
    return own & same_content & ~retracted_since & ~_open_again(decision, scope)


def _open_again(decision: Column, scope: DecisionScope) -> Column:
    """Return whether the fact behind the decision's reason has changed."""
    from pyspark.sql import functions as F

    moved = _differ(decision, "category", "language")
    reads_other = _differ(decision, *(set(scope.model.proposer.reads) & {"category", "language"}))
    consulted_other = moved | ~decision["certificate_id"].eqNullSafe(_certificate_in_force(decision, scope.model))
    # a time far ahead was written before the clock was set back: waiting for it could take for ever
    now = datetime.now(UTC)
    recent = decision["finished_at"].between(F.lit(now - RETRY_AFTER), F.lit(now + RETRY_AFTER))
    has_answer = F.coalesce(F.array_contains("answered", decision["attribute"]), F.lit(False))
    has_answer = F.when(F.col("asks"), ~recent).otherwise(has_answer)
    other_config = ~decision["config_hash"].eqNullSafe(scope.config_hash)
    confirmed = (decision["capped_values"] > 0) & decision["certificate_id"].isin(sorted(scope.confirmed))
    return (
        (decision["about_merchant"] & ~_given_by_merchant(decision))
        | (decision["about_person"] & decision["by_person"].isNull())
        | (decision["administrative"] & consulted_other)
        | (decision["certified"] & moved)
        | reads_other
        | (decision["unanswered"] & has_answer)
        | (decision["retried"] & (~recent | other_config))
        | ((decision["paused"] | decision["removed"]) & other_config)
        | F.coalesce(confirmed, F.lit(False))
    )


def _differ(decision: Column, *columns: str) -> Column:
    """Return whether the product has another value in any of the ``columns`` than the decision consulted."""
    from pyspark.sql import functions as F

    same = [decision[name].eqNullSafe(F.col(name)) for name in columns]
    return ~reduce(and_, same) if same else F.lit(False)


def _by(model_name: Column, model_version: Column, model: ResolvedModel) -> Column:
    return (model_name == model.name) & (model_version == model.version)


def _given_by_merchant(decision: Column) -> Column:
    """Return whether the merchant gives a value for the decision's attribute."""
    from pyspark.sql import functions as F

    given = F.map_keys(F.map_filter("merchant_attributes", lambda _, values: F.size(values) > 0))
    return F.coalesce(F.array_contains(given, decision["attribute"]), F.lit(False))


def _certificate_in_force(decision: Column, model: ResolvedModel) -> Column:
    """Return the id of the model's certificate for the decision's attribute and modality path; null without any."""
    from pyspark.sql import functions as F

    certificate_id = F.lit(None).cast("string")
    for issued in model.certificates:
        same = (decision["attribute"] == issued.attribute) & (decision["modality"] == issued.modality.value)
        certificate_id = F.when(same, issued.certificate_id).otherwise(certificate_id)
    return certificate_id


def _applicable(attributes: Sequence[Attribute]) -> Column:
    """Return the names of the attributes that apply to the product's category."""
    from pyspark.sql import functions as F

    names = [F.when(category_filters.applies(attribute), F.lit(attribute.name)) for attribute in attributes]
    return F.array_compact(F.array(*names)) if names else F.array().cast("array<string>")


def _decided() -> Column:
    """Return the names of the attributes whose newest decision counts."""
    from pyspark.sql import functions as F

    counting = F.filter("decisions", lambda decision: decision["still_counts"])
    names = F.transform(counting, lambda decision: decision["attribute"])
    return F.coalesce(names, F.array().cast("array<string>"))


def _waiting(rolled_back: Mapping[str, Collection[str]]) -> Column:
    """Return what waits under the cap: of decisions that count, not rolled back, where the merchant gives no value."""
    from pyspark.sql import functions as F

    def waits(decision: Column) -> Column:
        undone = is_rolled_back(decision["attribute"], decision["run_id"], rolled_back)
        applicable = F.array_contains("applicable", decision["attribute"])
        of_interest = applicable & ~_given_by_merchant(decision) & ~undone
        return (decision["capped_values"] > 0) & of_interest & decision["still_counts"]

    return F.transform(
        F.filter("decisions", waits),
        lambda decision: F.struct(
            decision["attribute"].alias("attribute"),
            decision["capped_values"].alias("values"),
            decision["capped_score"].alias("score"),
        ),
    )
