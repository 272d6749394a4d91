"""Explains a value: who wrote it, why, with which certificate, its history, and how to undo it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from catalog_enrichment.catalog import ledger, runs
from catalog_enrichment.errors import ConfigError
from catalog_enrichment.stages import Say, to_stderr

if TYPE_CHECKING:
    from catalog_enrichment.catalog.base import Catalog
    from catalog_enrichment.dictionary import Dictionary


def explain_value(
    catalog: Catalog, dictionary: Dictionary, product_id: str, attribute: str, say: Say = to_stderr
) -> dict[str, Any]:
    """Who wrote a product's value, why, with which certificate, its history, and how to undo it.

    Raises ConfigError for a product or attribute that the catalog does not know.
    """
    from pyspark.sql import functions as F

    if attribute not in dictionary:
        raise ConfigError(f"no attribute {attribute!r} in the dictionary; it has {sorted(dictionary.attributes)}")
    product = catalog.read("products").where(F.col("product_id") == product_id).drop("images").first()
    if product is None:
        raise ConfigError(f"no product {product_id!r} in the catalog ({catalog.location('products')})")
    of_this = (F.col("product_id") == product_id) & (F.col("attribute") == attribute)
    current = catalog.read("current_values").where(of_this).first()
    history = [
        row.asDict() for row in ledger.history(catalog.read("attribute_values"), product_id, attribute).collect()
    ]
    finished = runs.latest_attempts(catalog).select("run_id", F.col("finished_at").alias("decided_at"), "attributes")
    predictions = catalog.read("predictions").where(of_this).join(finished, "run_id")
    decisions = [row.asDict() for row in predictions.orderBy(F.desc("decided_at"), "rank").collect()]
    run_id = current["run_id"] if current else None
    explained = {
        "product_id": product_id,
        "title": product["title"],
        "attribute": attribute,
        "merchant_values": list((product["merchant_attributes"] or {}).get(attribute, [])),
        "current": current.asDict() if current else None,
        "certificate": _certificate(decisions, current["certificate_id"] if current else None),
        "history": history,
        "decisions": [{k: v for k, v in one.items() if k != "attributes"} for one in decisions],
        "undo": f"rollback_run --config FILE --run-id {run_id} --attribute {attribute}" if run_id else None,
    }
    for line in _in_words(explained):
        say(line)
    return explained


def _in_words(explained: dict[str, Any]) -> Iterator[str]:
    current, certificate = explained["current"], explained["certificate"]
    yield f"{explained['product_id']}: {explained['title']}"
    if current:
        by = (
            f"model version {current['model_version']}, run {current['run_id']}"
            if current["run_id"]
            else "the merchant"
        )
        yield f"{explained['attribute']} = {', '.join(current['values'])}, by {by}"
    else:
        yield f"{explained['attribute']} has no value"
    for decision in explained["decisions"][:5]:
        against = f", threshold {decision['threshold']:.3f}" if decision["threshold"] is not None else ""
        yield (
            f"  {decision['decided_at']:%Y-%m-%d %H:%M} version {decision['model_version']} "
            f"proposed {decision['value']!r}, score {decision['score']:.3f}{against}: "
            f"{decision['decision']} ({decision['reason']})"
        )
    if certificate:
        yield f"  certificate {certificate['certificate_id'][:12]}: {certificate['claim']}"
    for event in explained["history"]:
        yield f"  {event['asserted_at']:%Y-%m-%d %H:%M} {event['op']} {event['value']!r} by run {event['run_id']}"
    if explained["undo"]:
        yield f"  to undo: {explained['undo']}"


def _certificate(decisions: list[dict[str, Any]], certificate_id: str | None) -> dict[str, Any] | None:
    """The certificate as it stood in the run that used it; without a current value, the last one consulted."""
    for decision in decisions:
        for certificate in json.loads(decision["attributes"] or "{}").get("certificates", []):
            if certificate["certificate_id"] == (certificate_id or decision["certificate_id"]):
                return dict(certificate)
    return None
