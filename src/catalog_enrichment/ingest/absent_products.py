"""The limit on products that an import removes for being absent, and the line that says which products went."""

from __future__ import annotations

from collections.abc import Mapping

from catalog_enrichment.config.source import SourceConfig
from catalog_enrichment.errors import GateRefused
from catalog_enrichment.ingest.outcomes import DELETED, GONE, MISSED, RETURNED, ComparedSnapshot

FEW_GONE = 10
"""Absent products that an import may remove whatever share of the catalog they are."""

RETRACTED = "retracted"
"""Count of the ledger events that retract what was asserted about products that are removed, or were before."""

CHANGES = (DELETED, GONE, MISSED, RETURNED, RETRACTED)
"""Counts of an import that are 0 where the source is imported again."""


def refuse_many_gone(snapshot: ComparedSnapshot, source: SourceConfig, stored: int) -> None:
    """Raise GateRefused if more of the ``stored`` products are gone than an import may remove.

    Products that the source deletes are not limited: it names them.
    """
    gone, ratio = snapshot.counts[GONE], source.max_gone_ratio
    most = max(FEW_GONE, int(ratio * stored)) if ratio else 0
    if gone <= most:
        return
    raise GateRefused(
        f"{source.path}: {gone:,} of {stored:,} stored products (for example {', '.join(snapshot.gone_ids(3))}) are in "
        f"none of the last {source.absent_imports:,} snapshots, and at most {most:,} may be removed at once "
        f"(source.max_gone_ratio = {ratio:g}); nothing was imported. Does the source still have all products? If these "
        "products are to be removed, import once with --set source.max_gone_ratio=1",
        {GONE: gone, "most": most},
    )


def who_went(counts: Mapping[str, int], source: SourceConfig) -> str:
    """Return how many products were removed, and how many are absent or back; empty if all is as it was."""
    words = {
        DELETED: "deleted by the source",
        GONE: f"removed, which were in none of the last {source.absent_imports:,} snapshots",
        MISSED: "not in this snapshot, which are kept for now",
        RETURNED: "back after being absent",
    }
    parts = [f"{counts[name]:,} {text}" for name, text in words.items() if counts.get(name)]
    if events := counts.get(RETRACTED):
        parts.append(f"{events:,} ledger events retract values of removed products")
    return f"products: {'; '.join(parts)}" if parts else ""
