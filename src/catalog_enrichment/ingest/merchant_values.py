"""Replaces merchants' attribute values by the dictionary's canonical values where it has them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from catalog_enrichment.config.source import MappingConfig
from catalog_enrichment.dictionary import Dictionary, fold
from catalog_enrichment.errors import ConfigError

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def normalise_attributes(frame: DataFrame, dictionary: Dictionary) -> DataFrame:
    """Replaces each merchant value by its canonical value; a value that the dictionary lacks is kept as it is (I1)."""
    from pyspark.sql import functions as F

    spellings: dict[tuple[str, str | None], dict[str, str]] = {}

    def canonical(values: dict[str, list[str]] | None, language: str | None) -> dict[str, list[str]] | None:
        return None if values is None else normalise_values(values, language, dictionary, spellings)

    # dictionary.fold is Python (Unicode casefold); a plain UDF will do, since these columns are small
    normalise = F.udf(canonical, "map<string, array<string>>", useArrow=False)
    return frame.withColumn("merchant_attributes", normalise("merchant_attributes", "language"))


def normalise_values(
    values: dict[str, list[str]],
    language: str | None,
    dictionary: Dictionary,
    spellings: dict[tuple[str, str | None], dict[str, str]],
) -> dict[str, list[str]]:
    """One product's values, without repetitions; ``spellings`` caches the dictionary's by attribute and language."""
    normalised: dict[str, list[str]] = {}
    for attribute, merchant_values in values.items():
        canonical: dict[str, str] = {}
        if attribute in dictionary:
            key = (attribute, language)
            if key not in spellings:
                spellings[key] = dictionary[attribute].spellings(language)
            canonical = spellings[key]
        normalised[attribute] = list(dict.fromkeys(canonical.get(fold(value), value) for value in merchant_values))
    return normalised


def count_merchant_values(frame: DataFrame, dictionary: Dictionary) -> dict[str, dict[str, int]]:
    """Per attribute of a normalised frame: how many merchant values are canonical (mapped) and how many are not."""
    from pyspark.sql import functions as F

    canonical = {(name, value) for name, attribute in dictionary.attributes.items() for value in attribute.values}
    values = frame.select(F.explode("merchant_attributes").alias("attribute", "values"))
    values = values.select("attribute", F.explode("values").alias("value")).groupBy("attribute", "value").count()
    counts: dict[str, dict[str, int]] = {}
    for attribute, value, number in values.collect():  # distinct spellings: small
        attribute_counts = counts.setdefault(attribute, {"mapped": 0, "unmapped": 0})
        attribute_counts["mapped" if (attribute, value) in canonical else "unmapped"] += number
    return dict(sorted(counts.items()))


def check_attributes(mapping: MappingConfig, dictionary: Dictionary) -> None:
    """Raise ConfigError if the mapping feeds an attribute that the dictionary does not define."""
    if unknown := sorted(set(mapping.attributes) - set(dictionary.attributes)):
        raise ConfigError(
            f"source.mapping.attributes: {unknown} are not in the attribute dictionary, "
            f"which has {sorted(dictionary.attributes)}"
        )
