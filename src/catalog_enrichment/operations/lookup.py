"""Finds a product, an attribute, and what readers see and people said about one attribute of a product."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from catalog_enrichment.catalog import ledger, runs
from catalog_enrichment.dictionary import Attribute, Dictionary
from catalog_enrichment.errors import ConfigError
from catalog_enrichment.records import QuarantineStage, Reason, Source
from catalog_enrichment.report import reasons

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from catalog_enrichment.catalog.base import Catalog


@dataclass(frozen=True, kw_only=True, slots=True)
class PersonSet:
    """What a person said last about one attribute of a product, and what stands."""

    values: tuple[str, ...]
    """Sorted; empty: that there is none."""
    run_id: str
    by: str | None = None
    """Who; None where the run has no row in `runs`, or one that does not say it."""
    reason: str | None = None

    @property
    def who_and_why(self) -> str:
        return ": ".join(part for part in (self.by, self.reason) if part)


def known_attribute(dictionary: Dictionary, name: str) -> Attribute:
    """Raises ConfigError for an attribute that is not in the dictionary."""
    if name not in dictionary:
        raise ConfigError(f"no attribute {name!r} in the dictionary; it has {sorted(dictionary.attributes)}")
    return dictionary[name]


def known_product(catalog: Catalog, product_id: str, attribute: str) -> dict[str, Any]:
    """The product's row, without pictures. Raises ConfigError, also with the reason why an import refused it."""
    from pyspark.sql import functions as F

    of_product = F.col("product_id") == product_id
    product = catalog.read("products").where(of_product).drop("images").first()
    if product is not None:
        return dict(product.asDict())
    where = f"no product {product_id!r} in the catalog ({catalog.location('products')})"
    refused = catalog.read("quarantine").where(of_product & (F.col("stage") == QuarantineStage.IMPORT.value))
    newest = refused.orderBy(F.desc("quarantined_at")).first()
    case = reasons.Case(attribute=attribute, detail=(newest["detail"] if newest else None) or "")
    raise ConfigError(f"{where}: {reasons.sentence(Reason(newest['reason']), case)}" if newest else where)


def events_about(catalog: Catalog, product_id: str, attribute: str) -> DataFrame:
    """The ledger's events about one attribute of a product: all that a replay of its values needs."""
    from pyspark.sql import functions as F

    return catalog.read("attribute_values").where(
        (F.col("product_id") == product_id) & (F.col("attribute") == attribute)
    )


def person_set(catalog: Catalog, active: DataFrame) -> PersonSet | None:
    """The newest set of a person among ``active``, assert events about one attribute of one product."""
    from pyspark.sql import functions as F

    newest = ledger.newest_sets(active.where(F.col("source") == Source.HUMAN.value)).first()
    if newest is None:
        return None
    run = runs.find(catalog, newest["run_id"])
    asked = json.loads((run["window"] if run else None) or "{}")
    return PersonSet(
        values=() if ledger.NO_VALUE in newest["values"] else tuple(newest["values"]),
        run_id=newest["run_id"],
        by=asked.get("by"),
        reason=asked.get("reason"),
    )


def seen_in_words(current: Mapping[str, Any] | None, person: PersonSet | None) -> str:
    """What readers see and who gave it; ``current``: a row of `current_values`, None: they see no value."""
    if current is None and person is not None and not person.values:
        return f"no value, as {person.by or 'a person'} said in run {person.run_id}"
    if current is None:
        return "no value"
    by = f"model version {current['model_version']}, run {current['run_id']}"
    if current["source"] == Source.MERCHANT.value:
        by = "the merchant"
    elif current["source"] == Source.HUMAN.value:
        by = f"{(person.by if person else None) or 'a person'}, run {current['run_id']}"
    return f"{', '.join(current['values'])}, by {by}"
