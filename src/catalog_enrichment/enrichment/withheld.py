"""Decisions that a switch or a reviewer forbids: they abstain, and the reason says so.

The switches are read here once more, after the scoring, which may have taken hours: one that was moved while the run
was going on counts. An attribute, shop or category that was off when the run began is not scored at all.

    PAUSED               the attribute, category, shop, certificate, value or stratum is paused or off: the score is not
                         used, older values stand, and the attribute is pending again when a switch is moved
    REFUSED_BY_PERSON    a reviewer said that the value is wrong

Pure functions over Spark DataFrames, but for the reading.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from catalog_enrichment.catalog import category_filters, switches, verdicts
from catalog_enrichment.catalog.switches import Scope, State, Switches
from catalog_enrichment.records import ADMINISTRATIVE, Decision, Reason

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

    from catalog_enrichment.catalog.base import Catalog
    from catalog_enrichment.enrichment.request import RunRequest

_KEPT = {Reason.AGREES_WITH_MERCHANT, Reason.HUMAN_VALUE_STANDS, *ADMINISTRATIVE}
"""Reasons that stay as they are under a switch: nothing would be written without it either."""


def withhold(catalog: Catalog, request: RunRequest, decided: DataFrame, scored: DataFrame, run_id: str) -> DataFrame:
    """``decided`` without what must not be written now; ``scored``: the products, with ``shop_id``.

    Decisions that were landed stay as they are.
    """
    if catalog.committed("predictions", run_id):
        return decided
    now = switches.read(catalog).with_more(request.drifted)
    return without_refused(paused(decided, scored, now), verdicts.refused(catalog))


def paused(decided: DataFrame, scored: DataFrame, now: Switches) -> DataFrame:
    """``decided`` with an abstention, reason PAUSED, wherever a switch is not on."""
    from pyspark.sql import functions as F

    if not now.entries:
        return decided
    not_on = (State.PAUSED, State.OFF)
    columns = decided.columns
    if shops := now.targets(Scope.SHOP, *not_on):
        of_shops = scored.where(F.col("shop_id").isin(shops)).select("product_id", F.lit(True).alias("of_shop"))
        decided = decided.join(of_shops, "product_id", "left")
    else:
        decided = decided.withColumn("of_shop", F.lit(False))
    whole = (
        F.coalesce("of_shop", F.lit(False))
        | F.col("attribute").isin([one.attribute for one in now.of(Scope.ATTRIBUTE, *not_on)])
        | category_filters.below(now.targets(Scope.CATEGORY, *not_on))
        | F.coalesce(F.col("certificate_id").isin(now.targets(Scope.CERTIFICATE, *not_on)), F.lit(False))
        | _pair("attribute", stratum(), now, Scope.STRATUM)
    )
    this_value = _pair("attribute", F.col("value"), now, Scope.VALUE) & (F.col("decision") != Decision.ABSTAIN.value)
    kept = F.col("reason").isin([reason.value for reason in _KEPT])
    return _abstaining(decided, (whole & ~kept) | this_value, Reason.PAUSED).select(*columns)


def without_refused(decided: DataFrame, refused: Collection[verdicts.Key]) -> DataFrame:
    """``decided`` with an abstention, reason REFUSED_BY_PERSON, for values that a reviewer refused."""
    from pyspark.sql import functions as F

    if not refused:
        return decided
    key = ["product_id", "attribute", "value"]
    rows = decided.sparkSession.createDataFrame(sorted(refused), ", ".join(f"{name} string" for name in key))
    marked = decided.join(F.broadcast(rows.withColumn("refused", F.lit(True))), key, "left")
    wrong = F.coalesce("refused", F.lit(False)) & (F.col("decision") != Decision.ABSTAIN.value)
    return _abstaining(marked, wrong, Reason.REFUSED_BY_PERSON).select(*decided.columns)


def stratum() -> Column:
    """:func:`catalog_enrichment.catalog.switches.stratum_name` of a row with modality, language and category."""
    from pyspark.sql import functions as F

    first_level = F.split_part(F.coalesce("category", F.lit("")), F.lit("/"), F.lit(1))
    return F.concat_ws("/", "modality", F.coalesce("language", F.lit("")), first_level)


def _pair(name: str, target: Column, now: Switches, scope: Scope) -> Column:
    """Whether a switch of ``scope`` names the row's attribute and ``target``."""
    from pyspark.sql import functions as F

    named = F.lit(False)
    for one in now.of(scope, State.PAUSED, State.OFF):
        named = named | ((F.col(name) == one.attribute) & (target == one.target))
    return named


def _abstaining(decided: DataFrame, where: Column, reason: Reason) -> DataFrame:
    from pyspark.sql import functions as F

    instead = {"decision": Decision.ABSTAIN.value, "reason": reason.value}
    return decided.withColumns({name: F.when(where, value).otherwise(F.col(name)) for name, value in instead.items()})
