"""What the page's handlers work on, and what they tell the browser about items."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from catalog_enrichment.audit.items import Answer, Item, Purpose, Sample, Verdict
from catalog_enrichment.audit.page.guard import Guard
from catalog_enrichment.audit.page.pictures import Pictures
from catalog_enrichment.audit.page.products import Products
from catalog_enrichment.audit.review_outcomes import agreement
from catalog_enrichment.audit.review_requests import Request, RequestKind
from catalog_enrichment.audit.review_store import ReviewStore
from catalog_enrichment.dictionary import Dictionary
from catalog_enrichment.errors import DataContractError

APPLIED_BY = "apply_requests"
"""The job that does to the catalog what people ask for on the page."""

_REQUESTS = {
    Answer.YES: RequestKind.ACCEPT,
    Answer.NO: RequestKind.REFUSE,
    Answer.OTHER: RequestKind.SET,
    Answer.NONE: RequestKind.SET,
}
"""Answer to a suggestion -> what is asked of the next job; "cannot tell" asks for nothing, "has none" for a set without
values."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Site:
    store: ReviewStore
    dictionary: Dictionary
    pictures: Pictures
    products: Products
    guard: Guard


def question(site: Site, item: Item) -> dict[str, Any]:
    """What a reviewer is told about an item: nothing that other people or the model's score say about it."""
    count = min(len(item.images), site.pictures.limits.max_per_product)
    return {
        "item_id": item.item_id,
        "product_id": item.product_id,
        "shop_id": item.shop_id,
        "title": item.title,
        "description": item.description,
        "category": item.category,
        "language": item.language,
        "attribute": item.attribute,
        "cardinality": item.cardinality.value,
        "value": item.value,
        "pictures": [f"/pictures/{quote(item.item_id, safe='')}/{number}" for number in range(count)],
    }


def values_of(site: Site, attribute: str) -> dict[str, Any]:
    """An attribute's values with all their spellings, for a search. Raises DataContractError for an unknown one."""
    if attribute not in site.dictionary:
        raise DataContractError(f"no attribute {attribute!r} in the dictionary")
    found = site.dictionary[attribute]
    spellings: dict[str, list[list[str]]] = {value: [] for value in found.values}
    for language, aliases in sorted(found.aliases.items()):
        for spelling, value in aliases.items():
            spellings[value].append([language, spelling])
    values = [{"value": value, "aliases": aliases} for value, aliases in spellings.items()]
    return {"attribute": attribute, "cardinality": found.cardinality.value, "values": values}


def state_of(site: Site, sample: Sample, reviewer: str, shop_id: str = "") -> dict[str, Any]:
    """Progress of the person and of the sample, and the agreement of the reviewers."""
    progress = site.store.progress(sample.sample_id, reviewer, shop_id)
    found = agreement(site.store.verdicts(sample.sample_id))
    return {
        "sample_id": sample.sample_id,
        "title": sample.title,
        "purpose": sample.purpose.value,
        "reviewers": sample.reviewers,
        "drawn_at": sample.drawn_at.isoformat(),
        "items": progress.items,
        "open": progress.open,
        "disputed": progress.disputed,
        "settled": progress.settled,
        "mine": progress.mine,
        "left": progress.left,
        "pairs": found.pairs,
        "agreement": found.raw,
        "kappa": found.kappa,
    }


def request_of(sample: Sample, item: Item, verdict: Verdict) -> Request | None:
    """What the answer to a suggestion asks of the next job; None for other samples, and for "cannot tell"."""
    kind = _REQUESTS.get(verdict.answer)
    if sample.purpose is not Purpose.SUGGESTIONS or kind is None:
        return None
    return Request(
        kind=kind,
        product_id=item.product_id,
        attribute=item.attribute,
        values=verdict.right_values if kind is RequestKind.SET else (item.value,),
        by=verdict.reviewer,
        asked_at=verdict.answered_at,
        item_id=item.item_id,
    )


def check_values(site: Site, attribute: str, values: tuple[str, ...]) -> None:
    """Raises DataContractError for values that the dictionary does not have."""
    known = set(site.dictionary[attribute].values) if attribute in site.dictionary else set()
    if unknown := sorted(set(values) - known):
        raise DataContractError(f"{unknown} is not among the values of {attribute} in the dictionary")
