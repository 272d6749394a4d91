"""Merchants' attribute values: replaced by the dictionary's canonical values where it has them, and counted."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from catalog_enrichment.config.source import MappingConfig
from catalog_enrichment.dictionary import Dictionary, Spellings
from catalog_enrichment.errors import ConfigError
from catalog_enrichment.spark import value_columns
from catalog_enrichment.validation import by_shop

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

MERCHANT_VALUES = "merchant_values"
"""In `runs.attributes` and in the summary of an import: attribute -> values that are canonical, and that are not."""

MOST_UNMAPPED = 50
"""Values per attribute that an import's row in `runs` names of the values that the dictionary lacks."""

DECIMAL_MARKS = "decimal_marks"
"""Key of the metadata of the column `merchant_attributes`: attribute -> what stands before the decimals of numbers."""

MOST_CHARACTERS = 100
"""Longer values are counted and not named: they are no spelling of a value."""

_MAPPED = "mapped"
_KINDS = {_MAPPED: "mapped", by_shop.UNMAPPED: "unmapped"}
"""The part before the dot of what is counted -> its name for each attribute."""

_VALUE = "value."
"""Stands before the attribute in the kind of the groups of its values."""


def check_attributes(mapping: MappingConfig, dictionary: Dictionary, imported: Collection[str]) -> list[str]:
    """Return the attributes of the mapping that have left the dictionary since an import read them.

    ``imported``: the attributes of the last import. Raises ConfigError if the mapping feeds an attribute that neither
    the dictionary defines nor that import read.
    """
    left = sorted(set(mapping.attributes) - set(dictionary.attributes))
    if unknown := [name for name in left if name not in imported]:
        raise ConfigError(
            f"source.mapping.attributes: {unknown} are not in the attribute dictionary, "
            f"which has {sorted(dictionary.attributes)}"
        )
    return left


def normalise_attributes(frame: DataFrame, dictionary: Dictionary) -> DataFrame:
    """Replace each merchant value by its canonical value; a value that the dictionary lacks is kept as it is (I1).

    The metadata of the column `merchant_attributes` may have DECIMAL_MARKS, as `source.mapping.decimal_marks`.
    """
    from pyspark.sql import functions as F

    marks = frame.schema["merchant_attributes"].metadata.get(DECIMAL_MARKS, {})
    spellings = Spellings(dictionary, marks)  # an executor keeps the looked up spellings from batch to batch

    def normalise(given: pa.Array, languages: pa.Array) -> pa.Array:
        return normalised(given, languages, spellings)

    # in Python, since values.spelling is: Unicode casefold
    columns = F.arrow_udf(normalise, "map<string, array<string>>")("merchant_attributes", "language")
    return frame.withColumn("merchant_attributes", columns)


def normalised(given: pa.MapArray, languages: pa.Array, spellings: Spellings) -> pa.MapArray:
    """Return canonical values in place of ``given`` (attribute -> values, per product), without repetitions.

    Every attribute, language and value of the batch is looked up once.
    """
    products = np.diff(given.offsets)  # number of entries of each product
    first, last = given.offsets[0].as_py(), given.offsets[-1].as_py()
    names, lists = given.keys[first:last], given.items[first:last]
    values = lists.values[lists.offsets[0].as_py() : lists.offsets[-1].as_py()]
    entry = np.repeat(np.arange(len(lists)), np.diff(lists.offsets))  # the entry that each value is in

    of_entry = names.dictionary_encode(), languages.take(np.repeat(np.arange(len(given)), products)).dictionary_encode()
    columns = [column.indices.fill_null(-1).to_numpy()[entry] for column in of_entry]
    distinct = values.dictionary_encode()
    rows = np.stack([*columns, distinct.indices.to_numpy()], axis=1)
    looked_up, which = np.unique(rows, axis=0, return_inverse=True)
    attributes, known_languages = (column.dictionary.to_pylist() for column in of_entry)
    texts = distinct.dictionary.to_pylist()
    canonical = [
        spellings.canonical(attributes[name], known_languages[language] if language >= 0 else None, texts[text])
        or texts[text]  # kept as it is (I1)
        for name, language, text in looked_up
    ]
    # the first of equal values in an entry stays
    result = pa.array(canonical, pa.string()).dictionary_encode()
    codes = np.asarray(result.indices.to_numpy(), np.int64)[which.ravel()]
    _, kept = np.unique(entry * (len(result.dictionary) + 1) + codes, return_index=True)
    kept.sort()
    ends = np.cumsum(np.bincount(entry[kept], minlength=len(lists)))
    items = pa.ListArray.from_arrays(np.concatenate([[0], ends]).astype(np.int32), result.dictionary.take(codes[kept]))
    # a null offset is a null map
    null = np.append(given.is_null().to_numpy(zero_copy_only=False), False) if given.null_count else None
    offsets = pa.array(np.concatenate([[0], np.cumsum(products)]).astype(np.int32), pa.int32(), mask=null)
    return pa.MapArray.from_arrays(offsets, names, items)


def count_merchant_values(frame: DataFrame, dictionary: Dictionary, refused: DataFrame) -> dict[str, Any]:
    """Count the merchant values of a normalised frame, and the problems of the ``refused`` rows, in one query.

    ``refused``: ``shop_id`` and ``problem``. The result is `runs.attributes` of an import:

    - MERCHANT_VALUES: attribute -> how many values are canonical (``mapped``) and how many are not (``unmapped``);
    - by_shop.UNMAPPED: attribute -> its MOST_UNMAPPED most frequent values that are not canonical, as [value, the
      language that it was most often given in, number];
    - by_shop.KEY: the shops' problems, and as ``unmapped_value.ATTRIBUTE`` their values that are not canonical.
    """
    sums = _sums(frame, dictionary).union(by_shop.sums(refused))
    rows = by_shop.largest_of(sums, max(by_shop.LIMIT, MOST_UNMAPPED))
    counted = by_shop.Counted.of(rows)
    counts: dict[str, dict[str, int]] = {}
    for key, number in sorted(counted.totals.items(), key=lambda item: item[0].partition(".")[2]):
        kind, _, name = key.partition(".")
        if kind in _KINDS:
            counts.setdefault(name, dict.fromkeys(_KINDS.values(), 0))[_KINDS[kind]] = number
    problems = {key: number for key, number in counted.totals.items() if not key.startswith(f"{_MAPPED}.")}
    unmapped = {
        name: _most_frequent(row for row in rows if row["by"] == _VALUE + name)
        for name, numbers in counts.items()
        if numbers["unmapped"]
    }
    shops = replace(counted, totals=problems).row()
    return {MERCHANT_VALUES: counts, by_shop.UNMAPPED: unmapped, by_shop.KEY: shops}


def _sums(frame: DataFrame, dictionary: Dictionary) -> DataFrame:
    """Return the sums for :func:`by_shop.largest_of`.

    They are the canonical values of all shops, the values that are not canonical of each shop and of all, and how often
    each of these was given in which language, if it is not too long.
    """
    from pyspark.sql import functions as F

    listed = F.lit(False)
    for attribute in dictionary.attributes.values():
        listed |= (F.col("attribute") == attribute.name) & value_columns.lists(attribute)
    named = frame.select("language", "shop_id", F.explode("merchant_attributes").alias("attribute", "values"))
    values = named.select("language", "shop_id", "attribute", F.explode("values").alias("value"))
    values = values.withColumn("mapped", F.when(listed, F.lit(_MAPPED)))
    unmapped = F.col("mapped").isNull()
    text = F.coalesce("value", F.lit(""))
    columns = {
        "value": F.when(unmapped & (F.length(text) <= MOST_CHARACTERS), text),
        "language": F.when(unmapped, F.coalesce("language", F.lit(""))),
        "shop": F.when(unmapped, F.coalesce("shop_id", F.lit(""))),
        "kind": F.coalesce("mapped", F.lit(by_shop.UNMAPPED)),
    }
    values = values.select("attribute", *(column.alias(name) for name, column in columns.items()))
    sets = [("attribute", "kind"), ("attribute", "shop"), ("attribute", "value", "language")]
    sums = values.groupingSets(sets, "attribute", *columns).agg(F.count("*").alias("number"))
    of_all, of_shop = F.col("kind").isNotNull(), F.col("shop").isNotNull()
    return sums.where(of_all | of_shop | F.col("value").isNotNull()).select(
        F.when(of_all, by_shop.ALL)
        .when(of_shop, by_shop.SHOP)
        .otherwise(F.concat(F.lit(_VALUE), "attribute"))
        .alias("by"),
        F.coalesce("shop", "value").alias("name"),
        F.when(of_all | of_shop, F.concat_ws(".", F.coalesce("kind", F.lit(by_shop.UNMAPPED)), "attribute"))
        .otherwise(F.col("language"))
        .alias("key"),
        "number",
    )


def _most_frequent(rows: Iterator[Mapping[str, Any]]) -> list[list[Any]]:
    """Return the most frequent values. ``rows``: ``name`` is the value, ``numbers`` how often it has each language."""
    order = sorted(rows, key=lambda row: (-sum(row["numbers"].values()), row["name"]))[:MOST_UNMAPPED]
    return [
        [
            row["name"],
            min(row["numbers"], key=lambda language: (-row["numbers"][language], language)),
            sum(row["numbers"].values()),
        ]
        for row in order
    ]
