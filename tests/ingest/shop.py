"""A merchants' source and the catalog that it is imported into."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from catalog_enrichment.catalog.lake import Catalog
from catalog_enrichment.config import strict
from catalog_enrichment.config.schema import Config
from catalog_enrichment.context import Context, load_dictionary
from catalog_enrichment.ingest.job import import_products

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


class Shop:
    """A catalog in ``folder``, where relative paths start, and the config's sections ``source`` and ``images``."""

    def __init__(self, spark: SparkSession, folder: Path, source: dict[str, Any], **images: Any) -> None:
        self.spark, self.folder, self.source, self.images = spark, folder, source, images
        self.catalog = Catalog(folder / "catalog", spark)
        self.said: list[str] = []

    def config(self, **source: Any) -> Config:
        """The config with other keys of the section `[source]`; a section in it is changed, not replaced."""
        dictionary = source.pop("dictionary", "schemas:attributes/fashion.v1.json")
        changed = {key: self.source.get(key, {}) | new if isinstance(new, dict) else new for key, new in source.items()}
        content = {
            "catalog": {"path": "catalog", "dictionary": dictionary},
            "mlflow": {"tracking_uri": "sqlite:///mlflow.db"},
            "root": str(self.folder),
            "source": self.source | changed,
            "images": self.images,
        }
        return strict.build(Config, content, where="test")

    def imported(self, full: bool = False, **source: Any) -> dict[str, Any]:
        """Import; returns the summary."""
        config, self.said = self.config(**source), []
        context = Context(config, self.spark, self.catalog, load_dictionary(config), self.said.append)
        return import_products(context, full=full)

    def rows(self, table: str) -> list[dict[str, Any]]:
        """The table's rows, as a program without Spark reads them."""
        return [row for batch in self.catalog.scan(table) for row in batch.to_pylist()]

    def products(self) -> dict[str, dict[str, Any]]:
        """Product id -> its row."""
        rows = self.rows("products")
        return {row["product_id"]: row | {"merchant_attributes": dict(row["merchant_attributes"])} for row in rows}

    def versions(self, *tables: str) -> dict[str, int]:
        return {table: self.catalog.version(table) for table in tables or ("products", "quarantine", "current_values")}
