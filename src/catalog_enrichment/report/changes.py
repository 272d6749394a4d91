"""What a suggestion would do to the merchant's values: add to them, replace them, or be the first."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from catalog_enrichment.records import Cardinality, Reason

if TYPE_CHECKING:
    from pyspark.sql import Column

ADD, REPLACE, FILL = "add", "replace", "fill"
CHANGES = (ADD, REPLACE, FILL)


def change(cardinality: Cardinality, merchant_values: Collection[str], confirmed: bool) -> str:
    """How a suggested value relates to ``merchant_values``, which do not have it.

    ``confirmed``: the model also gives one of the merchant's values, with a score at or above the threshold. Then a
    product that can have several values is suggested one more. Without that, or where there can be one value, the
    suggestion and the merchant's values conflict.
    """
    if not merchant_values:
        return FILL
    return ADD if cardinality is Cardinality.MANY and confirmed else REPLACE


def gives_merchants_value() -> Column:
    """Of a row of `predictions`: whether the model gives a value of the merchant, as sure as one that is written."""
    from pyspark.sql import functions as F

    agrees = F.col("reason") == Reason.AGREES_WITH_MERCHANT.value
    return agrees & (F.col("score") >= F.col("threshold"))
