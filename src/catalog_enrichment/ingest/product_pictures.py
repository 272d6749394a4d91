"""The pictures of a source's rows: bytes go into the picture store, paths and addresses get versions."""

from __future__ import annotations

import os
from functools import cache
from typing import TYPE_CHECKING

import pandas as pd

from catalog_enrichment.config.images import ImagesConfig, StoredImagesConfig
from catalog_enrichment.config.source import MappingConfig
from catalog_enrichment.inputs.images import TOO_LARGE
from catalog_enrichment.inputs.picture_sources import LONGEST_URI, picture_sources
from catalog_enrichment.inputs.stored_pictures import StoredPictures

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

_IMAGES_TYPE = "array<struct<bytes: binary, uri: string, version: string>>"


def with_images(frame: DataFrame, mapping: MappingConfig, images: ImagesConfig) -> DataFrame:
    """Add ``images``: the picture in ``image_bytes`` first, then one struct per URI.

    A path below the config's root becomes relative to it, so that a copy of the root's folder has its own pictures.
    The bytes go into `images.store`; the struct has their version alone. The bytes of a picture with more than
    `images.max_bytes` are not taken: no model reads them, and one picture can need more memory than Spark has.
    """
    from pyspark.sql import functions as F

    def image(uri: Column, version: Column) -> Column:
        return F.struct(F.lit(None).cast("binary").alias("bytes"), uri.alias("uri"), version.alias("version"))

    none = F.array().cast(_IMAGES_TYPE)
    parts = [none]
    if mapping.image_bytes:
        size, store = F.octet_length("image_bytes"), StoredPictures.of(images)
        taken = F.when(size <= images.max_bytes, F.col("image_bytes"))
        version = F.coalesce(F.sha2(taken, 256), F.concat(F.lit(TOO_LARGE), size))
        frame = frame.withColumns({"image_version": version, "image_bytes": taken})

        def put(versions: pd.Series, pictures: pd.Series) -> pd.Series:
            put_pictures(versions, pictures, store)
            return versions

        stored = F.pandas_udf(put, "string")("image_version", "image_bytes")
        sent = F.array(image(F.lit(None).cast("string"), stored)).cast(_IMAGES_TYPE)
        parts.append(F.when(F.col("image_version").isNotNull(), sent).otherwise(none))
    if mapping.image_uris:

        def versions_of(uris: pd.Series) -> pd.Series:
            return uri_versions(uris, images)

        frame = frame.withColumn("uris", F.transform("uris", lambda uri: _below_root(uri, images)))
        # a picture on the web has its URI as version: only rows with other pictures pass through Python
        others = F.when(F.exists("uris", lambda uri: ~uri.rlike("^https?://")), F.col("uris"))
        frame = frame.withColumn("versions", F.coalesce(F.pandas_udf(versions_of, "array<string>")(others), "uris"))
        parts.append(F.zip_with("uris", "versions", image).cast(_IMAGES_TYPE))
    return frame.withColumn("images", F.concat(*parts))


def _below_root(uri: Column, images: ImagesConfig) -> Column:
    from pyspark.sql import functions as F

    root = f"{images.root}/" if isinstance(images, StoredImagesConfig) else "/"
    if root in ("/", "//"):
        return uri
    # also where slashes follow the root's: what is below it is no absolute path
    below = F.ltrim(F.substring(uri, len(root) + 1, LONGEST_URI + 1), F.lit("/"))
    return F.when(uri.startswith(root), below).otherwise(uri)


def put_pictures(versions: pd.Series, pictures: pd.Series, store: StoredPictures) -> None:
    """Write the pictures that have bytes; runs on executors.

    A picture is in the store before any product names it, also that of a row or an import that is refused.
    """
    for version, data in zip(versions, pictures, strict=True):
        if version is not None and data is not None:
            store.put(version, bytes(data))


def uri_versions(uris: pd.Series, images: ImagesConfig) -> pd.Series:
    """Return the version of every URI in every row's list; runs on executors (:meth:`PictureSources.version`)."""
    sources, realpath = picture_sources(images), cache(os.path.realpath)
    return uris.map(lambda row: [sources.version(uri, realpath) for uri in row], na_action="ignore")


def other_pictures(products: DataFrame, images: ImagesConfig) -> bool:
    """Return whether a local picture of ``products`` has another size or time than when it was imported.

    Pictures may change where the rows of the source have not.
    """
    from pyspark.sql import functions as F

    def versions_of(uris: pd.Series) -> pd.Series:
        return uri_versions(uris, images)

    # all but local files have their URI as version
    local = F.filter("images", lambda image: image["uri"].isNotNull() & (image["version"] != image["uri"]))
    stored = products.select(local.alias("local")).where(F.size("local") > 0)
    stored = stored.select("local.version", F.pandas_udf(versions_of, "array<string>")("local.uri").alias("now"))
    return not stored.where(F.col("version") != F.col("now")).isEmpty()
