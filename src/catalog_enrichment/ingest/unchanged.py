"""What an import depends on beside the rows of its files: the settings, and pictures that are local files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from catalog_enrichment import __version__, resources
from catalog_enrichment.ingest.feeds import uri_versions
from catalog_enrichment.records import stable_hash

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from catalog_enrichment.config.schema import Config, ImagesConfig
    from catalog_enrichment.config.source import SourceConfig
    from catalog_enrichment.dictionary import Dictionary


def settings_hash(config: Config, source: SourceConfig, dictionary: Dictionary) -> str:
    """Hash of everything but the files that an import's result depends on."""
    root, images = config.path("."), config.pictures()
    files = [resources.locate(name, root).read_text() for name in (source.row_rules, source.snapshot_suite)]
    pictures = (images.max_bytes, images.store, images.fetch.schemes, images.fetch.allowed_folders)
    return stable_hash(__version__, config.hash("source", "catalog"), dictionary.hash(), files, pictures)


def other_pictures(products: DataFrame, images: ImagesConfig) -> bool:
    """Whether a local picture of ``products`` is not the one that was imported: it has another size or time.

    Pictures may change where the snapshot has not.
    """
    from pyspark.sql import functions as F

    def versions(uris: pd.Series) -> pd.Series:
        return uri_versions(uris, images)

    # of everything but local files the version is the URI
    local = F.filter("images", lambda image: image["uri"].isNotNull() & (image["version"] != image["uri"]))
    stored = products.select(local.alias("local")).where(F.size("local") > 0)
    stored = stored.select("local.version", F.pandas_udf(versions, "array<string>")("local.uri").alias("now"))
    return not stored.where(F.col("version") != F.col("now")).isEmpty()
