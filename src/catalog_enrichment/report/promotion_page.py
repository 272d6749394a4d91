"""The page of `promote_model --dry-run`: the gate's answer, and what readers would see change, with samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from catalog_enrichment.report.run_page import TEMPLATES, thumbnail
from catalog_enrichment.web import pages

KINDS = ("added", "changed", "retracted", "unchanged")
"""The kinds of changes of a product's values of an attribute."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ValueChange:
    """The values of one product and attribute before and after."""

    product_id: str
    attribute: str
    kind: str
    old: Sequence[str]
    new: Sequence[str]
    title: str = ""
    picture: bytes | None = None
    """The encoded picture."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PromotionReport:
    gate: Mapping[str, Any]
    """The gate's summary: model_name, model_version, champion_before, verdict, reasons, comparisons."""
    products: int
    """Products that were looked at."""
    catalog_products: int
    provisional_cap: int
    """`precision.provisional_cap`, which the counts respect."""
    counts: Mapping[str, Mapping[str, int]]
    """Attribute -> kind -> products."""
    samples: Sequence[ValueChange]


def write_promotion_report(path: Path, report: PromotionReport) -> Path:
    """Write the page to ``path`` and return ``path``."""
    cards: dict[str, list[dict[str, Any]]] = {}
    for change in report.samples:
        card = {"change": change, "thumbnail": thumbnail(change.picture)}
        cards.setdefault(change.attribute, []).append(card)
    values = {"report": report, "gate": report.gate, "kinds": KINDS, "cards": cards}
    return pages.write(path, pages.render(TEMPLATES, "promotion.html.j2", values))
