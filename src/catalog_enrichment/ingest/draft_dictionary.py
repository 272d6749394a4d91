"""A first attribute dictionary from the data: what a source's merchants say, and how many products have it.

    python -m catalog_enrichment.ingest.draft_dictionary --config FILE --output FILE [--set KEY=VALUE] [--min-count 20]

Reads the config's source as import_products would and writes, for each mapped attribute, the values that at least
`--min-count` products have, the most frequent first. Spellings that the dictionary cannot tell apart (case,
punctuation) are one value. It is a start: read it, merge what means the same, add aliases.

The last line of stdout is a JSON summary. Exit codes are those of the jobs: 0 ok, 2 bad config or data contract.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catalog_enrichment import session
from catalog_enrichment.config.load import load_config
from catalog_enrichment.dictionary import fold
from catalog_enrichment.errors import CatalogEnrichmentError, ConfigError, DataContractError
from catalog_enrichment.ingest import feeds
from catalog_enrichment.records import Cardinality
from catalog_enrichment.stages import to_stderr

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from catalog_enrichment.config.schema import Config
    from catalog_enrichment.config.source import SourceConfig


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, run, print the JSON line; returns the exit code."""
    parser = argparse.ArgumentParser("vocabulary", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--config", required=True, metavar="FILE", help="TOML file, or config:NAME.toml")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="override; repeatable")
    parser.add_argument(
        "--output", required=True, type=Path, metavar="FILE", help="the dictionary to write; a new file"
    )
    parser.add_argument("--min-count", type=int, default=20, help="products that a value needs (default %(default)s)")
    args = parser.parse_args(argv)
    try:
        config = load_config(args.config, args.set)
        _check(config, args.output)
        rows = feeds.read_source(session.start(config, "vocabulary"), _source(config), config.path("."))
        content, summary = build(rows, args.min_count, args.output.name.split(".")[0])
    except CatalogEnrichmentError as problem:
        to_stderr(f"vocabulary: {type(problem).__name__}: {problem}")
        print(json.dumps({"job": "vocabulary", "status": "error", "message": str(problem)}))
        return problem.exit_code
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    print(json.dumps({"job": "vocabulary", "status": "succeeded", "output": str(args.output), "attributes": summary}))
    return 0


def build(rows: DataFrame, min_count: int, name: str) -> tuple[dict[str, Any], dict[str, dict[str, int]]]:
    """The dictionary's content, and per attribute how many values were kept and left out.

    ``rows`` has the shape ``raw`` (:mod:`catalog_enrichment.ingest.feeds`). Raises DataContractError if no value of an
    attribute is frequent enough.
    """
    attributes, summary = [], {}
    for attribute, (counts, several) in sorted(_counted(rows).items()):
        kept = [(value, count) for value, count in counts if count >= min_count]
        summary[attribute] = {"values": len(kept), "too_rare": len(counts) - len(kept)}
        if not kept:
            most = f"{counts[0][0]!r} with {counts[0][1]}"
            raise DataContractError(f"{attribute}: no value has {min_count} products, the most frequent is {most}")
        cardinality = Cardinality.MANY if several else Cardinality.ONE
        doc = f"Values that at least {min_count} products have, the most frequent first."
        values = [value for value, _ in kept]
        attributes.append({"name": attribute, "cardinality": cardinality.value, "doc": doc, "values": values})
    if not attributes:
        raise DataContractError("no row of the source has a value for any mapped attribute")
    return {"name": name, "attributes": attributes}, summary


def _counted(rows: DataFrame) -> dict[str, tuple[list[tuple[str, int]], bool]]:
    """Attribute -> its values with their numbers of products, most frequent first; whether a product has several."""
    from pyspark.sql import functions as F

    good = rows.where("parse_error is null")
    values = good.select(F.explode("merchant_attributes").alias("attribute", "values"))
    values = values.select("attribute", F.explode("values").alias("value"), (F.size("values") > 1).alias("several"))
    spellings: dict[str, dict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
    several: set[str] = set()
    for row in values.groupBy("attribute", "value", "several").count().collect():  # distinct spellings: small
        spellings[row["attribute"]][fold(row["value"])][row["value"]] += row["count"]
        several |= {row["attribute"]} if row["several"] else set()
    found = {}
    for attribute, folded in spellings.items():
        # the most frequent spelling stands for all; ties by name, so that the same data give the same file
        named = [(min(c, key=lambda value: (-c[value], value)), c.total()) for key, c in folded.items() if key]
        if named:
            found[attribute] = (sorted(named, key=lambda pair: (-pair[1], pair[0])), attribute in several)
    return found


def _source(config: Config) -> SourceConfig:
    if config.source is None:
        raise ConfigError("the config has no [source] section: there is nothing to read")
    return config.source


def _check(config: Config, output: Path) -> None:
    if not _source(config).mapping.attributes:
        raise ConfigError("source.mapping.attributes is empty: name the columns whose values the dictionary shall have")
    if output.exists():
        raise ConfigError(f"--output: {output} exists; it may hold somebody's work, so name a new file")


if __name__ == "__main__":
    sys.exit(main())
