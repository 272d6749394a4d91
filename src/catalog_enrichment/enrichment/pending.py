"""Which attributes of a product a run decides: those whose newest decision is not about this model version and content.

The newest decision counts, whichever version made it: content that changes back, and a version that becomes champion
again, are decided again. Decisions of other versions whose run was rolled back do not count; those of this version do,
so that it does not write again what a person took back.

A decision is open again when what its reason rests on has changed:
    about the merchant's value    the merchant took the value away
    about a person's              nothing that a person said stands any more: it was rolled back
    administrative                the attribute and modality path have another certificate, or the product another
                                  category or language than the decision consulted; it was paused and a switch was
                                  moved since; its certificate was confirmed, and it waited under the provisional cap
    seen only by trying           (a mismatch of certificate and scores, a picture outage) the same, or another config,
                                  or RETRY_AFTER has passed
    its value was withdrawn       a later run retracted it because it was switched off or the content changed; the
                                  attribute applies, is switched on and has this content now
With nothing of this changed, a run has nothing to do (I5).

Values that wait under the provisional cap are administrative, too: another certificate opens them again. Otherwise they
are listed as ``waiting``, and a run opens as many of them, highest stored scores first, as there is room for
(:mod:`provisional_cap`): where the cap was raised, or values were retracted or rolled back. The others are not scored,
so a catalog with a million waiting values is not scored every day. What waited in a run that a person rolled back does
not wait any more: the same version does not write the rest of what was taken back.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from catalog_enrichment.catalog import category_filters, ledger, runs
from catalog_enrichment.dictionary import Attribute
from catalog_enrichment.records import ABOUT_MERCHANT, ABOUT_PERSON, ADMINISTRATIVE, WITHDRAWN, Op, Reason

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

    from catalog_enrichment.catalog.base import Catalog
    from catalog_enrichment.registry.model_registry import ResolvedModel

RETRY_AFTER = timedelta(hours=12)
"""How long a decision for one of :data:`SEEN_BY_TRYING` counts: less than a day, so that a daily run tries again."""

SEEN_BY_TRYING = frozenset({Reason.CERTIFICATE_MISMATCH, Reason.PICTURE_OUTAGE})
"""Administrative reasons that only scoring can find gone: the executors' device, pictures that can be fetched again."""


@dataclass(frozen=True, slots=True)
class DecisionScope:
    """What a run can decide, and by what."""

    attributes: Sequence[Attribute]
    model: ResolvedModel
    config_hash: str
    confirmed: frozenset[str] = frozenset()
    """Ids of confirmed certificates: nothing waits under them."""


def with_pending(
    catalog: Catalog,
    products: DataFrame,
    scope: DecisionScope,
    of_products: Callable[[DataFrame], DataFrame] | None = None,
) -> DataFrame:
    """Adds ``applicable`` and ``pending`` (names of attributes), ``waiting``, ``tried_again``, ``earlier_runs`` and
    ``refused``.

    ``waiting``: attribute, values and score of what waits under the provisional cap and is not pending for another
    reason; the score is the lowest of the set. ``tried_again``: a decision counts now that is tried again later.
    ``earlier_runs``: the newest decisions' attributes and runs; what is decided again gets another run id by it.
    ``refused``: this version could not score this content. A run that was killed has no row in `runs`: its products
    are still pending, and its checkpoints are used again.

    ``of_products``: keeps of a table the rows about ``products``, where these are not all products.
    """
    from pyspark.sql import functions as F

    key = ["product_id", "content_hash"]
    attributes, model = scope.attributes, scope.model
    names = [attribute.name for attribute in attributes]
    taken_back = runs.rolled_back(catalog, names)
    succeeded = runs.succeeded(catalog)
    predictions = _decisions_that_count(catalog, names, model, taken_back)
    newest = newest_decisions(of_products(predictions) if of_products else predictions, succeeded)
    events = catalog.read("attribute_values")
    newest = newest.join(_withdrawn(events, succeeded, taken_back), ["product_id", "attribute"], "left")
    by_person = ledger.human_owned(events).withColumn("by_person", F.lit(True))
    newest = newest.join(by_person, ["product_id", "attribute"], "left")
    undone = is_taken_back(F.col("attribute"), F.col("run_id"), taken_back)  # a person's rollback counts more
    newest = newest.withColumn("withdrawn_at", F.when(~undone, F.col("withdrawn_at")))
    decisions = newest.groupBy("product_id").agg(F.collect_list(F.struct(*newest.columns)).alias("decisions"))
    failed = runs.of_succeeded(catalog, "quarantine", model.name).where(F.col("model_version") == model.version)
    refused = failed.select(*key, F.lit(True).alias("refused")).distinct()
    earlier_runs = F.transform("decisions", lambda newest: F.concat_ws(" ", newest["attribute"], newest["run_id"]))
    return (
        products.join(decisions, "product_id", "left")
        .join(refused, key, "left")
        .withColumn("refused", F.coalesce("refused", F.lit(False)))
        .withColumn("applicable", _applicable(attributes))
        .withColumn("pending", F.array_except("applicable", _decided(scope)))
        .withColumn("waiting", _waiting(scope, taken_back))
        .withColumn("tried_again", _tried_again(scope))
        .withColumn("earlier_runs", F.array_sort(earlier_runs))
        .drop("decisions")
    )


def newest_decisions(predictions: DataFrame, succeeded: DataFrame) -> DataFrame:
    """Per product and attribute the decision of the run in ``succeeded`` that finished last: one row.

    Columns: product_id, attribute, run_id, finished_at, config_hash (of the run), model_name, model_version,
    content_hash, modality, certificate_id, category, language, and whether any row of the decision has a reason of the
    kind: about_merchant, about_person, administrative, retried, paused. Also capped_values, how many rows have the
    reason PROVISIONAL_CAP, and capped_score, the lowest score of these. One aggregation.
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
    }

    def largest_of_newest_run(*columns: Column | str) -> Column:
        """For a Boolean column: whether it is true in any row of the newest run."""
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


def _decisions_that_count(
    catalog: Catalog, names: Sequence[str], model: ResolvedModel, taken_back: Mapping[str, Collection[str]]
) -> DataFrame:
    """Predictions about the attributes ``names``, without those that a rollback took back from other versions."""
    from pyspark.sql import functions as F

    own = (F.col("model_name") == model.name) & (F.col("model_version") == model.version)
    undone = is_taken_back(F.col("attribute"), F.col("run_id"), taken_back)
    return catalog.read("predictions").where(F.col("attribute").isin(names) & (own | ~undone))


def _withdrawn(events: DataFrame, succeeded: DataFrame, taken_back: Mapping[str, Collection[str]]) -> DataFrame:
    """Per product and attribute ``withdrawn_at``: when the newest run finished that retracted a value for one of the
    reasons WITHDRAWN and was not rolled back."""
    from pyspark.sql import functions as F

    by_run = (F.col("op") == Op.RETRACT.value) & F.col("undoes").isNull()
    for_reason = F.col("reason").isin([reason.value for reason in WITHDRAWN])
    events = events.where(by_run & for_reason).where(~is_taken_back(F.col("attribute"), F.col("run_id"), taken_back))
    finished = events.join(F.broadcast(succeeded.select("run_id", "finished_at")), "run_id")
    return finished.groupBy("product_id", "attribute").agg(F.max("finished_at").alias("withdrawn_at"))


def is_taken_back(attribute: Column, run_id: Column, taken_back: Mapping[str, Collection[str]]) -> Column:
    """Whether the run's work on the attribute is rolled back; ``taken_back``: attribute -> run ids."""
    from pyspark.sql import functions as F

    undone = F.lit(False)
    for name, run_ids in taken_back.items():
        undone = undone | ((attribute == name) & run_id.isin(sorted(run_ids)))
    return undone


def _decided(scope: DecisionScope) -> Column:
    """The attributes whose newest decision :func:`_still_counts`."""
    from pyspark.sql import functions as F

    counting = F.filter("decisions", lambda decision: _still_counts(decision, scope))
    names = F.transform(counting, lambda decision: decision["attribute"])
    return F.coalesce(names, F.array().cast("array<string>"))


def _waiting(scope: DecisionScope, taken_back: Mapping[str, Collection[str]]) -> Column:
    """What waits under the provisional cap: decisions that count, not rolled back, where the merchant has no value."""
    from pyspark.sql import functions as F

    def waits(decision: Column) -> Column:
        undone = is_taken_back(decision["attribute"], decision["run_id"], taken_back)
        of_interest = F.array_contains("applicable", decision["attribute"]) & ~_by_merchant(decision) & ~undone
        return (decision["capped_values"] > 0) & of_interest & _still_counts(decision, scope)

    return F.transform(
        F.filter("decisions", waits),
        lambda decision: F.struct(
            decision["attribute"].alias("attribute"),
            decision["capped_values"].alias("values"),
            decision["capped_score"].alias("score"),
        ),
    )


def _tried_again(scope: DecisionScope) -> Column:
    """Whether a decision that counts now will not when RETRY_AFTER has passed."""
    from pyspark.sql import functions as F

    of_interest = F.exists("decisions", lambda decision: decision["retried"] & _still_counts(decision, scope))
    return F.coalesce(of_interest, F.lit(False))


def _still_counts(decision: Column, scope: DecisionScope) -> Column:
    """Whether the decision is about this version and content, and not open again."""
    from pyspark.sql import functions as F

    own = (decision["model_name"] == scope.model.name) & (decision["model_version"] == scope.model.version)
    withdrawn_since = F.coalesce(decision["withdrawn_at"] > decision["finished_at"], F.lit(False))
    same_content = decision["content_hash"] == F.col("content_hash")
    return own & same_content & ~withdrawn_since & ~_open_again(decision, scope)


def _by_merchant(decision: Column) -> Column:
    """Whether the merchant gives a value for the decision's attribute."""
    from pyspark.sql import functions as F

    given = F.map_keys(F.map_filter("merchant_attributes", lambda _, values: F.size(values) > 0))
    return F.coalesce(F.array_contains(given, decision["attribute"]), F.lit(False))


def _open_again(decision: Column, scope: DecisionScope) -> Column:
    """Whether something has changed that the decision's reason rests on. Plain columns are the product's."""
    from pyspark.sql import functions as F

    consulted_other = ~(
        decision["certificate_id"].eqNullSafe(_certificate_in_force(decision, scope.model))
        & decision["category"].eqNullSafe(F.col("category"))
        & decision["language"].eqNullSafe(F.col("language"))
    )
    # a time far ahead was written before the clock was set back: waiting for it could take for ever
    now = datetime.now(UTC)
    recent = decision["finished_at"].between(F.lit(now - RETRY_AFTER), F.lit(now + RETRY_AFTER))
    other_config = ~decision["config_hash"].eqNullSafe(scope.config_hash)
    confirmed = (decision["capped_values"] > 0) & decision["certificate_id"].isin(sorted(scope.confirmed))
    return (
        (decision["about_merchant"] & ~_by_merchant(decision))
        | (decision["about_person"] & decision["by_person"].isNull())
        | (decision["administrative"] & consulted_other)
        | (decision["retried"] & (~recent | other_config))
        | (decision["paused"] & other_config)
        | F.coalesce(confirmed, F.lit(False))
    )


def _certificate_in_force(decision: Column, model: ResolvedModel) -> Column:
    """The id of the model's certificate for the decision's attribute and modality path; null without one."""
    from pyspark.sql import functions as F

    certificate_id = F.lit(None).cast("string")
    for one in model.certificates:
        same = (decision["attribute"] == one.attribute) & (decision["modality"] == one.modality.value)
        certificate_id = F.when(same, one.certificate_id).otherwise(certificate_id)
    return certificate_id


def _applicable(attributes: Sequence[Attribute]) -> Column:
    """The names of the attributes that apply to the product's category."""
    from pyspark.sql import functions as F

    names = [F.when(category_filters.applies(attribute), F.lit(attribute.name)) for attribute in attributes]
    return F.array_compact(F.array(*names)) if names else F.array().cast("array<string>")
