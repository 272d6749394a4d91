"""Samples, items and verdicts for the tests of the review store and the page."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from catalog_enrichment.audit.review_records import (
    Answer,
    ChangeRequest,
    Item,
    ItemOutcome,
    Purpose,
    RequestKind,
    ReviewSample,
    Verdict,
)
from catalog_enrichment.audit.review_store import ReviewStore
from catalog_enrichment.records import Cardinality

START = datetime(2026, 3, 1, 12, tzinfo=UTC)


def sample(sample_id: str = "s1", **changes: Any) -> ReviewSample:
    given = {"purpose": Purpose.AUDIT, "drawn_at": START, "reviewers": 2, "title": "Colours of one run"}
    return ReviewSample(sample_id=sample_id, **given | changes)


def item(number: int, sample_id: str = "s1", **changes: Any) -> Item:
    given: dict[str, Any] = {
        "product_id": f"p{number:03d}",
        "shop_id": f"shop-{number % 2}",
        "title": f"Shirt number {number}",
        "description": "A shirt",
        "category": "Apparel/Topwear",
        "language": "en",
        "images": ((f"{number}.jpg", "1-2"),),
        "attribute": "color",
        "cardinality": Cardinality.ONE,
        "value": "Red",
    }
    given |= changes
    item_id = Item.id_of(sample_id, given["product_id"], given["attribute"], given["value"])
    return Item(item_id=item_id, sample_id=sample_id, **given)


def verdict(of: Item, reviewer: str, answer: Answer = Answer.YES, *right: str, **changes: Any) -> Verdict:
    given: dict[str, Any] = {"answered_at": START + timedelta(minutes=1), "seconds": 2.5}
    return Verdict(item_id=of.item_id, reviewer=reviewer, answer=answer, right_values=right, **given | changes)


def asked(kind: RequestKind, key: tuple[str, str], *given: str, **more: Any) -> ChangeRequest:
    """Return what Mia asks for about ``key``, a product and an attribute."""
    return ChangeRequest(kind=kind, product_id=key[0], attribute=key[1], values=given, by="Mia", asked_at=START, **more)


def outcome(store: ReviewStore, of: Item) -> ItemOutcome:
    return next(found for found in store.outcomes(of.sample_id) if found.item.item_id == of.item_id)
