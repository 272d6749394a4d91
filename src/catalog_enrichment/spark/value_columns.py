"""Values of open attributes in Spark columns: whether two are the same value, and the number that one stands for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import pyarrow as pa

from catalog_enrichment.dictionary import Attribute, Dictionary
from catalog_enrichment.values import units
from catalog_enrichment.values.kinds import NumberRule
from catalog_enrichment.values.same import MOST_CHARACTERS

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

_SAYS_SOMETHING = r"[\p{L}\p{N}\p{M}\p{S}#*%]"
"""A text that is more than spaces and punctuation (values.spelling.says_something), for Java."""

_DECIMALS = 9
"""Decimals of a number that was converted from another unit."""


def lists(attribute: Attribute) -> Column:
    """Return whether the column ``value`` is a value as this dictionary, or an earlier one, stores it.

    Numbers are, in any unit that is converted, where they are in the plausible range, and texts where they say
    something and are not too long, also if the dictionary calls them otherwise now.
    """
    from pyspark.sql import functions as F

    value = F.coalesce("value", F.lit(""))
    if not attribute.is_open:
        return value.isin(list(attribute.values))
    if attribute.number is None:
        return value.rlike(_SAYS_SOMETHING) & (F.length(value) <= MOST_CHARACTERS)
    return _number(attribute.number).isNotNull()


def number_and_unit(dictionary: Dictionary) -> dict[str, Column]:
    """Return the columns ``number`` and ``unit`` of rows with ``attribute`` and ``value``.

    Both are null for attributes of other kinds, and for what a merchant gave that is no number of the attribute.
    """
    from pyspark.sql import functions as F

    number, unit = F.lit(None).cast("double"), F.lit(None).cast("string")
    for attribute in dictionary.attributes.values():
        if attribute.number is not None:
            is_number = (F.col("attribute") == attribute.name) & lists(attribute)
            number = F.when(is_number, _number(attribute.number)).otherwise(number)
            unit = F.when(is_number, F.lit(attribute.number.unit)).otherwise(unit)
    return {"number": number, "unit": unit}


def _number(rule: NumberRule) -> Column:
    """Return the column ``value`` as a number in the rule's unit; null where it is no stored number in the range."""
    from pyspark.sql import functions as F

    number = F.expr("try_cast(substring_index(value, ' ', 1) as double)")
    unit = F.expr("substring(value, length(substring_index(value, ' ', 1)) + 2)")
    other = F.when(unit == rule.unit, number)
    factors = {text: pair for text, pair in _conversions(rule).items() if text}
    if factors:
        known = F.create_map(*[part for text, pair in factors.items() for part in (F.lit(text), F.array(*pair))])
        pair = F.try_element_at(known, F.lower(F.regexp_replace(unit, r"[\s.\-]+", "")))
        other = F.coalesce(other, F.round(number * pair[0] + pair[1], _DECIMALS))
    number = F.when(F.col("value").rlike(r"^-?[0-9]+(\.[0-9]+)?( .+)?$"), other)
    low, high = (F.lit(limit).cast("double") for limit in (rule.low, rule.high))
    is_plausible = F.coalesce(number >= low, F.lit(True)) & F.coalesce(number <= high, F.lit(True))
    return F.when(is_plausible, number)


def _conversions(rule: NumberRule) -> dict[str, tuple[Column, Column]]:
    """Return folded spelling -> factor and offset of the other units that the rule's numbers are converted from."""
    from pyspark.sql import functions as F

    own = units.unit_of_attribute(rule.unit)
    if own is None:
        return {}
    allowed = {units.unit_of_attribute(text) for text in rule.units}
    return {
        text: (F.lit(factor), F.lit(offset))
        for text, (factor, offset) in units.conversions(own).items()
        if not rule.units or units.unit_of(text) in {own, *allowed}
    }


def is_among(dictionary: Dictionary, value: Column, others: Column) -> Column:
    """Return whether ``value`` is the same value as one of ``others``, by the kind of the column ``attribute``.

    ``others``: a list of stored values; null is an empty list. Without open attributes there is no Python in the tasks.
    """
    from pyspark.sql import functions as F

    equal = F.coalesce(F.array_contains(others, value), F.lit(False))
    attributes = dictionary.open_attributes
    if not attributes:
        return equal
    ask = F.col("attribute").isin(list(attributes)) & value.isNotNull() & (F.size(others) > 0) & ~equal
    asked = [F.when(ask, column) for column in (F.col("attribute"), value, others)]

    def compare(names: pa.Array, values: pa.Array, sets: pa.Array) -> pa.Array:
        return pa.array(compared(attributes, names, values, sets), pa.bool_())

    return equal | F.coalesce(F.arrow_udf(compare, "boolean")(*asked), F.lit(False))


def compared(
    attributes: Mapping[str, Attribute], names: pa.Array, values: pa.Array, sets: pa.Array
) -> list[bool | None]:
    """Return for each row whether the value is the same as one of its set; None for rows without an attribute."""
    rows = zip(names.to_pylist(), values.to_pylist(), sets.to_pylist(), strict=True)
    return [None if name is None else attributes[name].is_same_as_any(value, others) for name, value, others in rows]


def are_same(dictionary: Dictionary, first: Column, second: Column) -> Column:
    """Return whether two sets of stored values, sorted, are the same, by the kind of the column ``attribute``.

    Null is the same as null. A set of several values has only the same texts: numbers and texts have one.
    """
    from pyspark.sql import functions as F

    each_one = (F.size(first) == 1) & (F.size(second) == 1)
    equal = first.eqNullSafe(second)
    return equal | is_among(dictionary, F.when(each_one & ~equal, first[0]), F.when(each_one, second))


def sets_of(like: DataFrame, keys: Iterable[tuple[str, str, str]], name: str) -> DataFrame:
    """Return a row per product and attribute, with all their values as the column ``name``; to be broadcast.

    ``keys``: product id, attribute, value. ``like``: a frame of the session.
    """
    sets: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for product_id, attribute, value in sorted(keys):
        sets[product_id, attribute].append(value)
    rows = [(*pair, values) for pair, values in sets.items()]
    return like.sparkSession.createDataFrame(rows, f"product_id string, attribute string, {name} array<string>")
