"""What merchants gave before: the values of an attribute, and their shapes, with how often their words stand in a text.

"One" is in many texts and hardly ever a brand: a value counts by the share of the texts with its words in which it is
the value. In training a product does not count its own label, or every training value would be known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from catalog_enrichment.models.extraction.words import Hashes, Ints

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Counts:
    """How often hashes were a label, and how often they were in a text."""

    hashes: Hashes
    """(K,) sorted."""
    labels: Ints
    """(K,) labelled products whose value it is."""
    texts: Ints
    """(K,) how often it stands in the texts of the labelled products."""

    @classmethod
    def of(cls, labels: Sequence[int]) -> Counts:
        """Count the labels' hashes, a label each."""
        hashes, numbers = np.unique(np.array(labels, dtype=np.uint64), return_counts=True)
        return cls(hashes, numbers.astype(np.int64), np.zeros(len(hashes), dtype=np.int64))

    def at(self, hashes: Hashes) -> Ints:
        """(n,) the position of each hash, -1 for one that was no label."""
        if not len(self.hashes):
            return np.full(len(hashes), -1, dtype=np.int64)
        place = np.minimum(np.searchsorted(self.hashes, hashes), len(self.hashes) - 1)
        return np.where(self.hashes[place] == hashes, place, -1)

    def add_texts(self, hashes: Hashes) -> None:
        """Count hashes that stand in texts, in place."""
        place = self.at(hashes)
        np.add.at(self.texts, place[place >= 0], 1)

    def features(self, hashes: Hashes, own: Hashes | None) -> Floats:
        """(n, 2) the logarithm of the labels, and their share of the texts; 0 for a hash that was no label.

        ``own``: (n, M) in training, the hashes of the product's own labels, which do not count.
        """
        place = self.at(hashes)
        known = place >= 0
        if not known.any():
            return np.zeros((len(hashes), 2), dtype=np.float32)
        labels = np.where(known, self.labels[place], 0)
        texts = np.where(known, self.texts[place], 0)
        if own is not None:
            labels = labels - (known & (hashes[:, None] == own).any(axis=1))
            texts = np.maximum(texts - 1, 0)
        share = np.minimum(labels / np.maximum(texts + 2, 1), 1.0)
        return np.stack([np.log1p(labels), share], axis=1).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Known:
    """What is known about the values of one attribute."""

    values: Counts
    """By the hash of the value's key; of numbers, of the stored text."""
    shapes: Counts
    """By the hash of the value's shape."""
    logs: tuple[float, float] = (0.0, 1.0)
    """Mean and standard deviation of the logarithm of the numbers."""


@dataclass(frozen=True, slots=True)
class Lexicon:
    """Attribute -> what is known about its values."""

    known: Mapping[str, Known] = field(default_factory=dict)

    def arrays(self) -> dict[str, NDArray[np.int64]]:
        """Return the counts as named arrays, for a file; hashes as signed numbers of the same bits."""
        found = {}
        for number, known in enumerate(self.known.values()):
            for name, counts in (("values", known.values), ("shapes", known.shapes)):
                found[f"{number}.{name}.hashes"] = counts.hashes.view(np.int64)
                found[f"{number}.{name}.labels"] = counts.labels
                found[f"{number}.{name}.texts"] = counts.texts
        return found

    @classmethod
    def of_arrays(cls, logs: Mapping[str, Sequence[float]], arrays: Mapping[str, NDArray[np.int64]]) -> Lexicon:
        """Return the lexicon of :meth:`arrays`; ``logs``: attribute -> :attr:`Known.logs`, in the same order."""

        def counts(number: int, name: str) -> Counts:
            columns = (arrays[f"{number}.{name}.{column}"] for column in ("hashes", "labels", "texts"))
            hashes, labels, texts = columns
            return Counts(np.ascontiguousarray(hashes).view(np.uint64), labels, texts)

        return cls(
            {
                name: Known(counts(number, "values"), counts(number, "shapes"), (float(of[0]), float(of[1])))
                for number, (name, of) in enumerate(logs.items())
            }
        )
