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
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catalog_enrichment.config.load import load_config
from catalog_enrichment.errors import CatalogEnrichmentError, ConfigError, DataContractError
from catalog_enrichment.ingest import feeds
from catalog_enrichment.ingest.frequent_values import MIN_COUNT, by_value, dictionary_of
from catalog_enrichment.ingest.source_feed import remote_feed
from catalog_enrichment.monitoring.stages import to_stderr
from catalog_enrichment.spark import session

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from catalog_enrichment.config.schema import Config
    from catalog_enrichment.config.source import SourceConfig


_NAME = "draft_dictionary"


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, run, print the JSON line; returns the exit code."""
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
        config = load_config(args.config, args.set)
        _check(config, args.output)
        spark = session.start(config, _NAME)
        with remote_feed(spark, config, to_stderr) as remote:
            rows = feeds.read_source(spark, _source(config), config.path("."), remote=remote)
            content, summary = draft(rows, args.min_count, args.output.name.split(".")[0])
    except CatalogEnrichmentError as problem:
        to_stderr(f"{_NAME}: {type(problem).__name__}: {problem}")
        print(json.dumps({"job": _NAME, "status": "error", "message": str(problem)}))
        return problem.exit_code
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    print(json.dumps({"job": _NAME, "status": "succeeded", "output": str(args.output), "attributes": summary}))
    return 0


def draft(rows: DataFrame, min_count: int, name: str) -> tuple[dict[str, Any], dict[str, dict[str, int]]]:
    """The dictionary's content, and per attribute how many values it has and how many were too rare.

    ``rows`` has the shape ``raw`` (:mod:`catalog_enrichment.ingest.feeds`). Raises DataContractError if no value of an
    attribute is frequent enough.
    """
    counts, several = _value_counts(rows)
    if not counts:
        raise DataContractError("no row of the source has a value for any mapped attribute")
    return dictionary_of(counts, several, min_count, name)


def _value_counts(rows: DataFrame) -> tuple[dict[str, list[tuple[str, int]]], set[str]]:
    """Attribute -> (value, number of products) pairs, most frequent first; the attributes of which some product has
    several values."""
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


def _source(config: Config) -> SourceConfig:
    if config.source is None:
        raise ConfigError("the config has no [source] section: there is nothing to read")
    return config.source


def _check(config: Config, output: Path) -> None:
    if not _source(config).mapping.attributes:
        raise ConfigError("source.mapping.attributes is empty: name the columns with the attributes' values")
    if output.exists():
        raise ConfigError(f"--output: {output} exists and is not overwritten: name a new file")


if __name__ == "__main__":
    sys.exit(main())
