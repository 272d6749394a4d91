"""Starts projects from files of shops, and reads their rows as the import does."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from catalog_enrichment import dictionary
from catalog_enrichment.config.load import load_config
from catalog_enrichment.ingest.guess import Given
from catalog_enrichment.ingest.merchant_values import normalise_attributes
from catalog_enrichment.ingest.product_columns import read_products
from catalog_enrichment.ingest.project import Project, init_project
from catalog_enrichment.ingest.sources import opened_source, source_config

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

CASES = Path(__file__).parent / "cases"


def start(file: Path, folder: Path, **options: Any) -> tuple[dict[str, Any], list[str]]:
    """Run init_project; return its summary and the lines that it says."""
    said: list[str] = []
    project = Project(folder=folder, file=file, **{"given": Given(columns={}, min_count=2)} | options)
    return init_project(project, said.append), said


def read_rows(spark: SparkSession, config_file: Path) -> dict[str, dict[str, Any]]:
    """Return product id -> row, with the pictures' addresses as `images`, of the source that a config names."""
    config = load_config(str(config_file), [])
    words = dictionary.load(config.path(config.catalog.dictionary))
    with opened_source(spark, config, [].append) as source:
        raw = read_products(source, source_config(config), config.path("."), config.pictures())
        rows = [row.asDict(recursive=True) for row in normalise_attributes(raw, words).collect()]
    return {row["product_id"]: row | {"images": [image["uri"] for image in row["images"]]} for row in rows}
