"""The values of an attribute that enough products have: the content of a drafted attribute dictionary. No Spark."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from catalog_enrichment.dictionary import fold
from catalog_enrichment.errors import DataContractError
from catalog_enrichment.records import Cardinality

MIN_COUNT = 20
"""Products that a value needs by default, as `training.min_label_count`."""


def by_value(spellings: Iterable[tuple[str, int]]) -> list[tuple[str, int]]:
    """(value, number of products) pairs, most frequent first, from (spelling, products) pairs.

    Spellings that differ only in case or punctuation are one value, written as most products write it. Ties are broken
    by name, so that the same data give the same file.
    """
    folded: dict[str, Counter[str]] = defaultdict(Counter)
    for spelling, count in spellings:
        folded[fold(spelling)][spelling] += count
    counts = [(min(c, key=lambda value: (-c[value], value)), c.total()) for key, c in folded.items() if key]
    return sorted(counts, key=lambda c: (-c[1], c[0]))


def dictionary_of(
    counts: Mapping[str, list[tuple[str, int]]], several: Collection[str], min_count: int, name: str
) -> tuple[dict[str, Any], dict[str, dict[str, int]]]:
    """The dictionary's content, and per attribute how many values it has and how many were too rare.

    ``counts``: attribute -> :func:`by_value`; ``several``: the attributes of which a product can have several values.
    Raises DataContractError if no value of an attribute is frequent enough.
    """
    attributes, summary = [], {}
    for attribute, values in sorted(counts.items()):
        kept = [value for value, count in values if count >= min_count]
        summary[attribute] = {"values": len(kept), "too_rare": len(values) - len(kept)}
        if not kept:
            most_frequent = f", the most frequent is {values[0][0]!r} with {values[0][1]}" if values else ""
            raise DataContractError(f"{attribute}: no value has {min_count} products{most_frequent}")
        cardinality = Cardinality.MANY if attribute in several else Cardinality.ONE
        doc = f"Values that at least {min_count} products have, the most frequent first."
        attributes.append({"name": attribute, "cardinality": cardinality.value, "doc": doc, "values": kept})
    return {"name": name, "attributes": attributes}, summary
