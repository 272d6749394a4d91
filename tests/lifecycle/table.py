"""The year's table: a row per night."""

from __future__ import annotations

from dataclasses import dataclass

from catalog_enrichment.monitoring.text_tables import Column, count, share, text


@dataclass
class Night:
    """A row of the year's table."""

    week: int
    event: str
    exit_codes: str
    products: int
    published: int
    retracted: int
    visible: int
    """Model values that readers see."""
    precision: float | None
    """Their true precision."""
    coverage: float
    """Share of products and attributes of the dictionary that have a value."""
    seconds: float


COLUMNS = (
    *(Column(name, count(name)) for name in ("week", "products", "published", "retracted", "visible")),
    *(Column(name, share(name)) for name in ("precision", "coverage")),
    Column("exit codes", text("exit_codes"), "<"),
    Column("event", text("event"), "<"),
)
"""Columns of the year's table."""
