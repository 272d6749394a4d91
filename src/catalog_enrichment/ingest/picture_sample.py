"""Tries the pictures of some products before an import writes anything: a wrong folder is noticed then."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from catalog_enrichment.errors import GateRefused
from catalog_enrichment.inputs.images import first_usable_of_each
from catalog_enrichment.inputs.square import Square
from catalog_enrichment.inputs.unusable_pictures import UnusablePictures

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from catalog_enrichment.config.schema import ImagesConfig

_SIZE = 32
"""Pixels: whether a picture can be decoded does not depend on it."""


def try_pictures(rows: DataFrame, limits: ImagesConfig) -> UnusablePictures:
    """Fetch and decode the pictures of `images.sample` of the rows with pictures, on the executors, where an enrichment
    will. The same rows are drawn every time. ``rows``: row_key, product_id, images."""
    from pyspark.sql import functions as F

    pictures = UnusablePictures()
    if not limits.sample:
        return pictures
    with_pictures = rows.where(F.size("images.version") > 0)
    drawn = with_pictures.orderBy(F.xxhash64("product_id"), "row_key").select("row_key").limit(limits.sample)
    sample = rows.join(F.broadcast(drawn), "row_key").select("images")

    def outcomes(images: pd.Series) -> pd.DataFrame:
        decoded = first_usable_of_each(list(images), Square(_SIZE), limits)
        return pd.DataFrame({"reason": [one.reason for one in decoded], "detail": [one.detail for one in decoded]})

    outcome = F.pandas_udf(outcomes, "struct<reason:string,detail:string>")("images")
    tried = sample.repartition(rows.sparkSession.sparkContext.defaultParallelism).select(outcome.alias("outcome"))
    pictures.add((row["outcome"]["reason"], row["outcome"]["detail"]) for row in tried.collect())
    return pictures


def refuse_too_many(pictures: UnusablePictures, max_unusable: float) -> None:
    """Raises GateRefused where more than this share of the tried products have no usable picture."""
    if pictures.too_many(max_unusable):
        raise GateRefused(
            f"{pictures.sentence()} Nothing was imported. If it is right so, import once with "
            "--set images.max_unusable=1",
            {"pictures_tried": pictures.tried, "unusable_pictures": dict(pictures.by_reason)},
        )
