"""Rows of the review store to and from records, and what a row must keep."""

from __future__ import annotations

import json
import math
import unicodedata
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from catalog_enrichment.audit.items import Answer, Item, Purpose, Sample, Verdict
from catalog_enrichment.audit.review_requests import Request, RequestKind, RequestState
from catalog_enrichment.errors import DataContractError
from catalog_enrichment.records import Cardinality

OF_ITEM = (
    *("item_id", "sample_id", "product_id", "shop_id", "title", "description", "category", "language", "images"),
    *("attribute", "cardinality", "value"),
)
"""Columns of the table `items` that :func:`item_row` fills, in its order."""


def plain_name(name: str) -> str:
    """The name in Unicode form NFKC, runs of white space replaced by one space."""
    return " ".join(unicodedata.normalize("NFKC", name).split())


def person_key(name: str) -> str:
    """Equal for spellings of one name that differ in case, spaces or Unicode form."""
    return plain_name(name).casefold()


def text(time: datetime) -> str:
    """ISO 8601 in UTC, with microseconds, so that texts sort as times do. Raises ValueError without a time zone."""
    if time.tzinfo is None:
        raise ValueError(f"a time in the review store needs a time zone, {time!r} has none")
    return time.astimezone(UTC).isoformat(timespec="microseconds")


def check_sample(sample: Sample, items: Sequence[Item]) -> None:
    """Raises DataContractError for items of another sample, repeated items, and a number of reviewers below 1."""
    if sample.reviewers < 1:
        raise DataContractError(f"sample {sample.sample_id}: reviewers must be 1 or more, not {sample.reviewers}")
    if others := sorted({item.sample_id for item in items} - {sample.sample_id}):
        raise DataContractError(f"sample {sample.sample_id}: items of other samples: {others[:3]}")
    if len({item.item_id for item in items}) < len(items):
        raise DataContractError(f"sample {sample.sample_id}: an item is there twice (product, attribute and value)")


def check_verdict(verdict: Verdict, item: Item, purpose: Purpose) -> None:
    """Raises DataContractError for a blank name, an answer that the item or its sample cannot have, right values that
    do not go with the answer, and no usable time. ``purpose`` is that of the item's sample."""
    values = verdict.right_values
    if not plain_name(verdict.reviewer):
        raise DataContractError("a verdict needs the name of its reviewer")
    if bool(values) != (verdict.answer is Answer.OTHER):
        raise DataContractError(
            f"the answer {verdict.answer.value!r} came with the right values {list(values)}: exactly the answer "
            f"{Answer.OTHER.value!r} has some"
        )
    if item.cardinality is Cardinality.ONE and len(values) > 1:
        raise DataContractError(
            f"{item.attribute} has one value per product, and these are {len(values)}: {list(values)}"
        )
    if not item.value and verdict.answer is Answer.YES:
        raise DataContractError(f"item {item.item_id} asks for the value and names none: it cannot be called right")
    if purpose is Purpose.GOLD and verdict.answer is Answer.NO:
        raise DataContractError(
            f"item {item.item_id} of a gold sample asks for the value: answer {Answer.OTHER.value!r} with the right "
            f"values, {Answer.NONE.value!r} if the product has none, or {Answer.CANNOT_TELL.value!r}, also if the "
            "dictionary lacks the right value"
        )
    if len(set(values)) < len(values) or item.value in values:
        raise DataContractError(f"right values {list(values)} repeat one, or are the value that was called wrong")
    if not math.isfinite(verdict.seconds) or verdict.seconds < 0:
        raise DataContractError(f"seconds must be a number of 0 or more, not {verdict.seconds!r}")


def item_row(item: Item) -> tuple[str, ...]:
    images = json.dumps(item.images, ensure_ascii=False)
    return (
        *(item.item_id, item.sample_id, item.product_id, item.shop_id, item.title, item.description, item.category),
        *(item.language, images, item.attribute, item.cardinality.value, item.value),
    )


def item(row: Mapping[str, Any]) -> Item:
    given = {name: row[name] for name in OF_ITEM}
    images = tuple((uri, version) for uri, version in json.loads(row["images"]))
    return Item(**given | {"images": images, "cardinality": Cardinality(row["cardinality"])})


def sample(row: Mapping[str, Any]) -> Sample:
    return Sample(
        sample_id=row["sample_id"],
        purpose=Purpose(row["purpose"]),
        drawn_at=datetime.fromisoformat(row["drawn_at"]),
        reviewers=row["reviewers"],
        title=row["title"],
    )


def verdict(row: Mapping[str, Any]) -> Verdict:
    return Verdict(
        item_id=row["item_id"],
        reviewer=row["reviewer"],
        answer=Answer(row["answer"]),
        right_values=tuple(json.loads(row["right_values"])),
        adjudicates=bool(row["adjudicates"]),
        answered_at=datetime.fromisoformat(row["answered_at"]),
        seconds=row["seconds"],
    )


def request(row: Mapping[str, Any]) -> Request:
    ended_at = row["ended_at"]
    return Request(
        kind=RequestKind(row["kind"]),
        product_id=row["product_id"],
        attribute=row["attribute"],
        values=tuple(json.loads(row["values"])),
        run_id=row["run_id"],
        by=row["by"],
        reason=row["reason"],
        asked_at=datetime.fromisoformat(row["asked_at"]),
        item_id=row["item_id"],
        request_id=row["request_id"],
        state=RequestState(row["state"]),
        outcome=row["outcome"],
        ended_at=datetime.fromisoformat(ended_at) if ended_at else None,
    )
