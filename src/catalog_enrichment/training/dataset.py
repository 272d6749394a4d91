"""The data set of a training: texts and labels in memory, pictures in a memory-mapped file.

Each picture is fetched and decoded once, in threads, at the size that the recipe needs, and written to one file of
uint8 pixels in the work folder. The memory needed therefore grows with the texts and not with the pictures; epochs
read the pixels through the page cache.
"""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from catalog_enrichment.config.images import ImagesConfig
from catalog_enrichment.dictionary import Dictionary
from catalog_enrichment.errors import ConfigError
from catalog_enrichment.inputs.images import Decoded, UnusablePictures, first_usable
from catalog_enrichment.inputs.square import Square
from catalog_enrichment.inputs.text import clean_text
from catalog_enrichment.precision.units import Bools
from catalog_enrichment.reasons import TRANSIENT, Reason
from catalog_enrichment.records import Modality, stable_hash
from catalog_enrichment.training.labels import KnownValues, Labels, closed_labels, open_labels
from catalog_enrichment.training.product_labels import DATASET_COLUMNS, ProductLabels, Values, labels_of

if TYPE_CHECKING:
    import pyarrow as pa

DECODING_THREADS = 4
"""Threads that fetch and decode pictures."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadOptions:
    """The settings for reading the products."""

    attributes: list[str]
    """Attributes to learn; a product with a merchant value for one of them is labelled."""
    square: Square | None
    """The square that pictures are fitted into; None: no picture is opened, and every picture that is listed counts as
    usable."""
    max_chars: int
    """Characters kept of a title and of a description."""
    images: ImagesConfig
    workdir: Path
    max_unlabelled: int
    """Products without any label that are kept: those with the smallest hash of the product id."""

    def __post_init__(self) -> None:
        """Raise ConfigError where the scaled copies are smaller than the pictures that the model reads."""
        copies, square = self.images.copy_side, self.square
        if copies is not None and square is not None and copies < square.wanted_side:
            raise ConfigError(
                f"images.scaled_side = {copies} is too small for model.image.size = {square.side}"
                f"{' with model.image.trim, which needs twice that' if square.trim else ''}: "
                f"set images.scaled_side = {square.wanted_side}"
            )


@dataclass(slots=True)
class Dataset:
    """N products, in the order read; an unlabelled product may replace another in the sample (:class:`_Slots`)."""

    dictionary: Dictionary
    ids: list[str] = field(default_factory=list)
    titles: list[str] = field(default_factory=list)
    descriptions: list[str] = field(default_factory=list)
    categories: list[str] = field(default_factory=list)
    languages: list[str] = field(default_factory=list)
    pictures: list[str | None] = field(default_factory=list)
    """Hash of the decoded pixels; None without a usable picture."""
    picture_reasons: list[Reason | None] = field(default_factory=list)
    """Why there is no usable picture; None where there is a picture."""
    updated_at: list[datetime | None] = field(default_factory=list)
    first_imported_at: list[datetime | None] = field(default_factory=list)
    """When an import first had the product; None where it is not known."""
    merchant: list[Values] = field(default_factory=list)
    """The merchant's values, distinct, as in the products table; where two people overturned them, the right values
    (:mod:`product_labels`)."""
    people: list[Values] = field(default_factory=list)
    """Values that are right by people's answers, where the merchant gives no label; these only train."""
    refused: list[Values] = field(default_factory=list)
    """Values that are wrong by people's answers, where neither the merchant nor people give a right value; these only
    train."""
    gold: list[Values] = field(default_factory=list)
    """People's answers in a gold sample, where the merchant gives no label: the right values, none where the product
    has none or they could not tell. They train nothing."""
    reviewed: list[Values] = field(default_factory=list)
    """The merchant's own values, of the labels that two people judged, whatever they said."""
    self_derived: list[frozenset[str]] = field(default_factory=list)
    """Attributes for which the merchant repeats a value that this system wrote or suggested (PRECISION, certificate
    7)."""
    pixels: NDArray[np.uint8] = field(default_factory=lambda: np.zeros((0, 1, 1, 3), dtype=np.uint8))
    """(N, S, S, 3) RGB, memory-mapped, read-only; undefined for a product without a usable picture."""
    counts: Counter[str] = field(default_factory=Counter)
    """Products read, opted out, self-derived, labelled, labelled or with a value refused by people (by source),
    unlabelled, not kept, and unusable pictures by reason."""
    unusable: UnusablePictures = field(default_factory=UnusablePictures)
    """Counts of the products that have pictures, and of the unusable pictures."""

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def has_image(self) -> Bools:
        """(N,): the product has a usable picture."""
        return np.array([picture is not None for picture in self.pictures], dtype=bool)

    @property
    def asked(self) -> Bools:
        """(N,): people answered for the product in a gold sample, about any attribute that applies to its category."""
        products = zip(self.gold, self.categories, strict=True)
        applies = [
            any(self.dictionary[name].applies_to(category) for name in answers) for answers, category in products
        ]
        return np.array(applies, dtype=bool)

    def on_path(self, modality: Modality) -> Bools:
        """(N,): the product is of the population that the path's certificate is about.

        A product whose picture could only not be reached now (`reasons.TRANSIENT`) is of neither: enrichment waits for
        its picture, so it says nothing about products without a picture.
        """
        if modality is Modality.BOTH:
            return self.has_image
        outage = [reason in TRANSIENT for reason in self.picture_reasons]
        return np.asarray(~self.has_image & ~np.array(outage, dtype=bool))

    def labels_of(self, product: int, attributes: Collection[str]) -> ProductLabels:
        """Return the labels of one product, for the ``attributes`` to learn."""
        merchant, derived = self.merchant[product], self.self_derived[product]
        return ProductLabels(
            merchant=merchant,
            given=frozenset(name for name in attributes if merchant.get(name) and name not in derived),
            self_derived=derived,
            people=self.people[product],
            refused=self.refused[product],
        )

    def labels(self, name: str, min_count: int = 1) -> Labels:
        """Return the labels of attribute ``name``. The learned values are those of the dictionary with at least
        ``min_count`` labelled products of all folds: they depend on the catalog and not on the split.

        A value that is not in the dictionary is labelled but never learned: whatever the model predicts there counts as
        wrong. The truth is unknown, and the product is neither labelled nor unlabelled, where the merchant gives
        several values of an attribute of cardinality ONE, and where a value is self-derived: the merchant's other
        values do not say that it is wrong.

        People's answers (``people``, ``refused``) are in truth and refused, but such a product is neither labelled nor
        unlabelled: which products people are asked about depends on the scores, so their answers train, and nothing is
        measured or certified by them.
        """
        attribute = self.dictionary[name]
        merchant = [values.get(name, ()) for values in self.merchant]
        known = KnownValues(
            applies=[attribute.applies_to(category) for category in self.categories],
            merchant=merchant,
            self_derived=[name in derived for derived in self.self_derived],
            people=[values.get(name, ()) for values in self.people],
            refused=[values.get(name, ()) for values in self.refused],
            gold=[answers.get(name) for answers in self.gold],
        )
        return open_labels(attribute, known) if attribute.is_open else closed_labels(attribute, known, min_count)


def load_dataset(products: Iterable[pa.RecordBatch], dictionary: Dictionary, options: LoadOptions) -> Dataset:
    """Read product rows (contract `products`, or `catalog.self_derived.scan_products`), without those that opted out.

    The pixels are written to ``pixels.u8`` in ``options.workdir``. An unusable picture raises nothing: it is counted
    by reason, and the product has no image.
    """
    dataset = Dataset(dictionary)
    slots = _Slots(options.max_unlabelled)
    options.workdir.mkdir(parents=True, exist_ok=True)
    file = options.workdir / "pixels.u8"
    square = options.square
    shape = (0, 0, 3) if square is None else (square.side, square.side, 3)
    with file.open("wb") as sink, ThreadPoolExecutor(DECODING_THREADS) as pool:
        for batch in products:
            rows = _assign_slots(batch.to_pylist(), dataset, slots, options.attributes)
            for slot, row in rows.items():
                _store_row(dataset, slot, row, options.max_chars)
            if square is None:
                for slot, row in rows.items():
                    _store_listed(dataset, slot, row["images"] or ())
                continue
            pictures = pool.map(lambda row: first_usable(row["images"], square, options.images), rows.values())
            for slot, picture in zip(rows, pictures, strict=True):
                _store_picture(dataset, slot, picture, sink)
        sink.truncate(len(dataset) * int(np.prod(shape)))
    if len(dataset) and square is not None:
        dataset.pixels = np.memmap(file, dtype=np.uint8, mode="r", shape=(len(dataset), *shape))
    return dataset


class _Slots:
    """Assigns positions in the data set (slots). Of the unlabelled products only the ``limit`` with the smallest hash
    get a slot: the sample does not depend on the order of the rows, and a larger limit only adds products."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._sample: list[tuple[int, int]] = []  # a heap of (-hash, slot): the largest hash is replaced first
        self._next = 0

    def labelled(self) -> int:
        self._next += 1
        return self._next - 1

    def unlabelled(self, product_id: str) -> int | None:
        """Return a new slot, or that of a product with a larger hash, which is replaced; None if not in the sample."""
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
    rows: list[dict[str, Any]], dataset: Dataset, slots: _Slots, attributes: Sequence[str]
) -> dict[int, dict[str, Any]]:
    """Return slot -> row, for the rows that are kept. Where two rows of a batch get the same slot, the last row keeps
    it."""
    counts, row_by_slot = dataset.counts, dict[int, dict[str, Any]]()
    for row in rows:
        counts["products_read"] += 1
        if row["opt_out"]:
            counts["opted_out"] += 1
            continue
        labels = labels_of(row, attributes, dataset.dictionary)
        row |= labels.columns()
        counts["self_derived"] += not labels.self_derived.isdisjoint(attributes)
        counts["overturned"] += labels.overturned
        counts["gold"] += bool(labels.gold)
        counts.update(labels.sources)
        counts["labelled"] += bool(labels.given)
        if labels.given or labels.people or labels.refused or labels.gold:
            row_by_slot[slots.labelled()] = row
            continue
        counts["unlabelled"] += 1
        if (slot := slots.unlabelled(row["product_id"])) is not None:
            row_by_slot[slot] = row
    return row_by_slot


def _store_row(dataset: Dataset, slot: int, row: Mapping[str, Any], max_chars: int) -> None:
    columns: list[tuple[list[Any], Any]] = [
        (dataset.ids, row["product_id"]),
        (dataset.titles, clean_text(row["title"], max_chars)),
        (dataset.descriptions, clean_text(row["description"], max_chars)),
        (dataset.categories, row["category"] or ""),
        (dataset.languages, row["language"] or ""),
        (dataset.updated_at, row["updated_at"]),
        (dataset.first_imported_at, row["first_imported_at"]),
        *((getattr(dataset, name), row[name]) for name in DATASET_COLUMNS),
    ]
    for column, value in columns:
        column[slot : slot + 1] = [value]  # appends at the end, else overwrites the replaced product


def _store_listed(dataset: Dataset, slot: int, images: Sequence[Mapping[str, Any]]) -> None:
    """Store that the product lists a picture, by what tells whether two pictures are the same."""
    first = next(iter(images), None)
    # the version is a hash of the bytes, or the size and time of a file
    listed = None if first is None else stable_hash(str(first["version"] or first["uri"] or first["bytes"]))
    dataset.pictures[slot : slot + 1] = [listed]
    dataset.picture_reasons[slot : slot + 1] = [Reason.NO_IMAGE if first is None else None]


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
