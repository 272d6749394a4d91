"""The places of a product's text that can be a value of an attribute, with the features that rank them.

For an attribute of the kind `text` these are the runs of words, for a `number` the numbers that can be in its unit.

Shapes: C parts of texts; P places of a batch, a part for a product's attribute each: a part that two attributes can
have is two places.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalog_enrichment.models.extraction.lexicon import Floats, Lexicon
from catalog_enrichment.models.extraction.recipe import CandidateSpec
from catalog_enrichment.models.extraction.words import Bools, Hashes, Ints, Runs, Words, key_of, runs, split
from catalog_enrichment.values import numbers, same
from catalog_enrichment.values.kinds import Kind, OpenRule
from catalog_enrichment.values.numbers import Literal

BUCKETS = 1024
"""Buckets of words: neighbours of a place, its first and its last word."""
NEIGHBOURS = 5
"""Words of a place that are features: two before it, its first and last, one behind it."""
COMMON = 35
"""Numbers that describe a place whatever the attribute."""
SPECIFIC = 7
"""Numbers that describe it for an attribute: how often merchants gave the value, and how often it stands in texts; the
same of its shape; whether a longer value from the same word is known; how far the number is from the usual ones."""


@dataclass(frozen=True, slots=True)
class Places:
    """The places of a batch of B products."""

    product: Ints
    """(P,)"""
    attribute: Ints
    """(P,) position among the attributes."""
    in_description: Bools
    """(P,)"""
    start: Ints
    """(P,) where the place begins in its text, characters."""
    end: Ints
    """(P,) where it ends."""
    key: Hashes
    """(P,) places of one product and attribute with the same key have the same value."""
    value: list[str]
    """(P,) the stored number; "" for a text, whose value is the text between start and end."""
    number: NDArray[np.float64]
    """(P,) the number in the attribute's unit; NaN for a text."""
    specific: Floats
    """(P, SPECIFIC)"""
    part: Ints
    """(P,) the position of the place's part in ``common`` and ``words``."""
    common: Floats
    """(C, COMMON)"""
    words: Ints
    """(C, NEIGHBOURS) buckets."""

    def __len__(self) -> int:
        return len(self.product)


class PlaceFinder:
    """Finds the places of products for given attributes."""

    def __init__(self, rules: Mapping[str, OpenRule], lexicon: Lexicon, spec: CandidateSpec) -> None:
        self.rules, self.lexicon, self.spec = dict(rules), lexicon, spec
        self._meanings = {name: Meanings.of(rule) for name, rule in rules.items()}

    def find(self, titles: Sequence[str], descriptions: Sequence[str], own: Own | None = None) -> Places:
        """Return the places of B products with clean texts; ``own``: in training, the labels of the products."""
        words = split(titles, descriptions, self.spec.read_words)
        return self.of_words(words, own)

    def of_words(self, words: Words, own: Own | None = None) -> Places:
        """Return the places in ``words``."""
        found: list[Places] = []
        if any(rule.kind is Kind.TEXT for rule in self.rules.values()):
            found += self._texts(words, own)
        if any(rule.kind is Kind.NUMBER for rule in self.rules.values()):
            found += self._numbers(words, own)
        return _joined(found)

    def _texts(self, words: Words, own: Own | None) -> list[Places]:
        of = runs(words, self.spec.most_words)
        common, neighbours = _run_features(words, of), _neighbours(words, of.first, of.last)
        every = words.product[of.first]
        found = []
        for number, (name, rule) in enumerate(self.rules.items()):
            if rule.kind is not Kind.TEXT:
                continue
            part = np.arange(len(every)) if own is None else np.flatnonzero(own.asked[name][every])
            product, key, shape = every[part], self._meanings[name].meant(of.key[part]), of.shape[part]
            specific = np.zeros((len(part), SPECIFIC), dtype=np.float32)
            known = self.lexicon.known.get(name)
            if known is not None:
                mine, shapes = (None, None) if own is None else (own.keys[name][product], own.shapes[name][product])
                specific[:, 0:2] = known.values.features(key, mine)
                specific[:, 2:4] = known.shapes.features(shape, shapes)
                specific[:, 4] = _longer_known(of.first[part], of.words[part], specific[:, 0])
                if own is not None:  # values of these products are taken for new ones
                    specific[own.unknown[product], :5] = 0
            found.append(
                Places(
                    product=product,
                    attribute=np.full(len(part), number, dtype=np.int64),
                    in_description=words.in_description[of.first[part]],
                    start=words.start[of.first[part]],
                    end=words.end[of.last[part]],
                    key=key,
                    value=[""] * len(part),
                    number=np.full(len(part), np.nan),
                    specific=specific,
                    part=part,
                    common=common,
                    words=neighbours,
                )
            )
        return found

    def _numbers(self, words: Words, own: Own | None) -> list[Places]:
        literals = [
            (product, field, literal, number, len(found))
            for product, pair in enumerate(words.texts)
            for field, text in enumerate(pair)
            for found in (numbers.find(text),)
            for number, literal in enumerate(found)
        ]
        first, last = _token_places(words, literals)
        common, neighbours = _literal_features(words, literals, first), _neighbours(words, first, last)
        found = []
        for number, (name, rule) in enumerate(self.rules.items()):
            if rule.kind is not Kind.NUMBER:
                continue
            values = [same.stored_number(literal, rule, bare=True) for _, _, literal, _, _ in literals]
            asked = [own is None or bool(own.asked[name][product]) for product, *_ in literals]
            part = np.array([at for at, value in enumerate(values) if value is not None and asked[at]], dtype=np.int64)
            stored = [values[at] or "" for at in part.tolist()]
            said = np.array([same.number_of(value, rule) or 0.0 for value in stored], dtype=np.float64)
            keys = np.array([key_of(value) for value in stored], dtype=np.uint64)
            product = np.array([literals[at][0] for at in part.tolist()], dtype=np.int64)
            specific = np.zeros((len(part), SPECIFIC), dtype=np.float32)
            known = self.lexicon.known.get(name)
            if known is not None:
                specific[:, 0:2] = known.values.features(keys, None if own is None else own.keys[name][product])
                logs = np.log(np.maximum(np.abs(said), 1e-6)).astype(np.float32)
                specific[:, 5] = np.clip((logs - known.logs[0]) / known.logs[1], -4, 4)
                specific[:, 6] = np.abs(specific[:, 5])
                if own is not None:
                    specific[own.unknown[product], :2] = 0
            found.append(
                Places(
                    product=product,
                    attribute=np.full(len(part), number, dtype=np.int64),
                    in_description=np.array([literals[at][1] for at in part.tolist()], dtype=bool),
                    start=np.array([literals[at][2].start for at in part.tolist()], dtype=np.int64),
                    end=np.array([literals[at][2].end for at in part.tolist()], dtype=np.int64),
                    key=keys,
                    value=stored,
                    number=said,
                    specific=specific,
                    part=part,
                    common=common,
                    words=neighbours,
                )
            )
        return found


@dataclass(frozen=True, slots=True)
class Own:
    """The labels of the products of a batch, in training; at most M of a product and attribute, any of them right."""

    keys: Mapping[str, Hashes]
    """Attribute -> (B, M) hashes of the labels' keys, 0 for none."""
    shapes: Mapping[str, Hashes]
    """Attribute -> (B, M) hashes of the labels' shapes."""
    asked: Mapping[str, Bools]
    """Attribute -> (B,) the product has a label, or is known to have no value; of others no place is looked at."""
    unknown: Bools
    """(B,) nothing is known about the values of the product."""
    numbers: Mapping[str, NDArray[np.float64]]
    """Attribute of the kind `number` -> (B, M) the labels in the attribute's unit, NaN for none."""
    rules: Mapping[str, OpenRule]

    def right(self, places: Places) -> Bools:
        """(P,) the place is the product's label."""
        found = np.zeros(len(places), dtype=bool)
        for number, (name, rule) in enumerate(self.rules.items()):
            mine = np.flatnonzero(places.attribute == number)
            product = places.product[mine]
            if rule.number is None:
                own = self.keys[name][product]
                found[mine] = ((places.key[mine, None] == own) & (own > 0)).any(axis=1)
                continue
            label = self.numbers[name][product]
            said = places.number[mine, None]
            largest = np.maximum(np.abs(said), np.abs(label))
            found[mine] = (np.abs(said - label) <= rule.number.tolerance * largest * (1 + 1e-9)).any(axis=1)
        return found


@dataclass(frozen=True, slots=True)
class Meanings:
    """The keys of an attribute's aliases, and of what they mean."""

    aliases: Hashes
    """(L,) sorted."""
    texts: Hashes
    """(L,)"""

    @classmethod
    def of(cls, rule: OpenRule) -> Meanings:
        """Return the keys of a rule's aliases."""
        of_alias = sorted({key_of(alias): key_of(text) for alias, text in rule.aliases.items()}.items())
        pairs = np.array(of_alias, dtype=np.uint64).reshape(-1, 2)
        return cls(pairs[:, 0], pairs[:, 1])

    def meant(self, keys: Hashes) -> Hashes:
        """Return the keys of texts, those of aliases replaced by the keys of what they mean."""
        if not len(self.aliases):
            return keys
        place = np.minimum(np.searchsorted(self.aliases, keys), len(self.aliases) - 1)
        return np.where(self.aliases[place] == keys, self.texts[place], keys)


def _run_features(words: Words, of: Runs) -> Floats:
    """(R, COMMON) what describes runs for every attribute."""
    first, last = of.first, of.last
    features = np.zeros((len(first), COMMON), dtype=np.float32)
    place, count = words.place[first], of.words
    last_word = np.where(words.is_word[last], last, np.maximum(last - 1, 0))
    behind = words.left[last_word] - 1
    features[:, 0] = words.in_description[first]
    features[:, 1] = np.minimum(place, 30) / 30
    for number in range(4):
        features[:, 2 + number] = place == number
    features[:, 6] = behind == 0
    features[:, 7] = np.minimum(behind, 30) / 30
    for number in range(1, 6):
        features[:, 7 + number] = count == number
    for kind in range(5):
        features[:, 13 + kind] = words.kind[first] == kind
        features[:, 18 + kind] = words.kind[last_word] == kind
    features[:, 23] = last > last_word  # ends with a sign
    text = words.product * 2 + words.in_description
    before, after = np.maximum(first - 1, 0), np.minimum(last + 1, len(words.start) - 1)
    inside_before = (before < first) & (text[before] == text[first])
    inside_after = (after > last) & (text[after] == text[first])
    features[:, 24] = inside_before & ~words.is_word[before]
    features[:, 25] = inside_after & ~words.is_word[after]
    features[:, 26] = inside_before & (words.end[before] == words.start[first])  # without a space
    features[:, 27] = inside_after & (words.start[after] == words.end[last])
    features[:, 28] = np.minimum(words.end[last] - words.start[first], 40) / 40
    return features


def _longer_known(first: Ints, words: Ints, known: Floats) -> Floats:
    """(n,) a longer run from the same word is known; ``first``, ``words``: the runs' first tokens and lengths."""
    longest = np.zeros(int(first.max(initial=-1)) + 1, dtype=np.int64)
    np.maximum.at(longest, first, np.where(known > 0, words, 0))
    return (longest[first] > words).astype(np.float32)


def _literal_features(words: Words, literals: Sequence[_Found], first: Ints) -> Floats:
    """(n, COMMON) what describes numbers for every attribute."""
    features = np.zeros((len(literals), COMMON), dtype=np.float32)
    chain = _chains(literals)
    for row, (_, field, literal, number, total) in enumerate(literals):
        position, length = chain[row]
        features[row, 0] = field
        features[row, 1] = min(int(words.place[first[row]]), 30) / 30 if len(words.start) else 0
        features[row, 2 + min(number, 3)] = 1
        features[row, 6] = number == total - 1
        features[row, 7] = min(total, 10) / 10
        features[row, 8 + min(position, 2)] = 1 if length > 1 else 0
        features[row, 11] = min(length, 4) / 4
        features[row, 29] = literal.unit is not None and not literal.shares_unit
        features[row, 30] = literal.shares_unit
        features[row, 31] = literal.unit is None
        features[row, 32] = literal.is_part
        features[row, 33] = float(literal.number).is_integer()
        features[row, 34] = math.log1p(min(abs(literal.number), 1e6)) / 10
    return features


_Found = tuple[int, int, Literal, int, int]
"""Product, field, number, its position in the text, and how many the text has."""


def _chains(literals: Sequence[_Found]) -> list[tuple[int, int]]:
    """Return of every number its position in its product (160x200) or range, and how many numbers that has."""
    found: list[tuple[int, int]] = []
    begin = 0
    for row, (product, field, literal, _, _) in enumerate(literals):
        before = literals[row - 1] if row else None
        follows = (
            before is not None
            and before[:2] == (product, field)
            and before[2].is_part
            and literal.is_part
            and literal.start - before[2].end <= 5
        )
        if not follows:
            begin = row
        found.append((row - begin, 0))
    for row in range(len(found) - 1, -1, -1):
        position = found[row][0]
        last = row + 1 == len(found) or found[row + 1][0] == 0
        found[row] = (position, position + 1 if last else found[row + 1][1])
    return found


def _token_places(words: Words, literals: Sequence[_Found]) -> tuple[Ints, Ints]:
    """(n,), (n,) the first and the last token of each number; those nearest to it where the text was cut off."""
    if not literals or not len(words.start):
        nothing = np.zeros(len(literals), dtype=np.int64)
        return nothing, nothing
    scale = int(max(words.end.max(), max(found[2].end for found in literals))) + 1
    keys = (words.product * 2 + words.in_description) * scale + words.start
    text = np.array([product * 2 + field for product, field, *_ in literals], dtype=np.int64) * scale
    start = np.array([found[2].start for found in literals], dtype=np.int64)
    end = np.array([found[2].end for found in literals], dtype=np.int64)
    first = np.clip(np.searchsorted(keys, text + start, side="right") - 1, 0, len(keys) - 1)
    last = np.clip(np.searchsorted(keys, text + end - 1, side="right") - 1, 0, len(keys) - 1)
    return first, last


def _neighbours(words: Words, first: Ints, last: Ints) -> Ints:
    """(n, NEIGHBOURS) the buckets of the two words before a place, of its first and last, and of the one behind it."""
    if not len(words.start):
        return np.zeros((len(first), NEIGHBOURS), dtype=np.int64)
    own = (words.identity % np.uint64(BUCKETS - 1)).astype(np.int64) + 1
    text = words.product * 2 + words.in_description
    columns = []
    for token, of in ((first - 2, first), (first - 1, first), (first, first), (last, last), (last + 1, last)):
        inside = (token >= 0) & (token < len(own))
        at = np.clip(token, 0, len(own) - 1)
        columns.append(np.where(inside & (text[at] == text[of]), own[at], 0))
    return np.stack(columns, axis=1)


def _joined(found: Sequence[Places]) -> Places:
    """Return the places in the order of product and attribute."""
    commons = list({id(part.common): part for part in found}.values())
    begins = np.cumsum([0, *(len(part.common) for part in commons)])[:-1]
    begin = dict(zip((id(part.common) for part in commons), begins, strict=True))
    product = np.concatenate([part.product for part in found])
    attribute = np.concatenate([part.attribute for part in found])
    order = np.lexsort((attribute, product))
    values = [value for part in found for value in part.value]

    def column(name: str) -> NDArray[Any]:
        return np.asarray(np.concatenate([getattr(part, name) for part in found])[order])

    return Places(
        product=product[order],
        attribute=attribute[order],
        in_description=column("in_description"),
        start=column("start"),
        end=column("end"),
        key=column("key"),
        value=[values[place] for place in order.tolist()],
        number=column("number"),
        specific=column("specific"),
        part=np.concatenate([part.part + begin[id(part.common)] for part in found])[order],
        common=np.concatenate([part.common for part in commons]),
        words=np.concatenate([part.words for part in commons]),
    )
