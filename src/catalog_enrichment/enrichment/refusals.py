"""What a run did not write although it scored it, by name: switches that are not on, and slices that no certificate
covers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from catalog_enrichment.catalog import switches
from catalog_enrichment.precision.claim import language_name
from catalog_enrichment.records import Reason
from catalog_enrichment.report.withheld import PAUSED, UNSEEN

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from catalog_enrichment.catalog.base import Catalog
    from catalog_enrichment.enrichment.request import RunRequest
    from catalog_enrichment.precision.certificate import Certificate

LIMIT = 50
"""Most slices that are named."""


def found(catalog: Catalog, request: RunRequest, decided: DataFrame) -> dict[str, Any]:
    """``paused``: the switches that are not on, in words; ``unseen``: attribute -> slice -> products."""
    now = switches.read(catalog).with_more(request.drifted)
    paused = [f"{one} is {one.state.value}: {one.why}" for one in now.entries]
    return {PAUSED: paused, UNSEEN: _unseen(request.model.certificates, decided)}


def _unseen(certificates: Iterable[Certificate], decided: DataFrame) -> dict[str, dict[str, int]]:
    from pyspark.sql import functions as F

    refused = decided.where(F.col("reason") == Reason.UNSEEN_SLICE.value)
    groups = refused.groupBy("attribute", "modality", "language", "category").agg(
        F.countDistinct("product_id").alias("products")
    )
    by_path = {(one.attribute, one.modality.value): one for one in certificates}
    counts: dict[str, dict[str, int]] = {}
    for row in groups.orderBy(F.desc("products"), "attribute", "language", "category").limit(LIMIT).collect():
        name = _slice(by_path.get((row["attribute"], row["modality"])), row["language"] or "", row["category"] or "")
        of_attribute = counts.setdefault(row["attribute"], {})
        of_attribute[name] = of_attribute.get(name, 0) + row["products"]
    return dict(sorted(counts.items()))


def _slice(certificate: Certificate | None, language: str, category: str) -> str:
    """What of the slice the certificate has not seen."""
    if certificate is not None and language not in certificate.languages:
        return language_name(language)
    of_category = f"category {category}" if category else "products without a category"
    if certificate is not None and category not in certificate.categories:
        return of_category
    return f"{of_category} in {language_name(language)}"
