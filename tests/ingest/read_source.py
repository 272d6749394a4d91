"""Reads a source as the import does, without a catalog."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from catalog_enrichment.config import strict
from catalog_enrichment.config.images import ImagesConfig
from catalog_enrichment.config.schema import Config
from catalog_enrichment.config.source import SourceConfig
from catalog_enrichment.ingest.product_columns import read_products
from catalog_enrichment.ingest.sources import opened_source

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


def config_of(source: SourceConfig, folder: Path) -> Config:
    """Return a config with this source, whose paths start at ``folder``."""
    content = {
        "catalog": {"path": "catalog", "dictionary": "schemas:attributes/fashion.v1.json"},
        "mlflow": {"tracking_uri": "sqlite:///mlflow.db"},
        "root": str(folder),
    }
    return replace(strict.build(Config, content, where="test"), source=source)


def read_source(
    spark: SparkSession, source: SourceConfig, folder: Path, images: ImagesConfig | None = None
) -> DataFrame:
    """Return the rows of a source of files in the shape ``raw``."""
    config = config_of(source, folder)
    with opened_source(spark, config, [].append) as opened:
        return read_products(opened, source, folder, images or config.pictures())


def fingerprint(spark: SparkSession, source: SourceConfig, folder: Path) -> str:
    with opened_source(spark, config_of(source, folder), [].append) as opened:
        return opened.fingerprint("")


def accepted_and_refused(spark: SparkSession, folder: Path, kind: str, path: str) -> tuple[dict[str, str], list[str]]:
    """Product id -> title of the rows without an error, and the payloads of the others, sorted."""
    rows = read_source(spark, SourceConfig(format=kind, path=path), folder).collect()  # type: ignore[arg-type]
    accepted = {row.product_id: row.title for row in rows if row.parse_error is None}
    assert len(accepted) == sum(row.parse_error is None for row in rows)
    return accepted, sorted(row.payload for row in rows if row.parse_error is not None)
