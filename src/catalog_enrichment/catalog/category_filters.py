"""Which products an attribute, a category list or a switch covers, as Spark columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from catalog_enrichment.dictionary import Attribute

if TYPE_CHECKING:
    from pyspark.sql import Column


def below(roots: Sequence[str]) -> Column:
    """Whether ``category`` is one of ``roots`` or lies below one; a product without a category does not."""
    from pyspark.sql import functions as F

    category = F.coalesce("category", F.lit(""))
    inside = F.lit(False)
    for root in roots:
        inside = inside | (category == root) | category.startswith(root + "/")
    return inside


def applies(attribute: Attribute) -> Column:
    """`Attribute.applies_to` as a column: no restriction, or no category, means that it applies."""
    from pyspark.sql import functions as F

    if not attribute.categories:
        return F.lit(True)
    return below(attribute.categories) | (F.coalesce("category", F.lit("")) == "")
