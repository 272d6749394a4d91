"""Which labelled products are new since a training: counted against what the training recorded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest

from catalog_enrichment.catalog import human_labels, self_derived
from catalog_enrichment.catalog.value_names import Event, Names
from catalog_enrichment.dictionary import Attribute, Dictionary
from catalog_enrichment.records import Cardinality
from catalog_enrichment.training.product_labels import NewLabels, count_new, labels_of, record

WORDS = Dictionary(
    {
        "color": Attribute(name="color", cardinality=Cardinality.ONE, values=("Gray", "Red")),
        "material": Attribute(name="material", cardinality=Cardinality.MANY, values=("Cotton", "Wool")),
    }
)
ATTRIBUTES = ["color", "material"]
RENAMED = Names().with_events([Event("color", "Grey", "Gray")])


def row(product_id: str, **given: Any) -> dict[str, Any]:
    """Return a row of the products; ``given``: merchant (attribute -> values), derived, right, wrong, opt_out."""
    answer = {"right": given.get("right", []), "wrong": given.get("wrong", []), "by_two": False, "source": "audit"}
    answers = {"color": answer} if {"right", "wrong"} & set(given) else {}
    return {
        "product_id": product_id,
        "opt_out": given.get("opt_out", False),
        "merchant_attributes": list(given.get("merchant", {}).items()),
        self_derived.COLUMN: given.get("derived", []),
        human_labels.LABELS_COLUMN: json.dumps(answers) if answers else None,
    }


TRAINED = [
    row("red", merchant={"color": ["Red"]}),
    row("grey", merchant={"color": ["Grey"]}),
    row("soft", merchant={"material": ["Wool", "Cotton"]}),
    row("said", right=["Red"]),
    row("not", wrong=["Red"]),
    row("none"),
    row("own", merchant={"color": ["Red"]}, derived=["color"]),
]


def recorded(attributes: list[str] = ATTRIBUTES) -> pa.Table:
    return record([of["product_id"] for of in TRAINED], (labels_of(of, attributes, WORDS) for of in TRAINED))


def batches(rows: list[dict[str, Any]]) -> Iterator[pa.RecordBatch]:
    for start in range(0, len(rows), 2):
        yield pa.RecordBatch.from_pylist(rows[start : start + 2], pa.schema(SCHEMA))


SCHEMA = [
    ("product_id", pa.string()),
    ("opt_out", pa.bool_()),
    ("merchant_attributes", pa.map_(pa.string(), pa.list_(pa.string()))),
    (self_derived.COLUMN, pa.list_(pa.string())),
    (human_labels.LABELS_COLUMN, pa.string()),
]


def counted(rows: list[dict[str, Any]], attributes: list[str] = ATTRIBUTES, names: Names | None = None) -> NewLabels:
    return count_new(batches(rows), recorded(), attributes, WORDS, names or Names())


def test_the_same_products_are_not_new_in_whatever_order() -> None:
    assert recorded().num_rows == 5
    assert counted(TRAINED[::-1]) == NewLabels(labelled=5, new=0)
    again = [row("soft", merchant={"material": ["Cotton", "Wool"]}), *TRAINED]
    assert counted(again).new == 0, "the order of values makes no difference"


@pytest.mark.parametrize(
    ("changed", "labelled", "new"),
    [
        ([row("fresh", merchant={"color": ["Red"]})], 1, 1),
        ([row("red", merchant={"color": ["Gray"]})], 1, 1),
        ([row("red", merchant={"color": ["Red"], "material": ["Wool"]})], 1, 1),
        ([row("none", right=["Red"]), row("said", wrong=["Red"]), row("not", wrong=["Red"])], 3, 2),
        ([row("red"), row("red", merchant={"color": ["Red"]}, derived=["color"])], 0, 0),
        ([row("fresh", merchant={"color": ["Red"]}, opt_out=True)], 0, 0),
        ([row("fresh", merchant={"size": ["L"]})], 0, 0),
        ([row("own", merchant={"color": ["Red"]})], 1, 1),
        ([], 0, 0),
    ],
)
def test_a_product_is_new_by_its_labels_that_train(changed: list[dict[str, Any]], labelled: int, new: int) -> None:
    assert counted(changed) == NewLabels(labelled, new)


def test_a_renamed_value_is_not_new_and_neither_is_what_is_left_of_fewer_attributes() -> None:
    grey = [row("grey", merchant={"color": ["Gray"]})]
    assert counted(grey).new == 1
    assert counted(grey, names=RENAMED).new == 0
    both = [row("soft", merchant={"material": ["Wool", "Cotton"]}), TRAINED[0]]
    assert counted(both, attributes=["color"]) == NewLabels(labelled=1, new=0)


def test_after_a_training_without_labels_every_labelled_product_is_new() -> None:
    assert count_new(batches(TRAINED), record([], []), ATTRIBUTES, WORDS, Names()) == NewLabels(labelled=5, new=5)
