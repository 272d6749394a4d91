"""Replaces merchants' attribute values by the dictionary's canonical values where it has them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from catalog_enrichment.config.source import MappingConfig
from catalog_enrichment.dictionary import Dictionary, fold
from catalog_enrichment.errors import ConfigError
from catalog_enrichment.validation.by_shop import UNMAPPED

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

MOST_UNMAPPED = 50
"""Values per attribute that an import's row in `runs` keeps of those that the dictionary lacks."""

MOST_CHARACTERS = 100
"""Longer values are no spelling of a value; they are counted and not kept."""


def normalise_attributes(frame: DataFrame, dictionary: Dictionary) -> DataFrame:
    """Replaces each merchant value by its canonical value; a value that the dictionary lacks is kept as it is (I1)."""
    from pyspark.sql import functions as F

    spellings = Spellings(dictionary)  # an executor keeps those it has looked up from batch to batch

    def normalise(given: pa.Array, languages: pa.Array) -> pa.Array:
        return normalised(given, languages, spellings)

    # in Python, since dictionary.fold is: Unicode casefold
    columns = F.arrow_udf(normalise, "map<string, array<string>>")("merchant_attributes", "language")
    return frame.withColumn("merchant_attributes", columns)


class Spellings:
    """Looks up canonical values."""

    def __init__(self, dictionary: Dictionary) -> None:
        self._dictionary = dictionary
        self._known: dict[tuple[str, str | None], dict[str, str]] = {}

    def canonical(self, attribute: str, language: str | None, value: str) -> str:
        """The canonical value; ``value`` itself where the dictionary has none."""
        if attribute not in self._dictionary:
            return value
        key = (attribute, language)
        if key not in self._known:
            self._known[key] = self._dictionary[attribute].spellings(language)
        return self._known[key].get(fold(value), value)


def normalised(given: pa.MapArray, languages: pa.Array, spellings: Spellings) -> pa.MapArray:
    """Canonical values in place of ``given`` (attribute -> values, per product), without repetitions.

    Every attribute, language and value of the batch is looked up once.
    """
    products = np.diff(given.offsets)  # entries of each
    first, last = given.offsets[0].as_py(), given.offsets[-1].as_py()
    names, lists = given.keys[first:last], given.items[first:last]
    lengths = np.diff(lists.offsets)
    values = lists.values[lists.offsets[0].as_py() : lists.offsets[-1].as_py()]
    entry = np.repeat(np.arange(len(lists)), lengths)  # of each value

    of_entry = names.dictionary_encode(), languages.take(np.repeat(np.arange(len(given)), products)).dictionary_encode()
    columns = [column.indices.fill_null(-1).to_numpy()[entry] for column in of_entry]
    distinct = values.dictionary_encode()
    rows = np.stack([*columns, distinct.indices.to_numpy()], axis=1)
    looked_up, which = np.unique(rows, axis=0, return_inverse=True)
    attributes, known_languages = (column.dictionary.to_pylist() for column in of_entry)
    texts = distinct.dictionary.to_pylist()
    canonical = [
        spellings.canonical(attributes[name], known_languages[language] if language >= 0 else None, texts[text])
        for name, language, text in looked_up
    ]
    # the first of equal values in an entry stays
    result = pa.array(canonical, pa.string()).dictionary_encode()
    codes = np.asarray(result.indices.to_numpy(), np.int64)[which.ravel()]
    _, kept = np.unique(entry * (len(result.dictionary) + 1) + codes, return_index=True)
    kept.sort()
    ends = np.cumsum(np.bincount(entry[kept], minlength=len(lists)))
    items = pa.ListArray.from_arrays(np.concatenate([[0], ends]).astype(np.int32), result.dictionary.take(codes[kept]))
    offsets = pa.array(np.concatenate([[0], np.cumsum(products)]), pa.int32())
    if given.null_count:  # a null offset is a null map
        null = np.append(given.is_null().to_numpy(zero_copy_only=False), False)
        offsets = pa.array(offsets.to_numpy(), pa.int32(), mask=null)
    return pa.MapArray.from_arrays(offsets, names, items)


@dataclass(frozen=True, slots=True)
class MerchantValues:
    """The merchants' values of a snapshot, counted."""

    counts: dict[str, dict[str, int]]
    """Attribute -> how many values are canonical (``mapped``) and how many are not (``unmapped``)."""
    unmapped: dict[str, list[list[Any]]]
    """Attribute -> its :data:`MOST_UNMAPPED` most frequent values that are not canonical, as [value, the language that
    it was most often given in, number]."""
    by_shop: dict[str, dict[str, int]]
    """Shop id -> ``unmapped_value.ATTRIBUTE`` -> values that are not canonical."""


def count_merchant_values(frame: DataFrame, dictionary: Dictionary) -> MerchantValues:
    """Counts the merchant values of a normalised frame, in one query."""
    import pyarrow as pa
    from pyspark.sql import functions as F

    canonical = [(name, value) for name, attribute in dictionary.attributes.items() for value in attribute.values]
    table = pa.table({"attribute": [name for name, _ in canonical], "value": [value for _, value in canonical]})
    known = frame.sparkSession.createDataFrame(table, "attribute string, value string").withColumn(
        "mapped", F.lit(True)
    )
    named = frame.select("language", "shop_id", F.explode("merchant_attributes").alias("attribute", "values"))
    values = named.select("language", "shop_id", "attribute", F.explode("values").alias("value"))
    values = values.join(F.broadcast(known), ["attribute", "value"], "left")
    others = {
        name: F.when(F.col("mapped").isNull(), F.coalesce(F.col(name), F.lit("")))
        for name in ("value", "language", "shop_id")
    }
    sets = [("attribute", "value", "language"), ("attribute", "shop_id")]  # all null: the canonical values
    grouped = values.withColumns(others).groupingSets(sets, "attribute", "value", "language", "shop_id")
    sums = grouped.agg(F.count("*").alias("number"), F.grouping("shop_id").alias("of_all_shops"))
    return _counted(sums.toArrow().to_pylist())


def _counted(rows: list[dict[str, Any]]) -> MerchantValues:
    counts: dict[str, dict[str, int]] = {}
    languages: dict[str, dict[str, Counter[str]]] = {}
    shops: dict[str, dict[str, int]] = {}
    for row in rows:
        name, value, shop = row["attribute"], row["value"], row["shop_id"]
        if row["of_all_shops"]:
            numbers = counts.setdefault(name, {"mapped": 0, "unmapped": 0})
            numbers["mapped" if value is None else "unmapped"] += row["number"]
            if value is not None:
                languages.setdefault(name, {}).setdefault(value, Counter())[row["language"]] += row["number"]
        elif shop is not None:
            shops.setdefault(shop, {})[f"{UNMAPPED}.{name}"] = row["number"]
    unmapped = {name: _most_frequent(values) for name, values in sorted(languages.items())}
    return MerchantValues(dict(sorted(counts.items())), unmapped, shops)


def _most_frequent(values: dict[str, Counter[str]]) -> list[list[Any]]:
    """``values``: value -> language -> number."""
    short = [value for value in values if len(value) <= MOST_CHARACTERS]
    order = sorted(short, key=lambda value: (-values[value].total(), value))[:MOST_UNMAPPED]
    return [
        [value, min(values[value], key=lambda name: (-values[value][name], name)), values[value].total()]
        for value in order
    ]


def check_attributes(mapping: MappingConfig, dictionary: Dictionary) -> None:
    """Raise ConfigError if the mapping feeds an attribute that the dictionary does not define."""
    if unknown := sorted(set(mapping.attributes) - set(dictionary.attributes)):
        raise ConfigError(
            f"source.mapping.attributes: {unknown} are not in the attribute dictionary, "
            f"which has {sorted(dictionary.attributes)}"
        )
