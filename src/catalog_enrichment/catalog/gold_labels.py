"""Answers of people to gold samples (audit_sample --gold): labels of products that merchants left without a value.

Such products are drawn uniformly of those that models fill, so that the labels certify what models write there. They
train nothing: :mod:`catalog.people_labels` leaves their products out. No Spark.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from catalog_enrichment.catalog import verdicts

if TYPE_CHECKING:
    import pyarrow as pa

    from catalog_enrichment.catalog.base import Catalog

COLUMN = "gold_labels"
"""Column that :func:`with_gold_labels` adds: as JSON, attribute -> answer and values of its :class:`GoldLabel`."""

GoldAnswer = Literal["value", "none", "cannot_tell"]

_ANSWERS: dict[str, GoldAnswer] = {"other": "value", "none": "none", "cannot_tell": "cannot_tell"}
"""Answer of a verdict (audit.items.Answer) on a gold item -> answer of the label."""

LARGEST_CHANGE = 0.1
"""Samples of populations whose sizes differ by at most this share are one sample."""

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class GoldLabel:
    """The answer of people about one attribute of one product."""

    values: tuple[str, ...]
    """All right values, sorted; empty unless the answer is "value"."""
    answer: GoldAnswer
    """"none": the product has no value. "cannot_tell": text and pictures do not say it."""
    content_hash: str
    """The product's content when it was drawn. Callers decide what the answer says about a changed product."""
    drawn_at: datetime
    """UTC."""


def gold_labels(catalog: Catalog) -> dict[str, dict[str, GoldLabel]]:
    """Return product id -> attribute -> the newest settled answer that audit_ingest has taken in.

    Answers that only a rolled back run took in are left out.
    """
    return labels_of(verdicts.drawn(catalog), verdicts.newest(catalog).values())


def labels_of(drawn: Iterable[Row], said: Iterable[Row]) -> dict[str, dict[str, GoldLabel]]:
    """Return the labels that follow from rows of `audits` and one row of `verdicts` per item."""
    items = {row["item_id"]: row for row in drawn if row["purpose"] == verdicts.GOLD}
    labels: dict[str, dict[str, GoldLabel]] = {}
    for row in sorted(said, key=lambda row: row["settled_at"]):
        if item := items.get(row["item_id"]):
            labels.setdefault(row["product_id"], {})[row["attribute"]] = GoldLabel(
                values=tuple(sorted(row["right_values"])),
                answer=_ANSWERS[row["answer"]],
                content_hash=item["content_hash"],
                drawn_at=item["drawn_at"],
            )
    return labels


def certifying(drawn: Sequence[Row], labels: Mapping[str, Mapping[str, GoldLabel]]) -> set[tuple[str, str]]:
    """Return the (product id, attribute) pairs of ``labels`` that are a uniform sample of the unlabelled products.

    Of every sample the answers before the first item without a settled answer count, in the order of the draw: what is
    settled first may be easy, and what reviewers dispute is hard. Earlier samples count beside the newest one only if
    about as many products were unlabelled then: else what came into the catalog since is drawn too seldom.
    ``drawn``: rows of `audits`, in the order of the runs and of the draw.
    """
    rows = [row for row in drawn if row["purpose"] == verdicts.GOLD]
    newest = {row["attribute"]: row["population"] for row in rows}
    found: set[tuple[str, str]] = set()
    ended: set[tuple[str, str]] = set()
    for row in rows:
        pair, of_sample = (row["product_id"], row["attribute"]), (row["sample_id"], row["attribute"])
        known = labels.get(row["product_id"], {}).get(row["attribute"])
        if known is None or known.drawn_at != row["drawn_at"]:
            ended.add(of_sample)
        elif of_sample not in ended and _alike(row["population"], newest[row["attribute"]]):
            found.add(pair)
    return found


def _alike(population: int, newest: int) -> bool:
    """True where a sample's population is about as large as the newest sample's."""
    return abs(population - newest) <= LARGEST_CHANGE * newest


def counts(labels: Mapping[str, Mapping[str, GoldLabel]]) -> dict[str, dict[str, int]]:
    """Return attribute -> answer -> number of ``labels``."""
    found: dict[str, dict[str, int]] = {}
    for of_product in labels.values():
        for name, label in of_product.items():
            of_attribute = found.setdefault(name, {})
            of_attribute[label.answer] = of_attribute.get(label.answer, 0) + 1
    return {name: dict(sorted(of_attribute.items())) for name, of_attribute in sorted(found.items())}


def with_gold_labels(catalog: Catalog, products: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Yield ``products`` (with ``product_id`` and ``content_hash``) and :data:`COLUMN`.

    The column is null where there is no label of the product's present content that may certify (:func:`certifying`).
    """
    import pyarrow as pa

    drawn = verdicts.drawn(catalog)
    answers = labels_of(drawn, verdicts.newest(catalog).values())
    usable = certifying(drawn, answers)
    labels = {
        product: {name: label for name, label in of_product.items() if (product, name) in usable}
        for product, of_product in answers.items()
    }
    for batch in products:
        ids, contents = (batch.column(name).to_pylist() for name in ("product_id", "content_hash"))
        texts = [_as_json(labels.get(one, {}), content) for one, content in zip(ids, contents, strict=True)]
        yield batch.append_column(COLUMN, pa.array(texts, pa.string()))


def _as_json(labels: Mapping[str, GoldLabel], content_hash: str) -> str | None:
    """Return the ``labels`` of one product that are about ``content_hash``; None if there are none."""
    found = {
        name: {"answer": label.answer, "values": list(label.values)}
        for name, label in labels.items()
        if label.content_hash == content_hash
    }
    return json.dumps(found, ensure_ascii=False) if found else None
