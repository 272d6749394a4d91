"""Puts the pictures that merchants send as bytes where the catalog keeps them: once each, apart from the products.

A picture is there before any product names it, also one of a row that is refused or of an import that is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from catalog_enrichment.inputs.images import TOO_LARGE
from catalog_enrichment.inputs.stored_pictures import StoredPictures

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

IMAGES_TYPE = "array<struct<bytes: binary, uri: string, version: string>>"


def version_of_kept(version: Column, data: Column, store: StoredPictures) -> Column:
    """``version`` (SHA-256 of ``data``, or null, or a too large picture's), after ``data`` is in ``store``."""
    from pyspark.sql import functions as F

    def keep(versions: pd.Series, pictures: pd.Series) -> pd.Series:
        put_pictures(versions, pictures, store)
        return versions

    return F.pandas_udf(keep, "string")(version, data)


def put_pictures(versions: pd.Series, pictures: pd.Series, store: StoredPictures) -> None:
    """Write the pictures that have bytes (runs on executors)."""
    for version, data in zip(versions, pictures, strict=True):
        if version is not None and data is not None and not version.startswith(TOO_LARGE):
            store.put(version, bytes(data))


def any_in_table(products: DataFrame) -> bool:
    """Whether an earlier release kept pictures in the table of the products."""
    from pyspark.sql import functions as F

    return not products.where(F.exists("images", lambda image: image["bytes"].isNotNull())).isEmpty()


def moved(products: DataFrame, store: StoredPictures) -> DataFrame:
    """``products`` without pictures in the table, after these are in ``store``."""
    from pyspark.sql import functions as F

    in_table = F.exists("images", lambda image: image["bytes"].isNotNull())
    first = F.try_element_at("images", F.lit(1))  # only the first picture can come as bytes
    version = version_of_kept(first["version"], first["bytes"], store)
    without = F.struct(F.lit(None).cast("binary").alias("bytes"), first["uri"].alias("uri"), version.alias("version"))
    others = F.slice("images", F.lit(2), F.size("images"))
    images = F.when(in_table, F.concat(F.array(without), others)).otherwise(F.col("images"))
    return products.withColumn("images", images.cast(IMAGES_TYPE))
