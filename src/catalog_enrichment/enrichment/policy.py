"""What keeps a scored value from being written, and what takes a written value back without a decision.

Suppressed: the decision becomes an abstention, and its reason says why.

    PAUSED               a switch is not on: of the attribute, category, shop, certificate, value or stratum
    REFUSED_BY_PERSON    a reviewer said that the value is wrong
    PROVISIONAL_CAP      there is no room under the cap on values of provisional certificates

Retracted: the run itself retracts an active model value that no decision replaces (PRECISION, "One version at a time").

    SWITCHED_OFF         its attribute, shop, category, value or certificate is switched off, or the attribute does not
                         apply to the product's category
    VALUE_REMOVED        the dictionary does not list it any more
    SUPERSEDED           it would be seen again in place of a value that is switched off or removed
    CONTENT_CHANGED      it was decided on other content, and this model does not decide the new content: it could not
                         score it, or has no head for the attribute

Resumed: decisions that a killed run had landed are published only if all of them still may be (:func:`may_resume`).

What merchants and people gave is never touched. When the cause is gone the attribute is pending again (:mod:`pending`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from catalog_enrichment.catalog import ledger, review_tables, switches
from catalog_enrichment.catalog.switches import Scope, State, Switches
from catalog_enrichment.dictionary import Dictionary
from catalog_enrichment.reasons import ADMINISTRATIVE, Reason
from catalog_enrichment.records import Decision
from catalog_enrichment.spark import category_filters, value_columns

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

    from catalog_enrichment.catalog.lake import Catalog
    from catalog_enrichment.enrichment.request import ProvisionalCap, RunRequest

_KEY = ["product_id", "attribute"]

_NOT_ON = (State.PAUSED, State.OFF)

_UNTOUCHED_BY_SWITCHES = {Reason.AGREES_WITH_MERCHANT, Reason.HUMAN_VALUE_STANDS, *ADMINISTRATIVE}
"""Reasons that stay as they are under a switch: nothing would be written without it either."""


# --- suppressed by switches and reviewers ----------------------------------------------------------------------------


def suppress(catalog: Catalog, request: RunRequest, decided: DataFrame, scored: DataFrame) -> DataFrame:
    """Return ``decided`` with abstentions for what switches and reviewers forbid now; ``scored``: with ``shop_id``.

    The switches are read once more, because scoring may have taken hours: a switch that was moved meanwhile counts. An
    attribute, shop or category that was off when the run began was not scored at all.
    """
    now = switches.read(catalog).with_more(request.drifted)
    switched = without_paused(decided, scored, now, catalog.dictionary)
    return without_refused(switched, review_tables.refused(catalog), catalog.dictionary)


def without_paused(decided: DataFrame, scored: DataFrame, now: Switches, dictionary: Dictionary) -> DataFrame:
    """Return ``decided`` with an abstention, reason PAUSED, wherever a switch is not on.

    ``dictionary``: says whether a value is the switch's.
    """
    from pyspark.sql import functions as F

    if not now.entries:
        return decided
    shops = now.targets(Scope.SHOP, *_NOT_ON)
    of_shops = scored.where(F.col("shop_id").isin(shops)).select("product_id", F.lit(True).alias("of_shop"))
    marked = decided.join(of_shops, "product_id", "left") if shops else decided.withColumn("of_shop", F.lit(False))
    paused = (
        F.coalesce("of_shop", F.lit(False))
        | F.col("attribute").isin([switch.attribute for switch in now.of(Scope.ATTRIBUTE, *_NOT_ON)])
        | category_filters.below(now.targets(Scope.CATEGORY, *_NOT_ON))
        | F.coalesce(F.col("certificate_id").isin(now.targets(Scope.CERTIFICATE, *_NOT_ON)), F.lit(False))
        | _named(now, Scope.STRATUM, stratum(), *_NOT_ON)
    )
    untouched = F.col("reason").isin([reason.value for reason in _UNTOUCHED_BY_SWITCHES])
    value = _switched_value(now, dictionary, *_NOT_ON) & (F.col("decision") != Decision.ABSTAIN.value)
    return _abstaining(marked, (paused & ~untouched) | value, Reason.PAUSED).select(*decided.columns)


def without_refused(decided: DataFrame, refused: Collection[review_tables.Key], dictionary: Dictionary) -> DataFrame:
    """Return ``decided`` with an abstention, reason REFUSED_BY_PERSON, for values that a reviewer refused.

    ``dictionary``: says whether a value is a refused one.
    """
    from pyspark.sql import functions as F

    if not refused:
        return decided
    marked = decided.join(F.broadcast(value_columns.sets_of(decided, refused, "refused")), _KEY, "left")
    is_refused = value_columns.is_among(dictionary, F.col("value"), F.col("refused"))
    would_be_written = is_refused & (F.col("decision") != Decision.ABSTAIN.value)
    return _abstaining(marked, would_be_written, Reason.REFUSED_BY_PERSON).select(*decided.columns)


def stratum() -> Column:
    """Return switches.stratum_name of a row with modality, language and category."""
    from pyspark.sql import functions as F

    first_level = F.split_part(F.coalesce("category", F.lit("")), F.lit("/"), F.lit(1))
    return F.concat_ws("/", "modality", F.coalesce("language", F.lit("")), first_level)


def _named(now: Switches, scope: Scope, target: Column, *states: State) -> Column:
    """Return whether a switch of ``scope`` names the row's attribute and ``target``."""
    from pyspark.sql import functions as F

    named = F.lit(False)
    for switch in now.of(scope, *states):
        named = named | ((F.col("attribute") == switch.attribute) & (target == switch.target))
    return named


def _switched_value(now: Switches, dictionary: Dictionary, *states: State) -> Column:
    """Return whether a switch is about the row's value."""
    from pyspark.sql import functions as F

    targets: dict[str, list[str]] = {}
    for switch in now.of(Scope.VALUE, *states):
        targets.setdefault(switch.attribute, []).append(switch.target)
    of_attribute = F.lit(None).cast("array<string>")
    for name, values in targets.items():
        of_attribute = F.when(F.col("attribute") == name, F.array(*map(F.lit, values))).otherwise(of_attribute)
    return value_columns.is_among(dictionary, F.col("value"), of_attribute) if targets else F.lit(False)


def _abstaining(decided: DataFrame, where: Column, reason: Reason) -> DataFrame:
    from pyspark.sql import functions as F

    instead = {"decision": Decision.ABSTAIN.value, "reason": reason.value}
    return decided.withColumns({name: F.when(where, value).otherwise(F.col(name)) for name, value in instead.items()})


# --- suppressed by the cap on values of provisional certificates (PRECISION, certificate 11) -------------------------
#
# Merchant labels make a certificate provisional, and a uniform audit of the catalog confirms it. Until then at most
# `precision.provisional_cap` values per attribute are active under such certificates, and what a run would publish
# beyond that waits:
#
#     room     the cap less the active values. Counted is the newest model set of each product, also where a merchant's
#              value, a human's value or an opt-out hides it from readers, because it may be seen again.
#     claim    how many values a product needs that are not there yet. A set that replaces a set of the same size claims
#              nothing; what the run retracts makes room.
#     order    the highest score first (of a set its lowest score), then the product id. The first product that does not
#              fit ends the list, so that the same products fit when the same claims are compared again.
#
# A rollback restores what readers saw, and so may exceed the cap; nothing is added until there is room again. The
# chunks of a backfill are runs of their own: the highest scores come first within a chunk, not over all chunks.


def over_provisional_cap(decided: DataFrame, ledger_before: ledger.Totals, cap: ProvisionalCap) -> list[str]:
    """Return the attributes with values to publish that may be more than the room: for :func:`suppress_over_cap`.

    ``decided``: rows of the contract `predictions`. All values count that were ever asserted under a provisional
    certificate, also those that are not active any more.
    """
    from pyspark.sql import functions as F

    published = decided.where((F.col("decision") == Decision.PUBLISH.value) & cap.provisional())
    values = Counter({row["attribute"]: row["count"] for row in published.groupBy("attribute").count().collect()})
    new = set(values)
    for (attribute, certificate_id), number in ledger_before.asserted.items():
        if certificate_id not in cap.confirmed:
            values[attribute] += number
    return sorted(name for name in new if values[name] > cap.limit)


def suppress_over_cap(
    decided: DataFrame, active: DataFrame, cap: ProvisionalCap, attributes: Collection[str]
) -> DataFrame:
    """Return ``decided`` with an abstention, reason PROVISIONAL_CAP, for each value of ``attributes`` without room.

    A product's whole set is published or waits. Certificate id, threshold and score stay.
    """
    from pyspark.sql import functions as F

    is_published = F.col("decision") == Decision.PUBLISH.value
    mine, there = (rows.where(F.col("attribute").isin(sorted(attributes))) for rows in (decided, active))
    retracted = ledger.contradicted(there, mine).select("event_id")
    held = _held(there.join(retracted, "event_id", "left_anti"), cap)
    wanted = (
        mine.where(is_published)
        .groupBy(*_KEY)
        .agg(F.count_if(cap.provisional()).alias("wanted"), F.min("score").alias("score"))
    )
    sets = held.join(wanted, _KEY, "full").select(
        *_KEY, F.coalesce("held", F.lit(0)).alias("held"), F.coalesce("wanted", "held").alias("wanted"), "score"
    )
    room = _room(sets.select("attribute", F.least("held", "wanted").alias("values")), cap)
    claims = sets.withColumn("claim", F.col("wanted") - F.col("held")).where("claim > 0")
    waits = claims.join(_fitting(claims, room, cap), _KEY, "left_anti").select(*_KEY, F.lit(True).alias("waits"))
    no_room = is_published & F.coalesce("waits", F.lit(False))
    return _abstaining(decided.join(waits, _KEY, "left"), no_room, Reason.PROVISIONAL_CAP).select(*decided.columns)


def with_room(waiting: DataFrame, active: DataFrame, cap: ProvisionalCap) -> DataFrame:
    """Return ``waiting`` with ``fits``: true where there is room for the product's values now, else null.

    ``waiting``: product_id, attribute, values (how many wait) and score, of decisions with the reason PROVISIONAL_CAP.
    """
    from pyspark.sql import functions as F

    held = _held(active, cap)
    room = _room(held.select("attribute", F.col("held").alias("values")), cap)
    more = F.col("values") - F.coalesce("held", F.lit(0))
    claims = waiting.join(held, _KEY, "left").withColumn("claim", F.greatest(more, F.lit(0))).drop("held")
    return claims.drop("claim").join(_fitting(claims, room, cap).withColumn("fits", F.lit(True)), _KEY, "left")


def _fitting(claims: DataFrame, room: DataFrame, cap: ProvisionalCap) -> DataFrame:
    """Return product_id and attribute of the claims with room: highest scores first, up to the first without room.

    ``claims``: product_id, attribute, claim, score; ``room``: attribute, room; attributes without a row have all of it.
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    left = F.coalesce("room", F.lit(cap.limit))
    best_first = Window.partitionBy("attribute").orderBy(F.desc("score"), "product_id")
    up_to_here = best_first.rowsBetween(Window.unboundedPreceding, Window.currentRow)
    some_room = claims.join(F.broadcast(room), "attribute", "left").where(left > 0)
    return some_room.withColumn("taken", F.sum("claim").over(up_to_here)).where(F.col("taken") <= left).select(*_KEY)


def _held(active: DataFrame, cap: ProvisionalCap) -> DataFrame:
    """Return per product and attribute ``held``: the values of its newest model set, if that is provisional."""
    from pyspark.sql import functions as F

    newest = ledger.newest_sets(active.where(ledger.by_model()))
    return newest.where(cap.provisional()).select(*_KEY, F.size("values").alias("held"))


def _room(sets: DataFrame, cap: ProvisionalCap) -> DataFrame:
    """Return attribute and ``room``, negative above the cap. ``sets``: attribute, values."""
    from pyspark.sql import functions as F

    return sets.groupBy("attribute").agg((F.lit(cap.limit) - F.sum("values")).alias("room"))


# --- retracted without a decision ------------------------------------------------------------------------------------


def to_retract(active: DataFrame, products: DataFrame, request: RunRequest, removed: bool = True) -> DataFrame:
    """Return the rows of ``active`` (assert events) to retract; ``contradiction`` says why.

    ``products``: product_id, content_hash, shop_id, category and ``refused`` (this version could not score the
    content), of the run's window; values of other products are left alone. ``removed``: look for values that the
    dictionary does not list; not needed where an earlier run has looked with the same dictionary.
    """
    from pyspark.sql import functions as F

    shops, categories = request.rules.disabled_shops, request.rules.disabled_categories
    applies = [F.when(category_filters.applies(attribute), attribute.name) for attribute in request.enabled]
    facts = products.select(
        "product_id",
        F.array_compact(F.array(*applies)).cast("array<string>").alias("allowed"),
        F.col("content_hash").alias("new_content"),
        "refused",
        (F.col("shop_id").isin(shops) | category_filters.below(categories)).alias("off"),
    )
    decidable = F.col("attribute").isin([attribute.name for attribute in request.attributes])
    switched_off = F.coalesce("off", F.lit(False)) | ~F.array_contains("allowed", F.col("attribute"))
    stale = _on_other_content() & (F.col("refused") | ~decidable)
    reason = F.when(switched_off, Reason.SWITCHED_OFF.value).when(stale, Reason.CONTENT_CHANGED.value)
    joined = active.where(ledger.by_model()).join(facts, "product_id").withColumn("contradiction", reason)
    retracted = joined.where(F.col("contradiction").isNotNull()).select(*active.columns, "contradiction")
    return _with_switched_off(active, products, retracted, request, removed)


def _with_switched_off(
    active: DataFrame, products: DataFrame, retracted: DataFrame, request: RunRequest, look_for_removed: bool
) -> DataFrame:
    """Return ``retracted`` and the values of ``products`` that are switched off or removed, or whose certificate is
    switched off.

    Where a value is, the set that it replaced is not seen again: a newer decision had replaced it. Where a certificate
    is, readers see what they saw before it wrote, as after a rollback.
    """
    from pyspark.sql import functions as F

    now = request.switches
    certificates = now.targets(Scope.CERTIFICATE, State.OFF)
    not_listed = F.lit(False)
    for attribute in request.enabled:
        not_listed |= (F.col("attribute") == attribute.name) & ~value_columns.lists(attribute)
    some_removed = look_for_removed and not active.where(ledger.by_model()).where(not_listed).isEmpty()
    if not certificates and not some_removed and not now.of(Scope.VALUE, State.OFF):
        return retracted
    rest = active.join(products.select("product_id"), "product_id", "left_semi")
    rest = rest.join(retracted.select("event_id"), "event_id", "left_anti").where(ledger.by_model())
    rest = rest.withColumn("contradiction", F.lit(Reason.SWITCHED_OFF.value))
    by_certificate = F.coalesce(F.col("certificate_id").isin(certificates), F.lit(False))
    others = rest.where(~by_certificate)
    dictionary = Dictionary({attribute.name: attribute for attribute in request.enabled})
    off = _switched_value(now, dictionary, State.OFF)
    reason = F.when(off, F.col("contradiction")).otherwise(Reason.VALUE_REMOVED.value)
    by_value = others.where(off | not_listed).withColumn("contradiction", reason)
    found = rest.where(by_certificate).unionByName(ledger.with_replaced(others, by_value))
    return retracted.unionByName(found.select(*retracted.columns))


def of_refused(active: DataFrame, scored: DataFrame) -> DataFrame:
    """Return the rows of ``active`` to retract because this run could not score the product's new content.

    ``scored``: product_id, content_hash and ``error``.
    """
    from pyspark.sql import functions as F

    refused = scored.where(F.col("error").isNotNull()).select("product_id", F.col("content_hash").alias("new_content"))
    stale = active.where(ledger.by_model()).join(refused, "product_id").where(_on_other_content())
    return stale.select(*active.columns, F.lit(Reason.CONTENT_CHANGED.value).alias("contradiction"))


def _on_other_content() -> Column:
    from pyspark.sql import functions as F

    return ~F.col("content_hash").eqNullSafe(F.col("new_content"))


# --- resumed ---------------------------------------------------------------------------------------------------------


def landed_decisions(catalog: Catalog, run_id: str) -> DataFrame | None:
    """Return the decisions that an earlier attempt of ``run_id`` landed (contract `predictions`); None without any."""
    if not catalog.committed("predictions", run_id):
        return None
    rows = catalog.read("predictions")
    return rows.where(rows["run_id"] == run_id)


def may_resume(
    catalog: Catalog, request: RunRequest, state: ledger.LedgerState, retracted: DataFrame, run_id: str
) -> bool:
    """Return whether everything that an earlier attempt of ``run_id`` landed may still be published (I2).

    Not if a certificate has expired since, a reviewer has refused a value, or other runs have taken the room under the
    provisional cap. (A switch that was moved makes another run.) After the run's commit to the ledger its values are
    visible, and it may resume. ``retracted``: what the run retracts without a decision: it had decided with the room
    that it leaves.
    """
    from pyspark.sql import functions as F

    decided = landed_decisions(catalog, run_id)
    if decided is None or catalog.committed("attribute_values", run_id):
        return True
    published = decided.where(F.col("decision") == Decision.PUBLISH.value)
    now = datetime.now(UTC)
    expired = [c.certificate_id for c in request.model.certificates if now >= c.expires_at]
    if not published.where(F.col("certificate_id").isin(expired)).isEmpty():
        return False
    now_refused = without_refused(published, review_tables.refused(catalog), catalog.dictionary)
    if not now_refused.where(F.col("reason") == Reason.REFUSED_BY_PERSON.value).isEmpty():
        return False
    attributes = over_provisional_cap(decided, state.totals, request.cap)
    if not attributes:
        return True
    fitting = suppress_over_cap(decided, state.active().without(retracted).events, request.cap, attributes)
    return bool(fitting.where(F.col("decision") == Decision.PUBLISH.value).count() == published.count())
