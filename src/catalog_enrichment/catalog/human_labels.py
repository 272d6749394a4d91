"""The labels that follow from people's answers, without Spark: some train models, others certify them.

Labels that train come from two sources:

    verdicts      on audits and samples for labels, and managers' answers to suggestions: which values are right, and
                  which are wrong. The source is the purpose of the sample.
    human sets    that a person gave otherwise, by set_value or on the page of a product, while they are active in the
                  ledger. The source is CORRECTION.

The newest answer about a product and attribute counts. Labels that certify are the answers to gold samples
(audit_sample --gold): products that merchants left without a value, drawn uniformly from those that models fill. They
train nothing, whoever else answered about the same product and attribute.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from catalog_enrichment.catalog import ledger, review_tables
from catalog_enrichment.catalog.ledger import active_rows
from catalog_enrichment.catalog.review_tables import Pair, pair_of
from catalog_enrichment.records import Op, Source

if TYPE_CHECKING:
    import pyarrow as pa

    from catalog_enrichment.catalog.lake import Catalog
    from catalog_enrichment.dictionary import Dictionary

LABELS_COLUMN = "labels_by_people"
"""Column that :func:`with_labels` adds: as JSON, attribute -> the fields of :class:`HumanLabel`."""

GOLD_COLUMN = "gold_labels"
"""Column that :func:`with_gold_labels` adds: as JSON, attribute -> answer and values of its :class:`GoldLabel`."""

CORRECTION = "correction"
"""Source of a label that a person gave outside of samples."""

LARGEST_CHANGE = 0.1
"""Gold samples of populations whose sizes differ by at most this share are one sample."""

Row = Mapping[str, Any]

GoldAnswer = Literal["value", "none", "cannot_tell"]

_GOLD_ANSWERS: dict[str, GoldAnswer] = {"other": "value", "none": "none", "cannot_tell": "cannot_tell"}
"""Answer of a verdict (audit.review_records.Answer) on a gold item -> answer of the label."""

_OF_EVENT = ("event_id", "op", "product_id", "attribute", "value", "source", "run_id", "refers_to", "undoes",
             "asserted_at")  # fmt: skip


# labels that train


@dataclass(frozen=True, slots=True)
class HumanLabel:
    """People's answers about one attribute of one product."""

    right: tuple[str, ...]
    wrong: tuple[str, ...]
    """Values that are not right, whichever is."""
    source: str
    by_two: bool = False
    """At least two people agreed on the newest answer, or an adjudicator decided between them. As a label, it overturns
    a merchant's value then."""


def labels(catalog: Catalog) -> dict[str, dict[str, HumanLabel]]:
    """Return product id -> attribute -> the label; none where people could not tell, or found no right value."""
    verdicts, dictionary = review_tables.newest(catalog).values(), catalog.dictionary
    gold = {pair_of(verdict) for verdict in verdicts if verdict["purpose"] == review_tables.GOLD}
    found = _labels_of_verdicts((verdict for verdict in verdicts if pair_of(verdict) not in gold), dictionary)
    for pair, (at, values) in _human_sets(catalog).items():
        newer = pair not in found or (found[pair][0] < at and set(found[pair][1].right) != set(values))
        if newer and pair not in gold:
            found[pair] = (at, HumanLabel(values, (), CORRECTION))
    by_product: defaultdict[str, dict[str, HumanLabel]] = defaultdict(dict)
    for (product_id, attribute), (_, label) in sorted(found.items()):
        if label.right or label.wrong:
            by_product[product_id][attribute] = label
    return dict(by_product)


def with_labels(catalog: Catalog, products: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Yield ``products`` (with ``product_id``) and :data:`LABELS_COLUMN`, null where there is no label."""
    import pyarrow as pa

    known = {
        product: json.dumps({name: asdict(label) for name, label in of_product.items()})
        for product, of_product in labels(catalog).items()
    }
    for batch in products:
        texts = [known.get(product_id) for product_id in batch.column("product_id").to_pylist()]
        yield batch.append_column(LABELS_COLUMN, pa.array(texts, pa.string()))


def _labels_of_verdicts(verdicts: Iterable[Row], dictionary: Dictionary) -> dict[Pair, tuple[datetime, HumanLabel]]:
    """Return the time of the newest verdict, and what all of them come to.

    Of several values that were each confirmed all are right; right values that a reviewer gave replace them.
    ``dictionary``: says which values are the same.
    """
    found: dict[Pair, tuple[datetime, HumanLabel]] = {}
    for row in sorted(verdicts, key=lambda row: row["settled_at"]):
        pair, value = pair_of(row), {row["value"]} - {""}
        _, before = found.get(pair, (None, HumanLabel((), (), "")))
        right, wrong = set(before.right), set(before.wrong)
        others = partial(_without, dictionary, row["attribute"])
        if row["answer"] == "yes":
            right, wrong = right | value, others(wrong, value)
        elif row["answer"] == "other":
            right = set(row["right_values"])
            wrong = others(wrong | value, right)
        elif row["answer"] == "no":
            right, wrong = others(right, value), wrong | value
        elif row["answer"] == "none":  # a wrong value teaches that another value is right, and none is
            right, wrong = set(), set()
        else:
            continue
        by_two = len(row["reviewers"]) > 1 and row["purpose"] != review_tables.OF_MANAGERS
        label = HumanLabel(tuple(sorted(right)), tuple(sorted(wrong)), row["purpose"], by_two)
        found[pair] = (row["settled_at"], label)
    return found


def _without(dictionary: Dictionary, attribute: str, values: set[str], gone: set[str]) -> set[str]:
    """Return the ``values`` that are not the same value as one of ``gone``."""
    return {value for value in values if not any(dictionary.is_same(attribute, value, other) for other in gone)}


def _human_sets(catalog: Catalog) -> dict[Pair, tuple[datetime, tuple[str, ...]]]:
    """Return when a person gave the newest active set, and its values; without sets that say that there is no value."""
    import pyarrow.compute as pc

    rows: list[Row] = []
    for batch in catalog.scan("attribute_values", _OF_EVENT):
        rows += batch.filter(pc.equal(batch.column("source"), Source.HUMAN.value)).to_pylist()
    asserts = {row["event_id"] for row in rows if row["op"] == Op.ASSERT.value}
    events: defaultdict[Pair, list[Row]] = defaultdict(list)
    for row in rows:
        if row["op"] == Op.ASSERT.value or row["refers_to"] in asserts:
            events[pair_of(row)].append(row)
    found = {}
    for pair, of_pair in events.items():
        if active := active_rows(of_pair):
            newest = max(active, key=lambda row: (row["asserted_at"], row["run_id"]))
            values = tuple(sorted(row["value"] for row in active if row["run_id"] == newest["run_id"]))
            if ledger.NO_VALUE not in values:
                found[pair] = (newest["asserted_at"], values)
    return found


# labels that certify


@dataclass(frozen=True, slots=True)
class GoldLabel:
    """The answer of people about one attribute of one product of a gold sample."""

    values: tuple[str, ...]
    """All right values, sorted; empty unless the answer is "value"."""
    answer: GoldAnswer
    """"none": the product has no value. "cannot_tell": text and pictures do not say it."""
    content_hash: str
    """The product's content when it was drawn. Callers decide what the answer says about a changed product."""
    drawn_at: datetime
    """UTC."""


def gold_labels(catalog: Catalog) -> dict[str, dict[str, GoldLabel]]:
    """Return product id -> attribute -> the newest settled answer that audit_ingest has ingested.

    Answers that only a rolled back run ingested are left out.
    """
    return gold_labels_of(review_tables.drawn(catalog), review_tables.newest(catalog).values())


def gold_labels_of(drawn: Iterable[Row], verdicts: Iterable[Row]) -> dict[str, dict[str, GoldLabel]]:
    """Return the gold labels that follow from rows of `audits` and one row of `verdicts` per item."""
    items = {row["item_id"]: row for row in drawn if row["purpose"] == review_tables.GOLD}
    found: dict[str, dict[str, GoldLabel]] = {}
    for row in sorted(verdicts, key=lambda row: row["settled_at"]):
        if item := items.get(row["item_id"]):
            found.setdefault(row["product_id"], {})[row["attribute"]] = GoldLabel(
                values=tuple(sorted(row["right_values"])),
                answer=_GOLD_ANSWERS[row["answer"]],
                content_hash=item["content_hash"],
                drawn_at=item["drawn_at"],
            )
    return found


def certifying(drawn: Sequence[Row], gold: Mapping[str, Mapping[str, GoldLabel]]) -> set[Pair]:
    """Return the pairs of ``gold`` that are a uniform sample of the unlabelled products.

    In every sample the answers before the first item without a settled answer count, in the order of the draw: items
    that are settled first may be easy, and items that reviewers dispute are hard. Earlier samples count beside the
    newest only if about as many products were unlabelled then: else products that came since are drawn too seldom.
    ``drawn``: rows of `audits`, in the order of the runs and of the draw.
    """
    rows = [row for row in drawn if row["purpose"] == review_tables.GOLD]
    newest = {row["attribute"]: row["population"] for row in rows}
    found: set[Pair] = set()
    ended: set[Pair] = set()
    for row in rows:
        sample = (row["sample_id"], row["attribute"])
        known = gold.get(row["product_id"], {}).get(row["attribute"])
        population = newest[row["attribute"]]
        if known is None or known.drawn_at != row["drawn_at"]:
            ended.add(sample)
        elif sample not in ended and abs(row["population"] - population) <= LARGEST_CHANGE * population:
            found.add(pair_of(row))
    return found


def gold_counts(gold: Mapping[str, Mapping[str, GoldLabel]]) -> dict[str, dict[str, int]]:
    """Return attribute -> answer -> number of labels."""
    found: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for of_product in gold.values():
        for name, label in of_product.items():
            found[name][label.answer] += 1
    return {name: dict(sorted(answers.items())) for name, answers in sorted(found.items())}


def with_gold_labels(catalog: Catalog, products: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Yield ``products`` (with ``product_id`` and ``content_hash``) and :data:`GOLD_COLUMN`.

    The column is null where there is no label of the product's present content that may certify (:func:`certifying`).
    """
    import pyarrow as pa

    drawn = review_tables.drawn(catalog)
    gold = gold_labels_of(drawn, review_tables.newest(catalog).values())
    known: defaultdict[tuple[str, str], dict[str, Any]] = defaultdict(dict)
    for product_id, attribute in certifying(drawn, gold):
        label = gold[product_id][attribute]
        known[product_id, label.content_hash][attribute] = {"answer": label.answer, "values": list(label.values)}
    texts = {key: json.dumps(dict(sorted(answers.items())), ensure_ascii=False) for key, answers in known.items()}
    for batch in products:
        keys = zip(*(batch.column(name).to_pylist() for name in ("product_id", "content_hash")), strict=True)
        yield batch.append_column(GOLD_COLUMN, pa.array([texts.get(key) for key in keys], pa.string()))
