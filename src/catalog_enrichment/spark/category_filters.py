"""The products that an attribute, a category list or a switch covers, as Spark columns."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from catalog_enrichment.dictionary import Attribute
from catalog_enrichment.errors import ConfigError

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame


def below(roots: Sequence[str]) -> Column:
    """Return a column: true where ``category`` is one of ``roots`` or lies below it; false without a category.

    Case does not count.
    """
    from pyspark.sql import functions as F

    category = F.concat(F.lower(F.coalesce("category", F.lit(""))), F.lit("/"))
    inside = F.lit(False)
    for root in roots:
        inside = inside | category.startswith(root.lower() + "/")
    return inside


def applies(attribute: Attribute) -> Column:
    """Return `Attribute.applies_to` as a column: it applies without a restriction, and where there is no category."""
    from pyspark.sql import functions as F

    if not attribute.categories:
        return F.lit(True)
    return below(attribute.categories) | (F.coalesce("category", F.lit("")) == "")


def require_known(products: DataFrame, roots: Sequence[str], setting: str) -> None:
    """Raise ConfigError for a root that no product is in or below: a misspelled root would pass as an empty slice.

    ``setting``: where the roots come from, for the message.
    """
    if not roots:
        return
    rows = products.select("category").distinct().collect()
    known = {path for row in rows for path in _with_parents(row["category"] or "")}
    lower = {path.lower() for path in known}
    unknown = [root for root in roots if root.lower() not in lower]
    if unknown:
        close = sorted({match for root in unknown for match in difflib.get_close_matches(root, known)})
        advice = f"Did you mean {', '.join(map(repr, close))}?" if close else f"The first are {sorted(known)[:10]}"
        raise ConfigError(f"{setting}: no product is in {unknown}. {advice}")


def _with_parents(category: str) -> list[str]:
    """Return ``A``, ``A/B`` and ``A/B/C`` for ``A/B/C``."""
    parts = category.split("/")
    return ["/".join(parts[: length + 1]) for length in range(len(parts))]
