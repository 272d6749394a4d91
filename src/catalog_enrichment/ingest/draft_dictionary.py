"""Drafts an attribute dictionary from the merchants' values in a source.

    python -m catalog_enrichment.ingest.draft_dictionary --config FILE --output FILE [--set KEY=VALUE] [--min-count 20]

Reads the config's source as import_products does and writes, for each mapped attribute, the values that at least
`--min-count` products have, the most frequent first. Spellings that differ only in case or punctuation are one value.
The result is a draft: read it, merge values with the same meaning, add aliases.

The last line of stdout is a JSON summary. Exit codes are those of the jobs: 0 ok, 2 bad config or data contract.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catalog_enrichment.config.load import load_config
from catalog_enrichment.errors import CatalogEnrichmentError, ConfigError, DataContractError
from catalog_enrichment.monitoring.stages import to_stderr
from catalog_enrichment.records import Cardinality
from catalog_enrichment.values.spelling import says_something
from catalog_enrichment.values.spelling import spelling as spelling_of

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from catalog_enrichment.config.schema import Config

MIN_COUNT = 20
"""Products that a value needs by default, as in `training.min_label_count`."""

_NAME = "draft_dictionary"


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, run, print the JSON line; return the exit code."""
    parser = argparse.ArgumentParser(_NAME, description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--config", required=True, metavar="FILE", help="TOML file, or config:NAME.toml")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="override; repeatable")
    parser.add_argument(
        "--output", required=True, type=Path, metavar="FILE", help="the dictionary to write; a new file"
    )
    parser.add_argument(
        "--min-count", type=int, default=MIN_COUNT, help="products that a value needs (default %(default)s)"
    )
    args = parser.parse_args(argv)
    try:
        counts, several = _read(load_config(args.config, args.set), args.output)
        content, summary = dictionary_of(counts, several, args.min_count, args.output.name.split(".")[0])
    except CatalogEnrichmentError as problem:
        to_stderr(f"{_NAME}: {type(problem).__name__}: {problem}")
        print(json.dumps({"job": _NAME, "status": "error", "message": str(problem)}))
        return problem.exit_code
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    print(json.dumps({"job": _NAME, "status": "succeeded", "output": str(args.output), "attributes": summary}))
    return 0


def _read(config: Config, output: Path) -> tuple[dict[str, list[tuple[str, int]]], set[str]]:
    """Return the result of :func:`_value_counts` for the config's source."""
    from catalog_enrichment.ingest.product_columns import read_products
    from catalog_enrichment.ingest.sources import opened_source, source_config
    from catalog_enrichment.spark import session

    given = source_config(config)
    if not given.mapping.attributes:
        raise ConfigError("source.mapping.attributes is empty: name the columns with the attributes' values")
    if output.exists():
        raise ConfigError(f"--output: {output} exists and is not overwritten: name a new file")
    with opened_source(session.start(config, _NAME), config, to_stderr) as source:
        counts, several = _value_counts(read_products(source, given, config.path("."), config.pictures()))
    if not counts:
        raise DataContractError("no row of the source has a value for any mapped attribute")
    return counts, several


def _value_counts(rows: DataFrame) -> tuple[dict[str, list[tuple[str, int]]], set[str]]:
    """Return attribute -> (value, products) pairs, and the attributes of which a product has several values."""
    from pyspark.sql import functions as F

    parsed = rows.where("parse_error is null")
    values = parsed.select(F.explode("merchant_attributes").alias("attribute", "values"))
    values = values.select("attribute", F.explode("values").alias("value"), (F.size("values") > 1).alias("several"))
    spellings: dict[str, list[tuple[str, int]]] = defaultdict(list)
    several: set[str] = set()
    for row in values.groupBy("attribute", "value", "several").count().collect():  # distinct spellings: small
        spellings[row["attribute"]].append((row["value"], row["count"]))
        several |= {row["attribute"]} if row["several"] else set()
    counts = {attribute: by_value(pairs) for attribute, pairs in spellings.items()}
    return {attribute: values for attribute, values in counts.items() if values}, several


def by_value(spellings: Iterable[tuple[str, int]]) -> list[tuple[str, int]]:
    """Return (value, products) pairs, the most frequent first, from (spelling, products) pairs.

    Spellings that differ only in case or punctuation are one value, written as most products write it. Ties are broken
    by name, so that the same data give the same file.
    """
    folded: dict[str, Counter[str]] = defaultdict(Counter)
    for spelling, count in spellings:
        folded[spelling_of(spelling)][spelling] += count
    counts = [
        (min(c, key=lambda value: (-c[value], value)), c.total()) for key, c in folded.items() if says_something(key)
    ]
    return sorted(counts, key=lambda c: (-c[1], c[0]))


def dictionary_of(
    counts: Mapping[str, list[tuple[str, int]]], several: Collection[str], min_count: int, name: str
) -> tuple[dict[str, Any], dict[str, dict[str, int]]]:
    """Return the dictionary's content, and for each attribute how many values it has and how many were too rare.

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


if __name__ == "__main__":
    sys.exit(main())
