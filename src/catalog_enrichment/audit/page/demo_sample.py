"""A uniform sample of the model values that readers see, drawn without Spark: for the demo and for tests of the page.

audit_sample draws the samples that estimates rest on: with strata, and with the probability of every row kept.
"""

from __future__ import annotations

import random
from datetime import datetime
from typing import TYPE_CHECKING, Any

from catalog_enrichment.audit.items import Item, Purpose, Sample
from catalog_enrichment.errors import DataContractError
from catalog_enrichment.records import Source, stable_hash

if TYPE_CHECKING:
    from catalog_enrichment.catalog.base import Catalog
    from catalog_enrichment.dictionary import Dictionary

_OF_PRODUCT = ("product_id", "shop_id", "title", "description", "category", "language", "images")


def draw(
    catalog: Catalog, dictionary: Dictionary, count: int, drawn_at: datetime, reviewers: int = 2
) -> tuple[Sample, list[Item]]:
    """``count`` values (all, if there are fewer), the same for the same catalog. Raises DataContractError for none."""
    version = catalog.version("current_values")
    seen = [
        (row["product_id"], row["attribute"], value)
        for batch in catalog.scan("current_values", ("product_id", "attribute", "values", "source"))
        for row in batch.to_pylist()
        if row["source"] == Source.MODEL.value and row["attribute"] in dictionary
        for value in row["values"]
    ]
    if not seen:
        raise DataContractError(
            f"no model value is seen in {catalog.location('current_values')}: run enrich_catalog first"
        )
    drawn = random.Random(version).sample(sorted(seen), min(count, len(seen)))
    wanted = {product_id for product_id, _, _ in drawn}
    products: dict[str, dict[str, Any]] = {
        row["product_id"]: row
        for batch in catalog.scan("products", _OF_PRODUCT)
        for row in batch.to_pylist()
        if row["product_id"] in wanted
    }
    sample_id = f"demo-{stable_hash(version, count, reviewers)[:12]}"
    title = f"{len(drawn)} of {len(seen):,} values that the model wrote"
    sample = Sample(sample_id=sample_id, purpose=Purpose.AUDIT, drawn_at=drawn_at, reviewers=reviewers, title=title)
    return sample, [_item(sample_id, dictionary, one, products[one[0]]) for one in drawn if one[0] in products]


def _item(sample_id: str, dictionary: Dictionary, key: tuple[str, str, str], product: dict[str, Any]) -> Item:
    product_id, attribute, value = key
    return Item(
        item_id=Item.id_of(sample_id, product_id, attribute, value),
        sample_id=sample_id,
        **{name: product[name] or "" for name in _OF_PRODUCT[:-1]},
        images=tuple((one["uri"] or "", one["version"] or "") for one in product["images"] or () if one),
        attribute=attribute,
        cardinality=dictionary[attribute].cardinality,
        value=value,
    )
