"""Decisions that a killed run has landed, and whether they may still be published when it is started again."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from catalog_enrichment.catalog import verdicts
from catalog_enrichment.enrichment import provisional_cap
from catalog_enrichment.records import Decision

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from catalog_enrichment.catalog.base import Catalog
    from catalog_enrichment.enrichment.provisional_cap import ProvisionalCap
    from catalog_enrichment.precision.certificate import Certificate


def read(catalog: Catalog, run_id: str) -> DataFrame | None:
    """The decisions that ``run_id`` has landed (contract `predictions`); None if it has landed none."""
    if not catalog.committed("predictions", run_id):
        return None
    rows = catalog.read("predictions")
    return rows.where(rows["run_id"] == run_id)


def void(
    catalog: Catalog, run_id: str, certificates: Iterable[Certificate], active: DataFrame, cap: ProvisionalCap
) -> bool:
    """Whether ``run_id`` has landed decisions that must not be published any more (I2).

    A certificate has expired since, a reviewer has refused a value, or other runs have taken the room under the
    provisional cap. (A switch that was moved makes another run.) Not after the run's
    commit to the ledger: then its values are visible. ``certificates``: the model's; ``active``: the assert events
    whose values stand.
    """
    from pyspark.sql import functions as F

    decided = read(catalog, run_id)
    if decided is None or catalog.committed("attribute_values", run_id):
        return False
    now = datetime.now(UTC)
    expired = [one.certificate_id for one in certificates if now >= one.expires_at]
    published = F.col("decision") == Decision.PUBLISH.value
    if decided.where(published & F.col("certificate_id").isin(expired)).limit(1).count():
        return True
    if refused := verdicts.refused(catalog):
        keys = decided.sparkSession.createDataFrame(
            sorted(refused), "product_id string, attribute string, value string"
        )
        if decided.where(published).join(keys, ["product_id", "attribute", "value"], "left_semi").limit(1).count():
            return True
    attributes = provisional_cap.may_exceed(decided, active, cap)
    if not attributes:
        return False
    fitting = provisional_cap.withhold(decided, active, cap, attributes)
    return bool(fitting.where(published).count() < decided.where(published).count())
