"""What people said about products, as training labels with their source. No Spark.

    verdicts      of audits and samples for labels, and managers' answers to suggestions: which values are right, and
                  which are wrong. The source is the purpose of the sample.
    human sets    what a person gave otherwise, by set_value or on the page of a product, as far as it stands in the
                  ledger. The source is CORRECTION.

Of what is said about one product and attribute the newest word counts. A product and attribute with an answer to a
gold sample (:mod:`catalog.gold_labels`) has no label here, whoever said what: such answers train nothing.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from catalog_enrichment.catalog import ledger, verdicts
from catalog_enrichment.catalog.replay import active
from catalog_enrichment.records import Op, Source

if TYPE_CHECKING:
    import pyarrow as pa

    from catalog_enrichment.catalog.base import Catalog

COLUMN = "labels_by_people"
"""Column that :func:`with_labels` adds: as JSON, attribute -> the fields of :class:`HumanLabel`."""

CORRECTION = "correction"
"""Source of a label that a person gave outside of samples."""

Pair = tuple[str, str]
"""Product id, attribute."""

Row = Mapping[str, Any]

_OF_EVENT = ("event_id", "op", "product_id", "attribute", "value", "source", "run_id", "refers_to", "undoes",
             "asserted_at")  # fmt: skip


@dataclass(frozen=True, slots=True)
class HumanLabel:
    """What people said about one attribute of one product."""

    right: tuple[str, ...]
    wrong: tuple[str, ...]
    """Values that are not right, whatever is."""
    source: str
    by_two: bool = False
    """At least two people agreed on the newest of it, or an adjudicator decided between them. It overturns a merchant's
    value then, as a label."""


def labels(catalog: Catalog) -> dict[str, dict[str, HumanLabel]]:
    """Product id -> attribute -> what people said; not where they could not tell, or said that there is no value."""
    known = verdicts.newest(catalog).values()
    gold = {_pair(row) for row in known if row["purpose"] == verdicts.GOLD}
    found = _of_verdicts(row for row in known if _pair(row) not in gold)
    human = {pair: given for pair, given in _human_sets(catalog).items() if pair not in gold}
    for pair, (at, values) in human.items():
        if pair not in found or (found[pair][0] < at and set(found[pair][1].right) != set(values)):
            found[pair] = (at, HumanLabel(values, (), CORRECTION))
    by_product: defaultdict[str, dict[str, HumanLabel]] = defaultdict(dict)
    for (product_id, attribute), (_, said) in sorted(found.items()):
        if said.right or said.wrong:
            by_product[product_id][attribute] = said
    return dict(by_product)


def with_labels(catalog: Catalog, products: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """``products`` (with ``product_id``) and :data:`COLUMN`; null where people said nothing."""
    import pyarrow as pa

    known = {
        product: json.dumps({name: asdict(one) for name, one in said.items()})
        for product, said in labels(catalog).items()
    }
    for batch in products:
        ids = batch.column("product_id").to_pylist()
        yield batch.append_column(COLUMN, pa.array([known.get(one) for one in ids], pa.string()))


def _pair(row: Row) -> Pair:
    return (row["product_id"], row["attribute"])


def _of_verdicts(rows: Iterable[Row]) -> dict[Pair, tuple[datetime, HumanLabel]]:
    """When the newest word was said, and what all of them come to: of several values that were each confirmed all are
    right, a right value that was given replaces them."""
    found: dict[Pair, tuple[datetime, HumanLabel]] = {}
    for row in sorted(rows, key=lambda row: row["settled_at"]):
        pair, value = _pair(row), {row["value"]} - {""}
        _, before = found.get(pair, (None, HumanLabel((), (), "")))
        right, wrong = set(before.right), set(before.wrong)
        if row["answer"] == "yes":
            right, wrong = right | value, wrong - value
        elif row["answer"] == "other":
            right = set(row["right_values"])
            wrong = (wrong | value) - right
        elif row["answer"] == "no":
            right, wrong = right - value, wrong | value
        elif row["answer"] == "none":  # a wrong value teaches that another one is right, and none is
            right, wrong = set(), set()
        else:
            continue
        by_two = len(row["reviewers"]) > 1 and row["purpose"] != verdicts.OF_MANAGERS
        said = HumanLabel(tuple(sorted(right)), tuple(sorted(wrong)), row["purpose"], by_two)
        found[pair] = (row["settled_at"], said)
    return found


def _human_sets(catalog: Catalog) -> dict[Pair, tuple[datetime, tuple[str, ...]]]:
    """When a person gave the newest set that stands, and its values; not that there is no value."""
    events: defaultdict[Pair, list[Row]] = defaultdict(list)
    for row in _events_of_people(catalog):
        events[row["product_id"], row["attribute"]].append(row)
    found = {}
    for pair, rows in events.items():
        stands = active(rows)
        if stands:
            newest = max(stands, key=lambda row: (row["asserted_at"], row["run_id"]))
            values = tuple(sorted(row["value"] for row in stands if row["run_id"] == newest["run_id"]))
            if ledger.NO_VALUE not in values:
                found[pair] = (newest["asserted_at"], values)
    return found


def _events_of_people(catalog: Catalog) -> list[Row]:
    """The asserts of people, and all events that act on them."""
    import pyarrow.compute as pc

    if catalog.version("attribute_values") < 0:
        return []
    asserts: list[Row] = []
    acts: list[Row] = []
    for batch in catalog.scan("attribute_values", _OF_EVENT):
        of_people = batch.filter(pc.equal(batch.column("source"), Source.HUMAN.value))
        for row in of_people.to_pylist():
            (asserts if row["op"] == Op.ASSERT.value else acts).append(row)
    known = {row["event_id"] for row in asserts}
    return [*asserts, *(row for row in acts if row["refers_to"] in known)]
