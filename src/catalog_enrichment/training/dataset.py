"""The products a model learns from, read once: texts in memory, pictures in a memory-mapped file, merchant values.

A picture is fetched and decoded once, in threads, at the size the recipe asks for, and written to one file of uint8
pixels under the work folder. Memory therefore grows with the texts, not with the pictures; the epochs read pixels
through the page cache.
"""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from catalog_enrichment.config.schema import ImagesConfig
from catalog_enrichment.dictionary import Attribute, Dictionary
from catalog_enrichment.inputs.images import Decoded, first_usable
from catalog_enrichment.inputs.text import clean_text
from catalog_enrichment.records import Cardinality, stable_hash

if TYPE_CHECKING:
    import pyarrow as pa

UNLABELLED = -1
"""Class of a product without a usable merchant value."""
NOT_LEARNED = -2
"""Class of a product whose merchant value is none of the learned ones: always a miss, never in the loss."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadOptions:
    """How to read the products."""

    attributes: list[str]
    """Attributes to learn; a product with a merchant value for one of them is labelled."""
    image_size: int
    """Side of the decoded pictures, pixels."""
    max_chars: int
    """Characters kept of a title and of a description."""
    images: ImagesConfig
    workdir: Path
    max_unlabelled: int
    """Products without any label that are kept; which ones is decided by a hash of their id."""
    threads: int = 4
    """Threads that fetch and decode; a fetch waits for the network, so more than there are cores."""


@dataclass(frozen=True, slots=True)
class Labels:
    """What the merchants say about one attribute, in the terms of the values that are learned."""

    attribute: str
    cardinality: Cardinality
    values: tuple[str, ...]
    """The learned values, in the dictionary's order."""
    truth: NDArray[np.bool_]
    """(N, V): the merchant gives this value."""
    labelled: NDArray[np.bool_]
    """(N,): the merchant gives a value, learned or not. Evaluation and certification count these."""
    unlearned: NDArray[np.int64]
    """(N,): true values that are not learned; they stay in recall's denominator."""
    open: NDArray[np.bool_]
    """(N,): the attribute applies and the merchant gives nothing: what enrichment would fill."""

    @property
    def learnable(self) -> NDArray[np.bool_]:
        """(N,): in the loss: labelled with at least one learned value."""
        return np.asarray(self.truth.any(axis=1))

    @property
    def classes(self) -> NDArray[np.int64]:
        """(N,): the learned value's number, UNLABELLED or NOT_LEARNED. For attributes with one value."""
        missing = np.where(self.labelled, NOT_LEARNED, UNLABELLED)
        if not self.values:
            return missing.astype(np.int64)
        return np.where(self.learnable, self.truth.argmax(axis=1), missing).astype(np.int64)


@dataclass(slots=True)
class Dataset:
    """N products, in a stable order (as read; an unlabelled product may take an evicted one's place)."""

    dictionary: Dictionary
    ids: list[str] = field(default_factory=list)
    titles: list[str] = field(default_factory=list)
    descriptions: list[str] = field(default_factory=list)
    categories: list[str] = field(default_factory=list)
    languages: list[str] = field(default_factory=list)
    pictures: list[str | None] = field(default_factory=list)
    """Hash of the decoded pixels; None without a usable picture."""
    updated_at: list[datetime | None] = field(default_factory=list)
    merchant: list[dict[str, tuple[str, ...]]] = field(default_factory=list)
    """Attribute -> the merchant's values, distinct, as in the products table."""
    pixels: NDArray[np.uint8] = field(default_factory=lambda: np.zeros((0, 1, 1, 3), dtype=np.uint8))
    """(N, S, S, 3) RGB, memory-mapped, read-only; meaningless without a usable picture."""
    counts: Counter[str] = field(default_factory=Counter)
    """Products read, opted out, labelled, unlabelled, not kept, and unusable pictures by reason."""

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def has_image(self) -> NDArray[np.bool_]:
        """(N,): a picture could be decoded."""
        return np.array([picture is not None for picture in self.pictures], dtype=bool)

    def labels(self, name: str, min_count: int = 1) -> Labels:
        """Labels of attribute ``name``; learned are dictionary values with at least ``min_count`` labelled products.

        Counted over all folds, not in train alone: which values a model knows then depends on the catalog and not
        on the draw of the split. Only the number of a value's products is looked at, nothing about any product.

        A value that is not the dictionary's is labelled but never learned: whatever the model writes there is
        wrong, which is the cautious reading of a spelling that nobody mapped. Where the merchant gives several
        values of an attribute that can have one, the truth is unknown, and the product is neither labelled nor open.
        """
        attribute = self.dictionary[name]
        given = [self._given(attribute, product) for product in range(len(self))]
        single = attribute.cardinality is Cardinality.ONE
        ambiguous = np.array([single and len(values) > 1 for values in given], dtype=bool)
        support = Counter(v for values, skip in zip(given, ambiguous, strict=True) if not skip for v in values)
        learned = tuple(value for value in attribute.values if support[value] >= max(min_count, 1))
        position = {value: column for column, value in enumerate(learned)}
        truth = np.zeros((len(self), len(learned)), dtype=bool)
        unlearned = np.zeros(len(self), dtype=np.int64)
        for product in np.flatnonzero(~ambiguous):
            for value in given[product]:
                if value in position:
                    truth[product, position[value]] = True
                else:
                    unlearned[product] += 1
        applies = np.array([attribute.applies_to(category) for category in self.categories], dtype=bool)
        empty = np.array([not self.merchant[product].get(name) for product in range(len(self))], dtype=bool)
        labelled = truth.any(axis=1) | (unlearned > 0)
        return Labels(name, attribute.cardinality, learned, truth, labelled, unlearned, applies & empty)

    def _given(self, attribute: Attribute, product: int) -> tuple[str, ...]:
        """The merchant's values, where the attribute applies to the product."""
        if not attribute.applies_to(self.categories[product]):
            return ()
        return self.merchant[product].get(attribute.name, ())


def load_dataset(products: Iterable[pa.RecordBatch], dictionary: Dictionary, options: LoadOptions) -> Dataset:
    """Read product rows (contract `products`), leaving out the merchants who opted out.

    ``pixels`` is a file ``pixels.u8`` in ``options.workdir``. Raises nothing for a bad picture: it is counted, and the
    product has no image.
    """
    dataset = Dataset(dictionary)
    shape = (options.image_size, options.image_size, 3)
    slots = _Slots(options.max_unlabelled)
    options.workdir.mkdir(parents=True, exist_ok=True)
    file = options.workdir / "pixels.u8"
    with file.open("wb") as sink, ThreadPoolExecutor(options.threads) as pool:
        for batch in products:
            rows = _placed(batch.to_pylist(), dataset, slots, options)
            pictures = pool.map(
                lambda row: first_usable(row["images"], options.image_size, options.images), rows.values()
            )
            for (slot, row), picture in zip(rows.items(), pictures, strict=True):
                _keep(dataset, slot, row, options)
                _keep_picture(dataset, slot, picture, sink)
        sink.truncate(len(dataset) * int(np.prod(shape)))
    if len(dataset):
        dataset.pixels = np.memmap(file, dtype=np.uint8, mode="r", shape=(len(dataset), *shape))
    return dataset


class _Slots:
    """Gives every product a position; of the unlabelled, only the ``limit`` with the smallest hash hold one.

    A sample by hash is the same whatever the order of the rows, and grows by adding only.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held: list[tuple[int, int]] = []  # a heap of (-hash, slot): the largest hash is the next to go
        self._next = 0

    def labelled(self) -> int:
        self._next += 1
        return self._next - 1

    def unlabelled(self, product_id: str) -> int | None:
        """A slot (perhaps one taken from a product with a larger hash), or None if this one is not in the sample."""
        draw = -int(stable_hash("unlabelled", product_id)[:15], 16)
        if len(self._held) < self._limit:
            slot = self.labelled()
            heapq.heappush(self._held, (draw, slot))
            return slot
        if not self._held or draw <= self._held[0][0]:
            return None
        _, slot = heapq.heapreplace(self._held, (draw, self._held[0][1]))
        return slot


def _placed(
    rows: list[dict[str, Any]], dataset: Dataset, slots: _Slots, options: LoadOptions
) -> dict[int, dict[str, Any]]:
    """Slot -> row, for the rows that are kept. Where two of one batch share a slot, the last one holds it."""
    placed: dict[int, dict[str, Any]] = {}
    for row in rows:
        dataset.counts["products_read"] += 1
        if row["opt_out"]:
            dataset.counts["opted_out"] += 1
            continue
        row["merchant"] = _merchant_values(row["merchant_attributes"])
        if any(row["merchant"].get(name) for name in options.attributes):
            dataset.counts["labelled"] += 1
            placed[slots.labelled()] = row
            continue
        dataset.counts["unlabelled"] += 1
        slot = slots.unlabelled(row["product_id"])
        if slot is not None:
            placed[slot] = row
    return placed


def _merchant_values(raw: Any) -> dict[str, tuple[str, ...]]:
    """Arrow gives a map as a list of pairs; null arrays and null values say nothing."""
    pairs = raw.items() if isinstance(raw, Mapping) else raw or ()
    return {name: tuple(dict.fromkeys(value for value in values or () if value)) for name, values in pairs}


def _keep(dataset: Dataset, slot: int, row: dict[str, Any], options: LoadOptions) -> None:
    columns: list[tuple[list[Any], Any]] = [
        (dataset.ids, row["product_id"]),
        (dataset.titles, clean_text(row["title"], options.max_chars)),
        (dataset.descriptions, clean_text(row["description"], options.max_chars)),
        (dataset.categories, row["category"] or ""),
        (dataset.languages, row["language"] or ""),
        (dataset.updated_at, row["updated_at"]),
        (dataset.merchant, row["merchant"]),
    ]
    for column, value in columns:
        column[slot : slot + 1] = [value]  # at the end this appends, else it takes the evicted product's place


def _keep_picture(dataset: Dataset, slot: int, picture: Decoded, sink: IO[bytes]) -> None:
    digest = None
    if picture.pixels is None:
        dataset.counts[f"picture_{picture.reason}"] += 1
    else:
        raw = np.ascontiguousarray(picture.pixels).tobytes()
        digest = hashlib.blake2b(raw, digest_size=16).hexdigest()
        sink.seek(slot * len(raw))
        sink.write(raw)
    dataset.pictures[slot : slot + 1] = [digest]
