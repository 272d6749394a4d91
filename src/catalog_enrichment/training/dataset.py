"""The training data set: texts and merchant values in memory, pictures in a memory-mapped file.

Each picture is fetched and decoded once, in threads, at the size that the recipe needs, and written to one file of
uint8 pixels in the work folder. The memory needed therefore grows with the texts and not with the pictures; epochs
read the pixels through the page cache.
"""

from __future__ import annotations

import hashlib
import heapq
import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from catalog_enrichment.config.schema import ImagesConfig
from catalog_enrichment.dictionary import Attribute, Dictionary
from catalog_enrichment.inputs.images import Decoded, first_usable
from catalog_enrichment.inputs.square import Square
from catalog_enrichment.inputs.text import clean_text
from catalog_enrichment.inputs.unusable_pictures import UnusablePictures
from catalog_enrichment.records import TRANSIENT, Cardinality, Modality, Reason, stable_hash

if TYPE_CHECKING:
    import pyarrow as pa

UNLABELLED = -1
"""Class of a product without a usable merchant value."""
NOT_LEARNED = -2
"""Class of a product whose merchant value is not learned: any prediction is wrong, and it is not in the loss."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadOptions:
    """How to read the products."""

    attributes: list[str]
    """Attributes to learn; a product with a merchant value for one of them is labelled."""
    square: Square
    """What pictures are fitted into."""
    max_chars: int
    """Characters kept of a title and of a description."""
    images: ImagesConfig
    workdir: Path
    max_unlabelled: int
    """Products without any label that are kept: those with the smallest hash of the product id."""
    threads: int = 4
    """Threads that fetch and decode pictures."""


@dataclass(frozen=True, slots=True)
class Labels:
    """The merchants' values of one attribute, as classes of the learned values. N products, V learned values."""

    attribute: str
    cardinality: Cardinality
    values: tuple[str, ...]
    """The learned values, in the dictionary's order."""
    truth: NDArray[np.bool_]
    """(N, V): the merchant gives this value."""
    labelled: NDArray[np.bool_]
    """(N,): the merchant gives a value, learned or not. Evaluation and certification use these products."""
    unlearned: NDArray[np.int64]
    """(N,): number of true values that are not learned; they count in the denominator of recall."""
    unlabelled: NDArray[np.bool_]
    """(N,): the attribute applies and the merchant gives no value: what enrichment would fill."""
    refused: NDArray[np.bool_] | None = None
    """(N, V): people said that this value is wrong, and nobody what is right; None: of no product."""
    gold: NDArray[np.bool_] | None = None
    """(N,): people answered for this unlabelled product in a gold sample; None: for no product."""
    gold_truth: NDArray[np.bool_] | None = None
    """(N, V): what they answered; all false where the product has no value, a value that is not learned, or where they
    could not tell."""

    @property
    def learnable(self) -> NDArray[np.bool_]:
        """(N,): labelled with at least one learned value; these products are in the loss."""
        return np.asarray(self.truth.any(axis=1))

    @property
    def in_loss(self) -> NDArray[np.bool_]:
        """(N,): learnable, or with a refused value."""
        return self.learnable if self.refused is None else np.asarray(self.learnable | self.refused.any(axis=1))

    def people_only_in(self, train: NDArray[np.int64]) -> Labels:
        """Without what people said about products that are not in ``train``: nothing is measured by it."""
        elsewhere = ~self.labelled
        elsewhere[train] = False
        if not (self.in_loss & elsewhere).any():
            return self
        keep = ~elsewhere[:, None]
        return replace(self, truth=self.truth & keep, refused=None if self.refused is None else self.refused & keep)

    @property
    def classes(self) -> NDArray[np.int64]:
        """(N,): column of the learned value, UNLABELLED or NOT_LEARNED. For attributes of cardinality ONE."""
        missing = np.where(self.labelled, NOT_LEARNED, UNLABELLED)
        if not self.values:
            return missing.astype(np.int64)
        return np.where(self.learnable, self.truth.argmax(axis=1), missing).astype(np.int64)


@dataclass(slots=True)
class Dataset:
    """N products, in the order read; an unlabelled product may replace one that left the sample (:class:`_Slots`)."""

    dictionary: Dictionary
    ids: list[str] = field(default_factory=list)
    titles: list[str] = field(default_factory=list)
    descriptions: list[str] = field(default_factory=list)
    categories: list[str] = field(default_factory=list)
    languages: list[str] = field(default_factory=list)
    pictures: list[str | None] = field(default_factory=list)
    """Hash of the decoded pixels; None without a usable picture."""
    picture_reasons: list[Reason | None] = field(default_factory=list)
    """Why there is no usable picture; None with one."""
    updated_at: list[datetime | None] = field(default_factory=list)
    merchant: list[dict[str, tuple[str, ...]]] = field(default_factory=list)
    """Attribute -> the merchant's values, distinct, as in the products table; where two people overturned them, what is
    right (:func:`_overturned`)."""
    people: list[dict[str, tuple[str, ...]]] = field(default_factory=list)
    """Attribute -> what people said is right, where the merchant gives no label; these only train."""
    refused: list[dict[str, tuple[str, ...]]] = field(default_factory=list)
    """Attribute -> what people said is wrong, where neither the merchant nor they say what is right; as ``people``."""
    gold: list[dict[str, tuple[str, ...]]] = field(default_factory=list)
    """Attribute -> people's answer in a gold sample, where the merchant gives no label: the right values, none where
    the product has none or they could not tell. They train nothing."""
    self_derived: list[frozenset[str]] = field(default_factory=list)
    """Attributes for which the merchant repeats what this system wrote or suggested (PRECISION, certificate 7)."""
    pixels: NDArray[np.uint8] = field(default_factory=lambda: np.zeros((0, 1, 1, 3), dtype=np.uint8))
    """(N, S, S, 3) RGB, memory-mapped, read-only; undefined for a product without a usable picture."""
    counts: Counter[str] = field(default_factory=Counter)
    """Products read, opted out, self_derived, labelled, labelled or with a value refused by people (by source), unlabelled,
    not kept, and unusable pictures by reason."""
    unusable: UnusablePictures = field(default_factory=UnusablePictures)
    """The products that have pictures, and those of them without a usable one."""

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def has_image(self) -> NDArray[np.bool_]:
        """(N,): the product has a usable picture."""
        return np.array([picture is not None for picture in self.pictures], dtype=bool)

    def on_path(self, modality: Modality) -> NDArray[np.bool_]:
        """(N,): the product is of the population that the path's certificate is about.

        A product whose picture could only not be reached now (`records.TRANSIENT`) is of neither: enrichment waits for
        its picture, so it says nothing about products without one.
        """
        if modality is Modality.BOTH:
            return self.has_image
        outage = [reason in TRANSIENT for reason in self.picture_reasons]
        return np.asarray(~self.has_image & ~np.array(outage, dtype=bool))

    def labels(self, name: str, min_count: int = 1) -> Labels:
        """Labels of attribute ``name``. The learned values are those of the dictionary with at least ``min_count``
        labelled products.

        Products of all folds are counted, so that the learned values depend on the catalog and not on the split. Only
        the counts are used, nothing about any single product.

        A value that is not in the dictionary is labelled but never learned: whatever the model predicts there counts as
        wrong. The truth is unknown, and the product is neither labelled nor unlabelled, where the merchant gives several
        values of an attribute that can have one, and where a value is self-derived: the merchant's other values do not say
        that it is wrong.

        What people said (``people``, ``refused``) is in truth and refused, but such a product is neither labelled nor
        unlabelled: whom people were asked about depends on the scores, so their words train and nothing is measured or
        certified by them.
        """
        attribute = self.dictionary[name]
        merchant_values = [self._applicable_values(attribute, product) for product in range(len(self))]
        single = attribute.cardinality is Cardinality.ONE
        unknown = np.array(
            [
                name in self.self_derived[product] or (single and len(values) > 1)
                for product, values in enumerate(merchant_values)
            ],
            dtype=bool,
        )
        support = Counter(
            value for values, skip in zip(merchant_values, unknown, strict=True) if not skip for value in values
        ) + Counter(value for said in self.people for value in said.get(name, ()))
        learned = tuple(value for value in attribute.values if support[value] >= max(min_count, 1))
        column_of = {value: column for column, value in enumerate(learned)}
        truth = np.zeros((len(self), len(learned)), dtype=bool)
        unlearned = np.zeros(len(self), dtype=np.int64)
        for product in np.flatnonzero(~unknown):
            for value in merchant_values[product]:
                if value in column_of:
                    truth[product, column_of[value]] = True
                else:
                    unlearned[product] += 1
        applies = np.array([attribute.applies_to(category) for category in self.categories], dtype=bool)
        empty = np.array([not self.merchant[product].get(name) for product in range(len(self))], dtype=bool)
        labelled = truth.any(axis=1) | (unlearned > 0)
        refused = np.zeros_like(truth)
        for words, target in ((self.people, truth), (self.refused, refused)):
            for position, said in enumerate(words):
                for value in said.get(name, ()):
                    empty[position] = False
                    if value in column_of:
                        target[position, column_of[value]] = True
        answered = np.zeros(len(self), dtype=bool)
        answered[[position for position, answers in enumerate(self.gold) if name in answers]] = True
        answered &= applies & empty
        gold_truth = np.zeros_like(truth)
        for position in np.flatnonzero(answered).tolist():
            for value in self.gold[position][name]:
                if value in column_of:
                    gold_truth[position, column_of[value]] = True
        return Labels(
            name,
            attribute.cardinality,
            learned,
            truth,
            labelled,
            unlearned,
            applies & empty,
            refused if refused.any() else None,
            answered if answered.any() else None,
            gold_truth if answered.any() else None,
        )

    def _applicable_values(self, attribute: Attribute, product: int) -> tuple[str, ...]:
        """The merchant's values; empty where the attribute does not apply to the product's category."""
        if not attribute.applies_to(self.categories[product]):
            return ()
        return self.merchant[product].get(attribute.name, ())


def load_dataset(products: Iterable[pa.RecordBatch], dictionary: Dictionary, options: LoadOptions) -> Dataset:
    """Read product rows (contract `products`, or `catalog.self_derived.scan_products`), without those that opted out.

    The pixels are written to ``pixels.u8`` in ``options.workdir``. An unusable picture raises nothing: it is counted
    by reason, and the product has no image.
    """
    dataset = Dataset(dictionary)
    shape = (options.square.side, options.square.side, 3)
    slots = _Slots(options.max_unlabelled)
    options.workdir.mkdir(parents=True, exist_ok=True)
    file = options.workdir / "pixels.u8"
    with file.open("wb") as sink, ThreadPoolExecutor(options.threads) as pool:
        for batch in products:
            rows = _assign_slots(batch.to_pylist(), dataset, slots, options)
            pictures = pool.map(lambda row: first_usable(row["images"], options.square, options.images), rows.values())
            for (slot, row), picture in zip(rows.items(), pictures, strict=True):
                _store_row(dataset, slot, row, options)
                _store_picture(dataset, slot, picture, sink)
        sink.truncate(len(dataset) * int(np.prod(shape)))
    if len(dataset):
        dataset.pixels = np.memmap(file, dtype=np.uint8, mode="r", shape=(len(dataset), *shape))
    return dataset


class _Slots:
    """Assigns positions in the data set (slots). Of the unlabelled products only the ``limit`` with the smallest hash
    get one.

    The sample does not depend on the order of the rows, and a larger limit only adds products.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._sample: list[tuple[int, int]] = []  # a heap of (-hash, slot): the largest hash is replaced first
        self._next = 0

    def labelled(self) -> int:
        self._next += 1
        return self._next - 1

    def unlabelled(self, product_id: str) -> int | None:
        """A new slot, or that of a product with a larger hash, which is replaced; None if not in the sample."""
        negative_hash = -int(stable_hash("unlabelled", product_id)[:15], 16)
        if len(self._sample) < self._limit:
            slot = self.labelled()
            heapq.heappush(self._sample, (negative_hash, slot))
            return slot
        if not self._sample or negative_hash <= self._sample[0][0]:
            return None
        _, slot = heapq.heapreplace(self._sample, (negative_hash, self._sample[0][1]))
        return slot


def _assign_slots(
    rows: list[dict[str, Any]], dataset: Dataset, slots: _Slots, options: LoadOptions
) -> dict[int, dict[str, Any]]:
    """Slot -> row, for the rows that are kept. Where two rows of a batch get the same slot, the last one keeps it."""
    row_by_slot: dict[int, dict[str, Any]] = {}
    for row in rows:
        dataset.counts["products_read"] += 1
        if row["opt_out"]:
            dataset.counts["opted_out"] += 1
            continue
        row["merchant"] = _merchant_values(row["merchant_attributes"])
        row["self_derived"] = frozenset(row.get("adopted_attributes") or ())
        dataset.counts["self_derived"] += not row["self_derived"].isdisjoint(options.attributes)
        given = {name for name in options.attributes if row["merchant"].get(name) and name not in row["self_derived"]}
        overturned = _overturned(row, given, dataset.dictionary)
        row["merchant"] |= overturned
        dataset.counts["overturned"] += bool(overturned)
        said = _said_by_people(row, [name for name in options.attributes if name not in given])
        row["people"] = {name: tuple(one["right"]) for name, one in said.items() if one["right"]}
        row["refused"] = {name: tuple(one["wrong"]) for name, one in said.items() if not one["right"]}
        row["gold"] = {
            name: one for name, one in _gold(row).items() if name in options.attributes and name not in given
        }
        dataset.counts["gold"] += bool(row["gold"])
        for count, words in (("labelled_by_people", row["people"]), ("refused_by_people", row["refused"])):
            for source in {said[name]["source"] for name in words}:
                dataset.counts[f"{count}.{source}"] += 1
        if given:
            dataset.counts["labelled"] += 1
        if given or said or row["gold"]:
            row_by_slot[slots.labelled()] = row
            continue
        dataset.counts["unlabelled"] += 1
        slot = slots.unlabelled(row["product_id"])
        if slot is not None:
            row_by_slot[slot] = row
    return row_by_slot


def _said_by_people(row: Mapping[str, Any], attributes: list[str]) -> dict[str, dict[str, Any]]:
    """Attribute -> right, wrong and source (catalog.people_labels); empty without the column."""
    said = json.loads(row.get("labels_by_people") or "{}")
    return {name: one for name, one in said.items() if name in attributes}


def _overturned(row: Mapping[str, Any], given: Collection[str], words: Dictionary) -> dict[str, tuple[str, ...]]:
    """Attribute -> what two people say is right, of those ``given`` attributes whose merchant's values they overturn.

    It takes the place of the merchant's value as a label, in every fold: a model that is right where the merchant is
    wrong makes no error. Of an attribute with several values, those that people confirm are added and those that they
    refuse are left out. People only see where an earlier model and the merchant differ. A model that repeats a wrong
    label still counts as right there, as it does without people.
    """
    found = {}
    for name, one in _said_by_people(row, sorted(given)).items():
        given_values, right = row["merchant"][name], one["right"]
        if not one["by_two"] or not right or set(right) & set(given_values):
            continue
        if words[name].cardinality is Cardinality.MANY:
            right = [value for value in (*given_values, *right) if value not in one["wrong"]]
        found[name] = tuple(right)
    return found


def _gold(row: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Attribute -> the right values of a gold sample's answer (catalog.gold_labels); empty without the column."""
    answers = json.loads(row.get("gold_labels") or "{}")
    return {name: tuple(one["values"]) for name, one in answers.items()}


def _merchant_values(raw: Any) -> dict[str, tuple[str, ...]]:
    """Attribute -> distinct values, without nulls. Arrow returns a map as a list of pairs."""
    pairs = raw.items() if isinstance(raw, Mapping) else raw or ()
    return {name: tuple(dict.fromkeys(value for value in values or () if value)) for name, values in pairs}


def _store_row(dataset: Dataset, slot: int, row: dict[str, Any], options: LoadOptions) -> None:
    columns: list[tuple[list[Any], Any]] = [
        (dataset.ids, row["product_id"]),
        (dataset.titles, clean_text(row["title"], options.max_chars)),
        (dataset.descriptions, clean_text(row["description"], options.max_chars)),
        (dataset.categories, row["category"] or ""),
        (dataset.languages, row["language"] or ""),
        (dataset.updated_at, row["updated_at"]),
        (dataset.merchant, row["merchant"]),
        (dataset.people, row["people"]),
        (dataset.refused, row["refused"]),
        (dataset.gold, row["gold"]),
        (dataset.self_derived, row["self_derived"]),
    ]
    for column, value in columns:
        column[slot : slot + 1] = [value]  # appends at the end, else overwrites the replaced product


def _store_picture(dataset: Dataset, slot: int, picture: Decoded, sink: IO[bytes]) -> None:
    digest = None
    dataset.unusable.add([(picture.reason, picture.detail)])
    if picture.pixels is None:
        dataset.counts[f"picture_{picture.reason}"] += 1
    else:
        raw = np.ascontiguousarray(picture.pixels).tobytes()
        digest = hashlib.blake2b(raw, digest_size=16).hexdigest()
        sink.seek(slot * len(raw))
        sink.write(raw)
    dataset.pictures[slot : slot + 1] = [digest]
    dataset.picture_reasons[slot : slot + 1] = [picture.reason]
