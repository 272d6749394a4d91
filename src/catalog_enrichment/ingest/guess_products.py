"""Guesses what one product is in a file: an export of a shop system, several rows per product, attributes as pairs."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from catalog_enrichment.config.source import ROW_FORMATS
from catalog_enrichment.errors import ConfigError
from catalog_enrichment.ingest.exports import Recognised, recognise
from catalog_enrichment.ingest.file_sample import FileSample
from catalog_enrichment.ingest.shop_rows import RowPlan, pairs_in, product_rows

_LOOKED_AT = 500
"""Cells of a column that are looked at for pairs."""
_NAME_COLUMN = re.compile(r"(.*?\d+[ _-]*)(?:name|key|label)", re.IGNORECASE)
_VALUE_COLUMNS = (
    "value",
    "value(s)",
    "values",
    "wert",
    "wert(e)",
    "werte",
    "valeur",
    "valeur(s)",
    "valor",
    "valor(es)",
)
_TEXT_ROLES = ("title", "description", "category", "product_id", "language", "shop_id")


@dataclass(frozen=True, kw_only=True, slots=True)
class ProductSample:
    """A sample with a row per product."""

    sample: FileSample
    export: Recognised | None = None
    """The kind of export that the file is."""
    pair_texts: Mapping[str, str] = field(default_factory=dict)
    """Column with pairs in a text -> why."""
    pair_columns: Mapping[str, str] = field(default_factory=dict)
    """Column with an attribute's name -> column with its value."""

    merged_by: str = ""
    """Column of the product id whose rows the user wants to be one product."""

    @property
    def variants(self) -> Mapping[str, object]:
        """Return the section `source.variants`; empty where each row is a product."""
        if self.merged_by:
            return {"same_id": True}
        return self.export.variants if self.export else {}

    def pairs_read(self) -> set[str]:
        """Return the columns whose keys have become columns of their own."""
        return {*self.pair_texts, *self.pair_columns, *self.pair_columns.values()}


def products_in(sample: FileSample, merge_by: str = "") -> ProductSample:
    """Return the sample with a row per product and a column per key of its pairs.

    ``merge_by``: the product id's column, if the user says that its rows are one product. Raises ConfigError where the
    format's rows cannot be merged.
    """
    if sample.format not in ROW_FORMATS:
        if merge_by:
            raise ConfigError(f"--merge-rows is for {', '.join(ROW_FORMATS)}, not for {sample.format}")
        return ProductSample(sample=sample, export=_without_rows(recognise(list(sample.columns))))
    # a JSON list of an API has other cells than the system's CSV with the same names
    export = recognise(list(sample.columns)) if sample.format != "json_list" else None
    pair_columns = dict(export.pair_columns if export else {}) or _pair_columns(list(sample.columns))
    texts = dict.fromkeys(export.pair_texts, f"as in {export.name}'s exports") if export else {}
    reads = export.columns() if export else set()
    texts = texts or {
        name: why for name, values in sample.columns.items() if name not in reads and (why := _pair_text(values))
    }
    roles = [column for role in _TEXT_ROLES for column in (export.roles.get(role, []) if export else [])]
    variants: Mapping[str, Any] = export.variants if export else {}
    plan = RowPlan(
        id_selectors=(merge_by,) if merge_by else tuple(export.roles["product_id"]) if export else (),
        same_id=bool(merge_by or variants.get("same_id")),
        parent=variants.get("parent", ""),
        view=variants.get("view", ""),
        kind=variants.get("kind", ""),
        product_kinds=frozenset(kind.casefold() for kind in variants.get("product_kinds", [])),
        collected=frozenset(sample.columns) - {*roles, merge_by},
        pair_texts=tuple(texts),
        pair_columns=tuple(pair_columns.items()),
    )
    found = ProductSample(sample=sample, export=export, pair_texts=texts, pair_columns=pair_columns, merged_by=merge_by)
    if not (plan.merges or plan.has_pairs):
        return found
    cells = zip(*sample.columns.values(), strict=True)
    rows = [(number, dict(zip(sample.columns, row, strict=True))) for number, row in enumerate(cells)]
    products = [product.cells for product in product_rows(rows, plan)]
    names = dict.fromkeys([*sample.columns, *(name for product in products for name in product)])
    columns = {name: [product.get(name) for product in products] for name in names}
    return replace(found, sample=replace(sample, columns=columns, rows=len(products)))


def _without_rows(export: Recognised | None) -> Recognised | None:
    """Return the export for a format whose rows cannot be merged: each row is a product."""
    return export and replace(export, variants={}, pair_texts=[], pair_columns={})


def _pair_columns(names: Sequence[str]) -> dict[str, str]:
    """Return (name, value) pairs of numbered columns: `Attribute 1 name` and `Attribute 1 value(s)`."""
    lower = {name.casefold(): name for name in names}
    found: dict[str, str] = {}
    for name in names:
        if match := _NAME_COLUMN.fullmatch(name):
            value = next((lower[key] for end in _VALUE_COLUMNS if (key := match[1].casefold() + end) in lower), "")
            found |= {name: value} if value else {}
    return found


def _pair_text(values: Sequence[Any]) -> str:
    """Return why a column holds pairs in its texts; empty if it does not."""
    texts = [value for value in values if isinstance(value, str) and value.strip()][:_LOOKED_AT]
    if not texts:
        return ""
    pairs = [pairs_in(text) for text in texts]
    keys = Counter(key for found in pairs for key in found)
    frequent = [key for key, number in keys.items() if number >= 0.3 * len(texts) and len(key.split()) <= 4]
    # a single pair may be any text with a colon, unless it is JSON
    clear = sum(len(found) > 1 or text.lstrip()[:1] in "[{" for found, text in zip(pairs, texts, strict=True))
    if sum(map(bool, pairs)) < 0.8 * len(texts) or not frequent or clear < 0.5 * len(texts):
        return ""
    return f"its texts hold keys with values: {', '.join(frequent[:3])}"
