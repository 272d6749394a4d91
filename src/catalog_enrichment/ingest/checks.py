"""What an import refuses or warns of, about all of its rows: too few, columns that were filled and are empty, and
categories that no product is in.

A source that tells its changes is judged by the rows that changed, and not at all where these are few.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from catalog_enrichment import resources
from catalog_enrichment.config.source import SourceConfig
from catalog_enrichment.dictionary import Dictionary, is_below
from catalog_enrichment.errors import DataContractError
from catalog_enrichment.ingest.changes import LastImport, Reading
from catalog_enrichment.ingest.sources import source_config
from catalog_enrichment.validation.snapshot import check_snapshot

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from catalog_enrichment.config.schema import Config

Say = Callable[[str], None]

_FEW_VALUES = 20
"""Values of an attribute, of which fewer are not compared with those of the next import."""


def check_rows(raw: DataFrame, config: Config, before: LastImport, reading: Reading) -> dict[str, Any]:
    """Return great_expectations' document of the snapshot. Raises DataContractError, which lists the failures."""
    source, needed = source_config(config), 0
    suite = resources.locate(source.snapshot_suite, config.path("."))
    if reading.part is None:
        needed = max(1, math.ceil(source.min_volume_ratio * before.compared["rows"]))
    can_delete = source.mapping.deleted or reading.part or reading.deletions
    deletions = raw.where("deleted").count() if can_delete else 0
    if deletions:  # a row that deletes a product counts as a row, and has only an id
        needed = max(0, needed - deletions)
        raw = raw.where("NOT deleted")
    if not needed and (reading.is_small(raw.count()) if reading.part else raw.isEmpty()):
        return {"success": True, "results": []}  # the shares of no rows, or of a few changed ones, mean nothing
    report = check_snapshot(raw, suite, {"min_rows": needed})
    if not report.success:
        failures = "\n  - ".join(report.failures)
        raise DataContractError(f"{source.path} fails {suite.name}; nothing was written:\n  - {failures}")
    return report.document


def check_filled(source: SourceConfig, now: Mapping[str, Any], before: LastImport, reading: Reading, say: Say) -> None:
    """Raise DataContractError for an attribute that the last import's products had and these hardly have.

    ``now``: what :func:`changes.compared` says of these rows. Changed rows alone are only warned of: they need not be
    like the others.
    """
    then = before.compared
    if reading.is_small(now["rows"]):
        return
    for name in source.mapping.attributes:
        old, new = then["values"].get(name, 0), now["values"].get(name, 0)
        if old < _FEW_VALUES or new * then["products"] >= source.min_attribute_ratio * old * now["products"]:
            continue
        found = (
            f"{source.path}: {new:,} values of {name} for {now['products']:,} products, where the last import of all "
            f"rows had {old:,} for {then['products']:,}"
        )
        if reading.part is not None:
            say(f"warning: {found}. Was a column renamed or left empty?")
            continue
        raise DataContractError(
            f"{found}; nothing was written. Was a column renamed or left empty? If not, repeat with "
            "--set source.min_attribute_ratio=0"
        )


def name_unused_categories(source: SourceConfig, dictionary: Dictionary, accepted: DataFrame, say: Say) -> None:
    """Print the categories of the dictionary that no product is in: a misspelled one would hide an attribute."""
    named = {root: name for name, attribute in dictionary.attributes.items() for root in attribute.categories}
    if not named or not source.mapping.category:
        return
    found = [row[0] or "" for row in accepted.select("category").distinct().collect()]
    unused = [root for root in named if not any(is_below(path, root) for path in found)]
    if unused:
        shown = ", ".join(f"{root!r} ({named[root]})" for root in unused[:5])
        seen = ", ".join(map(repr, sorted(found)[:3]))
        say(
            f"warning: no product of this import is in {shown}{' and others' if unused[5:] else ''}, which the "
            f"dictionary names; categories are written like {seen}"
        )
