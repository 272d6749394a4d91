"""The labels of single products: by merchants, by people; and which of them a training has read.

A training records its labelled products with the model version, so that a later job can count the labelled products
that are new since: a hash of the product's id and its labels as text, in which only labels that train are.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from catalog_enrichment.catalog import human_labels, self_derived
from catalog_enrichment.catalog.value_names import Names
from catalog_enrichment.dictionary import Dictionary
from catalog_enrichment.records import Cardinality, stable_hash

if TYPE_CHECKING:
    import pyarrow as pa

Values = dict[str, tuple[str, ...]]
"""Attribute -> values of one product."""

COLUMNS = ("product_id", "opt_out", "merchant_attributes")
"""Columns of the products that :func:`labels_of` and :func:`count_new` read."""

DATASET_COLUMNS = ("merchant", "people", "refused", "gold", "self_derived", "reviewed")
"""Fields of :class:`ProductLabels` that are columns of a data set."""

_REFUSED = "not "
"""Stands before the name of an attribute whose values in a text are wrong by people's answers."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ProductLabels:
    """The labels of one product; see :class:`catalog_enrichment.training.dataset.Dataset` for the columns."""

    merchant: Values
    given: frozenset[str]
    """Attributes to learn whose merchant values are labels."""
    self_derived: frozenset[str]
    people: Values = field(default_factory=dict)
    refused: Values = field(default_factory=dict)
    gold: Values = field(default_factory=dict)
    reviewed: Values = field(default_factory=dict)
    """Attribute -> the merchant's own values, of the labels that two people judged."""
    overturned: bool = False
    """People overturned a merchant's values."""
    sources: Counter[str] = field(default_factory=Counter)
    """Labels of people by their source, as in the lineage of a model version."""

    def columns(self) -> dict[str, Any]:
        """Return the labels as columns of a data set."""
        return {name: getattr(self, name) for name in DATASET_COLUMNS}


def labels_of(row: Mapping[str, Any], attributes: Sequence[str], dictionary: Dictionary) -> ProductLabels:
    """Return the labels of a row of the products, for the ``attributes`` to learn.

    The columns of :mod:`human_labels` and :mod:`self_derived` are optional.
    """
    merchant = _merchant_values(row["merchant_attributes"])
    derived = frozenset(row.get(self_derived.COLUMN) or ())
    given = {name for name in attributes if merchant.get(name) and name not in derived}
    answers = _answers(row, human_labels.LABELS_COLUMN)
    judged = {name for name, answer in answers.items() if answer["by_two"]}
    overturned = _overturned(merchant, {name: answers[name] for name in given & judged}, dictionary)
    answers = {name: answers[name] for name in answers if name in attributes and name not in given}
    gold = _answers(row, human_labels.GOLD_COLUMN)
    people = {name: tuple(answer["right"]) for name, answer in answers.items() if answer["right"]}
    refused = {name: tuple(answer["wrong"]) for name, answer in answers.items() if not answer["right"]}
    sources = [
        f"{count}.{answers[name]['source']}"
        for count, column in (("labelled_by_people", people), ("refused_by_people", refused))
        for name in column
    ]
    return ProductLabels(
        merchant=merchant | overturned,
        given=frozenset(given),
        self_derived=derived,
        people=people,
        refused=refused,
        gold={name: tuple(gold[name]["values"]) for name in gold if name in attributes and name not in given},
        reviewed={name: merchant[name] for name in sorted(given & judged)},
        overturned=bool(overturned),
        sources=Counter(sources),
    )


def _answers(row: Mapping[str, Any], column: str) -> dict[str, dict[str, Any]]:
    """Return attribute -> people's answer (catalog.human_labels); empty without the column."""
    answers: dict[str, dict[str, Any]] = json.loads(row.get(column) or "{}")
    return answers


def _overturned(merchant: Values, answers: Mapping[str, Mapping[str, Any]], words: Dictionary) -> Values:
    """Return the right values by the ``answers`` of two people, for the attributes whose merchant values they overturn.

    They take the place of the merchant's values as a label, in every fold: a model that is right where the merchant is
    wrong makes no error. Of an attribute with several values, confirmed values are added and values that people
    refuse are left out. People only see where an earlier model and the merchant differ. A model that repeats a wrong
    label still counts as right there, as it does without people.
    """
    found = {}
    for name, answer in sorted(answers.items()):
        right = answer["right"]
        if not right or set(right) & set(merchant[name]):
            continue
        if words[name].cardinality is Cardinality.MANY:
            right = [value for value in (*merchant[name], *right) if value not in answer["wrong"]]
        found[name] = tuple(right)
    return found


def _merchant_values(raw: Any) -> Values:
    """Return attribute -> distinct values, without nulls. Arrow returns a map as a list of pairs."""
    pairs = raw.items() if isinstance(raw, Mapping) else raw or ()
    return {name: tuple(dict.fromkeys(value for value in values or () if value)) for name, values in pairs}


# --- which labels a training has read -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class NewLabels:
    """How many labelled products there are, and how many of them a training has not read so."""

    labelled: int
    new: int


def record(ids: Iterable[str], labels: Iterable[ProductLabels]) -> pa.Table:
    """Return the labelled products that a training read, as it is kept with the model version."""
    import pyarrow as pa

    texts = [(product_id, _text(of_product)) for product_id, of_product in zip(ids, labels, strict=True)]
    known = [(product_id, text) for product_id, text in texts if text]
    keys = pa.array([_key(product_id) for product_id, _ in known], pa.uint64())
    return pa.table({"product": keys, "labels": pa.array([text for _, text in known], pa.string()).dictionary_encode()})


def count_new(
    products: Iterable[pa.RecordBatch],
    recorded: pa.Table,
    attributes: Sequence[str],
    dictionary: Dictionary,
    names: Names,
) -> NewLabels:
    """Count the labelled ``products``, and those that :func:`record` does not have with these labels.

    ``products``: batches with :data:`COLUMNS` and people's labels. ``names``: the names of values in force, by which
    recorded values are compared. What was recorded about other attributes than ``attributes`` makes no difference.
    """
    column = recorded.column("labels").combine_chunks().dictionary_encode()
    texts = [_renamed(text, attributes, names) for text in column.dictionary.to_pylist()]
    codes = {text: code for code, text in enumerate(dict.fromkeys(texts))}
    keys = recorded.column("product").to_numpy()
    order = np.argsort(keys)
    keys = keys[order]
    of_key = np.array([codes[text] for text in texts], dtype=np.int64)[column.indices.to_numpy()][order]
    labelled = new = 0
    for batch in products:
        rows = (row for row in batch.to_pylist() if not row["opt_out"])
        found = [(row["product_id"], _text(labels_of(row, attributes, dictionary))) for row in rows]
        found = [(product_id, text) for product_id, text in found if text]
        wanted = np.array([_key(product_id) for product_id, _ in found], dtype=np.uint64)
        given = np.array([codes.get(text, -1) for _, text in found], dtype=np.int64)
        labelled += len(found)
        new += len(found) - _known(keys, of_key, wanted, given)
    return NewLabels(labelled, new)


def _known(keys: np.ndarray, of_key: np.ndarray, wanted: np.ndarray, given: np.ndarray) -> int:
    """Return how many of the ``wanted`` products are among the sorted ``keys`` with the same code of labels."""
    if not len(keys):
        return 0
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return int(((keys[place] == wanted) & (of_key[place] == given)).sum())


def _key(product_id: str) -> int:
    return int(stable_hash(product_id)[:16], 16)


def _text(labels: ProductLabels) -> str:
    """Return the labels that train, as text; "" if there are none."""
    right = {name: labels.merchant[name] for name in labels.given} | labels.people
    refused = {f"{_REFUSED}{name}": values for name, values in labels.refused.items()}
    return _as_text(right | refused)


def _as_text(labels: Mapping[str, Collection[str]]) -> str:
    known = {name: sorted(set(values)) for name, values in labels.items()}
    return json.dumps(known, sort_keys=True, ensure_ascii=False) if known else ""


def _renamed(text: str, attributes: Sequence[str], names: Names) -> str:
    """Return a recorded text of labels with the attributes to learn alone, and the values' names of today."""
    found = {}
    for key, values in json.loads(text).items():
        name = key.removeprefix(_REFUSED)
        if name in attributes:
            found[key] = [names.now(name, value) for value in values]
    return _as_text(found)
