"""The numbers of a run: decisions and coverage per attribute, its JSON line, and what it prints."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from catalog_enrichment import reasons
from catalog_enrichment.catalog import coverage_groups, switches
from catalog_enrichment.enrichment import score
from catalog_enrichment.enrichment.outcomes import REASONS_KEY, ByReason
from catalog_enrichment.errors import GateRefused
from catalog_enrichment.precision.claim import language_name
from catalog_enrichment.reasons import DRIFT_KEY, PAUSED_KEY, SEEN_BY_TRYING, STOPPED_KEY, UNSEEN_KEY, Reason
from catalog_enrichment.records import (
    DRY_RUN,
    NOTHING_TO_DO,
    Decision,
    RunStatus,
    add_counts,
    shortened,
    within_bytes,
)
from catalog_enrichment.validation import by_shop

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from catalog_enrichment.catalog.lake import Catalog
    from catalog_enrichment.catalog.runs import RunRecord
    from catalog_enrichment.enrichment.coverage import Coverage
    from catalog_enrichment.enrichment.decisions import Changes
    from catalog_enrichment.enrichment.drift_check import Drift
    from catalog_enrichment.enrichment.request import RunRequest
    from catalog_enrichment.enrichment.select import Selection
    from catalog_enrichment.precision.certificate import Certificate
    from catalog_enrichment.registry.model_registry import ResolvedModel

PREVIEW_ROWS = 20
"""Values that a dry run prints."""

UNSEEN_SLICES = 50
"""Most slices that no certificate covers which are named, as far as they fit into :func:`within_bytes`."""

_SWITCHED_OFF: dict[str, Any] = {"merchant": 0, "coverage": None}
"""Numbers of an attribute that is switched off, or no longer in the dictionary: it has no coverage."""


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """What a run selected, scored and decided, before anything of it is published."""

    selection: Selection
    scored: DataFrame
    decided: DataFrame
    changes: Changes
    before: Coverage
    """The coverage of the products that changed, as readers see it now."""
    drifted: Drift


def record_decisions(record: RunRecord, catalog: Catalog, request: RunRequest, outcome: RunOutcome) -> None:
    """Put the numbers of the decisions into ``record``, and print what waits and what needs attention."""
    counted, waiting = decision_counts(outcome.decided, outcome.scored), outcome.selection.waiting
    not_on = switches.read(catalog).with_more(request.drifted)
    found = attributes(counted, outcome.changes, outcome.before, request.model, waiting)
    unseen = any(numbers["unseen"] for numbers in counted.by_attribute.values())
    record.attributes = (
        (record.attributes or {})
        | found
        | {
            by_shop.KEY: counted.by_shop.row(),
            DRIFT_KEY: outcome.drifted.to_dict(),
            PAUSED_KEY: shortened([f"{switch} is {switch.state.value}: {switch.why}" for switch in not_on.entries]),
            UNSEEN_KEY: unseen_slices(request.model.certificates, outcome.decided) if unseen else {},
        }
    )
    tried_again = sum(numbers["tried_again"] for numbers in counted.by_attribute.values())
    all_waiting = sum(record.attributes["waiting"].values())
    record.count(left_open=outcome.selection.left_open + tried_again + all_waiting)
    say_what_needs_attention(record)


# --- counted per attribute and shop ----------------------------------------------------------------------------------

_OF_SHOPS = (Reason.DISAGREES_WITH_MERCHANT, Reason.BELOW_THRESHOLD)
_OF_ATTRIBUTES = ("written", "values_written", "suggested", "abstained", "waiting", "tried_again", "unseen")


@dataclass(frozen=True, slots=True)
class DecisionCounts:
    """Numbers of products by decision. A product with several values counts by its best value."""

    by_attribute: dict[str, dict[str, int]]
    """Attribute -> products written, suggested, abstained, and values written, that wait under the cap, are tried again
    or are in a slice that no certificate covers."""
    by_shop: by_shop.Counted
    """Products: ``disagrees_with_merchant.ATTRIBUTE``, ``below_threshold.ATTRIBUTE`` where the merchant gave no value,
    and the reasons of :func:`score.problems`."""


def decision_counts(decided: DataFrame, scored: DataFrame) -> DecisionCounts:
    """Count the rows of ``decided`` (contract `predictions`), and the problems of ``scored``, in one query.

    ``scored``: all products that were decided, each once, with ``product_id``, ``shop_id``, ``merchant_attributes``
    and the columns of :func:`score.problems`.
    """
    sums = _decisions_by_shop(decided, scored).union(by_shop.sums(score.problems(scored)))
    counted = by_shop.Counted.of(by_shop.largest_of(sums, by_shop.LIMIT))
    by_attribute: dict[str, dict[str, int]] = {}
    of_shops: dict[str, int] = {}
    for key, number in counted.totals.items():
        kind, _, attribute = key.partition(".")
        if kind in _OF_ATTRIBUTES:
            by_attribute.setdefault(attribute, dict.fromkeys(_OF_ATTRIBUTES, 0))[kind] = number
        else:
            of_shops[key] = number
    return DecisionCounts(dict(sorted(by_attribute.items())), replace(counted, totals=of_shops))


def _decisions_by_shop(decided: DataFrame, scored: DataFrame) -> DataFrame:
    """Return rows for :func:`by_shop.largest_of`: per shop the numbers of :data:`_OF_SHOPS`, of all shops also those
    of :data:`_OF_ATTRIBUTES`, each with the attribute behind a dot."""
    from pyspark.sql import functions as F

    def any_row(condition: Any) -> Any:
        return F.max(condition.cast("int"))

    tried_again = F.col("reason").isin([reason.value for reason in SEEN_BY_TRYING])
    per_product = decided.groupBy("attribute", "product_id").agg(
        any_row(F.col("decision") == Decision.PUBLISH.value).alias("publish"),
        F.count_if(F.col("decision") == Decision.PUBLISH.value).alias("values_written"),
        any_row(F.col("decision") == Decision.SUGGEST.value).alias("suggest"),
        F.count_if(F.col("reason") == Reason.PROVISIONAL_CAP.value).alias("waiting"),
        F.count_if(tried_again).alias("tried_again"),
        F.count_if(F.col("reason") == Reason.UNSEEN_SLICE.value).alias("unseen"),
        *(any_row(F.col("reason") == reason.value).alias(reason.value) for reason in _OF_SHOPS),
    )
    written, suggested = F.col("publish") == 1, (F.col("publish") == 0) & (F.col("suggest") == 1)
    given = F.size(F.coalesce(F.col("merchant_attributes")[F.col("attribute")], F.array())) > 0
    unsure = ~written & ~suggested & ~given & (F.col(Reason.BELOW_THRESHOLD.value) == 1)
    of_shop = per_product.join(scored.select("product_id", "shop_id", "merchant_attributes"), "product_id", "left")
    of_shop = of_shop.withColumn("name", F.coalesce("shop_id", F.lit("")))  # null: the sum of all shops
    rows = of_shop.groupingSets([("attribute",), ("attribute", "name")], "attribute", "name").agg(
        F.count_if(written).alias("written"),
        F.sum("values_written").alias("values_written"),
        F.count_if(suggested).alias("suggested"),
        F.count_if(~written & ~suggested).alias("abstained"),
        F.sum("waiting").alias("waiting"),
        F.sum("tried_again").alias("tried_again"),
        F.sum("unseen").alias("unseen"),
        F.sum(Reason.DISAGREES_WITH_MERCHANT.value).alias(Reason.DISAGREES_WITH_MERCHANT.value),
        F.count_if(unsure).alias(Reason.BELOW_THRESHOLD.value),
        F.when(F.grouping("name") == 1, by_shop.ALL).otherwise(by_shop.SHOP).alias("by"),
    )
    numbers = {reason.value: F.col(reason.value) for reason in _OF_SHOPS}
    numbers |= {kind: F.when(F.col("by") == by_shop.ALL, F.col(kind)) for kind in _OF_ATTRIBUTES}
    keys = {kind: F.concat(F.lit(f"{kind}."), "attribute") for kind in numbers}
    pairs = [F.struct(keys[kind].alias("key"), number.alias("number")) for kind, number in numbers.items()]
    return rows.select("by", "name", F.inline(F.array(*pairs))).where("number > 0")


def attributes(
    counted: DecisionCounts,
    changes: Changes,
    before: Coverage,
    model: ResolvedModel,
    waiting: Mapping[str, int],
) -> dict[str, Any]:
    """Return the column `attributes` of the run's row: numbers per attribute, the model's certificates, and what waits.

    In ``decisions`` ``values_written`` counts values and ``retracted`` values of earlier runs, the other numbers count
    products: a product can have several values. ``waiting``: attribute -> values under the provisional cap; as an
    argument those that this run did not decide again.
    """
    counts, coverage = counted.by_attribute, before.numbers()
    here = {name: numbers["waiting"] for name, numbers in counts.items()}
    none = dict.fromkeys(("written", "values_written", "suggested", "abstained"), 0)
    decisions = {
        name: {
            "merchant": coverage.get(name, _SWITCHED_OFF)["merchant"],
            **{kind: counts.get(name, none)[kind] for kind in none},
            "retracted": changes.retracted_by_attribute.get(name, 0),
            "coverage_before": coverage.get(name, _SWITCHED_OFF)["coverage"],
        }
        for name in sorted({*counts, *changes.retracted_by_attribute})
    }
    return {
        "decisions": decisions,
        # also of attributes that this run did not decide: theirs expire too (monitoring/metrics.py)
        "certificates": [c.to_dict() for c in model.certificates],
        "waiting": {name: values for name, values in add_counts(here, dict(waiting)).items() if values},
    }


def unseen_slices(certificates: Iterable[Certificate], decided: DataFrame) -> dict[str, dict[str, int]]:
    """Return attribute -> slice that its certificate does not cover -> products."""
    from pyspark.sql import functions as F

    refused = decided.where(F.col("reason") == Reason.UNSEEN_SLICE.value)
    groups = refused.groupBy("attribute", "modality", "language", "category").agg(
        F.countDistinct("product_id").alias("products")
    )
    by_path = {(c.attribute, c.modality.value): c for c in certificates}
    counts: dict[str, dict[str, int]] = {}
    largest = groups.orderBy(F.desc("products"), "attribute", "language", "category").limit(UNSEEN_SLICES)
    for row in within_bytes(row.asDict() for row in largest.collect()):
        certificate = by_path.get((row["attribute"], row["modality"]))
        name = _slice_name(certificate, row["language"] or "", row["category"] or "")
        of_attribute = counts.setdefault(row["attribute"], {})
        of_attribute[name] = of_attribute.get(name, 0) + row["products"]
    return dict(sorted(counts.items()))


def _slice_name(certificate: Certificate | None, language: str, category: str) -> str:
    """Return the part of the slice that the certificate has not seen."""
    if certificate is not None and language not in certificate.languages:
        return language_name(language)
    of_category = f"category {category}" if category else "products without a category"
    if certificate is not None and category not in certificate.categories:
        return of_category
    return f"{of_category} in {language_name(language)}"


def add_coverage(
    record: RunRecord, before: Mapping[str, Any], after: Coverage, reasons_of: Mapping[str, ByReason]
) -> None:
    """Add to each attribute's numbers the coverage that readers see after the run, the reasons of the products that it
    decided (:func:`outcomes.by_reason`), and the counts for the next run.

    ``before``: :meth:`Coverage.before` of the first attempt of the run. Its groups are added where they differ.
    """
    known = record.attributes or {}
    coverage = after.numbers()
    for name, numbers in known["decisions"].items():
        numbers["coverage_before"] = before["numbers"].get(name, _SWITCHED_OFF)["coverage"]
        numbers["coverage_after"] = coverage.get(name, _SWITCHED_OFF)["coverage"]
        numbers[REASONS_KEY] = reasons_of.get(name, {})
    change = coverage_groups.difference(coverage_groups.from_rows(before["groups"]), after.groups)
    record.attributes = known | {
        coverage_groups.COVERAGE_KEY: after.to_dict(),
        coverage_groups.CHANGE_KEY: coverage_groups.to_rows(change),
    }


# --- printed and returned --------------------------------------------------------------------------------------------


def say_what_waits(record: RunRecord) -> None:
    """Print a line per attribute with values that wait under the provisional cap."""
    for name, values in (record.attributes or {}).get("waiting", {}).items():
        record.stages.say(reasons.waiting(name, values))


def say_what_needs_attention(record: RunRecord) -> None:
    """Print what waits, what was not written and why, and a warning if most pictures may not be read."""
    say_what_waits(record)
    found = record.attributes or {}
    lines = [*reasons.not_covered(found), *(f"drift: {line}" for line in reasons.drifted(found))]
    drift = found.get(DRIFT_KEY, {})
    compared, strata = drift.get("compared", 0), drift.get("strata", 0)
    if compared < strata:
        lines.append(
            f"drift: compared {compared} of {strata} strata; the others have fewer than drift.min_products products in "
            "this run or in the model version's reference, or none there"
        )
    not_allowed = record.by_reason("unusable_images").get(Reason.IMAGE_NOT_ALLOWED.value, 0)
    predicted = record.counts["predicted"]
    if 2 * not_allowed > predicted:
        lines.append(
            f"warning: the pictures of {not_allowed:,} of {predicted:,} scored products were not read, because their "
            "address is not among those that may be read (image_not_allowed): list their folders in "
            "images.fetch.allowed_folders, or their hosts in images.fetch.private_hosts; a config without [source] "
            "allows no local folder by itself"
        )
    for line in lines:
        record.stages.say(line)


def nothing_to_do(record: RunRecord, waiting: Mapping[str, int]) -> dict[str, Any]:
    """Return the summary of a run that has no product to score: it changes nothing and says so (I5).

    ``waiting``: attribute -> values under the provisional cap.
    """
    record.stages.say(
        f"nothing to do: {record.counts['products']:,} products in the window, none of them new, changed or unscored "
        f"by {record.model_name} version {record.model_version}"
    )
    record.attributes = (record.attributes or {}) | {"waiting": dict(waiting)}
    say_what_waits(record)
    for line in reasons.not_covered(record.attributes):
        record.stages.say(line)
    return summary(record, NOTHING_TO_DO) | {"run_id": None}


def refuse_if_incomplete(summary: Mapping[str, Any]) -> None:
    """Raise GateRefused, with the whole summary, if the run did not decide an attribute or paused a stratum. Everything
    else of it is published."""
    problems = {
        "nothing new is written of an attribute": reasons.stopped(summary),
        "the scores have drifted, and nothing new is written there until set_switch says otherwise": summary["drifted"],
    }
    lines = ["\n  - ".join([f"{what}:", *found]) for what, found in problems.items() if found]
    if lines:
        raise GateRefused("\n".join([*lines, "Everything else was published."]), summary)


def preview(decided: DataFrame, record: RunRecord, over_limit: str | None = None) -> dict[str, Any]:
    """Print the first values that a dry run would publish or suggest; returns its summary.

    ``over_limit``: why the run itself would be refused; also in the summary, as ``would_be_refused``.
    """
    from pyspark.sql import functions as F

    changes = decided.where(F.col("decision") != Decision.ABSTAIN.value)
    for row in changes.orderBy("decision", F.desc("score")).limit(PREVIEW_ROWS).collect():
        record.stages.say(
            f"would {row.decision:<8} {row.attribute} = {row.value!r} for {row.product_id} "
            f"(score {row.score:.3f}, {row.reason})"
        )
    if over_limit:
        record.stages.say(f"warning: this run would be refused: {over_limit}")
    return summary(record, DRY_RUN) | ({"would_be_refused": over_limit} if over_limit else {})


def summary(record: RunRecord, status: str = RunStatus.SUCCEEDED) -> dict[str, Any]:
    """Return the job's JSON line: products = predicted + skipped + quarantined."""
    skipped, found = record.by_reason("skipped"), record.attributes or {}
    return {
        "status": status,
        "run_id": record.run_id,
        "parent_run_id": record.parent_run_id,
        "model_version": record.model_version,
        **{name: record.counts.get(name, 0) for name in ("products", "predicted", "known")},
        "skipped": sum(skipped.values()),
        "skipped_reasons": skipped,
        "remaining": skipped.get(Reason.OVER_LIMIT.value, 0),
        "quarantined": record.by_reason("quarantined"),
        "unusable_images": record.by_reason("unusable_images"),
        "attributes": found.get("decisions", {}),
        "waiting": found.get("waiting", {}),
        "paused": found.get(PAUSED_KEY, []),
        "unseen": found.get(UNSEEN_KEY, {}),
        "drifted": shortened(reasons.drifted(found)),
        "stopped": found.get(STOPPED_KEY, {}),
        "seconds": record.stages.seconds,
    }
